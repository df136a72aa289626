# client.py - the client: where brigd is, the key, and the sandboxes there.
# SPDX-License-Identifier: Apache-2.0
"""The client of brigd's REST API, synchronous.

    client = Client()
    sandbox = client.sandboxes.create(image="default")
    result = client.sandboxes.execute(sandbox.id, "uname -r")
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from . import errors
from ._http import (
    QueryValue,
    Response,
    StreamingBody,
    Transport,
    segment,
)
from ._wire import need, record
from .files import Progress, Source, UploadResult, multipart, opened, save
from .process import ExecResult, ExecStream, RunResult, RunStream
from .sandbox import (
    LogEntry,
    LogPage,
    Sandbox,
    SandboxStatus,
    StatusPoint,
)

__all__ = [
    "Client",
    "DeleteAllResult",
    "DeleteResult",
    "SandboxPage",
    "Sandboxes",
]

DEFAULT_BASE_URL = "http://127.0.0.1:2744"
DEFAULT_KEY_FILE = "/var/lib/brig/key"
DEFAULT_TIMEOUT_S = 60.0
# A boot can take long where machines are emulated and many boot at once.
CREATE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class DeleteResult:
    id: str
    message: str


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


def _given(**fields: Any) -> Dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _run_body(
    argv: Optional[Sequence[str]], fields: Dict[str, Any]
) -> Dict[str, Any]:
    if isinstance(argv, str):
        raise TypeError("argv is a list of strings; for a line use command=")
    if (argv is None) == ("command" not in fields):
        raise TypeError("give argv or command, one of them")
    if argv is not None:
        fields["argv"] = list(argv)
    return fields


class Sandboxes:
    """`client.sandboxes`: the requests, one method each."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        *,
        image: Optional[str] = None,
        name: Optional[str] = None,
        cpus: Optional[float] = None,
        memory: Optional[int] = None,
        storage: Optional[float] = None,
        env: Optional[Mapping[str, str]] = None,
        wait_for_ready: Optional[bool] = None,
        idempotency_key: Optional[str] = None,
    ) -> Sandbox:
        """Creates a sandbox.

        `cpus` counts quarters of a vCPU, `memory` is in MiB, `storage` in GB.
        Sent again after a broken connection it creates no second one.
        """
        resources = _given(cpus=cpus, memory=memory, storage=storage)
        body = _given(
            image=image,
            name=name,
            resources=resources or None,
            env_vars=dict(env) if env is not None else None,
            wait_for_ready=wait_for_ready,
        )
        answer = self._call(
            "POST",
            "/v1/sandboxes/create",
            json=body,
            headers={"idempotency-key": idempotency_key or str(uuid.uuid4())},
            timeout=self._at_least(CREATE_TIMEOUT_S),
            repeatable=True,
        )
        return Sandbox(self._client, answer)

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

    def delete(self, sandbox_id: str) -> DeleteResult:
        """Ends a sandbox; all that was in it is gone."""
        answer = self._call(
            "DELETE", _path(sandbox_id, "delete"), repeatable=True
        )
        return record(DeleteResult, answer)

    def delete_all(self) -> DeleteAllResult:
        """Ends every sandbox."""
        answer = self._call(
            "DELETE",
            "/v1/sandboxes/delete-all",
            timeout=self._at_least(CREATE_TIMEOUT_S),
            repeatable=True,
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
        body = _given(
            command=command,
            env=dict(env) if env is not None else None,
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
        body = _given(
            command=command,
            env=dict(env) if env is not None else None,
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
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        stdin: Optional[str] = None,
        timeout_s: Optional[float] = None,
        output_limit: Optional[int] = None,
    ) -> RunResult:
        """Runs a program (`argv`) or a shell line, with exact output."""
        fields = _given(
            command=command,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            user=user,
            stdin=stdin,
            timeout_s=timeout_s,
            output_limit=output_limit,
        )
        answer = self._call(
            "POST",
            _path(sandbox_id, "runs", "v2"),
            json=_run_body(argv, fields),
            timeout=self._beyond(timeout_s),
        )
        return RunResult.from_wire(answer)

    def start(
        self,
        sandbox_id: str,
        argv: Optional[Sequence[str]] = None,
        *,
        command: Optional[str] = None,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        user: Optional[str] = None,
        stdin: Optional[str] = None,
        stdin_open: Optional[bool] = None,
        timeout_s: Optional[float] = None,
        output_limit: Optional[int] = None,
    ) -> RunStream:
        """As runs(), but the output comes as it is written.

        With `stdin_open` the run's write() gives it input.
        """
        fields = _given(
            command=command,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            user=user,
            stdin=stdin,
            stdin_open=stdin_open,
            timeout_s=timeout_s,
            output_limit=output_limit,
            stream=True,
        )
        response = self._client.transport.request(
            "POST",
            _path(sandbox_id, "runs", "v2"),
            json=_run_body(argv, fields),
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

    def _get(
        self, path: str, query: Optional[Mapping[str, QueryValue]] = None
    ) -> Any:
        return self._call("GET", path, query=query, repeatable=True)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._client.transport.request(method, path, **options).json()

    def _at_least(self, seconds: float) -> Optional[float]:
        """The client's time-out, but not less than `seconds`."""
        own = self._client.transport.timeout
        return None if own is None else max(own, seconds)

    def _beyond(self, seconds: Optional[float]) -> Optional[float]:
        """For a request that may be silent for `seconds`, or for ever."""
        own = self._client.transport.timeout
        if own is None or not isinstance(seconds, (int, float)):
            return None
        return own + max(0.0, min(seconds, 1e9))


def _path(sandbox_id: str, what: str, version: str = "v1") -> str:
    return f"/{version}/sandboxes/{segment(sandbox_id)}/{what}"
