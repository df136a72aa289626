#!/usr/bin/env python3
# clones.py - one warm machine becomes ten, and each answers something else.
# SPDX-License-Identifier: Apache-2.0
"""Copies a running sandbox, with the process in it, and uses every copy.

    BRIG_BASE_URL=http://127.0.0.1:2744 BRIG_API_KEY=... examples/clones.py

1. creates a sandbox and starts a worker in it, which computes a table of
   primes, keeps it in memory and waits for questions;
2. clones the sandbox: the worker goes on in every copy, table and all;
3. asks each copy for the primes in another tenth of the table;
4. checks the answers, and that copies share no random numbers, host name or
   machine-id; prints them with their receipts; deletes everything.

Exit code 0 means that all of it was right.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Set

sys.path.insert(
    0, os.path.join(os.path.dirname(__file__), "..", "sdk", "python")
)

import brig  # noqa: E402

CLONES = 10
PRIMES_BELOW = 2_000_000

# What runs in the sandbox. Questions and answers go through two FIFOs.
WORKER = f'''\
import json, os, secrets, socket

n = {PRIMES_BELOW}
sieve = bytearray([1]) * n
sieve[0:2] = b"\\0\\0"
for i in range(2, int(n ** 0.5) + 1):
    if sieve[i]:
        sieve[i * i::i] = bytes(len(range(i * i, n, i)))
os.mkfifo("questions")
os.mkfifo("answers")
open("warm", "w").close()
while True:
    with open("questions") as file:
        first, last = map(int, file.read().split())
    with open("/etc/machine-id") as file:
        machine_id = file.read().strip()
    with open("answers", "w") as file:
        json.dump({{
            "primes": sum(sieve[first:last]),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine_id": machine_id,
            "secret": secrets.token_hex(8),
        }}, file)
'''


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def warm_up(sandbox: brig.Sandbox) -> None:
    sandbox.files.write("/root/worker.py", WORKER)
    sandbox.run("nohup python3 worker.py >worker.log 2>&1 &").check()
    sandbox.run(
        "until [ -e warm ]; do sleep 0.1; done", timeout=120
    ).check()


def ask(sandbox: brig.Sandbox, number: int) -> Dict[str, Any]:
    """The worker's answer about one tenth of its table."""
    tenth = PRIMES_BELOW // CLONES
    start = time.monotonic()
    run = sandbox.run(
        f"echo {number * tenth} {(number + 1) * tenth} > questions"
        " && cat answers",
        timeout=60,
    ).check()
    answer: Dict[str, Any] = json.loads(run.stdout)
    answer["ms"] = (time.monotonic() - start) * 1000
    return answer


def primes_below(n: int) -> int:
    """How many there are, counted on this machine in another way."""
    composite: Set[int] = set()
    for i in range(2, int(n**0.5) + 1):
        if i not in composite:
            composite.update(range(i * i, n, i))
    return n - 2 - len(composite)


def check(answers: List[Dict[str, Any]]) -> None:
    total = sum(answer["primes"] for answer in answers)
    if total != primes_below(PRIMES_BELOW):
        raise SystemExit(f"clones: {total} primes in all: that is wrong")
    for name in ("host", "machine_id", "secret"):
        if len({answer[name] for answer in answers}) != len(answers):
            raise SystemExit(f"clones: two have the same {name}")
    if len({answer["pid"] for answer in answers}) != 1:
        raise SystemExit("clones: the worker is not the same process")


def show(clone: brig.Sandbox, answer: Dict[str, Any]) -> None:
    receipt = clone.receipt
    if receipt is None or not receipt.entropy_reseeded:
        raise SystemExit(f"clones: {clone.id} has no receipt")
    print(
        f"{clone.name}: {answer['primes']} primes, secret "
        f"{answer['secret']}, answered in {answer['ms']:.0f} ms; receipt: "
        f"reseeded, clock within {receipt.clock_error_ms or 0:.1f} ms, "
        f"machine-id {answer['machine_id'][:8]}..., "
        + ", ".join(f"{k} {v} us" for k, v in receipt.steps_us.items())
    )


def main() -> int:
    try:
        with contextlib.ExitStack() as everything:
            client = everything.enter_context(brig.Client())
            say(f"creating a sandbox at {client.base_url}")
            source = everything.enter_context(brig.Sandbox.create(client))
            start = time.monotonic()
            warm_up(source)
            say(f"the worker was warm after {time.monotonic() - start:.1f} s")

            start = time.monotonic()
            clones = source.clone(CLONES)
            for clone in clones:
                everything.enter_context(clone)
            say(f"{CLONES} clones in {time.monotonic() - start:.2f} s")

            with ThreadPoolExecutor(CLONES) as pool:
                answers = list(pool.map(ask, clones, range(CLONES)))
            for clone, answer in zip(clones, answers):
                show(clone, answer)
            check(answers)
            say("all answers are right; deleting everything")
    except brig.PartialError as error:
        for clone in error.sandboxes:
            clone.delete()
        print(f"clones: {error}", file=sys.stderr)
        return 1
    except brig.BrigError as error:
        print(f"clones: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
