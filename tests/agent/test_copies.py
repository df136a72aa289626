"""test_copies.py - the ready connection, CONFIGURE, QUIESCE and THAW.

SPDX-License-Identifier: Apache-2.0

A copy of a machine is played by cutting every connection while the agent is
quiesced, which is all that an agent sees of being copied.
"""

import errno
import struct
import time

import pytest

from agent import (AT_REQUEST, AT_SETUP, CONFIGURE, CONFIGURED, EXITED, PING,
                   PONG, QUIESCE, QUIESCED, STDOUT, THAW, THAWED, AgentError,
                   alive, configure, configure_payload, until)

FILES = 1
TICK = "i=0; while :; do i=$((i+1)); echo $i >{}; sleep 0.01; done"


def quiesce(agent, flags=0):
    conn = agent.connect()
    conn.send(QUIESCE, struct.pack("<II", flags, 0))
    conn.done = struct.unpack("<II", conn.expect(QUIESCED))
    return conn


def thaw(conn):
    conn.send(THAW)
    conn.expect(THAWED)
    conn.expect_eof()
    conn.sock.close()


@pytest.fixture
def ticker(hosted, tmp_path):
    """A run that counts in a file."""
    path = tmp_path / "ticks"
    path.write_text("")
    run = hosted.sh_started(TICK.format(path))
    run.path = path
    until(path.read_text)
    return run


def moves(ticker):
    """True when it counts on."""
    before = ticker.path.read_text()
    time.sleep(0.15)
    return ticker.path.read_text() != before


@pytest.fixture
def ready(hosted, host):
    conn, version, generation = host.accept()
    assert (version, generation) == (2, 0)
    configure(conn, 7)
    return conn


# --- the ready connection ---------------------------------------------------


def test_ready_connection_is_made_again(hosted, host):
    conn, version, generation = host.accept()
    assert (version, generation) == (2, 0)
    conn.send(PING, b"x")
    assert conn.expect(PONG) == b"x"
    assert configure(conn, 5).generation == 5
    for _ in range(5):
        conn.sock.close()
        start = time.monotonic()
        conn, _, generation = host.accept()
        assert generation == 5
        assert time.monotonic() - start < 1
        conn.send(PING)
        conn.expect(PONG)
    assert hosted.run(["echo", "served"]).out == b"served\n"


def test_host_may_be_away_for_a_while(hosted, host):
    conn, _, _ = host.accept()
    host.gone()
    conn.sock.close()
    time.sleep(0.6)
    assert hosted.run(["echo", "served"]).out == b"served\n"
    host.back()
    conn, _, _ = host.accept()
    conn.send(PING, b"back")
    assert conn.expect(PONG) == b"back"


def test_host_that_hangs_up_at_once_is_no_busy_loop(hosted, host):
    def used():
        with open(f"/proc/{hosted.process.pid}/stat", encoding="ascii") as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
    count = 0
    before = used()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        conn, _, _ = host.accept()
        conn.sock.close()
        count += 1
    assert count < 30
    assert used() - before < 50


def test_malformed_configure_costs_the_connection(hosted, host):
    conn, _, _ = host.accept()
    conn.send(CONFIGURE, b"x" * 100)
    conn.expect_eof()
    host.accept()


# --- identity ---------------------------------------------------------------


