# _group.py - what client.sandboxes, client.snapshots, client.templates share.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional

from ._http import QueryValue

if TYPE_CHECKING:
    from .client import Client

# A boot can take long where machines are emulated and many boot at once; so
# can writing the memory of a large one to a disk.
LONG_TIMEOUT_S = 300.0


class Group:
    """Requests about one kind of thing, one method each."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def _get(
        self, path: str, query: Optional[Mapping[str, QueryValue]] = None
    ) -> Any:
        return self._call("GET", path, query=query, repeatable=True)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._client.transport.request(method, path, **options).json()

    def _call_long(self, method: str, path: str, **options: Any) -> Any:
        """For a request that may be silent for longer than others."""
        own = self._client.transport.timeout
        timeout = None if own is None else max(own, LONG_TIMEOUT_S)
        return self._call(method, path, timeout=timeout, **options)

    def _beyond(self, seconds: Optional[float]) -> Optional[float]:
        """For a request that may be silent for `seconds`, or for ever."""
        own = self._client.transport.timeout
        if own is None or not isinstance(seconds, (int, float)):
            return None
        return own + max(0.0, min(seconds, 1e9))
