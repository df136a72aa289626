# test_runs.py - runs of part 2: exact bytes, streams, stdin, usage.
# SPDX-License-Identifier: Apache-2.0

import base64
import json
import threading
import time

import pytest

from conftest import wait_until


def text_of(run, name):
    data = run[name]
    if run[name + "_encoding"] == "base64":
        return base64.b64decode(data)
    return data.encode()


def open_run(daemon, sandbox, **body):
    """A streamed run: its connection and response, after `started`."""
    conn = daemon.connect()
    conn.request("POST", f"/v2/sandboxes/{sandbox}/runs",
                 json.dumps({"stream": True, **body}),
                 {"x-api-key": daemon.key, "content-type": "application/json"})
    response = conn.getresponse()
    assert response.status == 200
    assert response.getheader("content-type") == "application/x-ndjson"
    started = json.loads(response.readline())
    assert started["event"] == "started" and started["pid"] > 0
    return conn, response, started["id"]


def events(response):
    return [json.loads(line) for line in response]


def joined(lines, name):
    out = b""
    for e in lines:
        if e["event"] == name:
            assert e["offset"] == len(out)
            out += base64.b64decode(e["data"]) \
                if e["encoding"] == "base64" else e["data"].encode()
    return out


def test_run(daemon, sandbox):
    reply = daemon.run(sandbox, argv=["sh", "-c", "echo \"$0 $1\"; exit 7", "a b"])
    run = reply.json
    assert reply.status == 200
    assert run["id"].startswith("ex_") and run["sandbox_id"] == sandbox
    assert (run["exit_code"], run["signal"], run["reason"]) == (7, None,
                                                                "exit")
    assert run["stdout"] == "a b \n" and run["stdout_encoding"] == "utf-8"
    assert run["stdout_bytes"] == 5 and run["stdout_truncated"] is False
    assert run["stderr"] == "" and run["stderr_bytes"] == 0
    usage = run["usage"]
    assert set(usage) == {"wall_ms", "vcpu_ms", "cpu_ms", "memory_peak_bytes",
                          "disk_read_bytes", "disk_write_bytes"}
    assert usage["wall_ms"]["source"] == "host"
    assert usage["vcpu_ms"] == {"value": 0, "source": "host"}
    assert usage["cpu_ms"] == {"value": 7, "source": "guest"}
    assert usage["memory_peak_bytes"] == {"value": 3 << 20, "source": "guest"}
    assert usage["disk_read_bytes"] == {"value": 0, "source": "host"}
    assert run["completed_at"] >= run["created_at"]


def test_exact_bytes(daemon, sandbox):
    every = bytes(range(256))
    run = daemon.run(sandbox, command="python3 -c 'import sys;"
                     "sys.stdout.buffer.write(bytes(range(256)))'").json
    assert run["stdout_encoding"] == "base64"
    assert text_of(run, "stdout") == every and run["stdout_bytes"] == 256


def test_reasons(daemon, sandbox):
    run = daemon.run(sandbox, command="kill -SEGV $$").json
    assert (run["exit_code"], run["signal"], run["reason"]) == (139, 11,
                                                                "signal")
    run = daemon.run(sandbox, command="echo x; sleep 9", timeout_s=0.3).json
    assert (run["exit_code"], run["reason"]) == (124, "timeout")
    assert run["stdout"] == "x\n"
    run = daemon.run(sandbox, command="@oom").json
    assert (run["exit_code"], run["reason"]) == (137, "oom")
    run = daemon.run(sandbox, command="@poweroff").json
    assert (run["exit_code"], run["reason"]) == (-1, "lost")


@pytest.mark.parametrize("body", [
    {}, {"argv": []}, {"argv": "x"}, {"argv": [1]}, {"argv": [""]},
    {"argv": ["a", "b\0"]}, {"argv": ["a"], "command": "b"},
    {"argv": ["x"] * 1025}, {"command": "x", "cwd": 5},
    {"command": "x", "user": []}, {"command": "x", "user": "u" * 256},
    {"command": "x", "stdin": 1}, {"command": "x", "stdin_open": 1},
    {"command": "x", "timeout_s": -1}, {"command": "x", "timeout_s": 90000},
    {"command": "x", "output_limit": -1}, {"command": "x", "stream": "no"},
    {"command": "x", "output_limit": 1 << 40}, {"command": "x", "nope": 1},
    {"command": "x", "working_dir": "/"}, {"command": "x", "stdin": "a\0"}])
def test_bad_runs(daemon, sandbox, body):
    reply = daemon.run(sandbox, **body)
    assert reply.status == 422, reply.body


def test_refused_runs(daemon, sandbox):
    for body, status, code in (
            ({"argv": ["/nope"]}, 422, "cannot_execute"),
            ({"command": "x", "user": "who"}, 422, "no_such_user"),
            ({"command": "x", "cwd": "/nope"}, 404, "bad_working_dir")):
        for stream in (False, True):
            reply = daemon.run(sandbox, stream=stream, **body)
            assert reply.status == status and reply.code == code


