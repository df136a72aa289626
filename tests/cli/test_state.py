"""test_state.py - brig's templates, snapshots, clones, and code.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import signal

import pytest

from driver import brig, on_terminal, start, wait_until

SB = "sb_%024d"
SNAP = "snap_%024d"


def lines(p):
    return p.out.decode().splitlines()


# --- create -------------------------------------------------------------------


def test_create_from_a_template(fake):
    p = brig(fake, "create", "--template", "numpy", "--cpus", "2", "--memory",
             "256", "--disk", "20", "--name", "n", "-e", "A=b", "--no-wait")
    assert (p.returncode, lines(p), p.err) == (0, [SB % 1], b"")
    assert fake.paths("POST") == ["/v2/sandboxes"]
    assert fake.body_of("POST", "/v2/sandboxes") == {
        "template": "numpy", "vcpus": 2, "memory_mib": 256, "disk_gib": 20,
        "name": "n", "env": {"A": "b"}, "wait_for_ready": False}


def test_create_from_a_template_that_there_is_not(fake):
    p = brig(fake, "create", "--template", "none")
    assert p.returncode == 125 and b"no template of this name" in p.err


def test_create_from_a_snapshot(fake):
    p = brig(fake, "create", "--snapshot", "snap_1", "--json")
    assert json.loads(p.out)["id"] == SB % 1
    assert fake.body_of("POST", "/v2/sandboxes")["snapshot"] == "snap_1"


def test_create_several(fake):
    p = brig(fake, "create", "--count", "3")
    assert (p.returncode, lines(p)) == (0, [SB % i for i in (1, 2, 3)])
    assert fake.body_of("POST", "/v2/sandboxes")["count"] == 3


def test_create_where_only_some_come_up(fake):
    fake.fail_creates = 2
    p = brig(fake, "create", "--count", "3")
    assert (p.returncode, lines(p)) == (125, [SB % 1])
    assert p.err.count(b"no room \\x1b[31m (out_of_memory)") == 2
    p = brig(fake, "create", "--count", "3", "--json")
    got = json.loads(p.out)
    assert p.returncode == 125
    assert (len(got["sandboxes"]), len(got["errors"])) == (1, 2)


def test_signal_while_creating_several(fake):
    """None of them is left."""
    fake.create_delay = 1
    p = start(fake, "create", "--count", "3")
    wait_until(lambda: fake.paths("POST"))
    p.send_signal(signal.SIGTERM)
    assert p.wait(10) == 143 and p.stdout.read() == b""
    assert fake.deleted == [SB % i for i in (1, 2, 3)]
    assert not fake.sandboxes


def test_run_in_a_template(fake):
    p = brig(fake, "run", "--template", "numpy", "echo", "hi")
    assert (p.returncode, p.out) == (0, b"hi\n")
    assert json.loads(fake.requests[0][3])["template"] == "numpy"
    assert fake.deleted == [SB % 1]


@pytest.mark.parametrize("args", [
    ("create", "--image", "x", "--template", "t"),
    ("create", "--template", "t", "--snapshot", "s"),
    ("create", "--template", "a/b"),
    ("create", "--snapshot", ".."),
    ("create", "--template", "t", "--cpus", "1.5"),
    ("create", "--count", "2", "--cpus", "0.25"),
    ("create", "--count", "0"), ("create", "--count", "1001"),
    ("run", "--template", "t", "--cpus", "0.5", "x"),
    ("run", "--python", "f", "--node", "f"), ("run", "--python", "f", "x"),
    ("run", "-i", "--python", "-"), ("exec", "--node", "f"),
    ("exec", "--python", "f", "sb_1", "x"), ("exec", "sb_1"),
    ("clone",), ("clone", "a/b"), ("clone", "sb_1", "sb_2"),
    ("clone", "sb_1", "-n", "0"), ("clone", "sb_1", "-n", "1001"),
    ("restore",), ("restore", "a?b"), ("restore", "snap_1", "snap_2"),
    ("rollback", "sb_1"), ("rollback", "sb_1", "a/b"), ("rollback",),
    ("pause",), ("resume", "a b"), ("reset", "sb_1", "sb_2"),
    ("snapshot",), ("snapshot", "nope"), ("snapshot", "create"),
    ("snapshot", "create", "a/b"), ("snapshot", "ls", "x"),
    ("snapshot", "rm"), ("snapshot", "rm", "../x"),
    ("snapshot", "export", "snap_1"), ("snapshot", "export", "..", "f"),
    ("snapshot", "export", "--json", "snap_1", "-"),
    ("snapshot", "import"), ("snapshot", "import", "a", "b"),
    ("template",), ("template", "create"), ("template", "create", "a/b"),
    ("template", "create", "t", "--vcpus", "9"),
    ("template", "create", "t", "--memory", "1"), ("template", "rm"),
    ("template", "ls", "x"), ("help", "snapshot", "nope"),
    ("help", "run", "x"),
])
def test_wrong_usage_asks_nothing_of_the_server(fake, args):
    p = brig(fake, *args)
    assert p.returncode == 2 and p.err.startswith(b"brig: ")
    assert fake.requests == []


# --- code -----------------------------------------------------------------------


@pytest.mark.parametrize("language", ["python", "node"])
def test_run_code(fake, tmp_path, language):
    (tmp_path / "f").write_text("caf\u00e9")
    p = brig(fake, "run", "-e", "A=1", "-u", "nobody", "-w", "/srv",
             "--timeout", "1.5", "--" + language, str(tmp_path / "f"))
    assert (p.returncode, p.err) == (0, b"")
    assert p.out.decode() == language + ": caf\u00e9"
    assert fake.paths("POST")[1] == "/v2/sandboxes/%s/code" % (SB % 1)
    assert fake.body_of("POST", "/code") == {
        "language": language, "code": "caf\u00e9", "env": {"A": "1"},
        "user": "nobody", "cwd": "/srv", "timeout_s": 1.5, "stream": True}
    assert fake.deleted == [SB % 1]


def test_run_code_from_standard_input(fake):
    p = brig(fake, "run", "--python", "-", input=b"7")
    assert (p.returncode, p.out) == (7, b"python: 7")
    assert "stdin" not in fake.body_of("POST", "/code")


def test_run_code_with_input(fake, tmp_path):
    """Only when it is asked for: it is read to its end first."""
    (tmp_path / "f").write_text("0")
    p = brig(fake, "run", "-i", "--python", str(tmp_path / "f"),
             input=b"a\0b")
    assert p.returncode == 0
    assert fake.body_of("POST", "/code")["stdin"] == "a\0b"
    p = start(fake, "run", "--python", str(tmp_path / "f"), stdin=-1)
    assert p.wait(10) == 0
    assert "stdin" not in fake.body_of("POST", "/code")
    p.stdin.close()


def test_code_that_cannot_be_read_makes_no_sandbox(fake, tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "large").write_bytes(b"#" * ((1 << 20) + 1))
    for name, said in (("none", b"No such file"), ("latin", b"UTF-8"),
                       ("large", b"larger than"), ("", b"Is a directory")):
        p = brig(fake, "run", "--python", str(tmp_path / name))
        assert p.returncode == 125 and said in p.err
        assert p.err.count(b"\n") == 1
    assert fake.requests == []


def test_the_largest_code(fake, tmp_path):
    (tmp_path / "f").write_bytes(b"#" * (1 << 20))
    p = brig(fake, "run", "--python", str(tmp_path / "f"))
    assert p.returncode == 0 and len(p.out) == len("python: ") + (1 << 20)


def test_code_json(fake):
    p = brig(fake, "run", "--json", "--node", "-", input=b"3")
    got = json.loads(p.out)
    assert p.returncode == got["exit_code"] == 3
    assert got["stdout"] == "node: 3"


def test_exec_code(fake):
    sid = fake.make()
    p = brig(fake, "exec", "--python", "-", sid, input=b"5")
    assert (p.returncode, p.out) == (5, b"python: 5")
    assert fake.deleted == []


# --- clone ----------------------------------------------------------------------


def test_clone(fake):
    sid = fake.make()
    p = brig(fake, "clone", sid)
    assert (p.returncode, lines(p)) == (0, [SB % 2])
    assert fake.body_of("POST", "/%s/clone" % sid) == {"count": 1}
    p = brig(fake, "clone", sid, "-n", "3")  # options behind operands
    assert lines(p) == [SB % i for i in (3, 4, 5)]
    p = brig(fake, "clone", "--count", "2", "--json", sid)
    got = json.loads(p.out)
    assert [s["origin"] for s in got["sandboxes"]] == ["clone"] * 2


def test_clone_where_only_some_come_up(fake):
    fake.fail_creates = 1
    p = brig(fake, "clone", fake.make(), "-n", "2")
    assert (p.returncode, lines(p)) == (125, [SB % 2])
    assert b"one was not made: no room" in p.err


def test_signal_while_cloning(fake):
    fake.create_delay = 1
    sid = fake.make()
    p = start(fake, "clone", sid, "-n", "2")
    wait_until(lambda: fake.paths("POST"))
    p.send_signal(signal.SIGINT)
    assert p.wait(10) == 130
    assert list(fake.sandboxes) == [sid]


def test_clone_of_nothing(fake):
    p = brig(fake, "clone", "sb_no")
    assert p.returncode == 125 and b"no sandbox sb_no" in p.err


# --- snapshots --------------------------------------------------------------------


def test_snapshot_create(fake):
    sid = fake.make()
    p = brig(fake, "snapshot", "create", sid)
    assert (p.returncode, lines(p), p.err) == (0, [SNAP % 1], b"")
    assert fake.body_of("POST", "/%s/snapshots" % sid) == {
        "quick": False, "memory": True}
    p = brig(fake, "snapshot", "create", sid, "--name", "n", "--quick",
             "--disk-only", "--json")
    assert json.loads(p.out)["name"] == "n"
    assert fake.body_of("POST", "/snapshots") == {
        "name": "n", "quick": True, "memory": False}
    p = brig(fake, "snapshot", "create", "sb_no")
    assert p.returncode == 125 and b"no sandbox sb_no" in p.err


def test_signal_while_a_snapshot_is_made(fake):
    fake.create_delay = 5
    p = start(fake, "snapshot", "create", fake.make())
    wait_until(lambda: fake.paths("POST"))
    p.send_signal(signal.SIGINT)
    assert p.wait(3) == 130
    assert b"a snapshot may be left" in p.stderr.read()


def test_snapshot_ls(fake):
    first = fake.snap(name="evil\x1b[31m", own_bytes=900 << 20)
    fake.snap(kind="disk", own_bytes=0, shared_bytes=None)
    out = lines(brig(fake, "snapshot", "ls"))
    assert out[0].split() == ["ID", "NAME", "STATUS", "KIND", "OWN",
                              "SHARED", "SANDBOX", "CREATED"]
    assert out[1].startswith(first + "  evil\\x1b[31m  ready ")
    assert " memory  900 MiB  3.0 GiB  calm-otter  " in out[1]
    assert " disk    0 KiB    -        calm-otter  " in out[2]
    assert out[1].endswith(" ago")
    assert lines(brig(fake, "snapshot", "ls", "-q")) == [first, SNAP % 2]
    got = json.loads(brig(fake, "snapshot", "ls", "--json").out)
    assert got == list(fake.snapshots.values())


def test_snapshot_rm(fake):
    a, b, c = (fake.snap(name=n) for n in "abc")
    p = brig(fake, "snapshot", "rm", a, "snap_no", b)
    assert p.returncode == 125 and lines(p) == [a, b]
    assert b"deleting snap_no: no snapshot snap_no" in p.err
    p = brig(fake, "snapshot", "rm", "--json", c)
    assert json.loads(p.out) == [
        {"id": c, "name": "c", "message": "deleted", "deferred": False}]
    assert fake.snapshots == {}


def test_export_and_import(fake, tmp_path):
    fake.export = os.urandom(300000)
    sid = fake.snap()
    out = tmp_path / "out"
    p = brig(fake, "snapshot", "export", sid, str(out))
    assert (p.returncode, p.out, p.err) == (0, b"", b"")
    assert out.read_bytes() == fake.export
    p = brig(fake, "snapshot", "import", str(out))
    assert (p.returncode, lines(p)) == (0, [SNAP % 2])
    headers, body = fake.requests[-1][2:]
    assert headers["Content-Length"] == "300000" and body == fake.export
    p = brig(fake, "snapshot", "import", "--json", str(out))
    assert json.loads(p.out)["id"] == SNAP % 3


def test_export_and_import_through_a_pipe(fake):
    fake.export = os.urandom(200000)
    p = brig(fake, "snapshot", "export", fake.snap(), "-")
    assert (p.returncode, p.out) == (0, fake.export)
    p = brig(fake, "snapshot", "import", "-", input=p.out)
    assert (p.returncode, lines(p)) == (0, [SNAP % 2])


def test_export_into_a_directory(fake, tmp_path):
    fake.export = b"abc"
    sid = fake.snap()
    p = brig(fake, "snapshot", "export", sid, str(tmp_path), "--json")
    assert json.loads(p.out) == {
        "id": sid, "file": str(tmp_path / sid), "bytes": 3}
    assert (tmp_path / sid).read_bytes() == b"abc"


def test_export_that_fails_leaves_the_old_file(fake, tmp_path):
    out = tmp_path / "out"
    p = brig(fake, "snapshot", "export", "snap_no", str(out))
    assert p.returncode == 125 and b"snap_no" in p.err
    assert not out.exists()
    out.write_bytes(b"old")
    brig(fake, "snapshot", "export", "snap_no", str(out))
    assert out.read_bytes() == b"old"


def test_import_that_is_refused(fake, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 100000)
    p = brig(fake, "snapshot", "import", str(tmp_path / "f"))
    assert p.returncode == 125 and b"a checksum is wrong (damaged)" in p.err
    p = brig(fake, "snapshot", "import", str(tmp_path / "none"))
    assert p.returncode == 125 and b"No such file" in p.err
    p = brig(fake, "snapshot", "import", str(tmp_path))
    assert p.returncode == 125 and b"Is a directory" in p.err


def test_terminal_shows_how_far_an_export_is(fake, tmp_path):
    fake.export = b"x" * (4 << 20)
    fake.export_pause = 1.6
    code, shown = on_terminal(fake, "snapshot", "export", fake.snap(),
                              str(tmp_path / "out"))
    assert code == 0 and b"exporting ... 2.0 of 4.0 MiB, 1 s" in shown
    assert shown.endswith(b"\r\x1b[K")


def test_terminal_shows_what_takes_so_long(fake):
    fake.create_delay = 1.6
    sid = fake.make()
    for args, said in (
            (("snapshot", "create", sid), "snapshot of " + sid),
            (("clone", sid), "cloning"),
            (("template", "create", "t"), "making template")):
        code, shown = on_terminal(fake, *args)
        assert code == 0 and said.encode() + b" ... 1 s" in shown


# --- restore, rollback, pause, resume, reset ----------------------------------------


def test_restore(fake):
    p = brig(fake, "restore", "snap_1", "--name", "again")
    assert (p.returncode, lines(p)) == (0, [SB % 1])
    assert fake.body_of("POST", "/v2/sandboxes") == {
        "snapshot": "snap_1", "name": "again", "wait_for_ready": True}
    p = brig(fake, "restore", "--json", "snap_1")
    assert json.loads(p.out)["id"] == SB % 2


def test_rollback(fake):
    sid, snap = fake.make(), fake.snap()
    p = brig(fake, "rollback", sid, snap)
    assert (p.returncode, lines(p), p.err) == (0, [sid], b"")
    p = brig(fake, "rollback", "--json", sid, snap)
    assert json.loads(p.out)["snapshot"] == snap
    p = brig(fake, "rollback", sid, "snap_no")
    assert p.returncode == 125 and p.out == b""
    assert b"rollback of %s: no snapshot snap_no" % sid.encode() in p.err


def test_pause_resume_reset(fake):
    sid = fake.make()
    for what, status in (("pause", "paused"), ("resume", "running"),
                         ("reset", "running")):
        p = brig(fake, what, sid)
        assert (p.returncode, lines(p), p.err) == (0, [sid], b"")
        assert fake.sandboxes[sid]["status"] == status
    p = brig(fake, "resume", sid)
    assert p.returncode == 125 and b"sandbox_not_paused" in p.err
    p = brig(fake, "pause", sid, "--json")
    assert json.loads(p.out)["status"] == "paused"


# --- templates ------------------------------------------------------------------------


def test_template_create(fake):
    p = brig(fake, "template", "create", "numpy", "--image", "x", "--vcpus",
             "2", "--memory", "1024", "--disk", "20", "--warm",
             "pip install numpy")
    assert (p.returncode, lines(p), p.err) == (0, ["numpy"], b"")
    assert fake.body_of("POST", "/v2/templates") == {
        "name": "numpy", "image": "x", "vcpus": 2, "memory_mib": 1024,
        "disk_gib": 20, "warm": "pip install numpy"}
    p = brig(fake, "template", "create", "--json", "plain")
    assert json.loads(p.out)["status"] == "ready"
    assert fake.body_of("POST", "/v2/templates") == {"name": "plain"}
    p = brig(fake, "template", "create", "t", "--warm", "false")
    assert p.returncode == 125 and b"it exited with 1" in p.err


def test_signal_while_a_template_is_made(fake):
    fake.create_delay = 5
    p = start(fake, "template", "create", "t")
    wait_until(lambda: fake.paths("POST"))
    p.send_signal(signal.SIGINT)
    assert p.wait(3) == 130
    assert b"a template may be left" in p.stderr.read()


def test_template_ls_and_rm(fake):
    for name in ("a", "b", "c"):
        brig(fake, "template", "create", name, "--memory", "16384")
    out = lines(brig(fake, "template", "ls"))
    assert out[0].split() == ["NAME", "STATUS", "IMAGE", "CPU", "MEMORY",
                              "DISK", "RESIDENT", "CREATED"]
    assert " ready   default  1    16384 MiB  10 GiB  300 MiB " in out[1]
    assert lines(brig(fake, "template", "ls", "-q")) == ["a", "b", "c"]
    assert len(json.loads(brig(fake, "template", "ls", "--json").out)) == 3
    p = brig(fake, "template", "rm", "a", "none", "b")
    assert p.returncode == 125 and lines(p) == ["a", "b"]
    assert b"deleting none: no template none" in p.err
    p = brig(fake, "template", "rm", "--json", "c")
    assert json.loads(p.out) == [{"name": "c"}] and fake.templates == {}
