# test_time.py - what a guest's clocks say after it was created, copied, paused.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time

import pytest
from support import brigd_is_here, inside, inside_command, seconds_of, wait_for

# `BRIG_PAUSE_S=60` is what is promised.
PAUSE_S = int(os.environ.get("BRIG_PAUSE_S", "8"))
SLEEP_S = 10
LIMIT_S = 0.1
HOUR_S = 3600

# Sleeps, and watches the clock that counts while the guest runs.
SLEEPER = f"""
import json, os, threading, time
def now():
    return [time.clock_gettime(c) for c in (
        time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME, time.CLOCK_REALTIME)]
steps = []
def watch():
    last = time.monotonic()
    while True:
        time.sleep(0.05)
        this = time.monotonic()
        steps.append(this - last)
        last = this
threading.Thread(target=watch, daemon=True).start()
begin = now()
open("/run/sleeps", "w").close()
time.sleep({SLEEP_S})
end = now()
with open("/run/slept.new", "w") as f:
    json.dump([b - a for a, b in zip(begin, end)] + [min(steps), max(steps)],
              f)
os.rename("/run/slept.new", "/run/slept")
"""


class HostClock:
    """The clock of the machine that brigd runs on."""

    LOOP = "while read -r x; do date +%s.%N; done"

    def __init__(self):
        self._shell = subprocess.Popen(
            inside_command() + [self.LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self):
        self._shell.stdin.write(b"\n")
        self._shell.stdin.flush()
        return float(self._shell.stdout.readline())

    def close(self):
        self._shell.stdin.close()
        self._shell.stdout.close()
        assert self._shell.wait(20) == 0


class GuestClock:
    """The clock of a sandbox, from a shell that does not fork to read it."""

    LOOP = "while read -r x; do echo $EPOCHREALTIME; done"

    def __init__(self, sandbox):
        self._run = sandbox.start(
            ["bash", "-c", self.LOOP], stdin_open=True, timeout_s=60
        )

    def ask(self):
        self._run.write(b"\n")
        said = b""
        while not said.endswith(b"\n"):
            said += next(self._run).data
        return float(said)

    def close(self):
        self._run.close()


class Ahead:
    """How far a clock is ahead of our monotonic one, between two bounds.

    What it says, it said between question and answer: each narrows them."""

    def __init__(self, clock):
        self._clock = clock
        self.low, self.high = float("-inf"), float("inf")

    def narrow(self):
        asked = time.monotonic()
        said = self._clock.ask()
        answered = time.monotonic()
        self.low = max(self.low, said - answered)
        self.high = min(self.high, said - asked)


@pytest.fixture
def host_clock():
    with contextlib.closing(HostClock()) as clock:
        yield clock


def wall_clock_error(sandbox, host_clock):
    """(at least, at most) how far a guest's clock is ahead of the host's:
    asked until it is known whether that is within the limit."""
    with contextlib.closing(GuestClock(sandbox)) as clock:
        guest, host = Ahead(clock), Ahead(host_clock)
        for _ in range(100):
            guest.narrow()
            host.narrow()
            low, high = guest.low - host.high, guest.high - host.low
            if -LIMIT_S <= low and high <= LIMIT_S:
                break
            if high < -LIMIT_S or LIMIT_S < low:
                break
    print(f"{low * 1000:.1f} to {high * 1000:.1f} ms ahead; "
          f"{sandbox.refresh().receipt}")
    return low, high


def test_wall_clock_is_right_in_whatever_is_handed_out(
    new_sandbox, host_clock
):
    """Of every origin, within 100 ms of the host's."""
    source = new_sandbox(memory=512)
    errors = {"created": wall_clock_error(source, host_clock)}
    snapshot = source.snapshot()
    try:
        for number, clone in enumerate(source.clone(2)):
            errors[f"clone {number}"] = wall_clock_error(clone, host_clock)
            clone.delete()
        restored = snapshot.restore()
        errors["restored"] = wall_clock_error(restored, host_clock)
        restored.delete()
        source.rollback(snapshot)
        errors["rolled back"] = wall_clock_error(source, host_clock)
        source.pause()
        time.sleep(2)
        source.resume()
        errors["resumed"] = wall_clock_error(source, host_clock)
    finally:
        snapshot.delete()
    assert all(-LIMIT_S <= low and high <= LIMIT_S
               for low, high in errors.values()), errors


def start_sleeper(sandbox):
    sandbox.runs(["sh", "-c", "cat >/run/sleeper.py"], stdin=SLEEPER,
                 timeout_s=20).check()
    sandbox.run("setsid python3 /run/sleeper.py >/run/sleeper.log 2>&1 &",
                timeout=20).check()
    wait_for(lambda: sandbox.run("ls /run/sleeps").exit_code == 0, 20,
             "the sleeper sleeps")


def slept(sandbox):
    """Monotonic, boot and wall seconds, smallest and largest step."""
    wait_for(lambda: sandbox.run("ls /run/slept").exit_code == 0, 60,
             "the end of the sleep")
    return json.loads(sandbox.run("cat /run/slept").stdout)


def test_sleep_that_was_asleep_during_a_pause_ends_right(new_sandbox):
    """Time stands still for who sleeps; only the wall clock goes on."""
    sandbox = new_sandbox(memory=512)
    start_sleeper(sandbox)
    began = time.monotonic()
    took = seconds_of(sandbox.pause)
    time.sleep(PAUSE_S)
    took += seconds_of(sandbox.resume)
    outside = time.monotonic() - began
    assert sandbox.run("ls /run/slept 2>/dev/null").exit_code != 0, \
        "most of the sleep was still to come"
    monotonic, boot, wall, smallest, largest = slept(sandbox)
    print(f"paused {PAUSE_S} s, which took {took:.1f} s: {monotonic:.2f} s "
          f"slept, {wall:.2f} s by the wall clock, steps up to {largest:.2f}")
    assert SLEEP_S <= monotonic < SLEEP_S + PAUSE_S / 2
    assert abs(boot - monotonic) < 0.1
    assert 0 < smallest and largest < PAUSE_S / 2
    assert PAUSE_S - LIMIT_S < wall - monotonic < outside + LIMIT_S


@contextlib.contextmanager
def host_clock_ahead(seconds):
    """Not where that would be this machine's clock."""
    def step(by):
        inside("t=$(date +%s.%N); "
               f"date -s @$((${{t%.*}} + {by})).${{t#*.}} >/dev/null")

    step(seconds)
    try:
        yield
    finally:
        step(-seconds)


def test_c04_snapshot_that_is_75_hours_old(new_sandbox, host_clock):
    """The wall clock goes on at once, timers and monotonic time do not."""
    hours = 0 if brigd_is_here() else 75
    source = new_sandbox(memory=512)
    start_sleeper(source)
    snapshot = source.snapshot()
    source.delete()
    try:
        with host_clock_ahead(hours * HOUR_S):
            copy = snapshot.restore()
            error = wall_clock_error(copy, host_clock)
            monotonic, boot, wall, smallest, largest = slept(copy)
            copy.delete()
        again = snapshot.restore()
        error_again = wall_clock_error(again, host_clock)
        again.delete()
    finally:
        snapshot.delete()
    assert hours * HOUR_S < wall - monotonic < hours * HOUR_S + 60
    assert SLEEP_S <= monotonic < SLEEP_S + 5
    assert abs(boot - monotonic) < 0.1
    assert 0 < smallest and largest < 5
    for low, high in (error, error_again):
        assert -LIMIT_S <= low and high <= LIMIT_S
