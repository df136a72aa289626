"""test_cli.py - the command line against a server that only speaks the API.

SPDX-License-Identifier: Apache-2.0
"""
import base64
import calendar
import json
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import time

import pytest

from driver import BRIG, ROOT, brig, environment, on_terminal, start, wait_until
from fake_brigd import KEY, Server

MAN = ROOT / "docs/man/brig.1"


# --- run: output, exit codes ------------------------------------------------


def test_run_creates_runs_deletes(fake):
    p = brig(fake, "run", "echo", "hello", "-n", "--image", "x")
    assert (p.returncode, p.out, p.err) == (
        0, b"hello -n --image x\n", b"")
    assert fake.deleted == ["sb_%024d" % 1] and not fake.sandboxes
    assert fake.body_of("POST", "/create") == {
        "resources": {}, "wait_for_ready": True}


def test_run_bytes_are_exact(fake):
    p = brig(fake, "run", "bytes")
    assert p.returncode == 3
    assert p.out == "zero \0, snowman \u2603, escape \x1b[31m\n".encode() \
        + bytes(range(256))
    assert p.err == bytes(reversed(range(256)))


def test_run_much_output(fake):
    p = brig(fake, "run", "much", "200")
    assert p.returncode == 0
    assert p.out == bytes(range(256)) * 128 * 200


def test_run_passes_what_was_asked(fake):
    p = brig(fake, "run", "--image", "alpine", "--cpus", "1.5", "--memory",
             "256", "--disk", "20", "--env", "A=1", "-e", "B=x=y", "--user",
             "nobody", "--cwd", "/srv", "--timeout", "1.5", "--", "echo",
             "--", "-x")
    assert (p.returncode, p.out) == (0, b"-- -x\n")
    created = fake.body_of("POST", "/create")
    assert created["image"] == "alpine"
    assert created["resources"] == {"cpus": 6, "memory": 256, "storage": 20}
    assert fake.body_of("POST", "/runs") == {
        "argv": ["echo", "--", "-x"], "env": {"A": "1", "B": "x=y"},
        "user": "nobody", "cwd": "/srv", "timeout_s": 1.5, "stream": True,
        "stdin_open": True}


@pytest.mark.parametrize("fields, code, said", [
    ({"exit_code": 255}, 255, b""),
    ({"exit_code": 139, "signal": 11, "reason": "signal"}, 139, b""),
    ({"exit_code": 124, "reason": "timeout"}, 124, b"longer than allowed"),
    ({"exit_code": 137, "signal": 9, "reason": "oom"}, 137, b"memory"),
    ({"exit_code": -1, "reason": "lost", "error": "guest panicked"}, 125,
     b"guest panicked"),
    ({"exit_code": None}, 125, b""),
    ({"exit_code": 4096}, 125, b""),
    ({"stdout_truncated": True, "stdout_bytes": 99}, 0,
     b"stdout was cut: the command wrote 99 bytes"),
])
def test_run_exit_codes(fake, fields, code, said):
    p = brig(fake, "run", "result", json.dumps(fields))
    assert p.returncode == code and said in p.err
    assert len(fake.deleted) == 1


@pytest.mark.parametrize("args, code", [
    (("fail", "cannot_execute", "2"), 127),
    (("fail", "cannot_execute", "13"), 126),
    (("fail", "no_such_user", "2"), 125),
    (("refuse", "2"), 127),
    (("refuse", "13"), 126),
    (("junk",), 125),
    (("no_json",), 125),
    (("long_line",), 125),
    (("no_end",), 125),
])
def test_run_that_cannot_run(fake, args, code):
    p = brig(fake, "run", *args)
    assert p.returncode == code and p.err.startswith(b"brig: ")
    assert b"\x1b" not in p.err and b"\x07" not in p.err
    assert len(fake.deleted) == 1


def test_run_that_cannot_be_created(fake):
    p = brig(fake, "run", "--image", "missing", "echo")
    assert p.returncode == 125 and b"no image \\x1b[2Jmissing" in p.err
    assert fake.deleted == []


def test_run_keep(fake):
    p = brig(fake, "run", "--keep", "exit", "7")
    assert p.returncode == 7 and b"kept sandbox sb_" in p.err
    assert fake.deleted == [] and len(fake.sandboxes) == 1


