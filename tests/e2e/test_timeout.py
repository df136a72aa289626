# test_timeout.py - whatever a program does, its time-out ends it.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from support import seconds_of, wait_for, within

PROGRAMS = {
    "endless loop": "echo so far; echo and so on >&2; while :; do :; done",
    "ignores SIGTERM": (
        "trap '' TERM INT HUP; echo so far; echo and so on >&2; "
        "while :; do sleep 1; done"
    ),
    "fork bomb": (
        "echo so far; echo and so on >&2; exec 2>/dev/null; "
        "bomb() { bomb | bomb & }; bomb; wait; sleep 60"
    ),
    "left its session": (
        "echo so far; echo and so on >&2; setsid sleep 600; sleep 600"
    ),
    "keeps stdout open in the background": (
        "echo so far; echo and so on >&2; sleep 600 & sleep 600"
    ),
}


@pytest.fixture(scope="module")
def machine(module_sandboxes):
    return module_sandboxes()


def processes(sandbox):
    line = "set -- /proc/[0-9]*; echo $#"
    return int(sandbox.run(line, timeout=30).stdout)


@pytest.mark.parametrize("name", PROGRAMS)
def test_comes_back_in_time(machine, name):
    machine.run("true", timeout=20)
    before = processes(machine)
    with within(3, f"timeout: 2 of a program that is: {name}"):
        result = machine.run(PROGRAMS[name], timeout=2)
    assert (result.status, result.exit_code) == ("timeout", 124)
    assert result.stdout == "so far\n"
    assert result.stderr.startswith("and so on\n")
    assert 2000 <= result.execution_time_ms < 3000

    # the sandbox works after, and nothing of the program is left in it
    assert seconds_of(lambda: machine.run("echo x", timeout=20).check()) < 3
    wait_for(lambda: processes(machine) <= before + 2, 5, "end of processes")


def test_no_timeout_before_its_time(machine):
    result = machine.run("sleep 1; echo done", timeout=5)
    assert (result.status, result.stdout) == ("completed", "done\n")


def test_the_other_name_of_the_field(api, machine):
    with within(2.5, "a time-out of one second"):
        reply = api(
            "POST",
            f"/v1/sandboxes/{machine.id}/execute",
            {"command": "sleep 60", "api_timeout": 1},
        )
    assert reply.json()["status"] == "timeout"
