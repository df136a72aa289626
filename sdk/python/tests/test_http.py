# test_http.py - kept connections, retries, errors, broken answers.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import threading
import time

import brig
import pytest
from fake_server import chunks, hang_up, refuse_early, reply

ERRORS = [
    (400, brig.BadRequestError),
    (401, brig.AuthenticationError),
    (403, brig.PermissionDeniedError),
    (404, brig.NotFoundError),
    (413, brig.PayloadTooLargeError),
    (415, brig.UnsupportedMediaTypeError),
    (418, brig.APIError),
    (422, brig.UnprocessableError),
]


@pytest.mark.parametrize("status, kind", ERRORS)
def test_error_of_each_status(client, server, status, kind):
    server.add_error(status, "some_code")
    with pytest.raises(brig.APIError) as caught:
        client.host()
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code) == (status, "some_code")
    assert error.message == "about some_code"
    assert error.details == {"why": "test"}
    assert error.request_id == "req_1"
    assert "req_1" in str(error) and str(status) in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status, kind",
    [
        (408, brig.APIError),
        (409, brig.ConflictError),
        (429, brig.RateLimitError),
        (500, brig.ServerError),
        (503, brig.ServerError),
        (507, brig.InsufficientStorageError),
    ],
)
def test_passing_errors_are_tried_three_times(
    client, server, pauses, status, kind
):
    for _ in range(3):
        server.add_error(status, "busy")
    with pytest.raises(kind):
        client.host()
    assert len(server.requests) == 3
    assert len(pauses) == 2 and 0 < pauses[0] < pauses[1] < 1


def test_retry_after_is_kept_to(client, server, pauses):
    server.add_error(429, "slow_down", headers={"retry-after": "3"})
    server.add_error(503, "busy", headers={"retry-after": "100000"})
    server.add_json({"ok": True})
    assert client.host() == {"ok": True}
    assert pauses == [3.0, 30.0]


def test_create_is_repeated_with_the_same_key(client, server):
    server.add(hang_up)
    server.add_error(500, "internal")
    server.add_json(
        {"id": "sb_1", "name": "n", "status": "running", "created_at": "t"}
    )
    client.sandboxes.create()
    keys = {r.headers["idempotency-key"] for r in server.requests}
    assert (len(server.requests), len(keys)) == (3, 1)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_command_is_never_sent_twice(server, sandbox, status):
    server.add_error(status, "busy")
    with pytest.raises(brig.APIError):
        sandbox.run("rm x")
    assert len(server.requests) == 1


def test_a_command_is_not_repeated_after_a_broken_connection(server, sandbox):
    server.add(hang_up)
    with pytest.raises(brig.ConnectionError):
        sandbox.run("rm x")
    assert len(server.requests) == 1


def test_a_command_is_repeated_if_nothing_was_sent(pauses):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = brig.Client(f"http://127.0.0.1:{port}", "key")
    client.transport._sleep = pauses.append
    with pytest.raises(brig.ConnectionError, match="cannot reach brigd"):
        client.sandboxes.execute("sb_1", "true")
    assert len(pauses) == 2


def test_one_connection_serves_many_requests(client, server):
    for number in range(5):
        server.add_json({"n": number})
    assert [client.host()["n"] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert server.connections == 1


def test_errors_keep_the_connection_too(client, server):
    server.add_error(404, "not_found")
    server.add_json({})
    with pytest.raises(brig.NotFoundError):
        client.sandboxes.get("sb_x")
    client.host()
    assert server.connections == 1


def test_a_connection_that_the_server_closed_is_not_used(server, sandbox):
    result = {
        "id": "ex_1", "exit_code": 0, "status": "completed", "stdout": "",
        "stderr": "", "execution_time_ms": 1, "created_at": "t",
        "completed_at": "t",
    }
    # closes without saying so in a header
    server.add_json(result, close=True)
    server.add_json(result)
    assert sandbox.run("true").ok
    assert server.gone.wait(0.2) is False
    time.sleep(0.1)
    assert sandbox.run("true").ok
    assert server.connections == 2


def test_the_header_connection_close(client, server):
    server.add_json({}, headers={"connection": "close"}, close=True)
    server.add_json({})
    client.host()
    client.host()
    assert server.connections == 2


def test_head_and_body_arrive_in_one_piece(client, server):
    """So that brigd wakes up once for a request."""
    seen = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            seen.append(connection.recv(65536))

    thread = threading.Thread(target=serve)
    thread.start()
    other = brig.Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "key")
    with pytest.raises(brig.ConnectionError):
        other.sandboxes.execute("sb_1", "echo marker")
    thread.join()
    listener.close()
    assert seen[0].startswith(b"POST ") and b"marker" in seen[0]


def test_silence_is_a_timeout(server):
    server.add(lambda request, file: time.sleep(2) or False)
    client = brig.Client(server.url, "key", timeout=0.2)
    start = time.monotonic()
    with pytest.raises(brig.RequestTimeoutError):
        client.host()
    assert time.monotonic() - start < 1
    assert len(server.requests) == 1


def test_a_command_may_be_silent_for_its_timeout(server):
    def slow(request, file):
        time.sleep(0.6)
        return reply(
            b'{"id": "e", "exit_code": 0, "status": "completed", "stdout": "",'
            b' "stderr": "", "execution_time_ms": 1, "created_at": "t",'
            b' "completed_at": "t"}'
        )(request, file)

    server.script += [slow, slow]
    client = brig.Client(server.url, "key", timeout=0.3)
    assert client.sandboxes.execute("sb_1", "sleep 1", timeout=1).ok
    assert client.sandboxes.execute("sb_1", "sleep 1").ok


def test_a_short_answer_is_an_error(server, sandbox):
    server.add(reply(b'{"id":', length=100, close=True))
    with pytest.raises(brig.ConnectionError):
        sandbox.run("true")


def test_a_short_chunked_answer_is_an_error(server, sandbox):
    server.add(chunks(b'{"id":', end=False))
    with pytest.raises(brig.ConnectionError):
        sandbox.run("true")


def test_an_answer_that_is_not_json(client, server):
    server.add(reply(b"<html>"))
    with pytest.raises(brig.ProtocolError):
        client.host()


def test_an_answer_without_a_promised_field(server, sandbox):
    server.add_json({"id": "ex_1"})
    with pytest.raises(brig.ProtocolError, match="exit_code"):
        sandbox.run("true")


def test_an_error_without_the_usual_form(client, server):
    server.add(reply(b"Bad gateway", 404, headers={"x-request-id": "r9"}))
    with pytest.raises(brig.NotFoundError) as caught:
        client.host()
    assert caught.value.message == "Bad gateway"
    assert caught.value.request_id == "r9"


def test_refusal_while_a_large_body_is_sent(server, sandbox):
    server.add(refuse_early(413, "too_large"))
    with pytest.raises(brig.PayloadTooLargeError):
        sandbox.files.write("x", bytes(64 << 20))


def test_refusal_while_a_large_command_is_sent(server, sandbox):
    server.add(refuse_early(413, "too_large"))
    with pytest.raises(brig.PayloadTooLargeError):
        sandbox.run("x" * (64 << 20))


def test_a_large_command_arrives_whole(server, sandbox):
    server.add_error(422, "too_long")
    command = "é" * 100_000
    with pytest.raises(brig.UnprocessableError):
        sandbox.run(command)
    assert server.requests[0].json() == {"command": command}


def test_many_threads_share_a_client(client, server):
    for _ in range(40):
        server.add_json({"ok": 1})
    results = []

    def work():
        for _ in range(5):
            results.append(client.host())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [{"ok": 1}] * 40
    assert server.connections <= 8
