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


@pytest.fixture
def sandbox(client):
    return brig.Sandbox(client, SANDBOX)
