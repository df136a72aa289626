# snapshots.py - client.snapshots: machines and disks as they were.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, List, Optional, Union

from ._group import Group
from ._http import segment
from ._wire import need, record
from .files import Progress, Source, opened, raw, save

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import Client
    from .sandbox import CreateOptions, Sandbox

__all__ = ["DeleteSnapshotResult", "Snapshot", "Snapshots"]


@dataclass(frozen=True)
class DeleteSnapshotResult:
    """`deferred` is False: what others share with it stays, it goes at once."""

    deferred: bool
    message: str
    name: str


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as brigd last told us.

    `kind` is memory, disk or template; `consistency` is application, or crash
    if it was quick. `own_bytes` is what deleting it would free. `pause_us` is
    how long the sandbox stood still for it. `problem` says what is wrong with
    one whose status is error.
    """

    client: "Client" = field(repr=False, compare=False)
    id: str
    name: str
    status: str
    kind: str
    consistency: str
    created_at: str
    source_sandbox_id: Optional[str] = None
    source_sandbox_name: Optional[str] = None
    image: Optional[str] = None
    vcpus: Optional[int] = None
    memory_mib: Optional[int] = None
    disk_gib: Optional[float] = None
    parent: Optional[str] = None
    own_bytes: Optional[int] = None
    shared_bytes: Optional[int] = None
    pause_us: Optional[float] = None
    problem: Optional[str] = None

    @classmethod
    def from_wire(cls, client: "Client", given: Any) -> "Snapshot":
        need(given, "id")  # before the client is put in: it is an object
        return record(cls, {**given, "client": client})

    def restore(self, **wanted: "Unpack[CreateOptions]") -> "Sandbox":
        """A new sandbox that goes on from here; see CreateOptions."""
        return self.client.sandboxes.create_from_snapshot(self.id, **wanted)

    def delete(self) -> DeleteSnapshotResult:
        """Removes it; what was made from it stays."""
        return self.client.snapshots.delete(self.id)


class Snapshots(Group):
    """`client.snapshots`."""

    def list(self) -> List[Snapshot]:
        """Every snapshot."""
        every = need(self._get("/v2/snapshots"), "snapshots")
        return [Snapshot.from_wire(self._client, one) for one in every]

    def get(self, snapshot_id: str) -> Snapshot:
        """The snapshot with this id."""
        answer = self._get(f"/v2/snapshots/{segment(snapshot_id)}")
        return Snapshot.from_wire(self._client, answer)

    def delete(self, snapshot_id: str) -> DeleteSnapshotResult:
        """Removes a snapshot; what was made from it stays."""
        answer = self._call(
            "DELETE", f"/v1/snapshots/{segment(snapshot_id)}", repeatable=True
        )
        return record(DeleteSnapshotResult, answer)

    def export(
        self,
        snapshot_id: str,
        target: "Union[str, os.PathLike[str]]",
        *,
        progress: Optional[Progress] = None,
    ) -> int:
        """Writes a snapshot to one local file; returns its size."""
        response = self._client.transport.request(
            "GET",
            f"/v2/snapshots/{segment(snapshot_id)}/export",
            stream=True,
            repeatable=True,
        )
        try:
            return save(response, target, progress)
        finally:
            response.close()

    def import_(
        self, data: Source, *, progress: Optional[Progress] = None
    ) -> Snapshot:
        """Takes in what export() wrote: a path-like object or a file.

        brigd verifies all of it before the snapshot appears.
        """
        with opened(data) as (file, size):
            answer = self._call_long(
                "POST",
                "/v2/snapshots/import",
                body=raw(file, size, progress),
            )
        return Snapshot.from_wire(self._client, answer)
