# test_isolation.py - what one sandbox does, another does not notice.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

from support import median, seconds_of, wait_for


def test_a_fork_bomb_next_door(sandbox, new_sandbox, usual_echo_s):
    neighbour = new_sandbox()
    neighbour.run("true", timeout=20)
    with neighbour.stream(
        "exec 2>/dev/null; echo up; bomb() { bomb | bomb & }; bomb; sleep 600"
    ) as stream:
        assert next(stream) == ("stdout", "up\n")
        time.sleep(2)
        times = [
            seconds_of(lambda: sandbox.run("echo x", timeout=20).check())
            for _ in range(10)
        ]
    # the host VM's two cores are shared with the bomb's one vCPU
    assert median(times) < 3 * usual_echo_s + 0.1
    wait_for(
        lambda: neighbour.run("echo back", timeout=10).stdout == "back\n",
        15,
        "the neighbour works again",
    )


def test_files_are_not_shared(sandbox, new_sandbox):
    other = new_sandbox()
    sandbox.files.write("/root/mine", "secret of one")
    assert other.run("test -e /root/mine", timeout=20).exit_code == 1
    other.files.write("/root/mine", "of the other")
    assert sandbox.files.read("/root/mine") == b"secret of one"
    # the base image under both is not written to
    sandbox.run("echo changed >/etc/motd; sync", timeout=20).check()
    assert "changed" not in other.run("cat /etc/motd", timeout=20).stdout


def test_identity_is_not_shared(sandbox, new_sandbox):
    other = new_sandbox()
    line = (
        "cat /proc/sys/kernel/random/boot_id; hostname; "
        "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '"
    )
    mine, its = (
        one.run(line, timeout=20).check().stdout.split()
        for one in (sandbox, other)
    )
    assert all(a != b for a, b in zip(mine, its))
