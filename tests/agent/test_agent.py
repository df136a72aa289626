"""test_agent.py - runs: the agent's promises about programs.

SPDX-License-Identifier: Apache-2.0
"""

import errno
import os
import signal
import struct
import time

import pytest

from agent import (AT_CWD, AT_EXEC, AT_REQUEST, AT_USER, EXEC, EXIT, EXITED,
                   SIGNAL, SIGNALED, STATUS, STATUS_REPLY, STDERR, STDIN,
                   STDIN_EOF, STDOUT, TIMED_OUT, AgentError, alive,
                   exec_payload, until)


def test_output_and_exit_code(agent):
    r = agent.sh("echo out; echo err >&2; exit 7")
    assert (r.out, r.err) == (b"out\n", b"err\n")
    assert (r.reason, r.code) == (EXITED, 7)
    assert 0 < r.wall_ns < 10e9


def test_argv_is_not_interpreted(agent):
    r = agent.run(["printf", "%s|", "a b", "$HOME", "", "\xe9"])
    assert r.out == "a b|$HOME||\xe9|".encode()


def test_environment(agent):
    r = agent.run(["env"], env=["A=1", "PATH=/bin:/usr/bin", "B=x=y"])
    got = dict(line.split(b"=", 1) for line in r.out.splitlines())
    assert got == {b"A": b"1", b"B": b"x=y", b"PATH": b"/bin:/usr/bin",
                   b"LANG": b"C.UTF-8", b"HOME": b"/root", b"USER": b"root",
                   b"LOGNAME": b"root"}


def test_program_is_found_in_the_runs_own_path(agent, tmp_path):
    tool = tmp_path / "sometool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    r = agent.run(["sometool"], env=[f"PATH={tmp_path}:/bin:/usr/bin"])
    assert r.out == b"found\n"


def test_working_directory(agent):
    assert agent.sh("pwd").out == b"/root\n"
    assert agent.sh("pwd", cwd="/usr").out == b"/usr\n"


def test_user_with_groups(agent):
    r = agent.sh("id -u; id -g; echo $HOME $USER; pwd", user="nobody")
    assert r.out == b"65534\n65534\n/nonexistent nobody\n/\n"
    assert agent.sh("id -u", user="65534").out == b"65534\n"
    assert agent.sh("id -G", user="nobody").out == b"65534\n"


def test_users_can_open_their_own_streams(agent):
    run = agent.exec(["cat /dev/stdin >/dev/stdout; echo e >/dev/stderr"],
                     shell=True, user="nobody", stdin=True).started()
    run.conn.send(STDIN, b"in")
    run.conn.send(STDIN_EOF)
    r = run.wait()
    assert (r.out, r.err) == (b"in", b"e\n")
    assert agent.sh("echo o >/dev/stdout", user="nobody").out == b"o\n"


def test_a_line_is_never_an_option(agent):
    r = agent.sh("-n; echo $?")
    assert (r.reason, r.out) == (EXITED, b"127\n")


def test_timeout_reaches_who_left_the_cgroup(agent):
    r = agent.sh(f"echo $$ >{agent.cgroup.parent}/cgroup.procs && sleep 100",
                 timeout_ms=500)
    assert r.reason == TIMED_OUT


def test_process_state_is_an_ordinary_one(agent):
    r = agent.sh("grep -E '^Sig(Blk|Ign)' /proc/self/status; "
                 "cat /proc/self/oom_score_adj; umask; ls /proc/self/fd; "
                 "ulimit -n")
    blocked, ignored = (int(line.split()[1], 16)
                        for line in r.out.splitlines()[:2])
    # The C library keeps 32 and 33 to itself: who started us may ignore them.
    assert (blocked, ignored & ~(3 << 31)) == (0, 0)
    # `ls` has its directory open besides the three.
    assert r.out.endswith(b"\n0\n0022\n0\n1\n2\n3\n1024\n")


def test_session_of_its_own(agent):
    run = agent.exec(["sh -c 'cut -d\" \" -f1,5,6 /proc/$$/stat'"],
                     shell=True).started()
    pid, group, session = run.wait().out.split()
    assert int(group) == int(session) == run.pid
    assert int(pid) >= run.pid


@pytest.mark.parametrize("kw,stage,error", [
    ({"argv": ["/no/such"]}, AT_EXEC, errno.ENOENT),
    ({"argv": ["nosuchprogram"]}, AT_EXEC, errno.ENOENT),
    ({"argv": ["/etc/passwd"]}, AT_EXEC, errno.EACCES),
    ({"argv": ["true"], "user": "nosuchuser"}, AT_USER, errno.ENOENT),
    ({"argv": ["true"], "cwd": "/nowhere"}, AT_CWD, errno.ENOENT),
    ({"argv": ["true"], "cwd": "/etc/passwd"}, AT_CWD, errno.ENOTDIR),
    ({"argv": ["true"], "cwd": "/root", "user": "nobody"}, AT_CWD,
     errno.EACCES),
    ({"argv": ["true"], "env": ["novalue"]}, AT_REQUEST, errno.EINVAL),
    ({"argv": ["a", "b"], "shell": True}, AT_REQUEST, errno.EINVAL),
])
def test_failures_say_where(agent, kw, stage, error):
    if kw.get("cwd") == "/root" and os.stat("/root").st_mode & 0o001:
        os.chmod("/root", 0o700)
    with pytest.raises(AgentError) as e:
        agent.exec(**kw).wait()
    assert (e.value.stage, e.value.errno) == (stage, error)
    until(lambda: not agent.groups())


