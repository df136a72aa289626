"""conftest.py - one agent for each test.

SPDX-License-Identifier: Apache-2.0
"""

import itertools
import os
import pathlib
import subprocess

import pytest

import agent as wire

_numbers = itertools.count()


def _cgroup2():
    """Where cgroup v2 is mounted: with v1 beside it or alone."""
    with open("/proc/mounts", encoding="ascii") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == "cgroup2":
                return pathlib.Path(fields[1])
    raise RuntimeError("no cgroup v2 file system")


def _delegate(root):
    """Hands the controllers down; False where they belong to cgroup v1."""
    if "memory" not in (root / "cgroup.controllers").read_text().split():
        return False
    (root / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    return True


# Where it is ignored, tests/e2e/test_agent_limits.py still runs it.
collect_ignore = [] if _delegate(_cgroup2()) else ["test_limits.py"]


@pytest.fixture(scope="session", autouse=True)
def _binary():
    """Up to date, but where only a copy of the tests is."""
    if (wire.ROOT / "Makefile").exists():
        subprocess.run(["make", "-s", "build/test/bin/brig-init"],
                       cwd=wire.ROOT, check=True)


@pytest.fixture
def agent(tmp_path):
    name = f"brig-test-{os.getpid()}-{next(_numbers)}"
    a = wire.Agent(tmp_path, _cgroup2() / name)
    yield a
    a.stop()


@pytest.fixture
def host(tmp_path):
    return wire.Host(tmp_path)


@pytest.fixture
def hosted(tmp_path, host):
    """An agent with a host to report to, in namespaces of its own."""
    name = f"brig-test-{os.getpid()}-{next(_numbers)}"
    a = wire.Agent(tmp_path, _cgroup2() / name, host)
    yield a
    a.stop()
