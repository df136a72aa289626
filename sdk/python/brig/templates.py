# templates.py - client.templates: what new sandboxes start from.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

from ._group import Group
from ._http import segment
from ._wire import given, need, record

__all__ = ["Template", "Templates"]


@dataclass(frozen=True)
class Template:
    """An image that was booted and warmed up, and is kept like that.

    `resident_bytes` is the memory that it takes while nobody uses it, `warm`
    the command that warmed it; `automatic` ones brig made by itself.
    """

    name: str
    status: str
    snapshot_id: Optional[str] = None
    image: Optional[str] = None
    vcpus: Optional[int] = None
    memory_mib: Optional[int] = None
    disk_gib: Optional[float] = None
    warm: Optional[str] = None
    automatic: Optional[bool] = None
    resident_bytes: Optional[int] = None
    created_at: Optional[str] = None


class Templates(Group):
    """`client.templates`."""

    def create(
        self,
        name: str,
        *,
        image: Optional[str] = None,
        vcpus: Optional[int] = None,
        memory: Optional[int] = None,
        storage: Optional[float] = None,
        warm: Optional[str] = None,
    ) -> Template:
        """Boots an image, runs the shell line `warm` in it, keeps the result.

        `memory` is in MiB, `storage` in GiB.
        """
        body = given(
            name=name,
            image=image,
            vcpus=vcpus,
            memory_mib=memory,
            disk_gib=storage,
            warm=warm,
        )
        # As long as the warm-up takes, brigd has nothing to say.
        answer = self._call("POST", "/v2/templates", json=body, timeout=None)
        return record(Template, answer)

    def list(self) -> List[Template]:
        """Every template."""
        every = need(self._get("/v2/templates"), "templates")
        return [record(Template, one) for one in every]

    def get(self, name: str) -> Template:
        """The template of this name."""
        return record(Template, self._get(f"/v2/templates/{segment(name)}"))

    def delete(self, name: str) -> None:
        """Removes a template; sandboxes made from it stay."""
        self._client.transport.request(
            "DELETE", f"/v2/templates/{segment(name)}", repeatable=True
        )