def test_signal_death(agent):
    r = agent.sh("kill -TERM $$")
    assert (r.reason, r.code) == (SIGNALED, signal.SIGTERM)


def test_signal_goes_to_the_group(agent):
    run = agent.exec(["trap '' INT; sleep 100 & echo $!; wait"],
                     shell=True).started()
    kind, out = run.conn.recv()
    assert kind == STDOUT
    run.conn.send(SIGNAL, struct.pack("<I", signal.SIGTERM))
    r = run.wait(out)
    assert (r.reason, r.code) == (SIGNALED, signal.SIGTERM)
    until(lambda: not alive(int(out)))


def test_stdin_is_empty_without_the_flag(agent):
    assert agent.run(["cat"]).out == b""


def test_stdin_round_trip(agent):
    run = agent.exec(["cat"], stdin=True).started()
    data = os.urandom(20000)
    run.conn.send(STDIN, data)
    run.conn.send(STDIN)
    run.conn.send(STDIN_EOF)
    assert run.wait().out == data


def test_stdin_of_a_program_that_does_not_read(agent):
    run = agent.exec(["exec <&-; sleep 0.3; echo done"], shell=True,
                     stdin=True).started()
    for _ in range(10):
        run.conn.send(STDIN, bytes(32768))
    run.conn.send(STDIN_EOF)
    assert run.wait().out == b"done\n"


def test_stdin_is_held_back(agent):
    run = agent.exec(["sleep 100"], shell=True, stdin=True).started()
    run.conn.sock.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64 << 20:
            run.conn.send(STDIN, bytes(32768))
            sent += 32768
    assert sent < 2 << 20
    assert agent.sh("echo other").out == b"other\n"
    run.conn.sock.close()
    until(lambda: not agent.groups())


def test_large_output_is_exact(agent):
    r = agent.sh("head -c 30000000 /dev/zero; head -c 70000 /dev/zero >&2")
    assert (len(r.out), len(r.err)) == (30000000, 70000)


def test_slow_reader_slows_only_its_program(agent):
    slow = agent.exec(["cat /dev/zero"], shell=True).started()
    time.sleep(0.3)
    io = f"/proc/{slow.pid}/io"

    def written():
        with open(io, encoding="ascii") as f:
            return int(f.read().split("wchar: ")[1].split()[0])

    before = written()
    assert before < 2 << 20
    start = time.monotonic()
    assert agent.sh("echo quick").out == b"quick\n"
    assert time.monotonic() - start < 2
    assert written() == before
    slow.conn.sock.close()
    until(lambda: not alive(slow.pid))


def test_timeout_keeps_partial_output(agent):
    start = time.monotonic()
    r = agent.sh("echo partial; sleep 100 & sleep 100", timeout_ms=300)
    assert (r.reason, r.code) == (TIMED_OUT, signal.SIGKILL)
    assert r.out == b"partial\n"
    assert 0.25 < time.monotonic() - start < 5
    until(lambda: not agent.groups())


def test_timeout_ends_a_fork_bomb(agent):
    bomb = ("import os,time\n"
            "for i in range(300):\n"
            "    if os.fork() == 0:\n"
            "        os.setsid()\n"
            "        while True: time.sleep(0.001)\n"
            "time.sleep(100)\n")
    run = agent.exec(["/usr/bin/python3", "-c", bomb],
                     timeout_ms=2000).started()
    assert agent.sh("echo alive").out == b"alive\n"
    assert run.wait().reason == TIMED_OUT
    until(lambda: not agent.groups())


def test_closing_the_connection_kills_every_process(agent):
    run = agent.exec(["setsid sleep 100 & setsid sleep 100 & echo up; wait"],
                     shell=True).started()
    run.conn.expect(STDOUT)
    assert agent.groups()
    run.conn.sock.close()
    until(lambda: not agent.groups())


def test_closing_right_after_the_request(agent):
    for _ in range(20):
        with agent.connect() as c:
            c.send(EXEC, exec_payload(["sleep", "100"]))
    until(lambda: not agent.groups())


def test_background_process_outlives_its_run(agent):
    r = agent.sh("(sleep 0.2; head -c 1000000 /dev/zero; sleep 100) & "
                 "echo $!")
    assert r.reason == EXITED
    time.sleep(0.5)
    assert len(agent.groups()) == 1
    assert alive(int(r.out))
    group = agent.groups()[0]
    (agent.cgroup / "runs" / group / "cgroup.kill").write_text("1")
    until(lambda: not (agent.cgroup / "runs" / group).exists())


