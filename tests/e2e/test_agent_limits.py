# test_agent_limits.py - the agent keeps its limits where there are controllers.
# SPDX-License-Identifier: Apache-2.0
"""Runs tests/agent/test_limits.py as root where brigd runs: brig's cgroup v2
has the controllers that a machine under test may lack.

Python is that of the default image, mounted beside the running sandboxes; the
tests, the agent and pytest's own modules are unpacked over it in memory.
"""
from __future__ import annotations

import ast
import importlib.util
import io
import os
import subprocess
import tarfile
import xml.etree.ElementTree as ElementTree

import pytest
from support import ROOT, inside, inside_command, pid_inside

TESTS = "tests/agent/test_limits.py"
AGENT = "build/test/bin/brig-init"
# pytest and what it imports; not every version needs the last two.
MODULES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "attr",
           "py")

# A mount namespace of its own: nothing is left behind, however it ends.
RUN = r"""
exec timeout -k 5 300 unshare --mount sh -euc '
    mount -o ro IMAGE /mnt
    mount -t tmpfs -o size=64m tmpfs /mnt/tmp
    for place in proc sys dev; do mount --rbind /$place /mnt/$place; done
    tar -x -C /mnt/tmp
    code=0
    chroot /mnt env -C /tmp PYTHONPATH=/tmp/modules PYTHONDONTWRITEBYTECODE=1 \
        /usr/bin/python3 -m pytest -v -p no:cacheprovider \
        --junitxml=/tmp/report.xml TESTS >&2 || code=$?
    cat /mnt/tmp/report.xml
    exit $code'
"""


def names_in_the_file():
    with open(os.path.join(ROOT, TESTS)) as file:
        tree = ast.parse(file.read())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def only_sources(member):
    return None if "__pycache__" in member.name else member


def archive():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in (AGENT, "tests/agent"):
            tar.add(os.path.join(ROOT, name), name, filter=only_sources)
        for name in MODULES:
            spec = importlib.util.find_spec(name)
            if spec is not None:
                folder, file = os.path.split(spec.origin)
                path = folder if file == "__init__.py" else spec.origin
                tar.add(
                    path,
                    f"modules/{os.path.basename(path)}",
                    filter=only_sources,
                )
    return data.getvalue()


@pytest.fixture(scope="module")
def outcomes():
    """What became of each test: False if it passed, else what was said."""
    subprocess.run(["make", "-s", AGENT], cwd=ROOT, check=True)
    brigd = inside(f"tr '\\0' '\\n' </proc/{pid_inside('brigd')}/cmdline")
    images = brigd.split("--images\n")[1].split("\n")[0]
    line = RUN.replace("IMAGE", f"{images}/default.ext4")
    done = subprocess.run(
        inside_command() + [line.replace("TESTS", TESTS)],
        input=archive(),
        capture_output=True,
        timeout=330,
    )
    said = done.stderr.decode(errors="replace")
    print(said)
    assert done.stdout, f"no report, exit code {done.returncode}: {said}"
    found = {}
    for case in ElementTree.fromstring(done.stdout).iter("testcase"):
        bad = next(iter(case), None)
        found[case.get("name")] = bad is not None and (bad.text or bad.tag)
    assert sorted(found) == sorted(names_in_the_file()), said
    assert done.returncode == 0 or any(found.values()), said
    return found


@pytest.mark.parametrize("name", names_in_the_file())
def test_limits(outcomes, name):
    assert not outcomes[name], outcomes[name]