def test_identity(hosted, host):
    conn, _, _ = host.accept()
    now = time.time_ns()
    r = configure(conn, 1 << 63, hostname=b"first", machine_id=bytes(range(16)),
                  boot_id=bytes(range(240, 256)), realtime_ns=now + 10**10)
    assert r.generation == 1 << 63
    assert (r.clock_set, r.entropy_added, r.hostname_set, r.machine_id_set,
            r.boot_id_set, r.hooks_failed) == (1, 1, 1, 1, 1, 0)
    assert abs(r.clock_step_ns - 10**10) < 2 * 10**9
    assert 0 < r.disk_free_bytes < r.disk_bytes
    want = "hostname; cat /etc/hostname /etc/machine-id " \
        "/proc/sys/kernel/random/boot_id; grep -c first /etc/hosts"
    assert hosted.sh(want).out.decode().split() == [
        "first", "first", "000102030405060708090a0b0c0d0e0f",
        "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff", "1"]
    configure(conn, 2, hostname=b"second")
    assert hosted.sh(want.replace("first", "second")).out.decode().split() == [
        "second", "second", "6d" * 16,
        "62626262-6262-6262-6262-626262626262", "1"]
    assert b"first" not in hosted.sh("cat /etc/hosts").out
    # A list of hosts that is too long for us is left as it is.
    hosted.sh("yes 10.0.0.1 a-blocked-host | head -n 10000 > /etc/hosts")
    configure(conn, 3, hostname=b"third")
    assert hosted.sh("hostname; wc -l < /etc/hosts").out == b"third\n10000\n"
    assert (host.etc / "machine-id").read_text() == "6d" * 16 + "\n"


def test_layers_do_not_pile_up(hosted, host):
    conn, _, _ = host.accept()
    for i in range(1, 5):
        configure(conn, i, boot_id=bytes([i]) * 16)
    mounts = hosted.sh("grep -c boot_id /proc/self/mounts").out
    assert mounts == b"1\n"


def test_machine_id_that_cannot_be_written_is_covered(hosted, host):
    (host.etc / "machine-id").write_text("old\n")
    hosted.sh("mount --bind /etc/machine-id /etc/machine-id;"
              "mount -o remount,ro,bind /etc/machine-id")
    # A read-only /etc, like that of a read-only root.
    hosted.sh("mount --bind /etc /etc; mount -o remount,ro,bind /etc")
    conn, _, _ = host.accept()
    r = configure(conn, 1)
    assert (r.machine_id_set, r.hostname_set) == (1, 1)
    assert hosted.sh("cat /etc/machine-id; hostname").out.decode().split() == [
        "6d" * 16, "guest"]
    configure(conn, 2, machine_id=b"n" * 16)
    assert hosted.sh("cat /etc/machine-id").out == b"6e" * 16 + b"\n"
    assert (host.etc / "machine-id").read_text() == "old\n"


def test_an_image_without_etc_has_no_machine_id(hosted, host):
    hosted.sh("mount -t tmpfs -o ro tmpfs /etc")
    conn, _, _ = host.accept()
    assert configure(conn, 1).machine_id_set == 1
    assert hosted.sh("ls /etc").out == b""


def test_dbus_has_a_copy(hosted, host):
    hosted.sh("mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/dbus;"
              "echo old >/var/lib/dbus/machine-id")
    conn, _, _ = host.accept()
    configure(conn, 1)
    assert hosted.sh("cat /var/lib/dbus/machine-id").out == b"6d" * 16 + b"\n"


def test_configure_that_fails_says_where(hosted, host):
    conn, _, _ = host.accept()
    for kw, what in (({"hostname": b""}, "host name"),
                     ({"hostname": b"x" * 64}, "host name"),
                     ({"realtime_ns": (1 << 64) - 1}, "clock")):
        with pytest.raises(AgentError) as e:
            configure(conn, 9, **kw)
        assert (e.value.stage, e.value.errno, e.value.detail) == (
            AT_SETUP, errno.EINVAL, what)
    conn.sock.close()
    conn, _, generation = host.accept()
    assert generation == 0
    configure(conn, 9)


# --- quiesce and thaw ---------------------------------------------------------


def test_quiesce_stops_users_until_thaw(hosted, ready, ticker):
    assert moves(ticker)
    q = quiesce(hosted)
    assert q.done == (0, 0)
    assert not moves(ticker)
    ready.send(PING, b"alive")
    assert ready.expect(PONG) == b"alive"
    thaw(q)
    assert moves(ticker)


def test_run_that_is_asked_for_while_quiesced_waits(hosted, ready):
    q = quiesce(hosted)
    run = hosted.exec(["echo", "late"])
    run.conn.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        run.started()
    run.conn.sock.settimeout(20)
    thaw(q)
    assert run.started().wait().out == b"late\n"


