# test_runs.py - runs of part 2: argv, user, stdin, exact bytes, cost.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os

import pytest
from support import MIB, alive_in_guest, wait_for, within

import brig


def test_arguments_arrive_as_they_are(sandbox):
    given = ["a b", "", "*", "$HOME", "é\n'\""]
    result = sandbox.runs(["printf", "%s|", *given], timeout_s=20)
    assert result.stdout == "".join(f"{one}|" for one in given)
    assert (result.exit_code, result.reason, result.signal) == (0, "exit", None)
    assert result.id.startswith("ex_") and result.sandbox_id == sandbox.id


def test_a_shell_line(sandbox):
    result = sandbox.runs(command="echo a | tr a b", timeout_s=20)
    assert result.stdout == "b\n"


def test_environment_and_directory(sandbox):
    result = sandbox.runs(
        ["sh", "-c", "echo $A; pwd"], env={"A": "1"}, cwd="/tmp", timeout_s=20
    )
    assert result.stdout == "1\n/tmp\n"


def test_another_user(sandbox):
    result = sandbox.runs(
        command="id -un; pwd; echo $HOME; touch x && echo wrote; rm x; "
        "cat /etc/shadow",
        user="user",
        timeout_s=20,
    )
    assert result.stdout == "user\n/home/user\n/home/user\nwrote\n"
    assert "ermission denied" in result.stderr
    result = sandbox.runs(["sudo", "-n", "id", "-u"], user="user", timeout_s=20)
    assert result.stdout == "0\n", result.stderr


def test_a_user_that_is_not_there(sandbox):
    with pytest.raises(brig.APIError) as caught:
        sandbox.runs(["true"], user="nobody-of-this-name", timeout_s=20)
    assert caught.value.status == 422
    assert "user" in caught.value.message


def test_stdin_as_text(sandbox):
    result = sandbox.runs(["sort"], stdin="b\né\na\n", timeout_s=20)
    assert result.stdout == "a\nb\né\n"


def test_bytes_that_are_no_text(sandbox):
    result = sandbox.runs(command=r"printf 'a\377\0b'; printf é >&2")
    assert result.stdout_raw == b"a\xff\0b"
    assert result.stderr_raw == "é".encode()
    assert (result.stdout_bytes, result.stderr_bytes) == (4, 2)
    assert not result.stdout_truncated


def test_a_signal(sandbox):
    result = sandbox.runs(command="kill -TERM $$; sleep 5", timeout_s=20)
    assert (result.reason, result.signal, result.exit_code) == (
        "signal", 15, 143,
    )


def test_a_timeout(sandbox):
    with within(2.5, "a run of one second"):
        result = sandbox.runs(command="echo so far; sleep 60", timeout_s=1)
    assert (result.reason, result.exit_code) == ("timeout", 124)
    assert result.stdout == "so far\n"


def test_output_limit(sandbox):
    result = sandbox.runs(
        command="head -c 100000 /dev/zero | tr '\\0' x; echo short >&2",
        output_limit=1000,
        timeout_s=20,
    )
    assert result.stdout == "x" * 1000
    assert (result.stdout_bytes, result.stdout_truncated) == (100_000, True)
    assert (result.stderr, result.stderr_truncated) == ("short\n", False)
    assert result.exit_code == 0


def test_what_a_run_costs(sandbox):
    result = sandbox.runs(
        ["python3", "-c", "b = b'x' * (60 << 20); sum(range(10**6))"],
        timeout_s=60,
    )
    usage = result.check().usage
    assert usage.wall_ms.source == usage.vcpu_ms.source == "host"
    assert usage.cpu_ms.source == usage.memory_peak_bytes.source == "guest"
    assert usage.disk_read_bytes.source == "host"
    assert 50 < usage.cpu_ms.value <= usage.wall_ms.value * 1.1 + 20
    assert 50 < usage.vcpu_ms.value <= usage.wall_ms.value * 1.5 + 100
    assert 60 * MIB < usage.memory_peak_bytes.value < 120 * MIB


def test_out_of_memory(new_sandbox):
    small = new_sandbox(memory=192)
    result = small.runs(
        ["python3", "-c", "a = []\nwhile True: a.append(b'x' * (8 << 20))"],
        timeout_s=60,
    )
    assert (result.reason, result.exit_code) == ("oom", 137)
    assert small.run("echo fine", timeout=20).stdout == "fine\n"


def test_events_of_a_stream(sandbox):
    run = sandbox.start(
        command="printf abc; printf err >&2; sleep 0.3; printf def; exit 4",
        timeout_s=20,
    )
    assert run.pid > 1
    events = list(run)
    for name, text in (("stdout", b"abcdef"), ("stderr", b"err")):
        offset = 0
        for event in events:
            if event.name == name:
                assert event.offset == offset
                offset += len(event.data)
        assert b"".join(e.data for e in events if e.name == name) == text
    assert run.result.id == run.id
    assert (run.result.exit_code, run.result.reason) == (4, "exit")
    assert (run.result.stdout_bytes, run.result.stderr_bytes) == (6, 3)


def test_a_conversation(sandbox):
    run = sandbox.start(
        command="while read -r line; do echo \"got $line\"; done; echo end",
        stdin_open=True,
        timeout_s=30,
    )
    for word in ("one", "two"):
        run.write(f"{word}\n".encode())
        assert next(run).data == f"got {word}\n".encode()
    run.write(b"", eof=True)
    assert next(run).data == b"end\n"
    assert run.wait().exit_code == 0


def test_binary_both_ways(sandbox):
    data = os.urandom(3 * MIB)
    run = sandbox.start(["cat"], stdin_open=True, timeout_s=60)
    # cat's output waits until somebody reads it, so write beside reading
    from support import Later

    writing = Later(lambda: run.write(data, eof=True))
    got = b"".join(event.data for event in run)
    writing.result(10)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert run.result.stdout_bytes == len(data)


def test_closing_kills_the_run(sandbox):
    run = sandbox.start(["sleep", "600"])
    assert alive_in_guest(sandbox, run.pid)
    run.close()
    wait_for(
        lambda: not alive_in_guest(sandbox, run.pid), 3, "end of the process"
    )


def test_unknown_fields_are_refused(api, sandbox):
    reply = api(
        "POST",
        f"/v2/sandboxes/{sandbox.id}/runs",
        {"argv": ["true"], "comand": "x"},
    )
    assert reply.status == 422
    assert "comand" in reply.json()["error"]["message"]


def test_every_promised_field(api, sandbox):
    reply = api(
        "POST", f"/v2/sandboxes/{sandbox.id}/runs", {"argv": ["true"]}
    )
    assert reply.status == 200
    assert {
        "id", "sandbox_id", "exit_code", "signal", "reason", "created_at",
        "completed_at", "usage", "stdout", "stdout_encoding", "stdout_bytes",
        "stdout_truncated", "stderr", "stderr_encoding", "stderr_bytes",
        "stderr_truncated",
    } <= set(reply.json())
    assert set(reply.json()["usage"]) >= {
        "wall_ms", "vcpu_ms", "cpu_ms", "memory_peak_bytes",
        "disk_read_bytes", "disk_write_bytes",
    }
