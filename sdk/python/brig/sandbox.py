# sandbox.py - one sandbox as an object.
# SPDX-License-Identifier: Apache-2.0
"""The object style of the SDK.

    with Sandbox.create() as sandbox:
        sandbox.files.write("hello.py", "print(6 * 7)")
        print(sandbox.run("python3 hello.py").stdout)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    TypedDict,
    Union,
)

from . import errors
from ._wire import need, record
from .files import Files
from .process import ExecResult, ExecStream, RunOptions, RunResult, RunStream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import Client
    from .snapshots import Snapshot

__all__ = [
    "CreateOptions",
    "LogEntry",
    "LogPage",
    "Receipt",
    "Sandbox",
    "SandboxStatus",
    "StatusPoint",
]


class CreateOptions(TypedDict, total=False):
    """What a new sandbox is to be.

    It starts from one of `image` (the default), `template` (a name) and
    `snapshot` (an id). `memory` is in MiB, `storage` in GB. Its CPUs are
    either `cpus`, in quarters of a vCPU, or `vcpus`, whole ones, which is
    what there is with `template`, `snapshot` and `count`. `env` is for
    everything that runs in it.
    """

    image: Optional[str]
    template: Optional[str]
    snapshot: Optional[str]
    name: Optional[str]
    cpus: Optional[float]
    vcpus: Optional[int]
    memory: Optional[int]
    storage: Optional[float]
    env: Optional[Mapping[str, str]]
    wait_for_ready: Optional[bool]
    idempotency_key: Optional[str]


@dataclass(frozen=True)
class Receipt:
    """What was made this sandbox's own before anything ran in it.

    `clock_error_ms` is the most that its clock is off; `hooks_failed` counts
    hooks of the image; `steps_us` says how long each step took, and `total`.
    """

    entropy_reseeded: bool = False
    clock_set: bool = False
    clock_error_ms: Optional[float] = None
    hostname: Optional[str] = None
    machine_id: Optional[str] = None
    connections_reset: bool = False
    hooks_failed: Optional[int] = None
    steps_us: Dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StatusPoint:
    """Load of a sandbox at one time."""

    cpu_percent: float
    memory_mb: float
    memory_percent: Optional[float] = None
    timestamp: Optional[str] = None


@dataclass(frozen=True)
class SandboxStatus:
    sandbox_name: str
    timestamp: str
    current: StatusPoint
    history: List[StatusPoint] = field(default_factory=list)


@dataclass(frozen=True)
class LogEntry:
    """One command that was run. `source` is sync or stream."""

    command: str
    execution_time_ms: float
    exit_code: int
    request_id: str
    sandbox_id: str
    source: str
    status: str
    timestamp: str
    execution_id: Optional[str] = None
    stdout: Optional[str] = None
    stderr: Optional[str] = None
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    working_dir: Optional[str] = None


@dataclass(frozen=True)
class LogPage:
    logs: List[LogEntry]
    total: int


class Sandbox:
    """A sandbox. Fields show it as it was when brigd last told us.

    `cpu` counts quarters of a vCPU, `memory` is in MiB, `storage` in GB;
    `status` is creating, running, paused, stopped or failed. `origin` is
    boot, template, snapshot or clone; `template` and `snapshot_id` say which.
    `reason`, `image`, `vcpus`, `disk_bytes`, `ready_ms`, `receipt` and `stats`
    are known after get() and refresh(). `raw` is all that brigd said.
    """

    def __init__(self, client: "Client", given: Mapping[str, Any]) -> None:
        self._client = client
        self._owns_client = False
        self.id: str = need(given, "id")
        self.raw: Dict[str, Any] = {}
        self.files = Files(client.sandboxes, self.id)
        self._update(given)

    def _update(self, given: Mapping[str, Any]) -> "Sandbox":
        self.raw.update(given)
        raw = self.raw
        self.name: str = need(raw, "name")
        self.status: str = need(raw, "status")
        self.created_at: str = need(raw, "created_at")
        self.cpu: Optional[float] = raw.get("cpu")
        self.memory: Optional[int] = raw.get("memory_mib", raw.get("memory"))
        self.storage: Optional[float] = raw.get("storage", raw.get("disk_size"))
        self.reason: Optional[str] = raw.get("reason")
        self.image: Optional[str] = raw.get("image")
        self.origin: Optional[str] = raw.get("origin")
        self.template: Optional[str] = raw.get("template")
        self.snapshot_id: Optional[str] = raw.get("snapshot")
        self.vcpus: Optional[int] = raw.get("vcpus")
        self.disk_bytes: Optional[int] = raw.get("disk_bytes")
        self.ready_ms: Optional[float] = raw.get("ready_ms")
        self.stats: Dict[str, Any] = raw.get("stats") or {}
        self.receipt: Optional[Receipt] = None
        if raw.get("receipt") is not None:
            self.receipt = record(Receipt, raw["receipt"])
        return self

    def __repr__(self) -> str:
        return f"<Sandbox {self.id} {self.name} {self.status}>"

    @classmethod
    def create(
        cls,
        client: Optional["Client"] = None,
        **wanted: "Unpack[CreateOptions]",
    ) -> "Sandbox":
        """Creates a sandbox; without a client, with one of its own."""
        from .client import Client

        owned = client is None
        client = client or Client()
        sandbox = client.sandboxes.create(**wanted)
        sandbox._owns_client = owned
        return sandbox

    def run(
        self,
        command: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        working_dir: Optional[str] = None,
    ) -> ExecResult:
        """Runs a shell command line and waits for its end."""
        return self._client.sandboxes.execute(
            self.id, command, env=env, timeout=timeout, working_dir=working_dir
        )

    def stream(
        self,
        command: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        working_dir: Optional[str] = None,
    ) -> ExecStream:
        """Runs a shell command line; its output comes as it is written."""
        return self._client.sandboxes.stream(
            self.id, command, env=env, working_dir=working_dir
        )

    def runs(
        self,
        argv: Optional[Sequence[str]] = None,
        *,
        command: Optional[str] = None,
        **how: "Unpack[RunOptions]",
    ) -> RunResult:
        """Runs a program (`argv`) or a shell line, with exact output."""
        return self._client.sandboxes.runs(
            self.id, argv, command=command, **how
        )

    def run_code(
        self,
        code: str,
        language: str = "python",
        **how: "Unpack[RunOptions]",
    ) -> RunResult:
        """Runs code in python, node or bash."""
        return self._client.sandboxes.code(self.id, language, code, **how)

    def python(self, code: str, **how: "Unpack[RunOptions]") -> RunResult:
        """Runs Python code."""
        return self.run_code(code, "python", **how)

    def start(
        self,
        argv: Optional[Sequence[str]] = None,
        *,
        command: Optional[str] = None,
        stdin_open: Optional[bool] = None,
        **how: "Unpack[RunOptions]",
    ) -> RunStream:
        """As runs(), but the output comes as it is written."""
        return self._client.sandboxes.start(
            self.id, argv, command=command, stdin_open=stdin_open, **how
        )

    def snapshot(
        self,
        name: Optional[str] = None,
        *,
        quick: Optional[bool] = None,
        memory: Optional[bool] = None,
    ) -> "Snapshot":
        """Keeps the sandbox as it is now; it runs on."""
        return self._client.sandboxes.create_snapshot(
            self.id, name=name, quick=quick, memory=memory
        )

    def clone(
        self, count: int = 1, *, name: Optional[str] = None
    ) -> List["Sandbox"]:
        """Copies of the sandbox; its processes go on in them."""
        return self._client.sandboxes.clone(self.id, count, name=name)

    def rollback(self, snapshot: "Union[Snapshot, str]") -> "Sandbox":
        """Puts the sandbox back to a snapshot, or the id of one."""
        to = snapshot if isinstance(snapshot, str) else snapshot.id
        return self._now(self._client.sandboxes.rollback(self.id, to))

    def pause(self) -> "Sandbox":
        """Stops the sandbox; its memory is kept on disk."""
        return self._now(self._client.sandboxes.pause(self.id))

    def resume(self) -> "Sandbox":
        """Lets the paused sandbox go on."""
        return self._now(self._client.sandboxes.resume(self.id))

    def reset(self) -> "Sandbox":
        """Puts the sandbox back to what it was made from."""
        return self._now(self._client.sandboxes.reset(self.id))

    def _now(self, told: "Sandbox") -> "Sandbox":
        return self._update(told.raw)

    def refresh(self) -> "Sandbox":
        """Asks brigd for the present state."""
        return self._update(self._client.sandboxes.describe(self.id))

    def wait_until_ready(self, timeout: float = 120.0) -> "Sandbox":
        """Waits until the sandbox runs; for wait_for_ready=False."""
        deadline = time.monotonic() + timeout
        while self.refresh().status == "creating":
            if time.monotonic() > deadline:
                raise errors.RequestTimeoutError(
                    f"{self.id} is not ready after {timeout:g} s"
                )
            time.sleep(0.1)
        if self.status != "running":
            raise errors.SandboxFailedError(
                f"{self.id} is {self.status}: {self.reason}"
            )
        return self

    def load(self) -> SandboxStatus:
        """CPU and memory use, now and before."""
        return self._client.sandboxes.status(self.id)

    def logs(self, *, limit: Optional[int] = None) -> LogPage:
        """The commands that were run in the last hour."""
        return self._client.sandboxes.logs(sandbox_id=self.id, limit=limit)

    def console(self) -> str:
        """The last part of the boot log."""
        return self._client.sandboxes.console(self.id)

    def delete(self) -> None:
        """Ends the sandbox; all that was in it is gone."""
        try:
            self._client.sandboxes.delete(self.id)
        finally:
            if self._owns_client:
                self._client.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            self.delete()
        except errors.NotFoundError:
            pass  # it was deleted inside the block
        except errors.BrigError:
            if kind is None:
                raise  # else the error that ended the block says more