def test_only_one_quiesce_at_a_time(hosted, ready):
    q = quiesce(hosted)
    with pytest.raises(AgentError) as e:
        quiesce(hosted)
    assert (e.value.stage, e.value.errno) == (AT_REQUEST, errno.EBUSY)
    thaw(q)
    thaw(quiesce(hosted))


def test_unknown_flags_of_quiesce(hosted, ready):
    for payload in (struct.pack("<II", 2, 0), struct.pack("<II", 0, 1)):
        with hosted.connect() as c:
            c.send(QUIESCE, payload)
            with pytest.raises(AgentError) as e:
                c.expect(QUIESCED)
            assert (e.value.stage, e.value.errno) == (AT_REQUEST, errno.EINVAL)
    thaw(quiesce(hosted))


def test_other_frames_instead_of_thaw(hosted, ready, ticker):
    q = quiesce(hosted)
    q.send(PING)
    q.expect_eof()
    until(lambda: moves(ticker))


def test_source_that_was_forgotten_thaws(hosted, ready, ticker):
    q = quiesce(hosted)
    q.sock.close()
    assert not moves(ticker)
    until(lambda: moves(ticker), 3)
    thaw(quiesce(hosted))
    # The run still has its host.
    ticker.conn.sock.close()
    until(lambda: not alive(ticker.pid))


def test_run_that_is_cancelled_while_quiesced_dies_with_the_thaw(
        hosted, ready, ticker):
    q = quiesce(hosted)
    ticker.conn.sock.close()
    time.sleep(0.2)
    assert alive(ticker.pid)
    thaw(q)
    until(lambda: not alive(ticker.pid))


def test_copy_stays_frozen_until_configure(hosted, host, ready, ticker):
    q = quiesce(hosted)
    for c in (q, ticker.conn, ready):
        c.sock.close()
    conn, _, generation = host.accept()
    assert generation == 7
    time.sleep(1.3)
    assert not moves(ticker)
    with pytest.raises(AgentError):
        configure(conn, 8, hostname=b"")
    assert not moves(ticker)
    assert configure(conn, 8, hostname=b"copy").generation == 8
    assert alive(ticker.pid)
    until(lambda: moves(ticker))
    assert hosted.run(["hostname"]).out == b"copy\n"
    # A copy can be copied at once.
    thaw(quiesce(hosted))
    assert moves(ticker)


def test_processes_of_a_copy_go_on_though_nobody_reads(hosted, host, ready,
                                                       tmp_path):
    mark = tmp_path / "mark"
    run = hosted.sh_started(
        "echo started; sleep 0.3; yes | head -c 2000000; echo end >%s" % mark)
    assert run.conn.expect(STDOUT) == b"started\n"
    q = quiesce(hosted)
    for c in (q, run.conn, ready):
        c.sock.close()
    configure(host.accept()[0], 8)
    until(mark.exists)
    until(lambda: not hosted.groups())


def test_run_that_had_not_begun_does_not_begin_in_a_copy(hosted, host, ready,
                                                         tmp_path):
    q = quiesce(hosted)
    run = hosted.exec(["touch", str(tmp_path / "mark")])
    time.sleep(0.2)
    for c in (q, run.conn, ready):
        c.sock.close()
    configure(host.accept()[0], 8)
    until(lambda: not hosted.groups())
    assert not (tmp_path / "mark").exists()


def test_host_that_leaves_during_quiesce(hosted, host, ready, ticker):
    host.hook("pre-snapshot.d", "slow", "sleep 1")
    conn = hosted.connect()
    conn.send(QUIESCE, struct.pack("<II", FILES, 0))
    time.sleep(0.2)
    conn.sock.close()
    until(lambda: not any((hosted.cgroup / "hooks").glob("*/")), 5)
    until(lambda: moves(ticker))
    thaw(quiesce(hosted))


# --- hooks --------------------------------------------------------------------


