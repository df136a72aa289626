#!/usr/bin/python3
# bench.py - measures brig and writes build/bench.json.
# SPDX-License-Identifier: Apache-2.0
"""Measures a running brig (BRIG_BASE_URL, BRIG_API_KEY).

    tests/bench/bench.py [--only NAME]... [--quick] [--merge FILE] [--out FILE]
    tests/bench/bench.py --list

Every clock stops when a value that only the guest can have computed has
arrived; each result says where its clock starts and stops. Before a
measurement the same thing is done some times without measuring (`warmup`).

Results of other programs are merged in with --merge: a JSON list of
{"name", "unit", "n", "p50", "p95", "p99", "from", "to", "where"}, as
build/bench/machine writes it (tests/bench/machine.c: tiny guests on the bare
/dev/kvm). Without a benchmark of its own to do it needs no brig.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
sys.path.insert(0, os.path.join(ROOT, "sdk", "python"))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import brig  # noqa: E402
from peer_qemu import MEMORY_MIB as PEER_MEMORY_MIB, Peer  # noqa: E402
from support import brigd_is_here, inside, vmm_of  # noqa: E402

MEMORY_MIB = 256
CLONES = 100
STANDBYS = 2  # of brigd, without an option
FIELDS = ("name", "unit", "n", "p50", "p95", "p99", "from", "to", "where")
MEASURES: Dict[str, "Measure"] = {}


@dataclass
class Measure:
    """One benchmark: `run` gives its samples."""

    name: str
    unit: str
    start: str
    stop: str
    warmup: int
    rounds: int
    run: Callable[["Bench", int, int], List[float]]
    beside: str = ""  # in turns with the others of this name, for fairness


def measure(
    unit: str,
    start: str,
    stop: str,
    *,
    warmup: int,
    rounds: int,
    beside: str = "",
) -> Callable[[Callable[..., List[float]]], Callable[..., List[float]]]:
    """Registers a function as the benchmark of its name."""

    def register(
        run: Callable[..., List[float]]
    ) -> Callable[..., List[float]]:
        name = run.__name__
        MEASURES[name] = Measure(
            name, unit, start, stop, warmup, rounds, run, beside
        )
        return run

    return register


class Bench:
    """The brig that is measured, and one sandbox for those that share it."""

    def __init__(self, client: brig.Client) -> None:
        self.client = client
        self.peer = Peer()
        self._shared: Optional[brig.Sandbox] = None

    def create(self) -> brig.Sandbox:
        return brig.Sandbox.create(self.client, memory=MEMORY_MIB)

    def settle(self) -> None:
        """Waits until brigd makes nothing ready for later any more."""
        end = time.monotonic() + 180
        while time.monotonic() < end:
            host = self.client.host()
            names = [one.status for one in self.client.templates.list()]
            if host["standby"] == STANDBYS and not {
                "wanted", "creating", "loading"
            } & set(names):
                return
            time.sleep(0.2)
        raise SystemExit("bench: brigd does not come to rest")

    @property
    def shared(self) -> brig.Sandbox:
        if self._shared is None:
            self._shared = self.create()
        return self._shared

    def close(self) -> None:
        if self._shared is not None:
            self._shared.delete()
        self.client.close()
        self.peer.close()


def two_numbers() -> Sequence[int]:
    """So that no answer of before can be the answer of now."""
    return random.randrange(10**3, 10**6), random.randrange(10**3, 10**6)


def check(result: brig.ExecResult, expected: int) -> None:
    if result.check().stdout != f"{expected}\n":
        raise SystemExit(f"bench: {result.stdout!r} instead of {expected}")


def multiply_in_shell(sandbox: brig.Sandbox) -> None:
    a, b = two_numbers()
    check(sandbox.run(f"echo $(({a} * {b}))"), a * b)


def multiply_in_python(sandbox: brig.Sandbox) -> None:
    a, b = two_numbers()
    check(sandbox.run_code(f"print({a} * {b})"), a * b)


def timed_ms(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def repeated_ms(
    work: Callable[[], Any], warmup: int, rounds: int
) -> List[float]:
    for _ in range(warmup):
        work()
    return [timed_ms(work) for _ in range(rounds)]


# --- the benchmarks ----------------------------------------------------------


@measure(
    "ms",
    "before the create request of a shape that has no template is sent",
    "its answer says `running`, which the guest's agent has confirmed; "
    "then the guest multiplies two numbers, off the clock",
    warmup=0,
    rounds=3,
)
def boot_to_ready(bench: Bench, warmup: int, rounds: int) -> List[float]:
    samples = []
    for _ in range(warmup + rounds):
        bench.settle()
        memory = random.randrange(MEMORY_MIB + 1, 2 * MEMORY_MIB)
        start = time.perf_counter()
        with brig.Sandbox.create(bench.client, memory=memory) as sandbox:
            samples.append((time.perf_counter() - start) * 1000)
            multiply_in_shell(sandbox)
    bench.settle()
    return samples[warmup:]


def hello(
    bench: Bench,
    rounds: int,
    multiply: Callable[[brig.Sandbox], None],
    *,
    wait: bool,
) -> List[float]:
    """Creates a default sandbox and has it multiply, on the clock."""
    samples = []
    for _ in range(rounds):
        if wait:
            bench.settle()
        start = time.perf_counter()
        with brig.Sandbox.create(bench.client) as sandbox:
            multiply(sandbox)
            samples.append((time.perf_counter() - start) * 1000)
    return samples


@measure(
    "ms",
    "before the create request of a default sandbox is sent; a standby is "
    "ready",
    "the product of two numbers, computed by warm Python through `code`, is "
    "here",
    warmup=0,
    rounds=20,
    beside="python",
)
def hello_python_warm(bench: Bench, warmup: int, rounds: int) -> List[float]:
    return hello(bench, rounds, multiply_in_python, wait=True)[warmup:]


def ask_peer(
    bench: Bench, what: str, how: str, warmup: int, rounds: int
) -> List[float]:
    bench.settle()
    return bench.peer.ask(what, how, warmup + rounds)[warmup:]


@measure(
    "ms",
    "before QEMU is started from its snapshot (on the host of brigd; no API)",
    "the product of two numbers, computed by the Python that waited in the "
    "snapshot, is here",
    warmup=1,
    rounds=20,
    beside="python",
)
def peer_qemu_microvm_hello_python_warm(
    bench: Bench, warmup: int, rounds: int
) -> List[float]:
    return ask_peer(bench, "ask", "P", warmup, rounds)


@measure(
    "ms",
    "before two numbers are sent to a QEMU that was restored before and runs "
    "(on the host of brigd; no API)",
    "their product, computed by the Python that waited in the snapshot, is "
    "here",
    warmup=1,
    rounds=10,
    beside="python",
)
def peer_qemu_microvm_standby_python_warm(
    bench: Bench, warmup: int, rounds: int
) -> List[float]:
    return ask_peer(bench, "standby", "P", warmup, rounds)


@measure(
    "ms",
    "before the create request of a default sandbox is sent; a standby is "
    "ready",
    "the product of two numbers, computed by sh in the new guest, is here",
    warmup=0,
    rounds=20,
    beside="shell",
)
def hello_shell(bench: Bench, warmup: int, rounds: int) -> List[float]:
    return hello(bench, rounds, multiply_in_shell, wait=True)[warmup:]


@measure(
    "ms",
    "before QEMU is started from its snapshot (on the host of brigd; no API)",
    "the product of two numbers, computed by sh in the new guest, is here",
    warmup=1,
    rounds=20,
    beside="shell",
)
def peer_qemu_microvm_hello_shell(
    bench: Bench, warmup: int, rounds: int
) -> List[float]:
    return ask_peer(bench, "ask", "S", warmup, rounds)


@measure(
    "ms",
    "before two numbers are sent to a QEMU that was restored before and runs "
    "(on the host of brigd; no API)",
    "their product, computed by sh in the guest, is here",
    warmup=1,
    rounds=10,
    beside="shell",
)
def peer_qemu_microvm_standby_shell(
    bench: Bench, warmup: int, rounds: int
) -> List[float]:
    return ask_peer(bench, "standby", "S", warmup, rounds)


@measure(
    "ms",
    "before the create request of a default sandbox is sent, right after the "
    "one before was deleted",
    "the product of two numbers, computed by sh in the new guest, is here",
    warmup=3,
    rounds=20,
    beside="shell",
)
def hello_shell_loop(bench: Bench, warmup: int, rounds: int) -> List[float]:
    every = hello(bench, warmup + rounds, multiply_in_shell, wait=False)
    return every[warmup:]


@measure(
    "ms",
    f"before the request for {CLONES} clones of a running default sandbox",
    "each of them has multiplied two other numbers in a shell, one after the "
    "other",
    warmup=0,
    rounds=1,
)
def clones_100(bench: Bench, warmup: int, rounds: int) -> List[float]:
    samples = []
    for _ in range(warmup + rounds):
        with brig.Sandbox.create(bench.client) as source:
            multiply_in_shell(source)
            bench.settle()
            start = time.perf_counter()
            clones = source.clone(CLONES)
            for one in clones:
                multiply_in_shell(one)
            samples.append((time.perf_counter() - start) * 1000)
            for one in clones:
                one.delete()
    return samples[warmup:]


@measure(
    "ms",
    f"before the first of {CLONES} QEMUs is started from one snapshot, which "
    "was saved before",
    "each of them has multiplied two other numbers in a shell, one after the "
    "other; all live to the end",
    warmup=0,
    rounds=1,
)
def peer_qemu_microvm_clones_100(
    bench: Bench, warmup: int, rounds: int
) -> List[float]:
    samples = []
    for _ in range(warmup + rounds):
        bench.settle()
        with bench.peer.clones(CLONES) as (taken, _pids):
            samples.append(taken)
    return samples[warmup:]


@measure(
    "ms",
    "before the execute request is sent",
    "the product of two numbers, by `echo $((A * B))`, is here",
    warmup=5,
    rounds=100,
)
def exec_echo(bench: Bench, warmup: int, rounds: int) -> List[float]:
    sandbox = bench.shared
    return repeated_ms(lambda: multiply_in_shell(sandbox), warmup, rounds)


@measure(
    "ms",
    "before the execute request is sent",
    "the product of two numbers, by `python3 -c 'print(A * B)'`, is here; "
    "Python was run before, so its files are in the guest's memory",
    warmup=3,
    rounds=30,
)
def exec_python(bench: Bench, warmup: int, rounds: int) -> List[float]:
    sandbox = bench.shared

    def once() -> None:
        a, b = two_numbers()
        check(sandbox.run(f"python3 -c 'print({a} * {b})'"), a * b)

    return repeated_ms(once, warmup, rounds)


# In the guest: 4 KiB at a time, past its page cache, each timed by itself.
DISK_CODE = """
import mmap, os, random, time
size, path = 64 << 20, "/root/bench.disk"
page = mmap.mmap(-1, 4096)
page.write(os.urandom(4096))
if not os.path.exists(path):
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
fd = os.open(path, os.O_RDWR | os.O_DIRECT)
for _ in range({count}):
    at = random.randrange(size // 4096) * 4096
    start = time.perf_counter_ns()
    os.{call}(fd, [page], at)
    print(time.perf_counter_ns() - start)
"""


def disk(bench: Bench, call: str, warmup: int, rounds: int) -> List[float]:
    code = DISK_CODE.format(call=call, count=warmup + rounds)
    printed = bench.shared.run_code(code).check().stdout.split()
    return [int(ns) / 1000 for ns in printed[warmup:]]


@measure(
    "us",
    "by the guest's clock: before a read of 4 KiB at a random place of a file "
    "of 64 MiB in the sandbox's own layer, O_DIRECT, one at a time",
    "preadv has returned in the guest's Python",
    warmup=100,
    rounds=2000,
)
def disk_read_4k(bench: Bench, warmup: int, rounds: int) -> List[float]:
    return disk(bench, "preadv", warmup, rounds)


@measure(
    "us",
    "by the guest's clock: before a write of 4 KiB at a random place of a file "
    "of 64 MiB in the sandbox's own layer, O_DIRECT, one at a time",
    "pwritev has returned in the guest's Python; no flush",
    warmup=100,
    rounds=2000,
)
def disk_write_4k(bench: Bench, warmup: int, rounds: int) -> List[float]:
    return disk(bench, "pwritev", warmup, rounds)


GETS_PER_ROUND = 100


@measure(
    "per_s",
    f"before the first of {GETS_PER_ROUND} GET /v2/host, one after the "
    "other on one connection",
    "the answer of the last is read",
    warmup=1,
    rounds=20,
)
def http_get_rate(bench: Bench, warmup: int, rounds: int) -> List[float]:
    def many() -> None:
        for _ in range(GETS_PER_ROUND):
            bench.client.host()

    taken = repeated_ms(many, warmup, rounds)
    return [GETS_PER_ROUND / (ms / 1000) for ms in taken]


@measure(
    "bytes",
    f"no clock: the private memory of brig-vmm in smaps, one idle guest of "
    f"{MEMORY_MIB} MiB",
    "without the mappings of the guest's own memory",
    warmup=0,
    rounds=3,
)
def vmm_memory(bench: Bench, warmup: int, rounds: int) -> List[float]:
    samples = []
    for _ in range(warmup + rounds):
        with bench.create() as sandbox:
            multiply_in_shell(sandbox)
            text = inside(f"cat /proc/{vmm_of(sandbox)}/smaps")
            samples.append(float(own_memory(text, MEMORY_MIB << 20)))
    return samples[warmup:]


@measure(
    "bytes",
    f"no clock: the private memory of QEMU in smaps, one guest of "
    f"{PEER_MEMORY_MIB} MiB, idle after one answer",
    "without the mapping of the guest's own memory",
    warmup=0,
    rounds=3,
)
def peer_qemu_microvm_memory(
    bench: Bench, warmup: int, rounds: int
) -> List[float]:
    samples = []
    for _ in range(warmup + rounds):
        # Two, so that the program itself is shared, as brig-vmm's is.
        with bench.peer.clones(2) as (_taken, pids):
            text = inside(f"cat /proc/{pids[0]}/smaps")
            samples.append(float(own_memory(text, PEER_MEMORY_MIB << 20)))
    return samples[warmup:]


def own_memory(smaps: str, guest_bytes: int) -> int:
    """Private bytes of all mappings but the guest's memory.

    The guest's memory is one mapping of just its size (two, on both sides of
    the hole, for guests larger than those measured here)."""
    own = size = private = 0
    guests = 0

    def end_of_mapping() -> None:
        nonlocal own, guests
        if size == guest_bytes:
            guests += 1
        else:
            own += private

    for line in smaps.splitlines():
        name, _, rest = line.partition(":")
        if " " in name:  # the first line of a mapping
            end_of_mapping()
            private = 0
        elif name == "Size":
            size = int(rest.split()[0]) * 1024
        elif name in ("Private_Clean", "Private_Dirty"):
            private += int(rest.split()[0]) * 1024
    end_of_mapping()
    if guests != 1:
        raise SystemExit(f"bench: {guests} mappings look like guest memory")
    return own


# --- results -----------------------------------------------------------------


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that `percent` of all are not above."""
    ordered = sorted(samples)
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def result_of(one: Measure, samples: Sequence[float], where: str) -> Any:
    # Of a rate the bad end is the low one: p99 is what 99 % reached.
    high = one.unit != "per_s"
    figures = {
        f"p{p}": round(percentile(samples, p if high else 100 - p), 3)
        for p in (50, 95, 99)
    }
    return {
        "name": one.name,
        "unit": one.unit,
        "n": len(samples),
        **figures,
        "from": one.start,
        "to": one.stop,
        "where": where,
        "warmup": one.warmup,
    }


