# test_hello.py - the example runs a real program and its result is right.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys

from support import ROOT, environment

EXAMPLE = os.path.join(ROOT, "examples", "hello.py")


def run_example(**changes):
    return subprocess.run(
        [sys.executable, EXAMPLE],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **changes},
    )


def test_hello(client):
    done = run_example(
        BRIG_BASE_URL=environment("BRIG_BASE_URL"),
        BRIG_API_KEY=environment("BRIG_API_KEY"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["image"] == "default"
    assert report["kernel"].startswith("6.1.")
    assert report["python"].startswith("3.11.")
    assert report["run"]["exit_code"] == 0
    assert report["run"]["status"] == "completed"
    assert report["run"]["stdout"] == "500 orders of 5 customers\n"
    assert report["result"]["primes"] == {"count": 2262, "largest": 19997}
    assert report["result"]["best_customer"] == "Ada"
    left = [one.id for one in client.sandboxes.list_all()]
    assert report["sandbox"] not in left


def test_hello_fails_without_a_right_key():
    done = run_example(BRIG_API_KEY="wrong")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "401" in done.stderr
