# conftest.py - starts brigd over a fake host, and a small client for it.
# SPDX-License-Identifier: Apache-2.0

import http.client
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from fake_host import FakeHost  # noqa: E402

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "sdk/python"))
BRIGD = os.environ.get("BRIGD", str(TREE / "build/gcc/bin/brigd"))


class Reply:
    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["error"]["code"]


class Daemon:
    """One brigd with its state directory and fake host."""

    def __init__(self, directory, *options):
        self.dir = directory
        self.options = options
        self.host = FakeHost(str(directory))
        self.images = directory / "images"
        self.images.mkdir()
        (self.images / "default.ext4").write_bytes(b"\0" * (1 << 20))
        for name in ("vmlinux", "initrd.img"):
            (directory / name).write_bytes(b"x")
        self.process = None
        self.start()

    def command(self):
        return [BRIGD, "--state", str(self.dir / "state"), "--listen",
                "127.0.0.1:0", "--spawn", self.host.path, "--kernel",
                str(self.dir / "vmlinux"), "--initrd",
                str(self.dir / "initrd.img"), "--images", str(self.images),
                *(self.options if "--pool" in self.options
                  else ("--pool", "0", "--no-templates", *self.options))]

    def start(self):
        self.log = open(self.dir / "brigd.log", "ab")
        at = self.log.tell()
        self.process = subprocess.Popen(self.command(), stderr=self.log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            text = (self.dir / "brigd.log").read_bytes()[at:].decode()
            m = re.search(r"listening on 127\.0\.0\.1:(\d+)", text)
            if m:
                self.port = int(m.group(1))
                self.key = (self.dir / "state/key").read_text().strip()
                return
            assert self.process.poll() is None, text
            time.sleep(0.01)
        raise AssertionError("brigd does not listen")

    def stop(self):
        """SIGTERM; the exit status."""
        self.process.terminate()
        status = self.process.wait(20)
        self.log.close()
        return status

    def close(self):
        """A clean end, which is also where a leak checker reports."""
        try:
            if self.process.poll() is None:
                assert self.stop() == 0
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.host.close()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method, path, body=None, headers=None, key=True):
        headers = dict(headers or {})
        if key:
            headers.setdefault("x-api-key", self.key)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("content-type", "application/json")
        conn = self.connect()
        try:
            conn.request(method, path, body, headers)
            response = conn.getresponse()
            return Reply(response, response.read())
        finally:
            conn.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.request("POST", path, body, **more)

    def delete(self, path, **more):
        return self.request("DELETE", path, **more)

    def create(self, **body):
        reply = self.post("/v1/sandboxes/create", body)
        assert reply.status == 200, reply.body
        return reply.json["id"]

    def create_v2(self, **body):
        reply = self.post("/v2/sandboxes", body)
        assert reply.status == 200, reply.body
        return reply.json

    def execute(self, sandbox, command, **more):
        return self.post(f"/v1/sandboxes/{sandbox}/execute",
                         {"command": command, **more})

    def run(self, sandbox, **body):
        return self.post(f"/v2/sandboxes/{sandbox}/runs", body)

    def out(self, sandbox, command):
        """stdout of a shell line."""
        reply = self.run(sandbox, command=command)
        assert reply.status == 200, reply.body
        return reply.json["stdout"]

    def stream(self, sandbox, command):
        """execute_async's lines."""
        reply = self.post(f"/v1/sandboxes/{sandbox}/execute_async",
                          {"command": command})
        assert reply.status == 200, reply.body
        return [json.loads(line) for line in reply.body.splitlines()]

    def rss_kib(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture
def make_daemon(tmp_path):
    made = []

    def make(*options):
        made.append(Daemon(tmp_path, *options))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()
        text = (daemon.dir / "brigd.log").read_bytes()
        assert b"bug:" not in text and b"Sanitizer" not in text, text.decode()


@pytest.fixture
def daemon(make_daemon):
    return make_daemon()


@pytest.fixture
def sandbox(daemon):
    return daemon.create()


def wait_until(condition, seconds=5):
    """True once `condition()` is; False after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
