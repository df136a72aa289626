# fake_server.py - a scripted HTTP server, for the tests of the SDK.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import socket
import threading
from typing import Any, Callable, Dict, List, Optional


class Request:
    """One request as the server read it."""

    def __init__(
        self, method: str, target: str, headers: Dict[str, str], body: bytes
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class FakeServer:
    """Answers requests with what the test put in `script`, in order.

    Each entry of the script is called with the request and the connection's
    file; it writes the answer and returns whether the connection goes on.
    """

    def __init__(self) -> None:
        self.script: List[Callable[[Request, Any], bool]] = []
        self.requests: List[Request] = []
        self.connections = 0
        self.gone = threading.Event()  # set when a client hung up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def add(self, answer: Callable[[Request, Any], bool]) -> None:
        self.script.append(answer)

    def add_json(self, value: Any, **options: Any) -> None:
        self.add(reply(json.dumps(value).encode(), **options))

    def add_error(
        self, status: int, code: str, headers: Optional[Dict[str, str]] = None
    ) -> None:
        error = {
            "code": code,
            "message": f"about {code}",
            "details": {"why": "test"},
            "request_id": "req_1",
        }
        self.add_json({"error": error}, status=status, headers=headers)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            with connection, connection.makefile("rwb") as file:
                while self._one(file):
                    pass
        except OSError:
            self.gone.set()

    def _one(self, file: Any) -> bool:
        first = file.readline().decode().split()
        if not first:
            self.gone.set()
            return False
        headers: Dict[str, str] = {}
        while True:
            line = file.readline().decode().strip()
            if not line:
                break
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        answer = self.script.pop(0)
        if getattr(answer, "before_body", False):
            self.requests.append(Request(first[0], first[1], headers, b""))
        else:
            body = _body(file, headers)
            self.requests.append(Request(first[0], first[1], headers, body))
        return answer(self.requests[-1], file)


def _body(file: Any, headers: Dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return bytes(file.read(int(headers.get("content-length", "0"))))
    parts = []
    while True:
        size = int(file.readline(), 16)
        parts.append(file.read(size))
        file.readline()
        if size == 0:
            return b"".join(parts)


def reply(
    body: bytes,
    status: int = 200,
    headers: Optional[Dict[str, str]] = None,
    close: bool = False,
    length: Optional[int] = None,
) -> Callable[[Request, Any], bool]:
    """Answers with a body, of a false length if one is given."""

    def answer(request: Request, file: Any) -> bool:
        lines = [f"HTTP/1.1 {status} Whatever"]
        sent = {"content-length": len(body) if length is None else length}
        for name, value in {**sent, **(headers or {})}.items():
            lines.append(f"{name}: {value}")
        file.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        file.flush()
        return not close

    return answer


def refuse_early(status: int, code: str) -> Callable[[Request, Any], bool]:
    """Answers before the body is read, and hangs up."""
    error = {"error": {"code": code, "message": "too much"}}
    inner = reply(json.dumps(error).encode(), status=status)

    def answer(request: Request, file: Any) -> bool:
        inner(request, file)
        # Read on, so that the answer is not lost in a reset.
        while file.read1(65536):
            pass
        return False

    answer.before_body = True  # type: ignore[attr-defined]
    return answer


def hang_up(request: Request, file: Any) -> bool:
    return False


def chunks(*pieces: bytes, end: bool = True) -> Callable[[Request, Any], bool]:
    """Answers in chunks; without an end, the connection breaks after them."""

    def answer(request: Request, file: Any) -> bool:
        file.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            file.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            file.flush()
        if end:
            file.write(b"0\r\n\r\n")
            file.flush()
        return end

    return answer


def chunks_until_gone(piece: bytes) -> Callable[[Request, Any], bool]:
    """Answers with the same chunk again and again until nobody reads."""

    def answer(request: Request, file: Any) -> bool:
        file.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            file.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            file.flush()

    return answer