def test_run_that_cannot_delete_says_so(fake):
    fake.delete_status = 500
    p = brig(fake, "run", "exit", "0")
    assert p.returncode == 125 and b"deleting sb_" in p.err
    p = brig(fake, "run", "exit", "7")
    assert p.returncode == 7


def test_run_json(fake):
    p = brig(fake, "run", "--json", "bytes")
    got = json.loads(p.out)
    assert p.returncode == 3 and p.err == b""
    assert got["exit_code"] == 3 and got["reason"] == "exit"
    assert got["usage"]["wall_ms"]["source"] == "host"
    assert got["stdout_encoding"] == got["stderr_encoding"] == "base64"
    assert base64.b64decode(got["stderr"]) == bytes(reversed(range(256)))
    assert base64.b64decode(got["stdout"]).endswith(bytes(range(256)))
    assert "event" not in got and got["id"].startswith("ex_")


def test_run_json_text(fake):
    p = brig(fake, "run", "--json", "cat", input="caf\u00e9\0\n".encode())
    got = json.loads(p.out)
    assert (got["stdout"], got["stdout_encoding"]) == ("caf\u00e9\0\n",
                                                       "utf-8")


# --- standard input ---------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_stdin_goes_in(fake, size):
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    p = brig(fake, "run", "cat", input=data)
    assert p.returncode == 0 and p.err == b"" and p.out == data


def test_stdin_streams(fake):
    """Each line comes back before the next is written."""
    p = start(fake, "run", "cat", stdin=subprocess.PIPE)
    for i in range(20):
        line = b"line %d\n" % i
        p.stdin.write(line)
        p.stdin.flush()
        assert p.stdout.readline() == line
    p.stdin.close()
    assert p.wait(10) == 0
    (run,) = fake.runs.values()
    assert run.stdin_posts == 2  # the bytes, and the end


def test_stdin_survives_silence(fake):
    """An idle input ends its request, not the input."""
    p = start(fake, "run", "cat", stdin=subprocess.PIPE)
    p.stdin.write(b"one\n")
    p.stdin.flush()
    assert p.stdout.readline() == b"one\n"
    time.sleep(6.5)
    p.stdin.write(b"two\n")
    p.stdin.flush()
    assert p.stdout.readline() == b"two\n"
    p.stdin.close()
    assert p.wait(10) == 0
    (run,) = fake.runs.values()
    assert run.stdin_posts == 3


def test_stdin_that_never_ends(fake):
    p = start(fake, "run", "exit", "5", stdin=subprocess.PIPE)
    assert p.wait(10) == 5
    p.stdin.close()


def test_stdin_that_the_command_leaves(fake):
    p = start(fake, "run", "head", stdin=subprocess.PIPE)
    p.stdin.write(b"abcdefgh")
    p.stdin.flush()
    assert p.wait(10) == 0 and p.stdout.read() == b"abcd"


def test_stdin_that_cannot_be_read(fake):
    fd = os.open("/", os.O_RDONLY)
    p = brig(fake, "run", "cat", stdin=fd)
    os.close(fd)
    assert p.returncode == 0 and b"standard input: Is a directory" in p.err


def test_stdin_closed(fake):
    p = brig(fake, "run", "cat", preexec_fn=lambda: os.close(0), stdin=None)
    assert p.returncode == 0


def test_stdin_of_a_terminal(fake):
    master, slave = pty.openpty()
    p = brig(fake, "run", "exit", "0", stdin=slave)
    assert p.returncode == 0
    assert fake.body_of("POST", "/runs")["stdin_open"] is False
    p = start(fake, "run", "-i", "cat", stdin=slave)
    os.write(master, b"typed\n")
    assert p.stdout.readline() == b"typed\n"
    os.write(master, b"\x04")
    assert p.wait(10) == 0
    os.close(master)
    os.close(slave)


# --- signals and readers that go away ---------------------------------------


def only_run(fake):
    wait_until(lambda: fake.runs)
    return next(iter(fake.runs.values()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM,
                                    signal.SIGHUP])
def test_signal_ends_run_and_sandbox(fake, number):
    p = start(fake, "run", "sleep")
    assert p.stdout.readline() == b"sleeping\n"
    p.send_signal(number)
    assert p.wait(10) == 128 + number
    assert only_run(fake).cut.wait(5)
    assert len(fake.deleted) == 1 and not fake.sandboxes


