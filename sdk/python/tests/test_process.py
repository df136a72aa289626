# test_process.py - results of commands, streams, and runs with exact bytes.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json

import brig
import pytest
from fake_server import chunks, chunks_until_gone, reply

RESULT = {
    "id": "ex_1",
    "created_at": "t",
    "completed_at": "t",
    "execution_time_ms": 12,
    "exit_code": 3,
    "status": "completed",
    "stdout": "out",
    "stderr": "why",
    "new_field": 1,
}

RUN = {
    "id": "ex_2",
    "sandbox_id": "sb_1",
    "exit_code": 137,
    "signal": 9,
    "reason": "signal",
    "stdout": base64.b64encode(b"\xff\x00").decode(),
    "stdout_encoding": "base64",
    "stdout_bytes": 2,
    "stdout_truncated": False,
    "stderr": "é",
    "stderr_encoding": "utf-8",
    "stderr_bytes": 2,
    "stderr_truncated": False,
    "created_at": "t",
    "completed_at": "t",
    "usage": {
        "wall_ms": {"value": 5, "source": "host"},
        "cpu_ms": {"value": 3, "source": "guest"},
        "disk_read_bytes": None,
    },
}


def test_execute(server, sandbox):
    server.add_json(RESULT)
    result = sandbox.run("x", env={"A": "b"}, timeout=2, working_dir="/tmp")
    assert server.requests[0].target == "/v1/sandboxes/sb_1/execute"
    assert server.requests[0].json() == {
        "command": "x", "env": {"A": "b"}, "timeout": 2, "working_dir": "/tmp",
    }
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out", "why")
    assert (result.status, result.execution_time_ms) == ("completed", 12)
    with pytest.raises(brig.CommandError, match="exit code 3: why") as caught:
        result.check()
    assert caught.value.result is result


def test_execute_cut_by_the_end_of_the_machine(server, sandbox):
    lost = dict(
        RESULT, status="error", exit_code=-1, reason="lost", error="vm ended"
    )
    server.add_json(lost)
    result = sandbox.run("x")
    assert (result.status, result.reason) == ("error", "lost")
    with pytest.raises(brig.CommandError, match="vm ended"):
        result.check()


def ndjson(*objects):
    return [json.dumps(one).encode() + b"\n" for one in objects]


def test_stream(server, sandbox):
    server.add(
        chunks(*ndjson({"stdout": "a"}, {"stderr": "b"}, {"exit_code": 7}))
    )
    server.add_json(RESULT)
    with sandbox.stream("x", env={"A": "b"}, working_dir="/") as stream:
        assert stream.exit_code is None
        assert list(stream) == [("stdout", "a"), ("stderr", "b")]
        assert stream.exit_code == 7
        assert list(stream) == []
    assert server.requests[0].target == "/v1/sandboxes/sb_1/execute_async"
    sandbox.run("y")
    assert server.connections == 1  # the stream gave it back


def test_stream_whatever_the_pieces(server, sandbox):
    text = b"".join(
        ndjson({"stdout": "é\n\u2028"}, {"stdout": "b" * 100_000}, {"exit_code": 0})
    )
    for size in (1000, 7, 65_537):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        server.add(chunks(*pieces))
        stream = sandbox.stream("x")
        assert list(stream) == [
            ("stdout", "é\n\u2028"), ("stdout", "b" * 100_000),
        ]
        assert stream.exit_code == 0


def test_stream_that_ends_with_an_error(server, sandbox):
    server.add(chunks(*ndjson({"stdout": "a"}, {"error": "guest_panic"})))
    stream = sandbox.stream("x")
    assert next(stream) == ("stdout", "a")
    with pytest.raises(brig.StreamError, match="guest_panic"):
        next(stream)
    assert stream.exit_code is None
    assert list(stream) == []


@pytest.mark.parametrize("end", [True, False])
def test_stream_that_breaks_off(server, sandbox, end):
    server.add(chunks(*ndjson({"stdout": "a"}), end=end))
    stream = sandbox.stream("x")
    assert next(stream) == ("stdout", "a")
    with pytest.raises(brig.ConnectionError):
        next(stream)


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"x": 1}\n'])
def test_stream_of_something_else(server, sandbox, line):
    server.add(chunks(line))
    with pytest.raises(brig.ProtocolError):
        next(sandbox.stream("x"))


