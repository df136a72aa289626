# test_exec.py - a command's exit code, output, environment and times.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import re

import pytest
from support import in_parallel, within

ISO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


@pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
def test_exit_code(sandbox, code):
    result = sandbox.run(f"exit {code}", timeout=20)
    assert (result.exit_code, result.status) == (code, "completed")


@pytest.mark.parametrize(
    "name, number", [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("USR1", 10)]
)
def test_a_signal_is_128_and_its_number(sandbox, name, number):
    result = sandbox.run(f"kill -{name} $$; sleep 5", timeout=20)
    assert (result.exit_code, result.status) == (128 + number, "completed")


def test_command_that_is_not_there(sandbox):
    result = sandbox.run("no-such-program --x", timeout=20)
    assert result.exit_code == 127
    assert "no-such-program" in result.stderr


def test_stdout_and_stderr_are_not_mixed(sandbox):
    result = sandbox.run(
        "for i in 1 2 3; do echo out $i; echo err $i >&2; done", timeout=20
    )
    assert result.stdout == "out 1\nout 2\nout 3\n"
    assert result.stderr == "err 1\nerr 2\nerr 3\n"


def test_nothing_is_added_to_the_output(sandbox):
    result = sandbox.run("printf 'no newline'; printf '\\r\\n\\t' >&2")
    assert (result.stdout, result.stderr) == ("no newline", "\r\n\t")
    result = sandbox.run("true")
    assert (result.stdout, result.stderr) == ("", "")


def test_environment(sandbox):
    result = sandbox.run(
        'printf "%s|" "$FROM_CREATE" "$OVERRIDDEN" "$ONLY_HERE" "$HOME"',
        env={"OVERRIDDEN": "run", "ONLY_HERE": "a \"b\"\n$c é"},
        timeout=20,
    )
    assert result.stdout == 'créé|run|a "b"\n$c é|/root|'
    after = sandbox.run('printf "%s|" "$OVERRIDDEN" "$ONLY_HERE"', timeout=20)
    assert after.stdout == "create||"


def test_user_and_directory(sandbox):
    result = sandbox.run("id -un; pwd", timeout=20)
    assert result.stdout == "root\n/root\n"
    result = sandbox.run("pwd", working_dir="/usr/share", timeout=20)
    assert result.stdout == "/usr/share\n"


def test_it_is_bash_with_pipes(sandbox):
    result = sandbox.run(
        "[[ abc == a* ]] && echo a b | tr ' ' '\\n' | wc -l", timeout=20
    )
    assert (result.stdout.strip(), result.exit_code) == ("2", 0)


def test_stdin_is_empty(sandbox):
    result = sandbox.run("cat; echo done", timeout=20)
    assert (result.stdout, result.status) == ("done\n", "completed")


def test_output_that_is_not_utf8(sandbox):
    result = sandbox.run(r"printf 'a\377b\303'; printf 'x\0y' >&2", timeout=20)
    assert (result.stdout, result.stderr) == ("a\ufffdb\ufffd", "x\0y")


def test_ids_and_times(sandbox):
    result = sandbox.run("sleep 0.3", timeout=20)
    other = sandbox.run("true", timeout=20)
    assert result.id.startswith("ex_") and result.id != other.id
    assert ISO.match(result.created_at) and ISO.match(result.completed_at)
    assert result.created_at < result.completed_at <= other.completed_at
    assert 300 <= result.execution_time_ms < 3000


def test_three_megabytes_in_one_reply(sandbox):
    result = sandbox.run(
        "python3 -c \"import sys; [sys.stdout.write('%07d\\n' % i) "
        'for i in range(393216)]"',
        timeout=60,
    )
    expected = b"".join(b"%07d\n" % i for i in range(393216))
    got = result.stdout.encode()
    assert len(got) == len(expected)
    assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest()


def test_a_long_command(sandbox):
    text = "é" * 50_000  # 100,000 bytes
    result = sandbox.run(f"printf %s '{text}'", timeout=20)
    assert result.stdout == text


def test_eight_commands_side_by_side(sandbox):
    def one(number):
        return sandbox.run(f"sleep 1; echo {number}", timeout=30).stdout

    with within(6, "eight sleeps of a second"):
        got = in_parallel([lambda n=n: one(n) for n in range(8)])
    assert got == [f"{n}\n" for n in range(8)]


def test_unknown_fields_are_ignored_in_part_1(api, sandbox):
    reply = api(
        "POST",
        f"/v1/sandboxes/{sandbox.id}/execute",
        {"command": "echo ok", "new_field": {"x": 1}},
    )
    assert (reply.status, reply.json()["stdout"]) == (200, "ok\n")


def test_every_promised_field(api, sandbox):
    reply = api(
        "POST", f"/v1/sandboxes/{sandbox.id}/execute", {"command": "exit 3"}
    )
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-request-id"]
    assert {
        "id", "created_at", "completed_at", "execution_time_ms", "exit_code",
        "status", "stdout", "stderr",
    } <= set(reply.json())


def test_programs_of_the_default_image(sandbox):
    result = sandbox.run(
        "for p in python3 pip node npm bash git curl gcc make sudo; do "
        "command -v $p >/dev/null || echo no $p; done; "
        "python3 -c 'import venv, ensurepip'; . /etc/os-release; "
        "echo $ID $VERSION_ID",
        timeout=60,
    )
    assert result.stdout == "debian 12\n", result.stderr
    assert result.stderr == ""


def test_compile_and_run_c(sandbox):
    result = sandbox.run(
        "cd /tmp && printf '#include <stdio.h>\\nint main(void)"
        "{ printf(\"%%d\\\\n\", 6 * 7); return 5; }' >a.c && "
        "make -s a CFLAGS=-O1 && ./a",
        timeout=60,
    )
    assert (result.stdout, result.exit_code) == ("42\n", 5), result.stderr


def test_node(sandbox):
    result = sandbox.run("node -p 'JSON.stringify([6 * 7])'", timeout=60)
    assert result.stdout == "[42]\n"