def test_signal_while_creating(fake):
    """Nobody knows the id yet: wait for it, then delete."""
    fake.create_delay = 1
    p = start(fake, "run", "sleep")
    wait_until(lambda: fake.paths("POST"))
    p.send_signal(signal.SIGINT)
    assert p.wait(10) == 130
    assert len(fake.deleted) == 1 and not fake.runs


def test_second_signal_while_creating(fake):
    fake.create_delay = 5
    p = start(fake, "run", "sleep")
    wait_until(lambda: fake.paths("POST"))
    p.send_signal(signal.SIGINT)
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    assert p.wait(3) == 130
    assert b"a sandbox may be left" in p.stderr.read()


def test_signal_ends_exec_but_not_the_sandbox(fake):
    sid = fake.make()
    p = start(fake, "exec", sid, "sleep")
    assert p.stdout.readline() == b"sleeping\n"
    p.send_signal(signal.SIGTERM)
    assert p.wait(10) == 143
    assert only_run(fake).cut.wait(5) and sid in fake.sandboxes


def test_reader_that_goes_away(fake):
    p = start(fake, "run", "flood")
    p.stdout.read(10)
    p.stdout.close()
    assert p.wait(10) == 128 + signal.SIGPIPE
    assert only_run(fake).cut.wait(5) and len(fake.deleted) == 1


def test_signal_while_nobody_reads(fake):
    p = start(fake, "run", "flood")
    only_run(fake)
    time.sleep(0.5)  # the pipe is full
    p.send_signal(signal.SIGTERM)
    assert p.wait(10) == 143 and len(fake.deleted) == 1


def test_output_nowhere_to_go(fake):
    with open("/dev/full", "wb") as full:
        p = brig(fake, "run", "bytes", stdout=full)
    assert p.returncode == 125 and b"No space left" in p.err
    with open("/dev/full", "wb") as full:
        p = brig(fake, "ps", stdout=full)
    assert p.returncode == 125


# --- exec ---------------------------------------------------------------------


def test_exec(fake):
    sid = fake.make()
    p = brig(fake, "exec", "-e", "A=1", sid, "--", "echo", "-i")
    assert (p.returncode, p.out) == (0, b"-i\n")
    p = brig(fake, "exec", "--json", sid, "exit", "9")
    assert p.returncode == 9 and json.loads(p.out)["exit_code"] == 9
    assert fake.deleted == []


def test_exec_not_running(fake):
    sid = fake.make(status="stopped")
    p = brig(fake, "exec", sid, "echo")
    assert p.returncode == 125 and b"it is stopped" in p.err
    p = brig(fake, "exec", "sb_no", "echo")
    assert p.returncode == 125 and b"no sandbox sb_no" in p.err


@pytest.mark.parametrize("args", [
    ("exec",), ("exec", "a/b", "echo"), ("exec", "sb_1"),
    ("exec", "sb_1", "--"), ("run",), ("run", "--"), ("run", "--nope", "x"),
    ("run", "--memory", "1", "x"), ("run", "--cpus", "0.3", "x"),
    ("run", "--timeout", "0", "x"), ("run", "--env", "A", "x"),
    ("run", "--env"), ("create", "x"), ("rm",), ("rm", "--all", "sb_1"),
    ("rm", "../x"), ("cp", "a", "b"), ("cp", "sb_1:a", "sb_2:b"),
    ("cp", "sb_1:a"), ("cp", "sb_1:", "b"), ("cp", "a b:c", "d"),
    ("status",), ("status", "a?b"), ("logs", "--console"),
    ("logs", "a", "b"), ("logs", "--limit", "0"), ("logs", "--since", "x"),
    ("host",), ("completion",), ("completion", "fish"), ("help", "nope"),
    ("nope",), (), ("version", "x"), ("doctor", "x"), ("ps", "x"),
])
def test_wrong_usage_asks_nothing_of_the_server(fake, args):
    p = brig(fake, *args)
    assert p.returncode == 2 and (p.err.startswith(b"brig: ") or not args)
    assert fake.requests == []


# --- create, ps, rm, status ----------------------------------------------------