TURNS = 5


def in_turns(
    bench: Bench, measures: Sequence[Measure], quick: bool, failed: List[str]
) -> List[Dict[str, Any]]:
    """One after the other; several a part of the rounds at a time, so that a
    busy minute of the machine does not count for one of them alone."""
    where = "host" if brigd_is_here() else "host-vm"
    samples: Dict[str, List[float]] = {one.name: [] for one in measures}
    turns = TURNS if len(measures) > 1 and not quick else 1
    for turn, one in itertools.product(range(turns), measures):
        if one.name in failed:
            continue
        rounds = max(one.rounds // (5 if quick else turns), 1)
        print(f"  {one.name}: {rounds} rounds"
              f"{f', turn {turn + 1}' if turns > 1 else ''}",
              file=sys.stderr, flush=True)
        # What was measured before is not lost with what fails.
        try:
            samples[one.name] += one.run(bench, one.warmup, rounds)
        except (Exception, SystemExit) as error:
            print(f"bench: {one.name}: {error}", file=sys.stderr)
            failed.append(one.name)
    return [result_of(one, samples[one.name], where)
            for one in measures if one.name not in failed]


def first_line(path: str, name: str) -> str:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown"


def machine(bench: Optional[Bench]) -> Dict[str, Any]:
    return {
        "cpu": first_line("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "memory": first_line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "brig": bench.client.host() if bench else None,
        "peer": None,
    }


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", ROOT, *arguments],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "HEAD") or "unknown") + ("+" if changed else "")


def merged(path: str) -> List[Dict[str, Any]]:
    with open(path) as file:
        results = json.load(file)
    for one in results:
        missing = [field for field in FIELDS if field not in one]
        if missing:
            raise SystemExit(f"bench: {path}: no {missing} in {one}")
    return list(results)


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return str(value)


def print_rows(rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    """The first row is the head; columns of `numbers` are set to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.rjust(width) if at in numbers else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def print_table(results: Sequence[Dict[str, Any]]) -> None:
    head = ("name", "unit", "n", "p50", "p95", "p99", "gate", "where")
    rows = [head] + [
        tuple(cell(one.get(key, "")) for key in head) for one in results
    ]
    print_rows(rows, range(2, 7))


# What is set beside what. A peer with a standby is the like of a brig with
# one; the others start from the snapshot on the clock.
PAIRS = (
    ("hello_python_warm", "hello_python_warm"),
    ("hello_python_warm", "standby_python_warm"),
    ("hello_shell", "hello_shell"),
    ("hello_shell", "standby_shell"),
    ("hello_shell_loop", "hello_shell"),
    ("clones_100", "clones_100"),
    ("vmm_memory", "memory"),
)


def print_pairs(results: Sequence[Dict[str, Any]], version: str) -> None:
    of = {one["name"]: one for one in results}
    rows = [("brig", "unit", "p50", "p95", "QEMU microvm", "p50", "p95")]
    for name, other in PAIRS:
        mine, its = of.get(name), of.get(f"peer_qemu_microvm_{other}")
        if mine and its:
            rows.append((name, mine["unit"], cell(mine["p50"]),
                         cell(mine["p95"]), other, cell(its["p50"]),
                         cell(its["p95"])))
    if len(rows) == 1:
        return
    print(f"\nside by side with {version}, restored from its own snapshot "
          "(no API, no jail, no new identity):")
    print_rows(rows, (2, 3, 5, 6))


def main() -> int:
    parser = argparse.ArgumentParser(description="measures a running brig")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="this benchmark; may be repeated")
    parser.add_argument("--quick", action="store_true",
                        help="a fifth of the rounds")
    parser.add_argument("--list", action="store_true",
                        help="names of the benchmarks that need brig")
    parser.add_argument("--merge", action="append", default=[], metavar="FILE",
                        help="results of another program")
    parser.add_argument("--out", default=os.path.join(
        ROOT, "build", "bench.json"), metavar="FILE")
    options = parser.parse_args()
    if options.list:
        print("\n".join(MEASURES))
        return 0
    names = options.only or list(MEASURES)
    others = [one for path in options.merge for one in merged(path)]
    unknown = set(names) - set(MEASURES) - {one["name"] for one in others}
    if unknown:
        parser.error(f"no benchmark {sorted(unknown)}: {', '.join(MEASURES)}")

    results = [one for one in others if one["name"] in names or
               not options.only]
    mine = [MEASURES[name] for name in names if name in MEASURES]
    bench = Bench(brig.Client(timeout=60)) if mine else None
    failed: List[str] = []
    try:
        about = machine(bench)
        for _, turns in itertools.groupby(mine, lambda m: m.beside or m.name):
            assert bench is not None
            results += in_turns(bench, list(turns), options.quick, failed)
        if bench and bench.peer.saved:
            about["peer"] = bench.peer.version
    finally:
        if bench:
            bench.close()

    os.makedirs(os.path.dirname(options.out), exist_ok=True)
    with open(options.out, "w") as file:
        json.dump({"machine": about, "commit": commit(), "results": results},
                  file, indent=2)
        file.write("\n")
    print_table(results)
    print_pairs(results, about["peer"] or "")
    print(f"written to {os.path.relpath(options.out)}", file=sys.stderr)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
