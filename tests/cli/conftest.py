"""conftest.py - the server that the tests of brig talk to.

SPDX-License-Identifier: Apache-2.0
"""
import pytest

from fake_brigd import Server


@pytest.fixture
def fake():
    with Server() as server:
        yield server