def test_create(fake):
    p = brig(fake, "create", "--name", "builder", "--no-wait", "-e", "A=b")
    assert (p.returncode, p.out) == (0, b"sb_%024d\n" % 1)
    assert fake.body_of("POST", "/create") == {
        "name": "builder", "wait_for_ready": False, "env_vars": {"A": "b"},
        "resources": {}}
    p = brig(fake, "create", "--json")
    assert json.loads(p.out)["status"] == "running"


def test_ps(fake):
    fake.make(cpu=1, name="evil\x1b]0;x\x07\n\u202egpj", status="failed")
    fake.make(cpu=6, memory=None, created_at="not a time")
    p = brig(fake, "ps")
    lines = p.out.decode().splitlines()
    assert p.returncode == 0 and len(lines) == 3
    assert lines[0].split() == ["ID", "NAME", "STATUS", "CPU", "MEMORY",
                                "DISK", "CREATED"]
    assert "evil\\x1b]0;x\\x07\\x0a\\xe2\\x80\\xaegpj" in lines[1]
    assert " 0.25 " in lines[1] and "512 MiB" in lines[1]
    assert lines[1].endswith(" ago")
    assert " 1.5 " in lines[2] and lines[2].endswith("not a time")
    assert lines[0].index("STATUS") == lines[1].index("failed")
    p = brig(fake, "ps", "-q")
    assert p.out.decode().split() == list(fake.sandboxes)
    p = brig(fake, "ps", "--json")
    assert json.loads(p.out) == list(fake.sandboxes.values())


def test_ps_pages(fake):
    ids = [fake.make() for _ in range(250)]
    p = brig(fake, "ps", "--quiet")
    assert p.out.decode().split() == ids
    assert len(fake.paths("GET")) == 3


def test_rm(fake):
    a, b, c = (fake.make() for _ in range(3))
    p = brig(fake, "rm", a, "sb_no", b)
    assert p.returncode == 125 and p.out.decode().split() == [a, b]
    assert b"deleting sb_no: no sandbox sb_no (not_found)" in p.err
    assert list(fake.sandboxes) == [c]
    fake.sandboxes[fake.make()]["stuck"] = True
    p = brig(fake, "rm", "--all")
    assert p.returncode == 125 and p.out.decode().split() == [c]
    assert b"busy" in p.err


@pytest.mark.parametrize("name", ["status", "inspect"])
def test_status(fake, name):
    sid = fake.make(name="x\x1b[31m")
    p = brig(fake, name, sid)
    assert p.returncode == 0 and json.loads(p.out)["id"] == sid
    assert b"\x1b" not in p.out
    assert brig(fake, name, "sb_no").returncode == 125


# --- cp ------------------------------------------------------------------------


def test_cp_both_ways(fake, tmp_path):
    sid = fake.make()
    data = os.urandom(300000)
    (tmp_path / "in").write_bytes(data)
    p = brig(fake, "cp", str(tmp_path / "in"), sid + ":/srv/a b&c=d")
    assert (p.returncode, p.out, p.err) == (0, b"", b"")
    assert fake.files == {"/srv/a b&c=d": data}
    p = brig(fake, "cp", sid + ":/srv/a b&c=d", str(tmp_path / "out"))
    assert p.returncode == 0 and (tmp_path / "out").read_bytes() == data


def test_cp_standard_streams(fake):
    sid = fake.make()
    data = os.urandom(200000)
    p = brig(fake, "cp", "-", sid + ":x", input=data)
    assert p.returncode == 0, p.err
    assert fake.files == {"x": data}
    p = brig(fake, "cp", sid + ":x", "-")
    assert (p.returncode, p.out) == (0, data)


def test_cp_slow_standard_input(fake):
    sid = fake.make()
    p = start(fake, "cp", "-", sid + ":x", stdin=subprocess.PIPE)
    for part in (b"a", b"b", b"c"):
        p.stdin.write(part)
        p.stdin.flush()
        time.sleep(0.2)
    p.stdin.close()
    assert p.wait(10) == 0 and fake.files == {"x": b"abc"}


