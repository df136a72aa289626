"""test_limits.py - what the agent can promise where cgroup v2 has controllers.

SPDX-License-Identifier: Apache-2.0

Collected only there (conftest.py), not on machines whose controllers are
mounted as cgroup v1. tests/e2e/test_agent_limits.py runs it where brigd runs.
"""

import errno
import signal
import time

import pytest

from agent import (AT_FORK, EXITED, OOM, STATUS, STATUS_REPLY, TIMED_OUT,
                   AgentError, until)

PYTHON = "/usr/bin/python3"
EAT = "a=[]\nwhile True: a.append(b'x' * (1 << 20))"

BOMB = """import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@pytest.fixture
def small_agent(agent):
    """Its runs have 256 MiB: filling all of a machine takes too long."""
    (agent.cgroup / "runs" / "memory.max").write_text(str(256 << 20))
    return agent


def time_to_answer(agent):
    start = time.monotonic()
    with agent.connect() as c:
        c.send(STATUS)
        c.expect(STATUS_REPLY)
    return time.monotonic() - start


def test_peak_memory_is_the_runs_own(agent):
    small = agent.run(["true"])
    big = agent.run([PYTHON, "-c", "a = b'x' * (60 << 20)"])
    assert 0 < small.memory_peak < 16 << 20
    assert 60 << 20 < big.memory_peak < 120 << 20
    assert agent.run(["true"]).memory_peak < 16 << 20


def test_out_of_memory_is_told(small_agent):
    r = small_agent.run([PYTHON, "-c", EAT])
    assert (r.reason, r.code) == (OOM, signal.SIGKILL)
    assert small_agent.run(["echo", "next"]).out == b"next\n"


def test_out_of_memory_takes_the_whole_run(small_agent):
    r = small_agent.sh(f'sleep 100 & {PYTHON} -c "$0" ; echo after'.replace(
        '"$0"', "'" + EAT.replace("'", '"') + "'"))
    assert (r.reason, r.out) == (OOM, b"")
    until(lambda: not small_agent.groups())


def test_out_of_memory_spares_other_runs(small_agent):
    other = small_agent.exec(["sleep 3; echo survived"], shell=True)
    other.started()
    assert small_agent.run([PYTHON, "-c", EAT]).reason == OOM
    r = other.wait()
    assert (r.reason, r.out) == (EXITED, b"survived\n")


def test_fork_bomb(agent):
    (agent.cgroup / "runs" / "pids.max").write_text("150")
    bomb = agent.exec([PYTHON, "-c", BOMB], timeout_ms=20000).started()
    slowest = 0
    full = 0
    end = time.monotonic() + 15
    while full < 5 and time.monotonic() < end:
        slowest = max(slowest, time_to_answer(agent))
        try:
            agent.exec(["true"]).started().conn.sock.close()
        except AgentError as e:
            assert (e.stage, e.errno) == (AT_FORK, errno.EAGAIN)
            full += 1
        time.sleep(0.2)
    assert slowest < 2
    assert full == 5
    bomb.conn.sock.settimeout(60)
    assert bomb.wait().reason == TIMED_OUT
    until(lambda: not agent.groups(), 60)
    assert agent.run(["echo", "over"]).out == b"over\n"


def test_limits_leave_the_agent_room(agent):
    runs = agent.cgroup / "runs"
    with open("/proc/meminfo", encoding="ascii") as f:
        total = int(f.readline().split()[1]) << 10
    assert int((runs / "memory.max").read_text()) <= total - (16 << 20)
    assert 512 <= int((runs / "pids.max").read_text()) <= 16384
