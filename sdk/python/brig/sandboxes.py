# sandboxes.py - client.sandboxes: the requests about sandboxes.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
    overload,
)

from . import errors
from ._group import Group
from ._http import Response, StreamingBody, segment
from ._wire import given, need, options, record
from .files import Progress, Source, UploadResult, multipart, opened, save
from .process import ExecResult, ExecStream, RunOptions, RunResult, RunStream
from .sandbox import (
    CreateOptions,
    LogEntry,
    LogPage,
    Sandbox,
    SandboxStatus,
    StatusPoint,
)
from .snapshots import Snapshot

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DeleteAllResult", "DeleteResult", "SandboxPage", "Sandboxes"]


@dataclass(frozen=True)
class DeleteResult:
    id: str
    message: str
    snapshot_created: bool = False
    snapshot_name: Optional[str] = None


@dataclass(frozen=True)
class DeleteAllResult:
    deleted_count: int
    deleted_ids: List[str]
    message: str
    errors: List[Dict[str, Any]] = field(default_factory=list)
    storage_deleted_count: int = 0


@dataclass(frozen=True)
class SandboxPage:
    """One page of a list; iterating gives its sandboxes."""

    data: List[Sandbox]
    page: int
    page_size: int
    total_items: int
    total_pages: int

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class Sandboxes(Group):
    """`client.sandboxes`."""

    @overload
    def create(self, **wanted: Unpack[CreateOptions]) -> Sandbox:
        ...

    @overload
    def create(
        self, *, count: int, **wanted: Unpack[CreateOptions]
    ) -> List[Sandbox]:
        ...

    def create(self, *, count: Optional[int] = None, **wanted: Any) -> Any:
        """Creates a sandbox, or with `count` a list of them.

        CreateOptions lists what else can be given. One sandbox that is asked
        for again after a broken connection is not created twice. If only
        some of `count` come up, PartialError has those.
        """
        key = wanted.pop("idempotency_key", None)
        if count is None:
            key = key or str(uuid.uuid4())
        elif key is not None:
            raise TypeError("an idempotency_key is for one sandbox, no count")
        path, body = _creation(count, wanted)
        answer = self._call_long(
            "POST",
            path,
            json=body,
            headers=given(**{"idempotency-key": key}),
            repeatable=count is None,
        )
        if count is not None:
            return self._many(answer)
        return Sandbox(self._client, answer)

    def create_from_snapshot(
        self, snapshot_id: str, **wanted: Unpack[CreateOptions]
    ) -> Sandbox:
        """A new sandbox that goes on where the snapshot was taken."""
        wanted["snapshot"] = snapshot_id
        return self.create(**wanted)

    def clone(
        self, sandbox_id: str, count: int = 1, *, name: Optional[str] = None
    ) -> List[Sandbox]:
        """Copies of a running sandbox; their processes go on in them.

        If only some of them come up, PartialError has those.
        """
        answer = self._call_long(
            "POST",
            _path(sandbox_id, "clone", "v2"),
            json=given(count=count, name=name),
        )
        return self._many(answer)

    def create_snapshot(
        self,
        sandbox_id: str,
        *,
        name: Optional[str] = None,
        quick: Optional[bool] = None,
        memory: Optional[bool] = None,
    ) -> Snapshot:
        """Keeps a sandbox as it is now; it runs on.

        `quick` does not wait until programs and file systems are at rest;
        `memory=False` keeps the disk alone.
        """
        answer = self._call_long(
            "POST",
            _path(sandbox_id, "snapshots", "v2"),
            json=given(name=name, quick=quick, memory=memory),
        )
        return Snapshot.from_wire(self._client, answer)

    def rollback(self, sandbox_id: str, snapshot_id: str) -> Sandbox:
        """Puts a sandbox back to a snapshot; it keeps its id."""
        return self._moved(sandbox_id, "rollback", {"snapshot": snapshot_id})

    def pause(self, sandbox_id: str) -> Sandbox:
        """Stops a sandbox; its memory is kept on disk."""
        return self._moved(sandbox_id, "pause")

    def resume(self, sandbox_id: str) -> Sandbox:
        """Lets a paused sandbox go on."""
        return self._moved(sandbox_id, "resume")

    def reset(self, sandbox_id: str) -> Sandbox:
        """Puts a sandbox back to what it was made from."""
        return self._moved(sandbox_id, "reset")

    def list(
        self, *, page: Optional[int] = None, page_size: Optional[int] = None
    ) -> SandboxPage:
        """One page of the sandboxes."""
        query = {"page": page, "page_size": page_size}
        answer = self._get("/v1/sandboxes/list", query)
        pagination = need(answer, "pagination")
        return SandboxPage(
            data=[Sandbox(self._client, one) for one in need(answer, "data")],
            page=int(need(pagination, "page")),
            page_size=int(need(pagination, "page_size")),
            total_items=int(need(pagination, "total_items")),
            total_pages=int(need(pagination, "total_pages")),
        )

    def list_all(self, *, page_size: int = 100) -> Iterator[Sandbox]:
        """Every sandbox, page after page."""
        page = 1
        while True:
            answer = self.list(page=page, page_size=page_size)
            yield from answer
            if page >= answer.total_pages:
                return
            page += 1

    def get(self, sandbox_id: str) -> Sandbox:
        """The sandbox with this id."""
        return Sandbox(self._client, self.describe(sandbox_id))

    def describe(self, sandbox_id: str) -> Dict[str, Any]:
        """All that brigd knows of a sandbox, as it says it."""
        return dict(self._get(f"/v2/sandboxes/{segment(sandbox_id)}"))

    def delete(
        self,
        sandbox_id: str,
        *,
        create_snapshot: Optional[bool] = None,
        snapshot_name: Optional[str] = None,
    ) -> DeleteResult:
        """Ends a sandbox; what was in it is gone, or kept in a snapshot."""
        body = given(
            create_snapshot=create_snapshot, snapshot_name=snapshot_name
        )
        answer = self._call_long(
            "DELETE",
            _path(sandbox_id, "delete"),
            json=body or None,
            repeatable=not create_snapshot,
        )
        return record(DeleteResult, answer)

    def delete_all(self) -> DeleteAllResult:
        """Ends every sandbox."""
        answer = self._call_long(
            "DELETE", "/v1/sandboxes/delete-all", repeatable=True
        )
        return record(DeleteAllResult, answer)

    def execute(
        self,
        sandbox_id: str,
        command: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        working_dir: Optional[str] = None,
    ) -> ExecResult:
        """Runs a shell command line and waits for its end.

        After `timeout` seconds it is killed, and the result has the status
        "timeout" and the output so far.
        """
        body = given(
            command=command,
            env=_plain(env),
            timeout=timeout,
            working_dir=working_dir,
        )
        answer = self._call(
            "POST",
            _path(sandbox_id, "execute"),
            json=body,
            timeout=self._beyond(timeout),
        )
        return record(ExecResult, answer)

    def stream(
        self,
        sandbox_id: str,
        command: str,
        *,
        env: Optional[Mapping[str, str]] = None,
        working_dir: Optional[str] = None,
    ) -> ExecStream:
        """Runs a shell command line; its output comes as it is written."""
        body = given(
            command=command,
            env=_plain(env),
            working_dir=working_dir,
        )
        return ExecStream(
            self._client.transport.request(
                "POST",
                _path(sandbox_id, "execute_async"),
                json=body,
                timeout=None,
                stream=True,
            )
        )

    def runs(
        self,
        sandbox_id: str,
        argv: Optional[Sequence[str]] = None,
        *,
        command: Optional[str] = None,
        **how: Unpack[RunOptions],
    ) -> RunResult:
        """Runs a program (`argv`) or a shell line, with exact output."""
        body = {**_program(argv, command), **_run_body(how)}
        return self._result(_path(sandbox_id, "runs", "v2"), body)

    def code(
        self,
        sandbox_id: str,
        language: str,
        code: str,
        **how: Unpack[RunOptions],
    ) -> RunResult:
        """Runs code in python, node or bash.

        Where the sandbox has a warm interpreter, it starts in that one.
        """
        body = {"language": language, "code": code, **_run_body(how)}
        return self._result(_path(sandbox_id, "code", "v2"), body)

    def start(
        self,
        sandbox_id: str,
        argv: Optional[Sequence[str]] = None,
        *,
        command: Optional[str] = None,
        stdin_open: Optional[bool] = None,
        **how: Unpack[RunOptions],
    ) -> RunStream:
        """As runs(), but the output comes as it is written.

        With `stdin_open` the run's write() gives it input.
        """
        body = {**_program(argv, command), **_run_body(how), "stream": True}
        response = self._client.transport.request(
            "POST",
            _path(sandbox_id, "runs", "v2"),
            json={**body, **given(stdin_open=stdin_open)},
            timeout=None,
            stream=True,
        )

        def send_stdin(run_id: str, data: bytes, eof: bool) -> None:
            self._client.transport.request(
                "POST",
                _path(sandbox_id, f"runs/{segment(run_id)}/stdin", "v2"),
                query={} if eof else {"eof": 0},
                body=StreamingBody(
                    "application/octet-stream", [data], len(data)
                ),
                timeout=None,
            )

        return RunStream(response, send_stdin)

    def upload(
        self,
        sandbox_id: str,
        path: str,
        data: Source,
        *,
        progress: Optional[Progress] = None,
    ) -> UploadResult:
        """Writes a file; see the module files for what `data` can be."""
        with opened(data) as (file, size):
            answer = self._call(
                "POST",
                _path(sandbox_id, "upload"),
                body=multipart(path, file, size, progress),
            )
        return record(UploadResult, answer)

    def download(self, sandbox_id: str, path: str) -> bytes:
        """The content of a file."""
        return self._file(sandbox_id, path, stream=False).content

    def download_to(
        self,
        sandbox_id: str,
        path: str,
        target: "Union[str, os.PathLike[str]]",
        *,
        progress: Optional[Progress] = None,
    ) -> int:
        """Copies a file to the local `target`; returns its size."""
        response = self._file(sandbox_id, path, stream=True)
        try:
            return save(response, target, progress)
        finally:
            response.close()

    def status(
        self,
        sandbox_id: str,
        *,
        since: Optional[str] = None,
        until: Optional[str] = None,
    ) -> SandboxStatus:
        """CPU and memory use of a sandbox, now and before."""
        answer = self._get(
            _path(sandbox_id, "status"), {"from": since, "to": until}
        )
        return SandboxStatus(
            sandbox_name=need(answer, "sandbox_name"),
            timestamp=need(answer, "timestamp"),
            current=record(StatusPoint, need(answer, "current")),
            history=[record(StatusPoint, p) for p in need(answer, "history")],
        )

    def logs(
        self,
        *,
        sandbox_id: Optional[str] = None,
        since: Optional[str] = None,
        until: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> LogPage:
        """The commands that were run; without `since`, in the last hour."""
        query = {
            "sandbox_id": sandbox_id,
            "from": since,
            "to": until,
            "limit": limit,
        }
        answer = self._get("/v1/sandboxes/logs", query)
        entries = [record(LogEntry, one) for one in need(answer, "logs")]
        return LogPage(logs=entries, total=int(need(answer, "total")))

    def console(self, sandbox_id: str) -> str:
        """The last part of the boot log of a sandbox."""
        answer = self._client.transport.request(
            "GET",
            _path(sandbox_id, "console", "v2"),
            repeatable=True,
        )
        return answer.content.decode("utf-8", "replace")

    def _file(self, sandbox_id: str, path: str, stream: bool) -> Response:
        return self._client.transport.request(
            "GET",
            _path(sandbox_id, "download"),
            query={"path": path},
            stream=stream,
            repeatable=True,
        )

    def _result(self, path: str, body: Mapping[str, Any]) -> RunResult:
        answer = self._call(
            "POST", path, json=body, timeout=self._beyond(body.get("timeout_s"))
        )
        return RunResult.from_wire(answer)

    def _moved(
        self,
        sandbox_id: str,
        what: str,
        body: Optional[Mapping[str, str]] = None,
    ) -> Sandbox:
        answer = self._call_long(
            "POST", _path(sandbox_id, what, "v2"), json=body
        )
        return Sandbox(self._client, answer)

    def _many(self, answer: Any) -> List[Sandbox]:
        made = [Sandbox(self._client, one) for one in need(answer, "sandboxes")]
        failed = [need(one, "error") for one in answer.get("errors") or []]
        if failed:
            raise errors.PartialError(made, failed)
        return made


def _creation(
    count: Optional[int], wanted: Mapping[str, Any]
) -> Tuple[str, Dict[str, Any]]:
    """Path and body of a request to create.

    The published request has quarters of a vCPU; brig's own has templates,
    snapshots and counts.
    """
    body = options(CreateOptions, wanted)
    if "env" in body:
        body["env"] = dict(body["env"])
    if count is None and not body.keys() & {"template", "snapshot", "vcpus"}:
        sizes = {
            name: body.pop(name)
            for name in ("cpus", "memory", "storage")
            if name in body
        }
        if sizes:
            body["resources"] = sizes
        if "env" in body:
            body["env_vars"] = body.pop("env")
        return "/v1/sandboxes/create", body
    if "cpus" in body:
        raise TypeError(
            "with template, snapshot, vcpus or count there are whole vCPUs: "
            "give vcpus instead of cpus"
        )
    for name, theirs in (("memory", "memory_mib"), ("storage", "disk_gib")):
        if name in body:
            body[theirs] = body.pop(name)
    return "/v2/sandboxes", {**body, **given(count=count)}


def _path(sandbox_id: str, what: str, version: str = "v1") -> str:
    return f"/{version}/sandboxes/{segment(sandbox_id)}/{what}"


def _plain(env: Optional[Mapping[str, str]]) -> Optional[Dict[str, str]]:
    return dict(env) if env is not None else None


def _program(
    argv: Optional[Sequence[str]], command: Optional[str]
) -> Dict[str, Any]:
    if isinstance(argv, str):
        raise TypeError("argv is a list of strings; for a line use command=")
    if (argv is None) == (command is None):
        raise TypeError("give argv or command, one of them")
    return {"command": command} if argv is None else {"argv": list(argv)}


def _run_body(how: Mapping[str, Any]) -> Dict[str, Any]:
    body = options(RunOptions, how)
    if "env" in body:
        body["env"] = dict(body["env"])
    return body