def test_cp_empty_file(fake, tmp_path):
    sid = fake.make()
    (tmp_path / "in").touch()
    assert brig(fake, "cp", str(tmp_path / "in"), sid + ":e").returncode == 0
    assert fake.files == {"e": b""}
    assert brig(fake, "cp", sid + ":e", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_cp_into_a_directory(fake, tmp_path):
    sid = fake.make()
    fake.files["../../etc/name"] = b"x"
    p = brig(fake, "cp", sid + ":../../etc/name", str(tmp_path))
    assert p.returncode == 0
    assert [f.name for f in tmp_path.iterdir()] == ["name"]
    p = brig(fake, "cp", sid + ":/etc/..", str(tmp_path))
    assert p.returncode == 125 and b"Is a directory" in p.err


def test_cp_of_a_directory(fake, tmp_path):
    p = brig(fake, "cp", str(tmp_path), fake.make() + ":x")
    assert p.returncode == 125 and b"is a directory" in p.err
    assert b"tar" in p.err and fake.requests == []
    fake.files["/etc"] = None
    p = brig(fake, "cp", fake.make() + ":/etc", str(tmp_path / "out"))
    assert p.returncode == 125 and b"is a directory" in p.err
    assert b"tar" in p.err and not (tmp_path / "out").exists()


def test_cp_failures_leave_no_half_file(fake, tmp_path):
    sid = fake.make()
    fake.files["/broken"] = b"half"
    out = tmp_path / "out"
    for path in ("/broken", "/missing"):
        p = brig(fake, "cp", sid + ":" + path, str(out))
        assert p.returncode == 125 and path.encode() in p.err
        assert not out.exists()
    out.write_bytes(b"old")
    brig(fake, "cp", sid + ":/missing", str(out))
    assert out.read_bytes() == b"old"
    p = brig(fake, "cp", str(tmp_path / "none"), sid + ":x")
    assert p.returncode == 125 and b"No such file" in p.err
    p = brig(fake, "cp", str(out), sid + ":/short")
    assert p.returncode == 125 and b"not all were stored" in p.err


# --- logs ------------------------------------------------------------------------


def test_logs(fake):
    fake.logs = [{"command": "rm -rf \x1b[2J/", "execution_time_ms": 12,
                  "exit_code": 1, "sandbox_id": "sb_1", "status": "completed",
                  "timestamp": "2026-01-31T12:00:00.000Z", "stdout": "out"}]
    p = brig(fake, "logs", "--limit", "5", "--since", "10m", "sb_1")
    assert p.returncode == 0
    assert b"rm -rf \\x1b[2J/" in p.out and b"12 ms" in p.out
    query = fake.paths("GET")[-1]
    assert "limit=5" in query and "sandbox_id=sb_1" in query
    then = re.search(r"from=(\d+-\d+-\d+T\d+:\d+:\d+)\.\d{3}Z", query)[1]
    age = time.time() - calendar.timegm(
        time.strptime(then, "%Y-%m-%dT%H:%M:%S"))
    assert 595 < age < 660
    p = brig(fake, "logs", "--json")
    assert json.loads(p.out) == fake.logs
    assert "from=" not in fake.paths("GET")[-1]


def test_logs_console(fake):
    fake.console = b"boot\r\n\x1b[31mred\x00\n"
    sid = fake.make()
    p = brig(fake, "logs", "--console", sid)
    assert (p.returncode, p.out) == (0, fake.console)
    shown = on_terminal(fake, "logs", "--console", sid)[1]
    assert shown == b"boot\r\n\\x1b[31mred\\x00\r\n"


# --- terminals ---------------------------------------------------------------------


def test_terminal_shows_progress(fake):
    fake.create_delay = 1.6
    code, shown = on_terminal(fake, "create")
    assert code == 0 and b"\rcreating sandbox ... 1 s" not in shown[:1]
    assert b"creating sandbox ... 1 s" in shown
    assert shown.endswith(b"\r\x1b[Ksb_%024d\r\n" % 1)
    p = brig(fake, "create")
    assert p.err == b""


def test_terminal_fast_is_silent(fake):
    assert on_terminal(fake, "create")[1] == b"sb_%024d\r\n" % 1


def test_terminal_json_is_ascii(fake):
    fake.make(name="caf\u00e9\u202e")
    shown = on_terminal(fake, "ps", "--json")[1]
    assert b"caf\\u00E9\\u202E" in shown and shown.isascii()


def test_colours(fake, libexec):
    env = {"BRIG_LIBEXEC": libexec("hardware")}
    assert b"\x1b[3" in on_terminal(fake, "doctor", env=env)[1]
    assert b"\x1b" not in on_terminal(
        fake, "doctor", env={**env, "NO_COLOR": "1"})[1]
    assert b"\x1b" not in on_terminal(
        fake, "doctor", env={**env, "TERM": "dumb"})[1]
    assert b"\x1b" not in brig(fake, "doctor", env=env).out


# --- address and key ------------------------------------------------------------------


def test_key_is_sent(fake):
    brig(fake, "ps")
    assert fake.requests[0][2]["x-api-key"] == KEY


def test_wrong_key(fake):
    p = brig(fake, "ps", env={"BRIG_API_KEY": "wrong-key-000"})
    assert p.returncode == 125 and b"refuses the API key" in p.err
    assert b"wrong-key-000" not in p.err


def test_key_of_the_host_vm(fake, tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "qemu.pid").touch()
    env = {"BRIG_API_KEY": None, "BRIG_HOST_DIR": str(tmp_path)}
    assert brig(fake, "ps", env=env).returncode == 0
    (tmp_path / "key").write_text("another\n")
    p = brig(fake, "ps", env=env)
    assert p.returncode == 125 and b"another" not in p.err
    assert str(tmp_path / "key").encode() in p.err


def test_key_files_stay_on_this_machine(tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "qemu.pid").touch()
    with Server("127.0.0.2") as fake:
        p = brig(fake, "ps", env={"BRIG_API_KEY": None,
                                  "BRIG_HOST_DIR": str(tmp_path)})
        assert p.returncode == 125
        assert b"wants an API key: set BRIG_API_KEY" in p.err
        assert "x-api-key" not in fake.requests[0][2]


@pytest.mark.parametrize("key", ["a\nX-Evil: 1", "a b", "k\u00e9y",
                                 "x" * 600])
def test_key_that_is_none(fake, key):
    p = brig(fake, "ps", env={"BRIG_API_KEY": key})
    assert p.returncode == 125 and b"API key" in p.err
    assert fake.requests == []


def test_nobody_answers():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d" % s.getsockname()[1]
        p = brig(None, "run", "echo", env={"BRIG_BASE_URL": url})
    assert p.returncode == 125 and url.encode() in p.err
    assert b"brig host start" in p.err and b"brigd(8)" in p.err


def test_base_url(fake):
    p = brig(fake, "ps", env={"BRIG_BASE_URL": fake.url + "/"})
    assert p.returncode == 0 and fake.paths("GET")[0].startswith("/v1/")
    p = brig(fake, "ps", env={"BRIG_BASE_URL": "file:///etc/passwd"})
    assert p.returncode == 125 and b"http://" in p.err


def test_proxy_never_sees_the_key(fake):
    env = {name: "http://127.0.0.1:1" for name in
           ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")}
    assert brig(fake, "ps", env=env).returncode == 0


# --- host, doctor -------------------------------------------------------------------------


@pytest.fixture
def libexec(tmp_path):
    def make(kvm, **more):
        probe = json.dumps({"kvm": kvm, "api": 12,
                            "iterations_per_s": 800000, "reason": "",
                            **more})
        for name, text in (("brig-vmm", "echo '%s'" % probe),
                           ("brig-host", 'echo "$0 $@"; exit 7')):
            path = tmp_path / name
            path.write_text("#!/bin/sh\n%s\n" % text)
            path.chmod(0o755)
        return str(tmp_path)
    return make


def test_host_hands_over(libexec):
    where = libexec("none")
    p = brig(None, "host", "ssh", "--", "-v", "ls", env={
        "BRIG_LIBEXEC": where})
    assert p.returncode == 7
    assert p.out.decode() == where + "/brig-host ssh -- -v ls\n"
    p = brig(None, "host", "start", env={"BRIG_LIBEXEC": "/nowhere"})
    assert p.returncode == 125 and b"not installed" in p.err


def doctor(fake, where, *path):
    p = brig(fake, "doctor", "--json", env={
        "BRIG_LIBEXEC": where, "PATH": ":".join(path) or "/nowhere"})
    return p.returncode, json.loads(p.out)


def test_doctor_with_a_server_that_works(fake, libexec):
    code, got = doctor(fake, libexec("hardware"))
    assert code == 0 and got["verdict"] == "running"
    assert got["kvm"] == {"kind": "hardware", "iterations_per_s": 800000}
    names = [c["name"] for c in got["checks"]]
    assert len(names) == len(set(names)) and {
        "cpu", "/dev/kvm", "kvm", "kernel", "cgroup v2", "memory", "disk",
        "qemu", "brig-host", "api"} <= set(names)
    assert all(c["level"] in ("ok", "warn", "missing") and c["text"]
               for c in got["checks"])


def test_doctor_when_kvm_is_emulated(fake, libexec, tmp_path):
    fake.kvm = "emulated"
    where = libexec("emulated")
    qemu = tmp_path / "bin/qemu-system-x86_64"
    qemu.parent.mkdir()
    qemu.write_text("")
    qemu.chmod(0o755)
    code, got = doctor(fake, where, str(qemu.parent))
    assert code == 0 and got["verdict"] == "host_vm", got
    assert got["summary"] == (
        "this machine: /dev/kvm emulates guest kernel code (0.8 M "
        "iterations/s): sandboxes run in the host VM (`brig host start`)")
    code, got = doctor(fake, where, str(tmp_path / "none"))
    assert code == 1 and got["verdict"] == "impossible"
    assert [c for c in got["checks"] if c["name"] == "qemu"][0][
        "level"] == "missing"


def test_doctor_text(fake, libexec):
    where = libexec("none", reason="no\x1b[31m device")
    p = brig(fake, "doctor", env={"BRIG_LIBEXEC": where})
    assert b"\x1b" not in p.out and b"no\\x1b[31m device" in p.out
    assert p.out.splitlines()[-1].startswith(b"this machine: ")
    # a wrong key is not taken for silence
    p = brig(fake, "doctor", env={"BRIG_LIBEXEC": where,
                                  "BRIG_API_KEY": "other"})
    assert b"wants another key" in p.out


def test_doctor_with_a_probe_that_hangs_up(fake, libexec, tmp_path):
    where = libexec("hardware")
    for text in ("exit 1", "echo garbage", "head -c 100000 /dev/zero"):
        (tmp_path / "brig-vmm").write_text("#!/bin/sh\n%s\n" % text)
        code, got = doctor(fake, where)
        assert got["kvm"]["kind"] == "unknown"


# --- help, manual, completion ---------------------------------------------------------------


def words(*command):
    """The commands of brig, or of one of its commands."""
    out = brig(None, "help", *command).out.decode()
    part = re.search(r"^Commands:\n((?:  .*\n)+)", out, re.M)
    return re.findall(r"^  ([a-z]+) +\S", part[1], re.M) if part else []


def commands():
    """All, those of two words with both: [("run",), ("snapshot", "ls")]."""
    every = []
    for name in words():
        every += [(name, word) for word in words(name)] or [(name,)]
    return every


def help_options(command):
    """{option: placeholder or ''} of --help."""
    text = brig(None, *command, "--help").out.decode()
    found = {}
    for line in text.split("Options:")[1].split("Examples:")[0].splitlines():
        m = re.match(r"  (?:(-\w),?)? *(?:(--[a-z-]+))?(?: ([A-Z]\S*))?  ",
                     line)
        if m and (m[1] or m[2]):
            for name in filter(None, m.groups()[:2]):
                found[name] = m[3] or ""
    return found


def man_options():
    """{command: options} from the sections of brig.1."""
    found, command = {}, None
    for line in MAN.read_text().splitlines():
        m = re.match(r"\.Ss brig ((?:[a-z]+ ?)+)\b", line)
        if m:
            command = tuple(m[1].split())
            found[command] = set()
        elif line.startswith(".Sh"):
            command = None
        elif command and line.startswith(".It Fl"):
            for name in re.findall(r"Fl (-?[a-z][a-z-]*)", line):
                found[command].add("-" + name)
    return found


def test_help_is_the_same_both_ways():
    for name in commands() + [("snapshot",), ("template",)]:
        a = brig(None, "help", *name)
        b = brig(None, *name, "--help")
        c = brig(None, *name, "-h")
        assert a.returncode == 0 and a.err == b""
        assert a.out == b.out == c.out and b"Examples:\n  " in a.out
        shown = "status" if name == ("inspect",) else " ".join(name)
        assert b"usage: brig " + shown.encode() + b" [OPTION]" in a.out
        assert max(map(len, a.out.splitlines())) <= 80, name
    assert brig(None, "--help").out == brig(None, "help").out
    assert brig(None, "--version").out == brig(None, "version").out
    assert re.match(rb"brig \d+\.\d+\.\d+\n", brig(None, "version").out)


def test_man_page_and_help_have_the_same_options():
    manual = man_options()
    assert set(manual) == set(commands()) - {("inspect",)}
    for name, options in manual.items():
        assert options == set(help_options(name)) - {"-h", "--help"}, name


def test_options_of_the_man_page_parse():
    values = {"CPUS": "0.5", "MIB": "512", "GB": "10", "GIB": "10",
              "NAME=VALUE": "A=b", "TIME": "1.5s", "N": "5"}
    for name in commands():
        for option, value in help_options(name).items():
            args = [option] + ([values.get(value, "text")] if value else [])
            p = brig(None, *name, *args, "--help")
            assert p.returncode == 0 and p.err == b"", (name, option)


@pytest.mark.parametrize("page", sorted(
    p.name for p in (ROOT / "docs/man").iterdir()))
def test_man_pages_format(page):
    p = subprocess.run(["groff", "-mandoc", "-Tutf8", "-ww", "-z",
                        str(ROOT / "docs/man" / page)], capture_output=True,
                       check=False)
    assert (p.returncode, p.stderr) == (0, b"")


@pytest.mark.parametrize("program", ["brig-spawn", "brigd"])
def test_man_pages_of_daemons_have_their_options(program):
    path = pathlib.Path(BRIG).parent / program
    out = subprocess.run([path, "--help"], capture_output=True, text=True,
                         check=True)
    text = (ROOT / "docs/man" / (program + ".8")).read_text()
    manual = set(re.findall(r"^\.It Fl -([a-z-]+)", text, re.M)) - {
        "help", "version"}
    assert manual and manual == set(re.findall(
        r"^ +--([a-z-]+)", out.stdout, re.M)) - {"help", "version"}


def complete(fake, *words):
    script = (
        'source <("$BRIG" completion bash); brig() { "$BRIG" "$@"; };'
        'compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        '_brig; printf "%s\\n" "${COMPREPLY[@]}"')
    p = subprocess.run(["bash", "-c", script, "bash", *words],
                       env=environment(fake, BRIG=BRIG), timeout=20,
                       capture_output=True, check=True)
    assert p.stderr == b""
    return p.stdout.decode().split()


def test_completion(fake):
    sid, snap = fake.make(), fake.snap()
    fake.templates["numpy"] = {"name": "numpy"}
    assert complete(fake, "brig", "") == words()
    assert complete(fake, "brig", "he") == ["help"]
    assert "--memory" in complete(fake, "brig", "run", "--m")
    assert set(complete(fake, "brig", "run", "--")) == {
        o for o in help_options(("run",)) if o.startswith("--")}
    assert complete(fake, "brig", "rm", "sb") == [sid]
    assert complete(fake, "brig", "exec", "") == [sid]
    assert complete(fake, "brig", "cp", "sb") == [sid + ":"]
    assert complete(fake, "brig", "host", "st") == ["start", "stop",
                                                    "status"]
    assert complete(fake, "brig", "snapshot", "") == words("snapshot")
    assert complete(fake, "brig", "help", "template", "c") == ["create"]
    assert complete(fake, "brig", "snapshot", "create", "--q") == ["--quick"]
    assert complete(fake, "brig", "create", "--template", "n") == ["numpy"]
    assert complete(fake, "brig", "run", "--snapshot", "") == [snap]
    for args, got in (
            ("clone", sid), ("pause", sid), ("resume", sid), ("reset", sid),
            ("rollback", sid), ("rollback " + sid, snap), ("restore", snap),
            ("snapshot create", sid), ("snapshot rm", snap),
            ("snapshot export", snap), ("template rm", "numpy")):
        assert complete(fake, "brig", *args.split(), "") == [got], args
    assert complete(fake, "brig", "snapshot", "export", snap, "") == []
