"""spawner.py - plays brigd towards a brig-spawn of its own.

Needs root, /dev/kvm and a cgroup v2 mount; the kernel need not have any
controllers there, since limits are tested in the host VM.
SPDX-License-Identifier: Apache-2.0
"""

import os
import random
import select
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import tiny

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("BRIG_BIN", ROOT / "build/gcc/bin"))

MSG = struct.Struct("<IIiI32sIIQIIiIQ")
FIELDS = ("type", "seq", "status", "handle", "id", "vcpus", "memory_mib",
          "disk_bytes", "cpu_quota_percent", "uid", "wait_status", "kvm_kind",
          "iterations_per_s")
SHAPE = {"vcpus": 1, "memory_mib": 128, "disk_bytes": 64 << 20}
START, KILL, PROBE = 1, 2, 3
STARTED, DONE, PROBED, EXITED = 16, 17, 18, 19

CGROUPS = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]


def new_id():
    return "sb_" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789",
                                          k=24))


def cgroup_root():
    for path in CGROUPS:
        if (path / "cgroup.procs").exists() and \
                (path / "cgroup.subtree_control").exists():
            return path
    raise RuntimeError("no cgroup v2 mount")


class Shell(tiny.Monitor):
    """A brig-vmm that brig-spawn is to start, and its guest."""

    def __init__(self):
        super().__init__(tuple(SHAPE.values()))

    def replace(self, fd):
        """Something else instead of the control socket."""
        os.close(self.theirs)
        self.theirs = fd

    def sent(self):
        """brigd keeps its end only."""
        os.close(self.theirs)
        self.theirs = -1

    def boot_guest(self, guest="hello", data=b"x"):
        self.boot(tiny.GUESTS / f"{guest}.elf", data, bytes(1 << 20))


class Spawner:
    """One brig-spawn and the connection to it."""

    def __init__(self, *args, vmm=BIN / "brig-vmm"):
        self.dir = tempfile.TemporaryDirectory()
        self.path = Path(self.dir.name) / "spawn.sock"
        self.name = f"brigtest{os.getpid()}"
        self.command = [BIN / "brig-spawn", "--socket", self.path, "--vmm", vmm,
                        "--user", "root", "--cgroup", self.name, "--unlimited",
                        *args]
        self.cgroup = cgroup_root() / self.name
        self.log = tempfile.TemporaryFile("w+")
        self.seq = 0
        self.exited = {}
        self.start_program()

    def start_program(self):
        self.path.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command, stderr=self.log)
        while not self.path.exists():
            assert self.process.poll() is None, self.read_log()
        self.sock = self.connect()

    def stop_program(self):
        self.sock.close()
        self.process.terminate()
        self.process.wait(10)

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def connect(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for _ in range(100):
            try:
                sock.connect(os.fspath(self.path))
                return sock
            except ConnectionRefusedError:
                select.select([], [], [], 0.01)
        raise TimeoutError("brig-spawn does not listen")

    def send(self, kind, fds=(), **fields):
        self.seq += 1
        values = dict.fromkeys(FIELDS, 0) | {"id": b""} | fields | {
            "type": kind, "seq": self.seq}
        if isinstance(values["id"], str):
            values["id"] = values["id"].encode()
        socket.send_fds(self.sock, [MSG.pack(*(values[f] for f in FIELDS))],
                        list(fds))

    def receive(self, timeout=10.0):
        """The next packet as a dict, or None at the end."""
        ready, _, _ = select.select([self.sock], [], [], timeout)
        if not ready:
            raise TimeoutError("brig-spawn said nothing: " + self.read_log())
        data, fds, _, _ = socket.recv_fds(self.sock, 256, 8)
        if not data:
            return None
        return dict(zip(FIELDS, MSG.unpack(data))) | {"fds": fds}

    def ask(self, kind, fds=(), **fields):
        """Sends a request and returns its reply; keeps events."""
        self.send(kind, fds, **fields)
        while (m := self.receive())["type"] == EXITED:
            self.exited[m["handle"]] = m
        assert m["seq"] == self.seq
        return m

    def start(self, shell, **fields):
        return self.ask(START, [shell.theirs],
                        **{"id": new_id()} | SHAPE | fields)

    def wait_exited(self, handle, timeout=10.0):
        while handle not in self.exited:
            m = self.receive(timeout)
            assert m["type"] == EXITED, m
            self.exited[m["handle"]] = m
        return self.exited.pop(handle)

    def sandboxes(self):
        return [p.name for p in self.cgroup.iterdir()
                if p.name.startswith("sb_")]

    def remove_cgroups(self):
        for path in self.cgroup.iterdir():
            if path.is_dir():
                (path / "cgroup.kill").write_text("1")
        end = time.monotonic() + 5
        while self.cgroup.exists():
            try:
                for path in sorted(self.cgroup.glob("**/"), reverse=True):
                    path.rmdir()
            except OSError:
                assert time.monotonic() < end, "cgroup stays busy"
                time.sleep(0.01)

    def close(self):
        self.stop_program()
        self.remove_cgroups()
        self.log.close()
        self.dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
