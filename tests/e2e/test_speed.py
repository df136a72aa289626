# test_speed.py - the times that the issue promises, as p50.
# SPDX-License-Identifier: Apache-2.0
"""`make bench` measures the same with more rounds and writes them down."""
from __future__ import annotations

from support import median, seconds_of


ROUNDS = 3


def check_p50(limit, round_of_times):
    """The p50 of one round is below the limit. What else a shared machine
    does can only add time, so a round that misses is measured again."""
    p50s = []
    for _ in range(ROUNDS):
        p50s.append(median(round_of_times()))
        if p50s[-1] < limit:
            return
    raise AssertionError(f"p50 of {ROUNDS} rounds: {p50s}, limit {limit} s")


def test_boot_to_ready(new_sandbox):
    check_p50(7, lambda: [seconds_of(new_sandbox) for _ in range(3)])


def test_echo(sandbox):
    sandbox.run("echo warm", timeout=20)

    def echo():
        result = sandbox.run("echo $((6 * 7))", timeout=20).check()
        assert result.stdout == "42\n"

    check_p50(0.150, lambda: [seconds_of(echo) for _ in range(20)])


def test_warm_python(sandbox):
    def python():
        result = sandbox.run('python3 -c "print(1+1)"', timeout=30).check()
        assert result.stdout == "2\n"

    for _ in range(2):
        python()
    check_p50(0.600, lambda: [seconds_of(python) for _ in range(10)])
