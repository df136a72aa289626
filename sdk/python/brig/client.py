# client.py - the client: where brigd is, the key, and what is there.
# SPDX-License-Identifier: Apache-2.0
"""The client of brigd's REST API, synchronous.

    client = Client()
    sandbox = client.sandboxes.create(image="default")
    result = client.sandboxes.execute(sandbox.id, "uname -r")
"""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from . import errors
from ._http import Transport
from .sandboxes import Sandboxes
from .snapshots import Snapshots
from .templates import Templates

__all__ = ["Client"]

DEFAULT_BASE_URL = "http://127.0.0.1:2744"
DEFAULT_KEY_FILE = "/var/lib/brig/key"
DEFAULT_TIMEOUT_S = 60.0


class Client:
    """A connection to one brigd. Safe to use from several threads.

    `base_url` defaults to BRIG_BASE_URL or the local brigd; `api_key` to
    BRIG_API_KEY or the key file of a local brigd. `timeout` is the longest
    silence of brigd, in seconds, before a request fails; None waits without
    end. Requests that wait for something longer wait accordingly.
    """

    def __init__(
        self,
        base_url: Optional[str] = None,
        api_key: Optional[str] = None,
        timeout: Optional[float] = DEFAULT_TIMEOUT_S,
        *,
        key_file: str = DEFAULT_KEY_FILE,
    ) -> None:
        url = base_url or os.environ.get("BRIG_BASE_URL") or DEFAULT_BASE_URL
        key = api_key or os.environ.get("BRIG_API_KEY") or _key_of(key_file)
        if not key:
            raise errors.ConfigurationError(
                "no API key: pass api_key, set BRIG_API_KEY, or run as a user "
                f"who may read {key_file}"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise errors.ConfigurationError(
                "the API key may have only printable ASCII characters"
            )
        self.transport = Transport(url, key, timeout)
        self.sandboxes = Sandboxes(self)
        self.snapshots = Snapshots(self)
        self.templates = Templates(self)

    @property
    def base_url(self) -> str:
        return self.transport.base_url

    def host(self) -> Dict[str, Any]:
        """What brigd says about itself: version, KVM, capacity, images."""
        answer = self.transport.request(
            "GET", "/v2/host", repeatable=True
        ).json()
        return dict(answer)

    def close(self) -> None:
        """Closes kept connections; the client can still be used."""
        self.transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _key_of(path: str) -> Optional[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None
