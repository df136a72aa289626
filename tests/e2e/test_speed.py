# test_speed.py - the times that the issue promises, as p50.
# SPDX-License-Identifier: Apache-2.0
"""`make bench` measures the same with more rounds and writes them down."""
from __future__ import annotations

from support import median, seconds_of


def test_boot_to_ready(new_sandbox):
    times = [seconds_of(new_sandbox) for _ in range(3)]
    print(times)
    assert median(times) < 7


def test_echo(sandbox):
    sandbox.run("echo warm", timeout=20)
    times = [
        seconds_of(lambda: sandbox.run("echo $((6 * 7))", timeout=20).check())
        for _ in range(20)
    ]
    print(times)
    assert median(times) < 0.150


def test_warm_python(sandbox):
    line = 'python3 -c "print(1+1)"'
    for _ in range(2):
        assert sandbox.run(line, timeout=30).stdout == "2\n"
    times = [
        seconds_of(lambda: sandbox.run(line, timeout=30).check())
        for _ in range(10)
    ]
    print(times)
    assert median(times) < 0.600
