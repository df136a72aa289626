# conftest.py - the package under test, a fake server, a client of it.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)

import brig  # noqa: E402
from fake_server import FakeServer  # noqa: E402


@pytest.fixture
def server():
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def pauses():
    """The pauses that the client made between attempts."""
    return []


@pytest.fixture
def client(server, pauses):
    client = brig.Client(server.url, "key", timeout=5)
    client.transport._sleep = pauses.append
    yield client
    client.close()


SANDBOX = {
    "id": "sb_1",
    "name": "calm-otter",
    "status": "running",
    "cpu": 4,
    "memory": 256,
    "storage": 10,
    "created_at": "2026-01-01T00:00:00.000Z",
}


# As brig's own requests describe a sandbox.
DESCRIBED = {
    "id": "sb_2",
    "name": "calm-heron",
    "status": "running",
    "reason": None,
    "image": "default",
    "vcpus": 2,
    "memory_mib": 512,
    "disk_bytes": 10 << 30,
    "created_at": "2026-01-01T00:00:00.000Z",
    "ready_ms": 12.5,
    "origin": "clone",
    "template": None,
    "snapshot": None,
    "receipt": {
        "entropy_reseeded": True,
        "clock_set": True,
        "clock_error_ms": 0.4,
        "hostname": "calm-heron",
        "machine_id": "0123456789abcdef0123456789abcdef",
        "connections_reset": True,
        "hooks_failed": 0,
        "steps_us": {
            "claim": 300, "restore": 2100, "configure": 900, "total": 3300,
        },
        "of_the_future": 1,
    },
    "stats": {},
}


@pytest.fixture
def sandbox(client):
    return brig.Sandbox(client, SANDBOX)
