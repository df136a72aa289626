# process.py - commands in a sandbox: their results and their live output.
# SPDX-License-Identifier: Apache-2.0
"""Results of commands, and streams of their output.

ExecResult and ExecStream belong to the published part of the API (text in
and out). RunResult and RunStream belong to what brig adds: exact bytes, the
reason of the end, the cost.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import (
    Any,
    Callable,
    ClassVar,
    Dict,
    Generic,
    List,
    Mapping,
    Optional,
    Tuple,
    TypedDict,
    TypeVar,
)

from . import errors
from ._http import Response
from ._wire import need, record

Item = TypeVar("Item")
Self = TypeVar("Self", bound="_Stream[Any]")

__all__ = [
    "ExecResult",
    "ExecStream",
    "Measured",
    "RunEvent",
    "RunOptions",
    "RunResult",
    "RunStream",
    "Usage",
]

# No line of a stream comes near this; more is not a stream of brigd.
LINE_BYTES = 16 << 20


class RunOptions(TypedDict, total=False):
    """How something is run: options of runs(), start() and code().

    `cwd` is the user's home and `user` is root if not given. `stdin` is the
    whole input. After `timeout_s` seconds everything of the run is killed.
    `output_limit` is in bytes, for each of stdout and stderr.
    """

    cwd: Optional[str]
    env: Optional[Mapping[str, str]]
    user: Optional[str]
    stdin: Optional[str]
    timeout_s: Optional[float]
    output_limit: Optional[int]


@dataclass(frozen=True)
class ExecResult:
    """What a command did. `status` is completed, timeout or error."""

    id: str
    exit_code: int
    status: str
    stdout: str
    stderr: str
    execution_time_ms: float
    created_at: str
    completed_at: str
    error: Optional[str] = None
    reason: Optional[str] = None

    @property
    def ok(self) -> bool:
        return self.status == "completed" and self.exit_code == 0

    def check(self) -> "ExecResult":
        """Returns itself, or raises CommandError if the command failed."""
        if not self.ok:
            raise errors.CommandError(_failure(self), self)
        return self


def _failure(result: ExecResult) -> str:
    text = f"{result.status}, exit code {result.exit_code}"
    tail = (result.error or result.stderr).strip()
    return f"{text}: {tail[-500:]}" if tail else text


@dataclass(frozen=True)
class Measured:
    """A figure, and who measured it: "host", or "guest" (its own word)."""

    value: float
    source: str


@dataclass(frozen=True)
class Usage:
    """What a run cost. A figure that is None was not measured."""

    wall_ms: Optional[Measured] = None
    vcpu_ms: Optional[Measured] = None
    cpu_ms: Optional[Measured] = None
    memory_peak_bytes: Optional[Measured] = None
    disk_read_bytes: Optional[Measured] = None
    disk_write_bytes: Optional[Measured] = None

    FIELDS: ClassVar[Tuple[str, ...]] = (
        "wall_ms",
        "vcpu_ms",
        "cpu_ms",
        "memory_peak_bytes",
        "disk_read_bytes",
        "disk_write_bytes",
    )

    @classmethod
    def from_wire(cls, given: Any) -> "Usage":
        given = given or {}
        figures = {
            name: record(Measured, given[name])
            for name in cls.FIELDS
            if given.get(name) is not None
        }
        return cls(**figures)


@dataclass(frozen=True)
class RunResult:
    """What a run did, to the byte.

    `reason` is exit, signal, timeout, oom or lost. `stdout_bytes` counts what
    the program wrote, also where `stdout_truncated` says that not all of it
    is here.
    """

    id: str
    sandbox_id: str
    exit_code: int
    signal: Optional[int]
    reason: str
    stdout_raw: bytes
    stderr_raw: bytes
    stdout_bytes: int
    stderr_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    created_at: str
    completed_at: str
    usage: Usage = field(default_factory=Usage)

    @property
    def stdout(self) -> str:
        return self.stdout_raw.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self.stderr_raw.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        return self.reason == "exit" and self.exit_code == 0

    def check(self) -> "RunResult":
        """Returns itself, or raises CommandError if the run failed."""
        if not self.ok:
            text = f"{self.reason}, exit code {self.exit_code}"
            tail = self.stderr.strip()[-500:]
            raise errors.CommandError(f"{text}: {tail}" if tail else text, self)
        return self

    @classmethod
    def from_wire(cls, given: Mapping[str, Any]) -> "RunResult":
        return cls(
            id=need(given, "id"),
            sandbox_id=need(given, "sandbox_id"),
            exit_code=need(given, "exit_code"),
            signal=given.get("signal"),
            reason=need(given, "reason"),
            stdout_raw=_decoded(given, "stdout", "stdout_encoding"),
            stderr_raw=_decoded(given, "stderr", "stderr_encoding"),
            stdout_bytes=need(given, "stdout_bytes"),
            stderr_bytes=need(given, "stderr_bytes"),
            stdout_truncated=need(given, "stdout_truncated"),
            stderr_truncated=need(given, "stderr_truncated"),
            created_at=need(given, "created_at"),
            completed_at=need(given, "completed_at"),
            usage=Usage.from_wire(given.get("usage")),
        )


def _decoded(given: Mapping[str, Any], name: str, encoding: str) -> bytes:
    """Bytes as brigd wrote them in JSON; b"" if they are not there."""
    text = given.get(name)
    if text is None:
        return b""
    if given.get(encoding, "utf-8") != "base64":
        return str(text).encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise errors.ProtocolError(f"{name} is not base64: {error}") from None


class _Lines:
    """The objects of an NDJSON answer, one by one."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._lines: List[bytes] = []
        self._rest: List[bytes] = []

    def next(self) -> Dict[str, Any]:
        """Waits for the next object; the end of the answer is an error."""
        while not self._lines:
            data = self._response.read_some()
            if not data:
                raise errors.ConnectionError("the stream ended too early")
            self._split(data)
        line = self._lines.pop()
        try:
            given = json.loads(line)
        except ValueError as error:
            raise errors.ProtocolError(f"not JSON: {error}") from None
        if not isinstance(given, dict):
            raise errors.ProtocolError("a line of the stream is no object")
        return given

    def finish(self) -> None:
        """Reads the end of the answer, so that the connection is kept."""
        if self._response.read_some():
            self._response.close()

    def close(self) -> None:
        self._response.close()

    def _split(self, data: bytes) -> None:
        parts = data.split(b"\n")
        self._rest.append(parts[0])
        if len(parts) == 1:
            if sum(map(len, self._rest)) > LINE_BYTES:
                raise errors.ProtocolError("a line of the stream has no end")
            return
        lines = [b"".join(self._rest)] + parts[1:-1]
        self._rest = [parts[-1]]
        self._lines = [line for line in reversed(lines) if line]


