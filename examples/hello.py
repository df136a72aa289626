#!/usr/bin/env python3
# hello.py - a real program goes into a microVM, its result comes out.
# SPDX-License-Identifier: Apache-2.0
"""Runs a Python program in a new sandbox and prints its result as JSON.

    BRIG_BASE_URL=http://127.0.0.1:2744 BRIG_API_KEY=... examples/hello.py

1. creates a sandbox: a microVM with its own kernel;
2. uploads a list of orders (JSON) and a program;
3. runs the program, which reads the orders, computes, and writes a file;
4. downloads that file and compares it with what this machine computes;
5. deletes the sandbox.

The result goes to standard output, progress to standard error. Exit code 0
means that every step worked and that the numbers are right.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any, Dict, List

sys.path.insert(
    0, os.path.join(os.path.dirname(__file__), "..", "sdk", "python")
)

import brig  # noqa: E402

PRIMES_BELOW = 20_000
# 4 quarters of a vCPU are one; small enough to run many beside each other.

# What runs in the sandbox: plain Python, nothing of brig in it.
PROGRAM = '''\
import json, platform, statistics, sys

def primes_below(n):
    sieve = bytearray([1]) * n
    sieve[0:2] = b"\\0\\0"
    for i in range(2, int(n ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i::i] = bytes(len(range(i * i, n, i)))
    return [i for i in range(n) if sieve[i]]

with open(sys.argv[1]) as file:
    orders = json.load(file)
totals = {}
for order in orders:
    cents = order["quantity"] * order["price_cents"]
    totals[order["customer"]] = totals.get(order["customer"], 0) + cents
primes = primes_below(int(sys.argv[3]))
result = {
    "orders": len(orders),
    "total_cents": dict(sorted(totals.items())),
    "best_customer": max(sorted(totals), key=totals.get),
    "median_cents": statistics.median(
        order["quantity"] * order["price_cents"] for order in orders
    ),
    "primes": {"count": len(primes), "largest": primes[-1]},
}
with open(sys.argv[2], "w") as file:
    json.dump(result, file)
print(f"{len(orders)} orders of {len(totals)} customers")
print("python", platform.python_version(), file=sys.stderr)
'''


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def make_orders() -> List[Dict[str, Any]]:
    customers = ["Ada", "Brahmagupta", "Émilie", "Grace", "李善兰"]
    return [
        {
            "id": number,
            "customer": customers[number * 7 % 11 % len(customers)],
            "quantity": 1 + number * 5 % 9,
            "price_cents": 100 + number * 37 % 2000,
        }
        for number in range(500)
    ]


def expected_of(orders: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The same figures, computed here and in another way."""
    names = sorted({order["customer"] for order in orders})
    totals = {
        name: sum(
            order["quantity"] * order["price_cents"]
            for order in orders
            if order["customer"] == name
        )
        for name in names
    }
    primes = [2]
    for number in range(3, PRIMES_BELOW, 2):
        for prime in primes:
            if prime * prime > number:
                primes.append(number)
                break
            if number % prime == 0:
                break
    return {
        "orders": len(orders),
        "total_cents": totals,
        "best_customer": max(names, key=lambda name: totals[name]),
        "median_cents": statistics.median(
            order["quantity"] * order["price_cents"] for order in orders
        ),
        "primes": {"count": len(primes), "largest": primes[-1]},
    }


def run_in(sandbox: brig.Sandbox, create_ms: float) -> Dict[str, Any]:
    orders = make_orders()
    say(f"uploading {len(orders)} orders and a program")
    sandbox.files.write("/root/orders.json", json.dumps(orders))
    sandbox.files.write("/root/report.py", PROGRAM)

    say("running the program")
    run = sandbox.run(
        f"python3 report.py orders.json result.json {PRIMES_BELOW}",
        working_dir="/root",
        timeout=60,
    ).check()

    say("downloading its result")
    result = json.loads(sandbox.files.read("/root/result.json"))
    if result != expected_of(orders):
        raise SystemExit(f"hello: the result is wrong: {result}")
    kernel = sandbox.run("uname -r", timeout=30).check().stdout.strip()
    return {
        "sandbox": sandbox.id,
        "image": sandbox.refresh().image,
        "kernel": kernel,
        "python": run.stderr.strip().partition(" ")[2],
        "create_ms": round(create_ms),
        "run": {
            "exit_code": run.exit_code,
            "status": run.status,
            "stdout": run.stdout,
            "stderr": run.stderr,
            "execution_time_ms": run.execution_time_ms,
        },
        "result": result,
    }


def main() -> int:
    try:
        client = brig.Client()
        say(f"creating a sandbox at {client.base_url}")
        start = time.monotonic()
        with brig.Sandbox.create(client) as sandbox:
            create_ms = (time.monotonic() - start) * 1000
            say(f"{sandbox.id} is ready after {create_ms / 1000:.1f} s")
            report = run_in(sandbox, create_ms)
            say("deleting the sandbox")
    except brig.BrigError as error:
        print(f"hello: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