def test_output_limit(daemon, sandbox):
    run = daemon.run(sandbox, command="echo 0123456789", output_limit=4).json
    assert run["stdout"] == "0123" and run["stdout_bytes"] == 11
    assert run["stdout_truncated"] and not run["stderr_truncated"]
    run = daemon.run(sandbox, command="echo 0123456789", output_limit=0).json
    assert run["stdout"] == "" and run["stdout_truncated"]
    conn, response, _ = open_run(daemon, sandbox, output_limit=4,
                                 command="echo 0123456789")
    lines = events(response)
    assert joined(lines, "stdout") == b"0123"
    assert lines[-1]["stdout_bytes"] == 11 and lines[-1]["stdout_truncated"]
    conn.close()


def test_stream(daemon, sandbox):
    conn, response, run_id = open_run(
        daemon, sandbox, command="printf 'a\\xff'; echo b >&2; exit 3")
    lines = events(response)
    assert joined(lines, "stdout") == b"a\xff"
    assert joined(lines, "stderr") == b"b\n"
    last = lines[-1]
    assert last["event"] == "exit" and last["id"] == run_id
    assert (last["exit_code"], last["reason"]) == (3, "exit")
    assert last["stdout_bytes"] == 2 and "stdout" not in last
    assert last["usage"]["wall_ms"]["value"] >= 0
    conn.close()


def test_stream_split_characters(daemon, sandbox):
    conn, response, _ = open_run(daemon, sandbox, command="@split")
    lines = events(response)
    assert joined(lines, "stdout") == "é€😀".encode() + b"\xe2\x82"
    assert [e["encoding"] for e in lines[:-1]] == ["utf-8"] * 3 + ["base64"]
    conn.close()


def test_stream_ends_with_the_sandbox(daemon, sandbox):
    conn, response, _ = open_run(daemon, sandbox, command="sleep 60")
    daemon.host.vm(sandbox).stop(3)
    last = events(response)[-1]
    assert last["event"] == "error" and last["error"]["code"] == "lost"
    assert "guest_panic" in last["error"]["message"]
    conn.close()


def test_stdin_text(daemon, sandbox):
    assert daemon.run(sandbox, command="cat", stdin="hällo").json[
        "stdout"] == "hällo"
    assert daemon.run(sandbox, command="cat", stdin="").json["stdout"] == ""
    big = "x" * 900000
    assert daemon.run(sandbox, command="sleep 0.2; wc -c",
                      stdin=big).json["stdout"].strip() == "900000"


def stdin(daemon, sandbox, run_id, data, query=""):
    return daemon.post(f"/v2/sandboxes/{sandbox}/runs/{run_id}/stdin{query}",
                       data)


def test_stdin(daemon, sandbox):
    conn, response, run_id = open_run(daemon, sandbox, command="cat",
                                      stdin="first,", stdin_open=True)
    assert json.loads(response.readline())["data"] == "first,"
    assert stdin(daemon, sandbox, run_id, b"second,", "?eof=0").status == 204
    assert json.loads(response.readline())["data"] == "second,"
    assert stdin(daemon, sandbox, run_id, b"third").status == 204
    lines = events(response)
    assert lines[0]["data"] == "third" and lines[-1]["exit_code"] == 0
    assert stdin(daemon, sandbox, run_id, b"late").status == 404
    conn.close()


def test_large_stdin(daemon, sandbox):
    conn, response, run_id = open_run(
        daemon, sandbox, command="sleep 0.5; wc -c", stdin_open=True)
    before = daemon.rss_kib()
    assert stdin(daemon, sandbox, run_id, b"y" * (20 << 20)).status == 204
    assert daemon.rss_kib() - before < 4096
    assert int(events(response)[0]["data"]) == 20 << 20
    conn.close()


def test_stdin_errors(daemon, sandbox):
    conn, response, run_id = open_run(daemon, sandbox, command="sleep 1")
    reply = stdin(daemon, sandbox, run_id, b"x")
    assert reply.status == 422 and reply.code == "stdin_closed"
    assert stdin(daemon, sandbox, "ex_unknown", b"x").status == 404
    other = daemon.create()
    assert stdin(daemon, other, run_id, b"x").status == 404
    conn.close()

    conn, response, run_id = open_run(daemon, sandbox, command="sleep 2",
                                      stdin_open=True)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(
        stdin(daemon, sandbox, run_id, b"z" * (20 << 20))))
    thread.start()
    time.sleep(0.5)
    reply = stdin(daemon, sandbox, run_id, b"x")
    assert reply.status == 409 and reply.code == "stdin_busy"
    conn.close()  # ends the run, and with it the writer
    thread.join(5)
    assert replies[0].status == 422 and replies[0].code == "stdin_closed"


def test_client_leaves(daemon, sandbox):
    conn, response, _ = open_run(daemon, sandbox, command="@hang")
    response.close()
    conn.close()
    assert daemon.host.hung_up.wait(2)
    vm = daemon.host.vm(sandbox)
    assert wait_until(lambda: len(vm.streams) == 1)
