# conftest.py - a running brig, its sandboxes, and rules for every test.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import urllib.request

import pytest
from support import MEMORY_MIB, ROOT, Api, environment, in_parallel, seconds_of

import brig

# No test takes this long, unless something hangs.
TEST_TIMEOUT_S = 400


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that is skipped has not shown what it promises: it failed."""
    report = (yield).get_result()
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped; tests here never are"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    def too_long(number, frame):
        raise TimeoutError(f"the test took over {TEST_TIMEOUT_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_TIMEOUT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_runtest_setup(item):
    """When brigd is gone, every further test would only wait for it."""
    if item.session.testsfailed and "BRIG_BASE_URL" in os.environ:
        url = os.environ["BRIG_BASE_URL"] + "/healthz"
        try:
            urllib.request.urlopen(url, timeout=20).close()
        except OSError as error:
            pytest.exit(f"brigd no longer answers: {error}", returncode=1)


@pytest.fixture(scope="session")
def client():
    client = brig.Client(
        environment("BRIG_BASE_URL"), environment("BRIG_API_KEY"), timeout=60
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def api():
    return Api(environment("BRIG_BASE_URL"), environment("BRIG_API_KEY"))


class Shared:
    """One sandbox for all tests that do not care which."""

    def __init__(self, client):
        self._client = client
        self.sandbox = None

    def get(self):
        if self.sandbox is None:
            self.sandbox = brig.Sandbox.create(
                self._client,
                memory=MEMORY_MIB,
                name="shared",
                env={"FROM_CREATE": "créé", "OVERRIDDEN": "create"},
            )
        return self.sandbox

    def drop(self):
        sandbox, self.sandbox = self.sandbox, None
        if sandbox is not None:
            sandbox.delete()


@pytest.fixture(scope="session")
def shared(client):
    shared = Shared(client)
    yield shared
    shared.drop()


@pytest.fixture
def sandbox(shared):
    """A running sandbox that other tests use too: leave it as it was."""
    sandbox = shared.get()
    yield sandbox
    if shared.sandbox is sandbox:
        state = sandbox.refresh()
        if state.status != "running":
            shared.sandbox = None
            pytest.fail(f"the shared sandbox is {state.status}: {state.reason}")


class Factory:
    """Makes sandboxes that are deleted when their test or module ends."""

    def __init__(self, client):
        self._client = client
        self._made = []

    def __call__(self, **options):
        options.setdefault("memory", MEMORY_MIB)
        sandbox = brig.Sandbox.create(self._client, **options)
        self._made.append(sandbox)
        return sandbox

    def several(self, *variants):
        """Several at once, each with its options."""
        return in_parallel([lambda v=v: self(**v) for v in variants])

    def delete_all(self):
        for sandbox in self._made:
            try:
                sandbox.delete()
            except brig.NotFoundError:
                pass


@pytest.fixture
def new_sandbox(client):
    factory = Factory(client)
    yield factory
    factory.delete_all()


@pytest.fixture(scope="module")
def module_sandboxes(client):
    factory = Factory(client)
    yield factory
    factory.delete_all()


@pytest.fixture(scope="session")
def cli():
    """Runs the built `brig` with arguments."""
    program = os.environ.get("BRIG_CLI") or os.path.join(
        ROOT, "build", "gcc", "bin", "brig"
    )
    assert os.access(program, os.X_OK), f"{program} is not built"
    settings = dict(
        os.environ,
        BRIG_BASE_URL=environment("BRIG_BASE_URL"),
        BRIG_API_KEY=environment("BRIG_API_KEY"),
    )

    def run(*arguments, stdin=b"", env=None, popen=False):
        command = [program, *arguments]
        given = {**settings, **(env or {})}
        if popen:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=given,
            )
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=120, env=given
        )

    return run


@pytest.fixture(scope="session")
def usual_echo_s(shared):
    """What `echo` takes when nothing else happens: the middle of ten."""
    sandbox = shared.get()
    sandbox.run("echo warm", timeout=30)
    from support import median

    return median(
        seconds_of(lambda: sandbox.run("echo x", timeout=30).check())
        for _ in range(10)
    )