def test_stream_line_without_end(server, sandbox):
    server.add(chunks_until_gone(b"x" * 65536))
    with pytest.raises(brig.ProtocolError, match="no end"):
        next(sandbox.stream("x"))
    assert server.gone.wait(5)


def test_closing_a_stream_hangs_up(server, sandbox):
    server.add(chunks_until_gone(b'{"stdout": "more"}\n'))
    with sandbox.stream("yes") as stream:
        assert next(stream) == ("stdout", "more")
        assert not server.gone.is_set()
    assert server.gone.wait(5)
    assert list(stream) == []


def test_stream_refused(server, sandbox):
    server.add_error(422, "sandbox_not_running")
    with pytest.raises(brig.UnprocessableError) as caught:
        sandbox.stream("x")
    assert caught.value.code == "sandbox_not_running"


def test_runs(server, sandbox):
    server.add_json(RUN)
    result = sandbox.runs(
        ["cat", "-"], stdin="in", user="user", cwd="/", env={"A": "b"},
        timeout_s=1.5, output_limit=10,
    )
    assert server.requests[0].target == "/v2/sandboxes/sb_1/runs"
    assert server.requests[0].json() == {
        "argv": ["cat", "-"], "stdin": "in", "user": "user", "cwd": "/",
        "env": {"A": "b"}, "timeout_s": 1.5, "output_limit": 10,
    }
    assert result.stdout_raw == b"\xff\x00"
    assert (result.stdout, result.stderr) == ("\ufffd\x00", "é")
    assert (result.signal, result.reason) == (9, "signal")
    assert result.usage.wall_ms == brig.Measured(5, "host")
    assert result.usage.cpu_ms.source == "guest"
    assert result.usage.disk_read_bytes is None
    with pytest.raises(brig.CommandError, match="signal"):
        result.check()


def test_runs_takes_argv_or_a_line(sandbox):
    for wrong in (
        {}, {"argv": ["a"], "command": "a"}, {"argv": "a"},
    ):
        with pytest.raises(TypeError):
            sandbox.runs(**wrong)


def test_runs_with_broken_base64(server, sandbox):
    server.add_json(dict(RUN, stdout="***"))
    with pytest.raises(brig.ProtocolError, match="base64"):
        sandbox.runs(["x"])


def test_start(server, sandbox):
    last = {k: v for k, v in RUN.items() if k not in ("stdout", "stderr")}
    server.add(
        chunks(
            *ndjson(
                {"event": "started", "id": "ex_2", "pid": 77},
                {"event": "stdout", "offset": 0, "data": "/w==",
                 "encoding": "base64"},
                {"event": "stderr", "offset": 4, "data": "é",
                 "encoding": "utf-8"},
                dict(last, event="exit"),
            )
        )
    )
    server.add(reply(b"", status=204))
    server.add(reply(b"", status=204))
    run = sandbox.start(command="x", stdin_open=True)
    assert (run.id, run.pid) == ("ex_2", 77)
    assert server.requests[0].json() == {
        "command": "x", "stdin_open": True, "stream": True,
    }
    run.write(b"\x00abc")
    run.write(b"", eof=True)
    assert server.requests[1].target == (
        "/v2/sandboxes/sb_1/runs/ex_2/stdin?eof=0"
    )
    assert server.requests[1].body == b"\x00abc"
    assert server.requests[2].target.endswith("/stdin")
    assert list(run) == [
        brig.RunEvent("stdout", 0, b"\xff"),
        brig.RunEvent("stderr", 4, "é".encode()),
    ]
    assert run.wait().exit_code == 137


def test_start_that_is_lost(server, sandbox):
    server.add(
        chunks(
            *ndjson(
                {"event": "started", "id": "ex_2", "pid": 77},
                {"event": "error",
                 "error": {"code": "lost", "message": "the machine ended"}},
            )
        )
    )
    with pytest.raises(brig.StreamError, match="lost: the machine ended"):
        sandbox.start(["x"]).wait()


def test_start_that_does_not_start(server, sandbox):
    server.add(chunks(*ndjson({"event": "exit"})))
    with pytest.raises(brig.ProtocolError):
        sandbox.start(["x"])
    assert server.gone.wait(5)
