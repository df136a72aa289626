# test_cli.py - brig on the command line does what its help says.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal

from support import alive_in_guest, wait_for, within

import brig

SMALL = ("--memory", "256")


def count(client):
    return client.sandboxes.list().total_items


def test_run_passes_on_everything(cli, client):
    before = count(client)
    done = cli(
        "run", *SMALL, "-e", "A=b c", "--", "bash", "-c",
        'cat; echo "$A" >&2; exit 7', stdin=b"in \xff\0 put",
    )
    assert done.stdout == b"in \xff\0 put"
    assert done.stderr.decode().splitlines()[-1] == "b c"
    assert done.returncode == 7
    assert count(client) == before, "the sandbox was deleted"


def test_run_as_json(cli):
    done = cli(
        "run", *SMALL, "--json", "--", "python3", "-c", "print(6 * 7)"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["exit_code"], result["stdout"]) == (0, "42\n")
    assert result["reason"] == "exit" and result["usage"]["wall_ms"]


def test_run_of_an_unknown_image(cli, client):
    before = count(client)
    done = cli("run", "--image", "no-such-image", "true")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"no-such-image" in done.stderr
    assert count(client) == before


def test_create_ps_status_rm(cli, client):
    created = cli("create", *SMALL, "--cpus", "0.5", "--disk", "5")
    assert created.returncode == 0, created.stderr
    id = created.stdout.decode().strip()
    try:
        sandbox = client.sandboxes.get(id)
        assert (sandbox.status, sandbox.memory) == ("running", 256)
        listed = cli("ps").stdout.decode()
        assert listed.startswith("ID ")
        (line,) = [one for one in listed.splitlines() if id in one]
        assert "running" in line and "256 MiB" in line and "0.5" in line
        assert id in cli("ps", "-q").stdout.decode().split()
        every = json.loads(cli("ps", "--json").stdout)
        assert [one["name"] for one in every if one["id"] == id] == [
            sandbox.name
        ]
        assert json.loads(cli("status", id).stdout)["status"] == "running"
    finally:
        removed = cli("rm", id)
    assert (removed.returncode, removed.stdout.decode()) == (0, f"{id}\n")
    assert cli("rm", id).returncode != 0
    assert id not in cli("ps", "-q").stdout.decode().split()


def test_exec(cli, sandbox):
    done = cli("exec", sandbox.id, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (
        0, b"out\n", b"err\n",
    )
    done = cli("exec", "-u", "user", "-w", "/tmp", sandbox.id, "sh", "-c",
               "id -un; pwd")
    assert done.stdout == b"user\n/tmp\n"


def test_exec_exit_codes(cli, sandbox):
    def code_of(*arguments):
        return cli("exec", *arguments).returncode

    assert code_of(sandbox.id, "sh", "-c", "exit 42") == 42
    assert code_of(sandbox.id, "sh", "-c", "kill -TERM $$") == 143
    assert code_of(sandbox.id, "no-such-program") == 127
    assert code_of(sandbox.id, "/etc/passwd") == 126
    with within(3, "a time-out of one second"):
        assert code_of("--timeout", "1s", sandbox.id, "sleep", "60") == 124
    assert code_of("sb_" + "0" * 24, "true") == 125


def test_exec_streams_a_lot(cli, sandbox):
    data = os.urandom(5 << 20)
    done = cli("exec", sandbox.id, "cat", stdin=data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_interrupt_ends_the_command(cli, sandbox):
    running = cli(
        "exec", sandbox.id, "sh", "-c", "echo $$; exec sleep 600", popen=True
    )
    pid = int(running.stdout.readline())
    assert alive_in_guest(sandbox, pid)
    running.send_signal(signal.SIGINT)
    assert running.wait(10) != 0
    running.communicate()
    wait_for(lambda: not alive_in_guest(sandbox, pid), 5, "end of the command")


def test_cp(cli, sandbox, tmp_path):
    content = os.urandom(200_000)
    (tmp_path / "there").write_bytes(content)
    done = cli("cp", str(tmp_path / "there"), f"{sandbox.id}:/root/a b")
    assert done.returncode == 0, done.stderr
    assert sandbox.files.read("/root/a b") == content
    done = cli("cp", f"{sandbox.id}:/root/a b", str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == content
    done = cli("cp", f"{sandbox.id}:/root/a b", "-")
    assert done.stdout == content
    done = cli("cp", f"{sandbox.id}:/no/such", str(tmp_path / "none"))
    assert done.returncode != 0 and not (tmp_path / "none").exists()


def test_logs(cli, sandbox):
    sandbox.run("echo find-me-in-the-log", timeout=20)
    wait_for(
        lambda: b"find-me-in-the-log" in cli("logs", sandbox.id).stdout,
        5,
        "a log entry",
    )
    found = json.loads(cli("logs", "--json", sandbox.id).stdout)
    assert any("find-me" in entry["command"] for entry in found)
    assert cli("logs", "--console", sandbox.id).returncode == 0


def test_wrong_key(cli):
    done = cli("ps", env={"BRIG_API_KEY": "wrong"})
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"key" in done.stderr


def test_brigd_is_not_there(cli):
    done = cli("ps", env={"BRIG_BASE_URL": "http://127.0.0.1:1"})
    assert done.returncode == 125
    assert b"127.0.0.1:1" in done.stderr


def test_wrong_use(cli, client):
    before = count(client)
    for arguments in (
        (), ("nonsense",), ("run",), ("run", "--no-such", "x"), ("exec",),
        ("exec", "../x", "true"), ("cp", "a", "b"), ("rm",),
        ("run", "--memory", "1", "true"), ("run", "--memory", "x", "true"),
    ):
        assert cli(*arguments).returncode == 2, arguments
    assert count(client) == before


def test_help_version_completion(cli):
    text = cli("help").stdout.decode()
    for command in (
        "run", "create", "exec", "ps", "cp", "rm", "logs", "host", "doctor",
    ):
        assert f"  {command} " in text
        usage = cli(command, "--help").stdout.decode()
        assert f"usage: brig {command}" in usage
    assert brig.__version__ in cli("version").stdout.decode()
    assert b"complete " in cli("completion", "bash").stdout


def test_doctor(cli):
    done = cli("doctor")
    assert done.returncode in (0, 1)
    text = done.stdout.decode().lower()
    assert "kvm" in text and "cgroup" in text
