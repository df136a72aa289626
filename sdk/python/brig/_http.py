# _http.py - HTTP/1.1 to brigd: kept connections, retries, streams, errors.
# SPDX-License-Identifier: Apache-2.0
"""Transport under the client.

A connection serves one request at a time and goes back to a small pool when
its answer was read to the end. Only requests that may be repeated without
harm are repeated; any other is tried again only if not a byte of it was sent.
"""

from __future__ import annotations

import http.client
import json as jsonlib
import random
import select
import socket
import threading
import time
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
    TypeVar,
    Union,
)
from urllib.parse import quote, urlencode, urlsplit

from . import errors

RETRIES = 2
RETRY_STATUSES = frozenset({408, 409, 429})  # and every 5xx
RETRY_FIRST_S = 0.2
RETRY_LONGEST_S = 30.0
IDLE_CONNECTIONS = 32
ERROR_BODY_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
CLIENT_TIMEOUT = -1.0  # stands for the time-out of the client

QueryValue = Union[str, int, float, None]
T = TypeVar("T")


class StreamingBody:
    """A request body that is sent piece by piece.

    `length` is the number of bytes that `pieces` will give, or None if that
    is not known; then the body is sent in chunked encoding.
    """

    def __init__(
        self, content_type: str, pieces: Iterable[bytes], length: Optional[int]
    ) -> None:
        self.content_type = content_type
        self.pieces = pieces
        self.length = length


class _Connection(http.client.HTTPConnection):
    """One connection, which sends head and body of a request together."""

    def __init__(self, host: str, port: int, timeout: Optional[float]) -> None:
        super().__init__(host, port, timeout=timeout)
        self._held: Optional[List[bytes]] = None

    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def send(self, data: Any) -> None:
        if self._held is not None:
            self._held.append(bytes(data))
        else:
            super().send(data)

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = self._held, None
        if held:
            super().send(b"".join(held))


