# test_stream.py - 100 MiB arrive byte for byte, in bounded memory.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import time

from support import MIB, memory_kib, pid_inside, reset_peak_memory

import brig

# A block of odd length with characters of two, three and four bytes, so that
# each boundary of frames and chunks falls into the middle of one sometime.
BLOCK = ("{:09d}|é漢😀\\\"\t" + "abcdefghijklmnopqrstuvwxyz" * 39).encode()
TOTAL = 100 * MIB

PROGRAM = f"""\
import sys
block = {BLOCK.decode()!r}
total = {TOTAL}
out = sys.stdout.buffer
done = number = 0
while done < total:
    piece = block.replace("{{:09d}}", "%09d" % number, 1).encode()
    out.write(piece)
    done += len(piece)
    number += 1
    if number % 20000 == 0:
        sys.stderr.write("%d\\n" % number)
        sys.stderr.flush()
out.flush()
"""


def expected():
    digest, done, number = hashlib.sha256(), 0, 0
    marks = []
    while done < TOTAL:
        piece = BLOCK.replace(b"{:09d}", b"%09d" % number, 1)
        digest.update(piece)
        done += len(piece)
        number += 1
        if number % 20000 == 0:
            marks.append(f"{number}\n")
    return digest.hexdigest(), done, "".join(marks)


def test_100_mib_byte_for_byte(sandbox):
    brigd = pid_inside("brigd")
    before = memory_kib(brigd, "VmRSS")
    reset_peak_memory(brigd)
    sandbox.files.write("/root/flood.py", PROGRAM)

    digest, size, marks = hashlib.sha256(), 0, []
    start = time.monotonic()
    with sandbox.stream("exec python3 flood.py") as stream:
        for name, text in stream:
            if name == "stdout":
                data = text.encode()
                digest.update(data)
                size += len(data)
            else:
                marks.append(text)
    took = time.monotonic() - start
    print(f"{size / MIB / took:.1f} MiB/s")

    want_digest, want_size, want_marks = expected()
    assert (stream.exit_code, size) == (0, want_size)
    assert digest.hexdigest() == want_digest
    assert "".join(marks) == want_marks

    peak = memory_kib(brigd, "VmHWM")
    assert peak - before < 64 * 1024, "brigd keeps what it passes on"
    agent = sandbox.run("grep VmHWM /proc/1/status", timeout=20).stdout
    assert int(agent.split()[1]) < 32 * 1024, "the agent keeps output"


def test_output_comes_as_it_is_written(sandbox):
    start = time.monotonic()
    times = []
    with sandbox.stream("echo a; sleep 1; echo b >&2; sleep 1; echo c") as s:
        got = [
            event for event in s
            if not times.append(time.monotonic() - start)
        ]
    assert got == [("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n")]
    assert times[0] < 1 < times[1] < 2 < times[2] < 3.5


def test_environment_directory_and_exit_code(sandbox):
    with sandbox.stream(
        "echo $A; pwd; exit 9", env={"A": "b"}, working_dir="/tmp"
    ) as stream:
        text = "".join(text for _, text in stream)
    assert (text, stream.exit_code) == ("b\n/tmp\n", 9)


def test_a_signal_is_128_and_its_number(sandbox):
    with sandbox.stream("kill -KILL $$") as stream:
        assert list(stream) == []
    assert stream.exit_code == 137


def test_the_lines_are_as_published(api, sandbox):
    reply = api(
        "POST",
        f"/v1/sandboxes/{sandbox.id}/execute_async",
        {"command": "echo out; sleep 0.2; echo err >&2; exit 3"},
    )
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert [json.loads(line) for line in reply.body.splitlines()] == [
        {"stdout": "out\n"}, {"stderr": "err\n"}, {"exit_code": 3},
    ]


def test_a_stream_in_a_sandbox_that_is_not_there(client):
    try:
        client.sandboxes.stream("sb_" + "0" * 24, "true")
    except brig.NotFoundError as error:
        assert error.code == "not_found"
    else:
        raise AssertionError("no error")
