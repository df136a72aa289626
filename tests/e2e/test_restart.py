# test_restart.py - the host VM keeps its data, over a stop and a loss of power.
# SPDX-License-Identifier: Apache-2.0
"""With a host VM of its own: the other tests go on using theirs."""
from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess

import pytest
from support import MEMORY_MIB, MIB, ROOT, wait_for

import brig

PROGRAM = os.path.join(ROOT, "host", "brig-host")
STOPPED = 3  # exit status of `brig-host status`


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HostVm:
    """A host VM in a folder of its own, started with the same options."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()

    def call(self, command, *arguments, status=0):
        done = subprocess.run(
            [PROGRAM, command, "--dir", self.folder, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"brig-host {command}: {said}"
        return done.stdout

    def start(self):
        self.call("start", "--port", str(self.port), "--memory", "2048")

    def stop(self):
        assert self.call("stop") == "host VM: stopped (clean)\n"

    def lose_power(self):
        """What it was not asked to write, or has not promised, it forgets."""
        pid = json.loads(self.call("status", "--json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda: not os.path.exists(f"/proc/{pid}"), 20, "QEMU ends"
        )

    def key(self):
        with open(os.path.join(self.folder, "key")) as file:
            return file.read().strip()

    def client(self, key):
        return brig.Client(f"http://127.0.0.1:{self.port}", key, timeout=60)

    def used_bytes(self):
        """Without snapshots, of which brigd makes some for itself."""
        line = ("sync; df -B1 --output=used /data | tail -n 1; "
                "du -sB1 /var/lib/brig/snapshots | cut -f1")
        used, snapshots = self.call("ssh", line).split()
        return int(used) - int(snapshots)


@pytest.fixture
def host():
    """Not in the temporary folder, where pytest would keep the disks."""
    folder = os.path.join(ROOT, "build", "test", "restart")
    vm = HostVm(folder)
    vm.call("stop")  # of a run that was killed
    shutil.rmtree(folder, ignore_errors=True)
    vm.start()
    yield vm
    vm.call("stop")
    shutil.rmtree(folder)


def new_sandbox(client, name):
    return brig.Sandbox.create(client, name=name, memory=MEMORY_MIB)


def keep_two(client):
    """A snapshot and a paused sandbox; both were promised to last."""
    box = new_sandbox(client, "box")
    box.run("echo disk >/root/f; echo memory >/run/f", timeout=20).check()
    snapshot = box.snapshot("kept")
    box.run("echo later >/run/f", timeout=20).check()
    return snapshot, box.pause()


def check_two(client, snapshot, paused):
    (found,) = client.snapshots.list()
    assert (found.id, found.name, found.status) == (
        snapshot.id, "kept", "ready",
    )
    with found.restore() as copy:
        assert copy.run("cat /root/f /run/f").stdout == "disk\nmemory\n"
    paused.resume()
    assert paused.run("cat /root/f /run/f").stdout == "disk\nlater\n"
    paused.delete()
    found.delete()


@pytest.mark.parametrize("end", [HostVm.stop, HostVm.lose_power])
def test_data_lasts(host, end):
    key = host.key()
    empty = host.used_bytes()
    with host.client(key) as client:
        old = new_sandbox(client, "old")
        old.run("yes | head -c 64M >/root/big; sync", timeout=60).check()
        assert host.used_bytes() > empty + 60 * MIB
        snapshot, paused = keep_two(client)

    end(host)
    assert host.call("status", status=STOPPED) == "host VM: not running\n"
    host.start()

    # the same key, and no other
    assert host.key() == key
    with host.client(key[:-1] + "x") as client:
        with pytest.raises(brig.AuthenticationError):
            client.sandboxes.list()
    with host.client(key) as client:
        # the sandbox that ran is known, with what was run in it
        found, other = sorted(client.sandboxes.list_all(),
                              key=lambda sandbox: sandbox.id != old.id)
        assert (found.id, found.name, found.memory) == (
            old.id, "old", MEMORY_MIB,
        )
        assert (found.status, found.reason) == ("stopped", "daemon_restart")
        assert [entry.command for entry in found.logs().logs] == [
            "yes | head -c 64M >/root/big; sync"
        ]
        with pytest.raises(brig.UnprocessableError) as caught:
            found.run("true", timeout=5)
        assert caught.value.code == "sandbox_not_running"
        assert caught.value.details["reason"] == "daemon_restart"
        # what was on its disk takes no space
        assert host.used_bytes() < empty + 16 * MIB
        # work goes on
        with new_sandbox(client, "new") as new:
            assert new.run("echo again", timeout=30).stdout == "again\n"
        found.delete()
        # what was kept on purpose is whole
        assert (other.id, other.status) == (paused.id, "paused")
        check_two(client, snapshot, other)
        assert list(client.sandboxes.list_all()) == []
