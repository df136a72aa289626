# test_http.py - keys, framing, sizes, slow clients: the edge of the daemon.
# SPDX-License-Identifier: Apache-2.0

import json
import re
import socket
import time

import pytest

from conftest import wait_until

LIST = "/v1/sandboxes/list"
CREATE = "/v1/sandboxes/create"


def check_error(reply, status, code=None):
    assert reply.status == status, reply.body
    error = reply.json["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert isinstance(error["details"], dict) and error["message"]
    assert error["request_id"] == reply.headers["x-request-id"]
    assert reply.headers["content-type"] == "application/json"
    if code:
        assert error["code"] == code


# --- keys (E-01)


def bad_keys(key):
    flipped = key[:-1] + chr(ord(key[-1]) ^ 1)
    return [{}, {"x-api-key": ""}, {"x-api-key": "wrong"},
            {"x-api-key": key[:-1]}, {"x-api-key": key + "x"},
            {"x-api-key": key.upper()}, {"x-api-key": flipped},
            {"x-api-key": "k" * 20000}, {"Authorization": key},
            {"Authorization": "Basic " + key}, {"Authorization": "Bearer"},
            {"Authorization": "Bearer " + flipped},
            {"x-api-key": key, "Authorization": "Bearer " + key}]


def test_keys(daemon):
    bodies = set()
    for headers in bad_keys(daemon.key):
        reply = daemon.get(LIST, headers=headers, key=False)
        check_error(reply, 401, "unauthorized")
        bodies.add(reply.json["error"]["message"])
    assert len(bodies) == 1  # missing and wrong look the same
    for headers in ({"x-api-key": daemon.key},
                    {"Authorization": "Bearer " + daemon.key},
                    {"authorization": "bearer " + daemon.key}):
        assert daemon.get(LIST, headers=headers, key=False).status == 200


def test_huge_key(daemon):
    assert daemon.get(LIST, headers={"x-api-key": "k" * (1 << 20)},
                      key=False).status in (400, 431)
    assert daemon.get(LIST).status == 200


def test_health_needs_no_key(daemon):
    reply = daemon.get("/healthz", key=False)
    assert reply.json == {"status": "ok", "version": "0.1.0"}
    for path in ("/metrics", "/debug", "/v2/host", "/", LIST):
        assert daemon.get(path, key=False).status == 401


# --- routes


def test_unknown_routes(daemon):
    sandbox = "sb_" + "a" * 24
    for method, path in [
            ("GET", "/"), ("GET", "/v1"), ("GET", LIST + "/"),
            ("POST", LIST), ("GET", CREATE), ("PUT", CREATE),
            ("HEAD", LIST), ("OPTIONS", LIST), ("GET", "/v1//sandboxes/list"),
            ("GET", "/v1/sandboxes/../sandboxes/list"),
            ("GET", f"/v1/sandboxes/{sandbox}"),
            ("GET", "/v2/sandboxes/" + "a" * 100),
            ("POST", "/v1/sandboxes//execute"), ("GET", "/" + "x" * 10000)]:
        reply = daemon.request(method, path)
        assert reply.status == 404, (method, path)
        if method != "HEAD":
            check_error(reply, 404, "not_found")


@pytest.mark.parametrize("sandbox", [
    "sb_" + "a" * 24, "x", "sb_", "%00", "..", "%2e%2e%2f", "'; --", "sb_%"])
def test_unknown_sandbox(daemon, sandbox):
    sandbox = sandbox.replace("'; --", "%27;--")
    v1 = f"/v1/sandboxes/{sandbox}"
    v2 = f"/v2/sandboxes/{sandbox}"
    for method, path, body in [
            ("DELETE", v1 + "/delete", None),
            ("POST", v1 + "/execute", {"command": "x"}),
            ("POST", v1 + "/execute_async", {"command": "x"}),
            ("GET", v1 + "/status", None),
            ("GET", v1 + "/download?path=a", None),
            ("POST", v1 + "/upload", None), ("GET", v2, None),
            ("GET", v2 + "/console", None),
            ("POST", v2 + "/runs", {"command": "x"}),
            ("POST", v2 + "/runs/ex_a/stdin", None)]:
        reply = daemon.request(method, path, body)
        assert reply.status == (400 if sandbox == "%00" else 404), path


# --- bodies


def test_body_sizes(daemon, sandbox):
    execute = f"/v1/sandboxes/{sandbox}/execute"
    head = {"content-type": "application/json"}
    pad = (1 << 20) - len('{"command": "true", "x": ""}')
    body = '{"command": "true", "x": "%s"}'
    assert daemon.post(execute, body % ("x" * pad), headers=head).status == 200
    for n in (pad + 1, 7 << 20):
        check_error(daemon.post(execute, body % ("x" * n), headers=head), 413,
                    "too_large")

    def chunks(n):
        for _ in range(n // 50000):
            yield b"x" * 50000

    check_error(daemon.post(execute, chunks(3 << 20), headers=head), 413)
    assert daemon.post(execute, iter([b'{"command"', b': "true"}']),
                       headers=head).status == 200
    assert daemon.execute(sandbox, "true").status == 200


def test_announced_size(daemon):
    """What is too large to be read is refused without reading it."""
    answer = raw(daemon, "POST /v1/sandboxes/create HTTP/1.1\r\nHost: a\r\n"
                 f"x-api-key: {daemon.key}\r\nContent-Length: 99999999999\r\n"
                 "Content-Type: application/json\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_expect_continue(daemon):
    answer = raw(daemon, "POST /v1/sandboxes/create HTTP/1.1\r\nHost: a\r\n"
                 "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_content_types(daemon, sandbox):
    path = f"/v1/sandboxes/{sandbox}/execute"
    body = json.dumps({"command": "true"})
    for kind in ("text/plain", "application/x-www-form-urlencoded",
                 "application/jsonx", "multipart/form-data; boundary=x", "x"):
        reply = daemon.post(path, body, headers={"content-type": kind})
        check_error(reply, 415, "unsupported_media_type")
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        assert daemon.post(path, body,
                           headers={"content-type": kind}).status == 200
    # A type without a body is no body of that type.
    assert daemon.post(CREATE, "", headers={
        "content-type": "text/plain"}).status == 200


def test_cross_origin_is_not_invited(daemon):
    reply = daemon.get(LIST, headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in reply.headers


# --- framing (E-07)


def raw(daemon, text, wait=2.0):
    """All that comes back for these bytes until the end of the stream."""
    sock = socket.create_connection(("127.0.0.1", daemon.port))
    sock.settimeout(wait)
    answer = b""
    try:
        sock.sendall(text.encode("latin-1"))
        while piece := sock.recv(65536):
            answer += piece
    except (socket.timeout, ConnectionError):
        pass
    finally:
        sock.close()
    return answer


SECOND = "GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
FRAMINGS = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Content-Length: 4\r\nContent-Length: 5",
    "Content-Length: 4\r\nContent-Length: 4",
    "Content-Length: 5,5", "Content-Length: 4, 4", "Content-Length: +5",
    "Content-Length: 0x5", "Content-Length: -1", "Content-Length: 5 5",
    "Content-Length: ", "Content-Length: 1e1", "Content-Length: 4;",
    "Content-Length: 18446744073709551616",
    "Content-Length: 99999999999999999999999",
    "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: ",
    "Transfer-Encoding : chunked", "Content-Length : 4",
    "Transfer-Encoding\t: chunked", "Host: second",
]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_ambiguous_framing(daemon, framing):
    answer = raw(daemon, "POST /v1/sandboxes/create HTTP/1.1\r\nHost: a\r\n"
                 f"x-api-key: {daemon.key}\r\n{framing}\r\n\r\n0\r\n\r\n" +
                 SECOND, wait=0.7)
    # libmicrohttpd's own error page repeats its header as the first line.
    assert answer.count(b"x-request-id") <= 1, answer
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ",
                                               b"HTTP/1.1 413 "))
    assert b'"status":"ok"' not in answer
    assert not daemon.host.started


@pytest.mark.parametrize("chunks", [
    "2;ext=1\r\n{}\r\n0\r\n\r\n", "02\r\n{}\r\n0\r\n\r\n",
    "fffffffffffffffff\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n",
    "0x2\r\n{}\r\n0\r\n\r\n", "\r\n{}\r\n0\r\n\r\n", "2\r\n{}xx0\r\n\r\n",
    "2\r\n{}\r\n0\r\nX-Trailer: a\r\n\r\n", "g\r\n{}\r\n0\r\n\r\n",
    "2 \r\n{}\r\n0\r\n\r\n"])
def test_chunks(daemon, chunks):
    """After a chunked body the connection ends: nothing can hide behind."""
    answer = raw(daemon, "POST /v1/sandboxes/create HTTP/1.1\r\nHost: a\r\n"
                 f"x-api-key: {daemon.key}\r\nTransfer-Encoding: chunked\r\n"
                 "\r\n" + chunks + SECOND, wait=0.7)
    assert answer.count(b"HTTP/1.1 ") <= 1 and b"smuggled" not in answer
    assert b'"version"' not in answer


@pytest.mark.parametrize("text", [
    "GET /healthz\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    "GET /healthz HTTP/1.1\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /heal thz HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: a\r\nx y: 1\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: a\r\nx: \x01\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + "y" * 70000 + "\r\n\r\n",
    "GET /" + "y" * 70000 + " HTTP/1.1\r\nHost: a\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_malformed_requests(daemon, text):
    answer = raw(daemon, text, wait=0.5)
    assert b"HTTP/1.1 200" not in answer and b"HTTP/1.0 200" not in answer
    assert daemon.get("/healthz").status == 200


def test_keep_alive_and_pipelining(daemon):
    answer = raw(daemon, SECOND * 3, wait=0.5)
    assert answer.count(b'"status":"ok"') == 3
    conn = daemon.connect()
    for _ in range(3):
        conn.request("GET", "/healthz")
        response = conn.getresponse()
        assert response.status == 200 and response.read()
    conn.close()


def test_http_1_0(daemon):
    answer = raw(daemon, "GET /healthz HTTP/1.0\r\n\r\n", wait=1)
    assert b" 200 " in answer and answer.endswith(b"}")


def test_early_pipelined_request_after_refusal(daemon):
    """A refused body is never read as a request."""
    answer = raw(daemon, "POST /v1/sandboxes/create HTTP/1.1\r\nHost: a\r\n"
                 f"Content-Length: {len(SECOND)}\r\n\r\n" + SECOND, wait=0.7)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_nul_in_query(daemon, sandbox):
    check_error(daemon.get(LIST + "?page=1%00x"), 400)
    check_error(daemon.get("/v1/sandboxes/li%00st"), 400)


# --- slow clients (E-09)


def test_slow_header_is_cut(daemon):
    sock = socket.create_connection(("127.0.0.1", daemon.port))
    sock.sendall(b"GET /healthz HTTP/1.1\r\n")
    began = time.monotonic()
    sock.settimeout(0.9)
    end = None
    while end is None and time.monotonic() - began < 10:
        try:
            sock.sendall(b"x")
            end = sock.recv(1)
        except socket.timeout:
            pass
        except ConnectionError:
            end = b""
    assert end == b"" and 4 < time.monotonic() - began < 7
    sock.close()


def test_idle_connections_keep_nobody_out(daemon):
    idle = []
    for _ in range(700):
        idle.append(socket.create_connection(("127.0.0.1", daemon.port)))
        if len(idle) % 100 == 0:
            idle[-1].sendall(b"GET / HTTP/1.1\r\n")
    worst = 0
    for _ in range(50):
        began = time.monotonic()
        assert daemon.get("/healthz").status == 200
        worst = max(worst, time.monotonic() - began)
    assert worst < 0.5
    assert daemon.fds() < 400
    for sock in idle:
        sock.close()
    assert wait_until(lambda: daemon.fds() < 60)


def test_one_log_line_at_most(daemon):
    before = (daemon.dir / "brigd.log").read_bytes().count(b"\n")
    for headers in bad_keys(daemon.key):
        daemon.get(LIST, headers=headers, key=False)
        raw(daemon, "nonsense\r\n\r\n", wait=0.1)
    assert (daemon.dir / "brigd.log").read_bytes().count(b"\n") == before


def test_request_ids_differ(daemon):
    ids = {daemon.get("/healthz").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch("req_[a-z0-9]{24}", i) for i in ids)
