"""tiny.py - runs brig-vmm with a tiny guest on the bare /dev/kvm.

Plays brig-spawn and brigd at once: passes the descriptors of wire/vmm.h,
speaks on the control socket, reads the console ring.
SPDX-License-Identifier: Apache-2.0
"""

import os
import select
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VMM = Path(os.environ.get("BRIG_VMM", ROOT / "build/gcc/bin/brig-vmm"))
GUESTS = ROOT / "build/tests/guest"

RING = 64 << 10
CONFIG = struct.Struct("<IIIIQQII")
MSG = struct.Struct("<IIiIQ56s")
MAGIC = 0x67697262

CONNECT, STATS, STOP = 1, 2, 3
REPLY, RUNNING, ACCEPT, STOPPED = 16, 17, 18, 19

POWEROFF, RESET, PANIC, TRIPLE_FAULT, INTERNAL_ERROR, COMMAND = range(1, 7)

# Operations of tests/guest/script.c.
WRITE, READ, EXPECT, OUT, IN, FILL, WRITE8, WRITE16, SUM = range(1, 10)


def script(*operations):
    """Assembles operations (op, a, b, c) for the hostile guest."""
    return b"".join(
        struct.pack("<IIII", *(tuple(o) + (0, 0, 0))[:4]) for o in operations
    )


class Tiny:
    """One brig-vmm. Use as a context manager."""

    def __init__(self, guest, data=b"", *, vcpus=1, memory_mib=128,
                 disk_bytes=64 << 20, base=b"", config=None, kernel=None):
        self.control, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.console_fd = os.memfd_create("console")
        os.ftruncate(self.console_fd, 4096 + RING)
        self.layer = tempfile.TemporaryFile()
        with tempfile.NamedTemporaryFile() as initrd, \
                tempfile.NamedTemporaryFile() as base_file:
            initrd.write(data)
            initrd.flush()
            base_file.write(base)
            base_file.flush()
            if config is None:
                config = CONFIG.pack(MAGIC, 1, vcpus, memory_mib, disk_bytes,
                                     len(base), 0, 0)
            reader, writer = os.pipe()
            os.write(writer, config)
            os.close(writer)
            kernel_path = kernel or GUESTS / f"{guest}.elf"
            fds = [
                reader, theirs.fileno(), os.open("/dev/kvm", os.O_RDWR),
                os.open(kernel_path, os.O_RDONLY),
                os.open(initrd.name, os.O_RDONLY),
                os.open(base_file.name, os.O_RDONLY),
                os.dup(self.layer.fileno()), os.dup(self.console_fd),
            ]
            self.started = time.monotonic()
            self.process = self._spawn(fds)
            theirs.close()
            for fd in fds[:1] + fds[2:]:
                os.close(fd)
        self.running = None
        self.stopped = None
        self.accepted = []
        self._seq = 0

    @staticmethod
    def _spawn(fds):
        # Out of the way of the target numbers first, then into place.
        def place():
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
            os.closerange(3 + len(fds), 200)
        return subprocess.Popen([VMM], preexec_fn=place, close_fds=False,
                                stdin=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, env={})

    def receive(self, timeout=10.0):
        """The next packet as (type, seq, status, port, value, rest, fds)."""
        ready, _, _ = select.select([self.control], [], [], timeout)
        if not ready:
            raise TimeoutError("brig-vmm said nothing")
        data, fds, _, _ = socket.recv_fds(self.control, 256, 4)
        if not data:
            return None
        return MSG.unpack(data) + (fds,)

    def pump(self, until, timeout=10.0):
        """Handles packets until one of type `until`; returns it or None."""
        while (m := self.receive(timeout)) is not None:
            if m[0] == RUNNING:
                self.running = m
            elif m[0] == STOPPED:
                self.stopped = m
            elif m[0] == ACCEPT:
                self.accepted.append((m[3], socket.socket(fileno=m[6][0])))
            if m[0] == until:
                return m
        return None

    def request(self, kind, port=0):
        self._seq += 1
        self.control.send(MSG.pack(kind, self._seq, 0, port, 0, b""))

    def stats(self):
        self.request(STATS)
        m = self.pump(REPLY)
        names = ("blk_read_bytes", "blk_write_bytes", "blk_reads",
                 "blk_writes", "vsock_rx_bytes", "vsock_tx_bytes",
                 "needs_reset", "console_dropped", "layer_bytes")
        return dict(zip(names, struct.unpack("<QQIIQQIIQ", m[5])))

    def wait(self, timeout=10.0):
        """Waits for the end; returns (reason, console text)."""
        self.pump(STOPPED, timeout)
        self.process.wait(timeout)
        return (self.stopped[2] if self.stopped else None, self.console())

    def console(self):
        raw = os.pread(self.console_fd, 4096 + RING, 0)
        written, = struct.unpack_from("<Q", raw)
        data = raw[4096:]
        if written <= RING:
            return data[:written].decode("latin-1")
        at = written % RING
        return (data[at:] + data[:at]).decode("latin-1")

    def wait_console(self, text, timeout=10.0):
        end = time.monotonic() + timeout
        while text not in self.console():
            if time.monotonic() > end:
                raise TimeoutError(f"no {text!r} in {self.console()!r}")
            time.sleep(0.005)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.stderr = self.process.stderr.read().decode()
        self.process.stderr.close()
        self.control.close()
        self.layer.close()
        os.close(self.console_fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