class _Stream(Generic[Item]):
    """Something that a command gives piece by piece, until it ends.

    close() ends the connection, and with it the command; leaving a `with`
    block, or an error, does the same.
    """

    def __init__(self, response: Response) -> None:
        self._lines = _Lines(response)
        self._ended = False

    def _step(self) -> Item:
        """The next piece; at the end _finish() and StopIteration."""
        raise NotImplementedError

    def _finish(self) -> None:
        self._ended = True
        self._lines.finish()

    def __iter__(self: Self) -> Self:
        return self

    def __next__(self) -> Item:
        if self._ended:
            raise StopIteration
        try:
            return self._step()
        except errors.BrigError:
            self.close()
            raise

    def close(self) -> None:
        """Kills the command, if it still runs."""
        self._ended = True
        self._lines.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ExecStream(_Stream[Tuple[str, str]]):
    """Output of a command as it comes: an iterator of (name, text).

    `name` is "stdout" or "stderr". After the last one `exit_code` is set.
    close() ends the connection, and with it the command; leaving a `with`
    block does the same.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.exit_code: Optional[int] = None

    def _step(self) -> Tuple[str, str]:
        given = self._lines.next()
        for name in ("stdout", "stderr"):
            if name in given:
                return name, given[name]
        if "error" in given:
            raise errors.StreamError(str(given["error"]))
        self.exit_code = need(given, "exit_code")
        self._finish()
        raise StopIteration


@dataclass(frozen=True)
class RunEvent:
    """A piece of output; `offset` is its place in its stream, in bytes."""

    name: str
    offset: int
    data: bytes


class RunStream(_Stream[RunEvent]):
    """Exact output of a run as it comes: an iterator of RunEvent.

    `id` and `pid` are known at once. After the last event `result` is set
    (its output is empty: it went through the events). close() kills the run.
    """

    def __init__(
        self, response: Response, send_stdin: Callable[[str, bytes, bool], None]
    ) -> None:
        super().__init__(response)
        self._send_stdin = send_stdin
        self.result: Optional[RunResult] = None
        try:
            started = self._object("started")
            self.id: str = need(started, "id")
            self.pid: int = need(started, "pid")
        except errors.BrigError:
            self.close()
            raise

    def wait(self) -> RunResult:
        """Passes over the rest of the output and returns the result."""
        for _ in self:
            pass
        if self.result is None:
            raise errors.StreamError("the run was closed")
        return self.result

    def write(self, data: bytes, eof: bool = False) -> None:
        """Gives bytes to stdin; waits while the program does not read."""
        self._send_stdin(self.id, data, eof)

    def _object(self, *names: str) -> Dict[str, Any]:
        given = self._lines.next()
        event = given.get("event")
        if event == "error":
            error = given.get("error") or {}
            raise errors.StreamError(
                f"{error.get('code')}: {error.get('message')}"
            )
        if event not in names:
            raise errors.ProtocolError(
                f"an event {event!r} where {names} may be"
            )
        return given

    def _step(self) -> RunEvent:
        given = self._object("stdout", "stderr", "exit")
        if given["event"] != "exit":
            data = _decoded(given, "data", "encoding")
            return RunEvent(given["event"], need(given, "offset"), data)
        self.result = RunResult.from_wire(given)
        self._finish()
        raise StopIteration