def test_hooks_before_a_snapshot(hosted, host, ready, ticker, tmp_path):
    out = tmp_path / "out"
    host.hook("pre-snapshot.d", "2", f"echo second >>{out}")
    host.hook("pre-snapshot.d", "1", f"echo first $HOME >>{out}; exit 3")
    host.hook("pre-snapshot.d", ".hidden", f"echo hidden >>{out}")
    (host.etc / "brig/pre-snapshot.d/README").write_text("no program")
    thaw(quiesce(hosted))
    assert not out.exists()
    q = quiesce(hosted, FILES)
    assert q.done[0] == 1
    assert out.read_text() == "first /root\nsecond\n"
    assert not moves(ticker)
    thaw(q)
    assert moves(ticker)


def test_hook_that_hangs_is_killed(hosted, host, ready):
    host.hook("pre-snapshot.d", "1", "sleep 100 & sleep 100")
    start = time.monotonic()
    q = quiesce(hosted, FILES)
    assert 4 < time.monotonic() - start < 9
    assert q.done[0] == 1
    thaw(q)
    until(lambda: not any((hosted.cgroup / "hooks").glob("*/")))


def test_what_a_hook_leaves_running_is_frozen_too(hosted, host, ready,
                                                  tmp_path):
    path = tmp_path / "ticks"
    path.write_text("")
    host.hook("pre-snapshot.d", "1", "(" + TICK.format(path) + ") &"
              f"until [ -s {path} ]; do sleep 0.01; done")

    class Background:
        pass

    Background.path = path
    q = quiesce(hosted, FILES)
    assert path.read_text()
    assert not moves(Background)
    thaw(q)
    assert moves(Background)


def test_hooks_after_a_restore(hosted, host, ready, ticker, tmp_path):
    out = tmp_path / "out"
    host.hook("post-restore.d", "1",
              f"echo $BRIG_GENERATION $BRIG_SANDBOX $(hostname) >>{out};"
              f"cat {ticker.path} >{out}.ticks; sleep 0.5;"
              f"cmp {ticker.path} {out}.ticks")
    host.hook("post-restore.d", "2", "exit 1")
    q = quiesce(hosted)
    for c in (q, ready):
        c.sock.close()
    conn, _, _ = host.accept()
    conn.send(CONFIGURE, configure_payload(0xab, hostname=b"copy"))
    time.sleep(0.2)
    conn.send(PING, b"while hooks run")
    assert conn.expect(PONG) == b"while hooks run"
    payload = conn.expect(CONFIGURED)
    assert struct.unpack_from("<Q5II", payload)[0] == 0xab
    assert struct.unpack_from("<Q5II", payload)[6] == 1
    assert out.read_text() == "00000000000000ab copy copy\n"
    until(lambda: moves(ticker))


def test_no_hooks_at_the_first_configure(hosted, host, tmp_path):
    host.hook("post-restore.d", "1", f"touch {tmp_path}/mark")
    conn, _, _ = host.accept()
    configure(conn, 1)
    assert not (tmp_path / "mark").exists()
    configure(conn, 2)
    assert (tmp_path / "mark").exists()


def test_host_that_leaves_while_hooks_run(hosted, host, ready, ticker,
                                          tmp_path):
    host.hook("post-restore.d", "1",
              f"echo x >>{tmp_path}/mark; [ -e {tmp_path}/2 ] || sleep 100")
    q = quiesce(hosted)
    for c in (q, ready):
        c.sock.close()
    conn, _, _ = host.accept()
    conn.send(CONFIGURE, configure_payload(8))
    until((tmp_path / "mark").exists)
    conn.sock.close()
    (tmp_path / "2").touch()
    conn, _, generation = host.accept()
    assert generation == 7
    assert not moves(ticker)
    assert configure(conn, 9).hooks_failed == 0
    assert (tmp_path / "mark").read_text() == "x\nx\n"
    until(lambda: moves(ticker))


def test_runs_end_as_ever_after_many_copies(hosted, host, ready):
    conn = ready
    for i in range(10):
        q = quiesce(hosted, FILES)
        q.sock.close()
        conn.sock.close()
        conn, _, _ = host.accept()
        configure(conn, 100 + i)
        r = hosted.sh("echo $0 out; exit 3")
        assert (r.reason, r.code) == (EXITED, 3)
