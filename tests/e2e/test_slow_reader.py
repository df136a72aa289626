# test_slow_reader.py - a slow reader slows its program and nothing else.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

from support import (
    MIB,
    median,
    memory_kib,
    pid_inside,
    reset_peak_memory,
    seconds_of,
)

BLOCKS = 1024  # of 64 KiB

PROGRAM = f"""\
import os
for number in range({BLOCKS}):
    left = b"%05d" % number + b"x" * 65530 + b"\\n"
    while left:
        left = left[os.write(1, left):]
    with open("/root/progress", "w") as file:
        file.write(str(number + 1))
"""


def progress(sandbox):
    return int(sandbox.run("cat /root/progress", timeout=20).stdout or 0)


def test_slow_reader(sandbox, new_sandbox, usual_echo_s):
    flooding = new_sandbox()
    flooding.files.write("/root/flood.py", PROGRAM)
    brigd = pid_inside("brigd")
    before = memory_kib(brigd, "VmRSS")
    reset_peak_memory(brigd)
    with flooding.stream("exec python3 flood.py") as stream:
        first = next(stream)
        time.sleep(4)  # nobody reads

        # the program waits, after what the buffers on the way hold
        here = progress(flooding)
        assert 0 < here < BLOCKS // 2, "nobody reads, and it writes on"
        times = [
            seconds_of(lambda: sandbox.run("echo x", timeout=20).check())
            for _ in range(10)
        ]
        assert median(times) < 2 * usual_echo_s + 0.05, "others are slowed"
        time.sleep(1)
        assert progress(flooding) == here, "nobody reads, and it writes on"
        grown = memory_kib(brigd, "VmHWM") - before
        assert grown < 16 * 1024, "brigd stores what nobody reads"

        # reading on, all of it comes
        parts = [first[1]] + [text for name, text in stream]
    assert stream.exit_code == 0
    output = "".join(parts)
    assert len(output) == BLOCKS * 65536
    for number in range(BLOCKS):
        at = number * 65536
        assert output[at : at + 6] == f"{number:05d}x"
    assert len(output) == 64 * MIB
