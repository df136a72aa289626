# test_guest.py - the agent survives what programs do, and keeps order.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from support import alive_in_guest, wait_for, within


def zombies(sandbox):
    result = sandbox.run(
        "cat /proc/[0-9]*/stat 2>/dev/null | awk '$3 == \"Z\"' | wc -l",
        timeout=20,
    )
    return int(result.stdout)


def test_a_background_process_lives_on(sandbox):
    with within(3, "a command that leaves a process behind"):
        result = sandbox.run("sleep 300 & echo $!", timeout=20)
    pid = int(result.stdout)
    assert alive_in_guest(sandbox, pid)
    sandbox.run(f"kill {pid}", timeout=20).check()
    wait_for(lambda: not alive_in_guest(sandbox, pid), 3, "end of sleep")


def test_a_background_server_answers(sandbox):
    result = sandbox.run(
        "ip link set lo up 2>/dev/null; "
        "nohup python3 -m http.server 8123 >/dev/null 2>&1 & echo $!",
        timeout=20,
    )
    pid = int(result.stdout)
    try:
        wait_for(
            lambda: sandbox.run(
                "curl -fsS http://127.0.0.1:8123/ >/dev/null", timeout=20
            ).ok,
            40,
            "an answer of the server",
        )
    finally:
        sandbox.run(f"kill {pid}", timeout=20)


def test_later_output_of_a_background_process_is_no_harm(sandbox):
    result = sandbox.run(
        "(sleep 0.5; for i in $(seq 1000); do echo late; done; "
        "touch /root/late-done) & echo now",
        timeout=20,
    )
    assert result.stdout == "now\n"
    wait_for(
        lambda: sandbox.run("rm /root/late-done", timeout=20).ok,
        10,
        "the background process went on",
    )


def test_orphans_are_reaped(sandbox):
    sandbox.run(
        "for i in $(seq 50); do (setsid sleep 0.2 &) ; done", timeout=30
    ).check()
    wait_for(lambda: zombies(sandbox) == 0, 5, "no zombies")


def test_everything_killed_at_once(sandbox):
    """By a shell that the signal does not reach: kill(2) leaves it out."""
    sandbox.run("sleep 300 & sleep 300 &", timeout=20)
    result = sandbox.run("kill -9 -1; echo survived", timeout=20)
    assert (result.exit_code, result.stdout) == (0, "survived\n")
    assert sandbox.run("pgrep -x sleep", timeout=20).exit_code == 1
    assert sandbox.run("echo fine", timeout=20).stdout == "fine\n"


@pytest.mark.parametrize("number", [1, 9, 15, 11, 19])
def test_signals_to_the_agent(sandbox, number):
    sandbox.run(f"kill -{number} 1", timeout=20)
    assert sandbox.run("echo fine", timeout=20).stdout == "fine\n"


def test_closed_pipes(sandbox):
    result = sandbox.run("exec 1>&- 2>&-; sleep 0.3; exit 3", timeout=20)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "")
    result = sandbox.run("yes | head -1; echo ${PIPESTATUS[0]}", timeout=20)
    assert result.stdout == "y\n141\n"


def test_only_the_main_process_decides(sandbox):
    """A child that keeps stdout open does not delay the result."""
    with within(3, "a command whose child keeps stdout open"):
        result = sandbox.run("(sleep 20; echo late) & echo main; exit 5")
    assert (result.stdout, result.exit_code) == ("main\n", 5)


def test_descriptors_do_not_leak_into_commands(sandbox):
    result = sandbox.run("ls /proc/$$/fd | tr '\\n' ' '", timeout=20)
    assert set(result.stdout.split()) <= {"0", "1", "2", "3", "255"}


def test_many_runs_leave_nothing(sandbox):
    def state():
        result = sandbox.run(
            "ls /proc/1/fd | wc -l; set -- /proc/[0-9]*; echo $#; "
            "find /sys/fs/cgroup -type d | wc -l",
            timeout=20,
        )
        return [int(number) for number in result.stdout.split()]

    state()
    before = state()
    for number in range(30):
        assert sandbox.run(f"exit {number}", timeout=20).exit_code == number
    for first, last in zip(before, state()):
        assert last <= first + 2


def test_no_way_out(sandbox):
    """No network device but loopback until there is a policy for one."""
    result = sandbox.run("ls /sys/class/net", timeout=20)
    assert result.stdout.split() == ["lo"]


def test_no_host_files(sandbox):
    """Nothing of the host is mounted: one disk, and the kernel's own."""
    result = sandbox.run("cut -d' ' -f3 /proc/mounts | sort -u", timeout=20)
    assert set(result.stdout.split()) <= {
        "ext4", "proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "cgroup2",
        "mqueue", "debugfs", "tracefs", "securityfs", "hugetlbfs", "bpf",
        "pstore",
    }
