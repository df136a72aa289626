# test_failure.py - a dead monitor, agent or kernel: clear, and cleaned up.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest
from support import Later, inside, vmm_of, wait_for, within

import brig

# Overwrites the code of PID 1, the agent, which no signal can kill.
KILL_AGENT = r"""
import re
for line in open("/proc/1/maps"):
    first, last, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
    if "x" in mode and "[" not in line:
        start, end = int(first, 16), int(last, 16)
        with open("/proc/1/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(b"\xcc" * (end - start))
"""

KINDS = ("vmm", "panic", "agent", "poweroff", "reboot")


@pytest.fixture(scope="module")
def machines(module_sandboxes):
    made = module_sandboxes.several(*[{"name": f"end-{k}"} for k in KINDS])
    return dict(zip(KINDS, made))


class InFlight:
    """A command and a stream that are under way when the machine ends."""

    def __init__(self, sandbox):
        self.command = Later(lambda: sandbox.run("echo so far; sleep 300"))
        self.stream = sandbox.stream("echo begun; sleep 300")
        assert next(self.stream) == ("stdout", "begun\n")
        time.sleep(0.5)  # until the command is under way too

    def check_lost(self, deadline):
        result = self.command.result(deadline - time.monotonic())
        assert (result.status, result.exit_code) == ("error", -1)
        assert result.reason == "lost"
        assert result.error
        with pytest.raises(brig.StreamError) as caught:
            list(self.stream)
        assert str(caught.value)
        assert time.monotonic() < deadline


def check_ended(client, sandbox, status, reasons, deadline):
    """The state is clear in time, nothing is left, requests say why."""
    wait_for(
        lambda: sandbox.refresh().status not in ("creating", "running"),
        deadline - time.monotonic(),
        "the sandbox is no longer running",
    )
    assert sandbox.status == status
    assert sandbox.reason in reasons
    wait_for(
        lambda: not inside(
            f"find /sys/fs/cgroup -type d -name '*{sandbox.id}*'"
        ).strip(),
        5,
        "its cgroup is removed",
    )
    for request in (
        lambda: sandbox.run("true", timeout=5),
        lambda: sandbox.stream("true"),
        lambda: sandbox.runs(["true"], timeout_s=5),
        lambda: sandbox.files.write("x", b"x"),
        lambda: sandbox.files.read("/etc/hostname"),
    ):
        with pytest.raises(brig.UnprocessableError) as caught:
            request()
        error = caught.value
        assert error.code == "sandbox_not_running"
        assert error.details["status"] == status
        assert error.details["reason"] == sandbox.reason
    client.sandboxes.delete(sandbox.id)
    with pytest.raises(brig.NotFoundError):
        client.sandboxes.get(sandbox.id)


def test_killed_monitor(client, machines):
    sandbox = machines["vmm"]
    vmm = vmm_of(sandbox)
    flight = InFlight(sandbox)
    deadline = time.monotonic() + 5
    inside(f"kill -9 {vmm}")
    flight.check_lost(deadline)
    check_ended(client, sandbox, "failed", ["vmm_died"], deadline)
    assert "gone" in inside(f"test -e /proc/{vmm} && echo there || echo gone")


def test_guest_panic(client, machines):
    sandbox = machines["panic"]
    flight = InFlight(sandbox)
    deadline = time.monotonic() + 5
    with within(5, "the command that causes the panic"):
        result = sandbox.run("echo c >/proc/sysrq-trigger; sleep 60")
    assert (result.status, result.reason) == ("error", "lost")
    flight.check_lost(deadline)
    wait_for(
        lambda: sandbox.refresh().status == "failed",
        deadline - time.monotonic(),
        "the state `failed`",
    )
    assert "panic" in sandbox.console().lower()
    check_ended(client, sandbox, "failed", ["guest_panic"], deadline)


def test_killed_agent(client, machines):
    sandbox = machines["agent"]
    sandbox.files.write("/root/kill.py", KILL_AGENT)
    # the clock is for the death, not for Python's first start
    sandbox.run("python3 -c 1", timeout=30).check()
    flight = InFlight(sandbox)
    deadline = time.monotonic() + 5
    # its next step after the write is its last: give it one to take
    result = sandbox.run("python3 /root/kill.py; echo; sleep 60")
    assert (result.status, result.reason) == ("error", "lost")
    flight.check_lost(deadline)
    # a kernel whose PID 1 dies panics
    check_ended(
        client, sandbox, "failed", ["guest_panic", "agent_lost"], deadline
    )


def test_poweroff_from_inside(client, machines):
    sandbox = machines["poweroff"]
    flight = InFlight(sandbox)
    deadline = time.monotonic() + 5
    sandbox.run("echo o >/proc/sysrq-trigger; sleep 60")
    flight.check_lost(deadline)
    check_ended(client, sandbox, "stopped", ["guest_poweroff"], deadline)


def test_reboot_from_inside(client, machines):
    sandbox = machines["reboot"]
    flight = InFlight(sandbox)
    deadline = time.monotonic() + 5
    sandbox.run("echo b >/proc/sysrq-trigger; sleep 60")
    flight.check_lost(deadline)
    check_ended(client, sandbox, "stopped", ["guest_reset"], deadline)


def test_others_never_noticed(sandbox):
    assert sandbox.run("echo fine", timeout=20).stdout == "fine\n"