class Response:
    """An answer with a status below 400.

    `content` is the whole body, unless the request asked for a stream; then
    the body is read with read_some() until it gives b"".
    """

    def __init__(
        self,
        transport: "Transport",
        connection: _Connection,
        raw: http.client.HTTPResponse,
        sock: socket.socket,
        reusable: bool,
    ) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = {
            name.lower(): value for name, value in raw.getheaders()
        }
        self.content = b""
        self._transport = transport
        self._connection: Optional[_Connection] = connection
        self._raw = raw
        self._sock = sock
        self._reusable = reusable and not raw.will_close

    def read_some(self, size: int = CHUNK_BYTES) -> bytes:
        """Waits for body bytes; b"" is the end."""
        if self._connection is None:
            return b""
        try:
            data = _wrapped(lambda: self._raw.read1(size))
        except BaseException:
            self.close()
            raise
        if not data:
            self._finish()
        return data

    def read_all(self, limit: Optional[int] = None) -> bytes:
        parts: List[bytes] = []
        total = 0
        while limit is None or total < limit:
            data = self.read_some()
            if not data:
                return b"".join(parts)
            parts.append(data)
            total += len(data)
        self.close()
        return b"".join(parts)

    def json(self) -> Any:
        try:
            return jsonlib.loads(self.content)
        except ValueError as error:
            raise errors.ProtocolError(f"not JSON: {error}") from None

    def close(self) -> None:
        """Ends the answer; if it was not read to its end, brigd sees that."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already
        self._raw.close()
        connection.close()
        self._sock.close()

    def _finish(self) -> None:
        missing = self._raw.length  # None for a chunked answer
        if missing or not self._reusable:
            self.close()
        if missing:
            raise errors.ConnectionError(
                f"the answer broke off, {missing} bytes are missing"
            )
        connection, self._connection = self._connection, None
        if connection is not None:
            self._raw.close()
            self._transport._put_back(connection)


class _Sent:
    """Whether a byte of the request may have reached brigd."""

    any = False


class Transport:
    """Sends requests to one brigd. Safe to use from several threads."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        timeout: Optional[float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname:
            raise errors.ConfigurationError(
                f"the address of brigd must look like http://HOST:PORT, "
                f"not {base_url!r}"
            )
        try:
            self._port = parts.port or 80
        except ValueError:
            raise errors.ConfigurationError(
                f"no port number in {base_url!r}"
            ) from None
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._host = parts.hostname
        self._prefix = parts.path.rstrip("/")
        self._key = api_key
        self._sleep = sleep
        self._lock = threading.Lock()
        self._idle: List[_Connection] = []

    def close(self) -> None:
        """Closes the connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, QueryValue]] = None,
        json: Any = None,
        body: Optional[StreamingBody] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = CLIENT_TIMEOUT,
        stream: bool = False,
        repeatable: bool = False,
    ) -> Response:
        """Sends a request and returns its answer, or raises.

        `timeout` is the longest silence of brigd, in seconds; None waits
        without end. `repeatable` says that doing it twice is as good as once.
        """
        if timeout == CLIENT_TIMEOUT:
            timeout = self.timeout
        target = self._target(path, query)
        head, data = self._head(json, body, headers)
        attempt = 0
        while True:
            sent = _Sent()
            try:
                response = self._once(
                    method, target, head, data, timeout, sent
                )
                if not stream:
                    response.content = response.read_all()
                return response
            except errors.APIError as error:
                again = repeatable and _is_passing(error.status)
                if attempt == RETRIES or not again:
                    raise
                wait = error.retry_after
            except errors.RequestTimeoutError:
                raise
            except errors.ConnectionError:
                if attempt == RETRIES or (sent.any and not repeatable):
                    raise
                wait = None
            self._sleep(_pause(attempt, wait))
            attempt += 1

    def _target(
        self, path: str, query: Optional[Mapping[str, QueryValue]]
    ) -> str:
        given = {k: str(v) for k, v in (query or {}).items() if v is not None}
        target = self._prefix + path
        if not given:
            return target
        return f"{target}?{urlencode(given, errors='surrogateescape')}"

    def _head(
        self,
        json: Any,
        body: Optional[StreamingBody],
        headers: Optional[Mapping[str, str]],
    ) -> Tuple[Dict[str, str], Union[bytes, StreamingBody, None]]:
        head = {"x-api-key": self._key, "accept": "*/*"}
        head.update(headers or {})
        if body is not None:
            head["content-type"] = body.content_type
            return head, body
        if json is None:
            return head, None
        head["content-type"] = "application/json"
        data = jsonlib.dumps(json, allow_nan=False).encode("ascii")
        if len(data) <= CHUNK_BYTES:
            return head, data
        pieces = [
            data[at : at + CHUNK_BYTES]
            for at in range(0, len(data), CHUNK_BYTES)
        ]
        return head, StreamingBody("application/json", pieces, len(data))

    def _once(
        self,
        method: str,
        target: str,
        head: Dict[str, str],
        data: Union[bytes, StreamingBody, None],
        timeout: Optional[float],
        sent: "_Sent",
    ) -> Response:
        connection = self._checkout()
        sock = connection.sock
        sock.settimeout(timeout)
        sent.any = True
        try:
            whole = _wrapped(
                lambda: _send(connection, method, target, head, data)
            )
            raw = _wrapped(connection.getresponse)
        except BaseException:
            connection.close()
            raise
        response = Response(self, connection, raw, sock, whole)
        if raw.status >= 400:
            raise _api_error(response)
        return response

    def _checkout(self) -> _Connection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            # Readable while idle means that brigd has closed it.
            if connection.sock and not _readable(connection.sock):
                return connection
            connection.close()
        connection = _Connection(self._host, self._port, self.timeout)
        try:
            connection.connect()
        except OSError as error:
            raise errors.ConnectionError(
                f"cannot reach brigd at {self.base_url}: {error}"
            ) from error
        return connection

    def _put_back(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def _send(
    connection: _Connection,
    method: str,
    target: str,
    head: Mapping[str, str],
    data: Union[bytes, StreamingBody, None],
) -> bool:
    """Sends a request; False if brigd answered before all of it was sent."""
    if not isinstance(data, StreamingBody):
        connection.hold()
        connection.request(method, target, body=data, headers=dict(head))
        connection.release()
        return True
    connection.putrequest(method, target)
    for name, value in head.items():
        connection.putheader(name, value)
    if data.length is None:
        connection.putheader("transfer-encoding", "chunked")
    else:
        connection.putheader("content-length", str(data.length))
    connection.endheaders()
    return _send_pieces(connection, data)


def _send_pieces(connection: _Connection, body: StreamingBody) -> bool:
    try:
        for piece in _encoded(body):
            # A refusal comes while we still send: stop and read it.
            if _readable(connection.sock):
                return False
            connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        return False  # the answer says why, if one came
    return True


def _encoded(body: StreamingBody) -> Iterator[bytes]:
    if body.length is not None:
        yield from body.pieces
        return
    for piece in body.pieces:
        if piece:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _readable(sock: socket.socket) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _wrapped(call: Callable[[], T]) -> T:
    """Runs `call`; failures of the connection become errors of ours."""
    try:
        return call()
    except socket.timeout:
        raise errors.RequestTimeoutError(
            "brigd did not answer in time"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        text = str(error) or type(error).__name__
        raise errors.ConnectionError(
            f"connection to brigd broke: {text}"
        ) from error


def _is_passing(status: int) -> bool:
    return status in RETRY_STATUSES or status >= 500


def _pause(attempt: int, asked: Optional[float]) -> float:
    if asked is not None:
        return min(asked, RETRY_LONGEST_S)
    return RETRY_FIRST_S * 2.0**attempt * random.uniform(0.75, 1.25)


def _retry_after(value: Optional[str]) -> Optional[float]:
    try:
        seconds = float(value or "")
    except ValueError:
        return None  # none, or a date, which brigd never sends
    return seconds if 0 <= seconds < float("inf") else None


def _api_error(response: Response) -> errors.APIError:
    headers = response.headers
    text = response.read_all(ERROR_BODY_BYTES).decode("utf-8", "replace")
    try:
        error = jsonlib.loads(text)["error"]
        code, message = str(error["code"]), str(error["message"])
        details = error.get("details")
        request_id = error.get("request_id")
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message = "unknown", text[:200] or "an answer without a body"
        details = request_id = None
    return errors.class_of_status(response.status)(
        response.status,
        code,
        message,
        request_id=request_id or headers.get("x-request-id"),
        details=details if isinstance(details, dict) else None,
        retry_after=_retry_after(headers.get("retry-after")),
    )