def test_many_leave_background_processes(agent):
    for _ in range(80):
        assert agent.sh("sleep 100 & true").code == 0
    # Only so many pipes are kept open for those that have a reader.
    until(lambda: len(agent.groups()) == 80)
    fds = len(os.listdir(f"/proc/{agent.process.pid}/fd"))
    assert fds < 64 * 2 + 80 + 20
    (agent.cgroup / "runs" / "cgroup.kill").write_text("1")
    until(lambda: not agent.groups())
    until(lambda: len(os.listdir(f"/proc/{agent.process.pid}/fd")) < 12)


def test_output_written_before_the_end_is_not_lost(agent):
    for _ in range(30):
        r = agent.sh("head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2")
        assert (len(r.out), len(r.err)) == (60000, 60000)


def test_exit_comes_although_a_child_goes_on_writing(agent):
    r = agent.sh("(trap '' PIPE; while :; do echo x; done) & sleep 0.1")
    assert (r.reason, r.code) == (EXITED, 0)


def test_cpu_time_is_that_of_the_whole_run(agent):
    burn = "import time\nwhile time.process_time() < 1.5: pass"
    r = agent.sh(f"/usr/bin/python3 -c '{burn}' & wait")
    assert 1.4e9 < r.user_ns + r.system_ns < 5e9
    idle = agent.sh("sleep 0.5")
    assert idle.user_ns + idle.system_ns < 1.2e9


def test_status(agent):
    with agent.connect() as c:
        c.send(STATUS)
        v = struct.unpack("<QQQQQQQIIII", c.expect(STATUS_REPLY))
        c.expect_eof()
    uptime, total, available, busy, idle, disk, free = v[:7]
    assert abs(uptime / 1e9 - time.monotonic()) < 5
    assert available < total == os.sysconf("SC_PHYS_PAGES") * 4096 or \
        abs(total - os.sysconf("SC_PHYS_PAGES") * 4096) < 1 << 20
    assert busy > 0 and idle > 0 and 0 < free <= disk
    assert abs(v[7] / 1000 - os.getloadavg()[0]) < 1


def test_frames_of_the_wrong_kind_end_the_connection(agent):
    for raw in (struct.pack("<IHH", 0, 99, 0),
                struct.pack("<IHH", 1 << 31, EXEC, 0),
                struct.pack("<IHH", (256 << 10) + 1, EXEC, 0),
                struct.pack("<IHH", 0, EXEC, 0),
                struct.pack("<IHH", 0, STATUS, 1),
                struct.pack("<IHH", 1, STATUS, 0),
                struct.pack("<IHH", 0, STDIN_EOF, 0)):
        with agent.connect() as c:
            c.raw(raw)
            c.expect_eof()
    run = agent.exec(["sleep", "100"]).started()
    run.conn.raw(struct.pack("<IHH", 32769, STDIN, 0))
    run.conn.expect_eof()
    until(lambda: not alive(run.pid))


def test_request_in_single_bytes(agent):
    payload = exec_payload(["echo", "slowly"])
    with agent.connect() as c:
        for b in struct.pack("<IHH", len(payload), EXEC, 0) + payload:
            c.raw(bytes([b]))
        kinds = {}
        while EXIT not in kinds:
            kind, data = c.recv()
            kinds[kind] = data
        assert kinds[STDOUT] == b"slowly\n" and STDERR not in kinds


def test_connections_are_limited(agent):
    conns = [agent.connect() for _ in range(256)]
    with agent.connect() as c:
        with pytest.raises(AgentError) as e:
            c.expect(EXIT)
        assert e.value.errno == errno.EAGAIN
    conns.pop().sock.close()
    until(lambda: _answers(agent))
    for c in conns:
        c.sock.close()


def _answers(agent):
    with agent.connect() as c:
        try:
            c.send(STATUS)
            c.expect(STATUS_REPLY)
            return True
        except (AgentError, OSError):
            return False


def test_silent_connection_is_closed(agent):
    with agent.connect() as c:
        start = time.monotonic()
        c.expect_eof()
        assert 8 < time.monotonic() - start < 15


def test_orphans_are_reaped(agent):
    """As PID 1 the agent inherits them; here it asks for that role."""
    r = agent.sh("sleep 0.05 & sleep 0.05 & true")
    assert r.code == 0
    until(lambda: not agent.groups())


def test_hundred_at_once(agent):
    runs = [agent.exec([f"sleep 0.2; echo {i}"], shell=True)
            for i in range(100)]
    for i, run in enumerate(runs):
        assert run.started().wait().out == b"%d\n" % i
    until(lambda: not agent.groups())


def test_output_to_a_connection_that_dies_midway(agent):
    for _ in range(10):
        run = agent.exec(["cat /dev/zero"], shell=True).started()
        run.conn.expect(STDOUT)
        run.conn.sock.close()
    until(lambda: not agent.groups())


def test_terminating_signals_do_not_end_the_agent(agent):
    agent.sh("true")  # it listens a moment before it blocks them
    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE,
              signal.SIGUSR1, signal.SIGALRM):
        agent.process.send_signal(s)
    assert agent.sh("echo still here").out == b"still here\n"
