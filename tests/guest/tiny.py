"""tiny.py - runs brig-vmm with a tiny guest on the bare /dev/kvm.

Plays brig-spawn and brigd at once: passes the descriptors of wire/vmm.h,
speaks on the control socket, reads the console ring.
SPDX-License-Identifier: Apache-2.0
"""

import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VMM = Path(os.environ.get("BRIG_VMM", ROOT / "build/gcc/bin/brig-vmm"))
GUESTS = ROOT / "build/tests/guest"

RING = 64 << 10
CONFIG = struct.Struct("<IIIIQII")
MSG = struct.Struct("<IIiIQ56s")
BOOT_BODY = struct.Struct("<QII")
RESTORE_BODY = struct.Struct("<QII")
SAVE_BODY = struct.Struct("<II")
SAVED_BODY = struct.Struct("<QQQII")
PAGES = struct.Struct("<IIII")
MAGIC = 0x67697262
CONFIG_VERSION = 3

(CONNECT, STATS, STOP, BOOT, RESTORE, PAUSE, RESUME, SAVE, RESET_VM,
 WORKING_SET) = range(1, 11)
REPLY, RUNNING, ACCEPT, STOPPED, READY, SAVED = range(16, 22)
RESTORE_DELTA, RESTORE_PAUSED, RESTORE_WORKING_SET, REHEARSAL = 1, 2, 4, 8
PAGES_WRITTEN = 1
STAY_PAUSED, SAVE_DISK = 1, 2

(POWEROFF, RESET, PANIC, TRIPLE_FAULT, INTERNAL_ERROR, COMMAND, DEVICE,
 SETUP) = range(1, 9)

F_ADD_SEALS, SEAL_ALL = 1033, 2 | 4 | 8

# Operations of tests/guest/script.h, and more of tests/guest/state.c.
WRITE, READ, EXPECT, OUT, IN, FILL, WRITE8, WRITE16, SUM = range(1, 10)
(START_VCPUS, PAINT, SAME, PAGING, WRMSR, RDMSR, FXRSTOR, FXSAVE, SET_DR0,
 GET_DR0) = range(16, 26)

# Of tests/guest/state.c.
MAILBOX, TALK, COUNTERS, TABLES = 0x200000, 0x200008, 0x201000, 0x210000
MAILBOX_HEAD = struct.Struct("<IIII")


def script(*operations):
    """Assembles operations (op, a, b, c) for the hostile guest."""
    return b"".join(
        struct.pack("<IIII", *(tuple(o) + (0, 0, 0))[:4]) for o in operations
    )


def memfd(name, size=0):
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def seal(fd):
    fcntl.fcntl(fd, F_ADD_SEALS, SEAL_ALL)


def data_runs(fd):
    """(offset, bytes) of what a sparse file has data for."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: no more
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start


def merge(size, layers):
    """A memfd with the data of all of these, later ones on top."""
    merged = memfd("merged", size)
    for layer in layers:
        for start, length in data_runs(layer):
            for at in range(start, start + length, 1 << 20):
                n = min(1 << 20, start + length - at)
                os.pwrite(merged, os.pread(layer, n, at), at)
    return merged


class Saved:
    """What a VMM_SAVE wrote, and what a restore from it needs besides."""

    def __init__(self, vm):
        self.state, self.memory = memfd("state"), memfd("memory")
        self.base, self.base_bytes = os.dup(vm.base), vm.base_bytes
        self.under = [os.dup(fd) for fd in vm.under]  # memory, then delta
        self.layers = [os.dup(fd) for fd in vm.layers]
        self.shape = vm.shape
        self.pause_ns = self.bytes = self.state_bytes = None

    @property
    def size(self):
        return self.shape[1] << 20

    def memories(self, question=b""):
        """New memfds, not sealed yet: the full image, perhaps a delta.

        `question` goes into the mailbox of tests/guest/state.c.
        """
        deltas = [*self.under[1:], self.memory] if self.under else []
        if question:
            deltas.append(memfd("mailbox", self.size))
            os.pwrite(deltas[-1], question.ljust(4096, b"\0"), MAILBOX)
        full = os.dup(self.under[0] if self.under else self.memory)
        if deltas:
            merged = merge(self.size, deltas)
            if question:
                os.close(deltas[-1])
            return [full, merged]
        return [full]

    def read(self, at, n):
        """Memory of the saved machine, which must not cross a page."""
        for fd in [self.memory, *self.under[::-1]]:
            page = at & ~4095
            try:
                if os.lseek(fd, page, os.SEEK_DATA) == page:
                    return os.pread(fd, n, at)
            except OSError:  # ENXIO: no data from there on
                pass
        return bytes(n)

    def close(self):
        for fd in [self.state, self.memory, self.base, *self.under,
                   *self.layers]:
            os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Monitor:
    """brigd's end of one brig-vmm: a shell, and what is put into it.

    Hands `theirs` to whoever starts the process; it is closed by that.
    """

    def __init__(self, shape):
        self.shape = shape  # vcpus, memory_mib, disk_bytes
        self.control, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs.detach()
        self.console_fd = memfd("console", 4096 + RING)
        self.base, self.base_bytes, self.under, self.layers = -1, 0, [], []
        self.top = -1
        self.ready = None
        self.running = None
        self.stopped = None
        self.saved = None
        self.failed = None  # errno of a request that was refused
        self.accepted = []
        self.asked = None
        self._seq = 0

    def _new_top(self):
        """An empty layer; both ends keep it."""
        if self.top >= 0:
            os.close(self.top)
        self.top = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
        return self.top

    def boot(self, kernel, data=b"", base=b"", disk_of=None):
        """Sends VMM_BOOT. `disk_of`: Saved, whose disk to go on with."""
        if disk_of:
            self.base, self.base_bytes = os.dup(disk_of.base), disk_of.base_bytes
            self.layers = [os.dup(fd) for fd in disk_of.layers]
        else:
            self.base, self.base_bytes = memfd("base"), len(base)
            os.pwrite(self.base, base, 0)
        initrd = memfd("initrd")
        os.pwrite(initrd, data, 0)
        kernel_fd = os.open(kernel, os.O_RDONLY)
        self.request(BOOT, body=BOOT_BODY.pack(
            self.base_bytes, 0, len(self.layers)), fds=[
                kernel_fd, initrd, self.console_fd, self.base,
                self._new_top(), *self.layers])
        os.close(kernel_fd)
        os.close(initrd)

    def restore(self, saved, flags=0, kind=RESTORE, ask=None, pages=None):
        """Sends VMM_RESTORE (or VMM_RESET); does not wait.

        `pages`: bytes of a working set.
        `ask`: operations for tests/guest/state.c, see answer().
        """
        question = b""
        if ask is not None:
            self.asked = random.randrange(1, 1 << 32)
            question = MAILBOX_HEAD.pack(self.asked, len(ask), 0, 0) + \
                script(*ask)
        memories = saved.memories(question)
        for fd in memories:
            seal(fd)
        if len(memories) > 1:
            flags |= RESTORE_DELTA
        hints = []
        if pages is not None:
            flags |= RESTORE_WORKING_SET
            hints.append(memfd("pages"))
            os.write(hints[0], pages)
        for fd in [self.base, *self.under, *self.layers]:
            if fd >= 0:
                os.close(fd)
        self.base, self.base_bytes = os.dup(saved.base), saved.base_bytes
        self.under = memories
        self.layers = [os.dup(fd) for fd in saved.layers]
        state = os.open(f"/proc/self/fd/{saved.state}", os.O_RDONLY)
        self.request(kind, body=RESTORE_BODY.pack(
            self.base_bytes, flags, len(self.layers)), fds=[
                state, memories[0], self.console_fd, self.base,
                *memories[1:], *hints, *self.layers, self._new_top()])
        for fd in [state, *hints]:
            os.close(fd)

    def working_set(self):
        """What VMM_WORKING_SET says, as tuples of struct vmm_pages."""
        fd = memfd("pages")
        self.request(WORKING_SET, fds=[fd])
        reply = self.reply()
        assert reply is not None and reply[2] == 0, reply
        data = os.pread(fd, reply[4] + 1, 0)
        os.close(fd)
        assert len(data) == reply[4]
        return list(PAGES.iter_unpack(data))

    def answer(self, timeout=10.0):
        """The lines that tests/guest/state.c said to what it was asked."""
        self.wait_console(f"done={self.asked:08x}\n", timeout)
        text = self.console()
        return text[:text.index(f"done={self.asked:08x}")].splitlines()

    def save(self, flags=0, timeout=10.0):
        """Saves and waits for its answers; returns Saved.

        With SAVE_DISK there is one answer, and only the layers are of use.
        """
        saved = Saved(self)
        old_top = os.dup(self.top)
        files = [] if flags & SAVE_DISK else [saved.state, saved.memory]
        self.request(SAVE, body=SAVE_BODY.pack(flags, 0),
                     fds=[self._new_top(), *files])
        reply = end = self.reply(timeout)
        assert reply is not None and reply[2] == 0, reply
        if not flags & SAVE_DISK:
            end = self.pump(SAVED, timeout)
        assert end is not None and end[2] == 0, end
        saved.pause_ns = reply[4]
        saved.bytes, saved.state_bytes, _, layers, _ = SAVED_BODY.unpack(
            end[5][:SAVED_BODY.size])
        if layers > len(self.layers):
            self.layers.append(old_top)
            saved.layers.append(os.dup(old_top))
        else:
            os.close(self.top)
            self.top = old_top
        return saved

    def command(self, kind, timeout=10.0, **request):
        """Sends a request; returns the status of its reply."""
        self.request(kind, **request)
        return self.reply(timeout)[2]

    def reply(self, timeout=10.0):
        """The reply to the last request."""
        while (m := self.pump(REPLY, timeout)) is not None:
            if m[1] == self._seq:
                return m
        return None

    def receive(self, timeout=10.0):
        """The next packet as (type, seq, status, port, value, rest, fds)."""
        ready, _, _ = select.select([self.control], [], [], timeout)
        if not ready:
            raise TimeoutError("brig-vmm said nothing")
        try:
            data, fds, _, _ = socket.recv_fds(self.control, 256, 4)
        except ConnectionResetError:  # it died with our packet unread
            return None
        if not data:
            return None
        return MSG.unpack(data) + (fds,)

    def pump(self, until, timeout=10.0):
        """Handles packets until one of type `until`; returns it or None."""
        while (m := self.receive(timeout)) is not None:
            if m[0] == READY:
                self.ready = m
            elif m[0] == RUNNING:
                self.running = m
            elif m[0] == REPLY and m[2] < 0:
                self.failed = -m[2]
            elif m[0] == STOPPED:
                self.stopped = m
            elif m[0] == SAVED:
                self.saved = m
            elif m[0] == ACCEPT:
                self.accepted.append((m[3], socket.socket(fileno=m[6][0])))
            if m[0] == until:
                return m
        return None

    def request(self, kind, port=0, body=b"", fds=()):
        self._seq += 1
        socket.send_fds(self.control, [MSG.pack(
            kind, self._seq, 0, port, 0, body)], list(fds))

    def stats(self):
        self.request(STATS)
        m = self.reply()
        names = ("blk_read_bytes", "blk_write_bytes", "blk_reads",
                 "blk_writes", "vsock_rx_bytes", "vsock_tx_bytes",
                 "needs_reset", "console_dropped", "layer_bytes")
        return dict(zip(names, struct.unpack("<QQIIQQIIQ", m[5])))

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
        for _, sock in self.accepted:
            sock.close()
        self.control.close()
        for fd in [self.theirs, self.console_fd, self.base, self.top,
                   *self.under, *self.layers]:
            if fd >= 0:
                os.close(fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Tiny(Monitor):
    """A brig-vmm of our own, with the rights of the test."""

    waits = False  # with a restore, until the shell is idle

    def __init__(self, guest=None, data=b"", *, vcpus=1, memory_mib=128,
                 disk_bytes=64 << 20, base=b"", config=None, kernel=None,
                 saved=None, flags=0, ask=None, pages=None):
        super().__init__(saved.shape if saved else
                         (vcpus, memory_mib, disk_bytes))
        if config is None:
            config = CONFIG.pack(MAGIC, CONFIG_VERSION, *self.shape, 0, 0)
        reader, writer = os.pipe()
        os.write(writer, config)
        os.close(writer)
        fds = [reader, self.theirs, os.open("/dev/kvm", os.O_RDWR),
               os.open("/proc", os.O_PATH)]
        self.process = self._spawn(fds)
        for fd in fds:
            os.close(fd)
        self.theirs = -1
        if saved:
            if self.waits:
                self.wait_idle()
            self.restore(saved, flags, ask=ask, pages=pages)
        elif guest is not None:
            self.boot(kernel or GUESTS / f"{guest}.elf", data, base)

    def wait_idle(self, timeout=10.0):
        """Returns when the shell has done what it does while nobody asks."""
        end = time.monotonic() + timeout
        fds = f"/proc/{self.process.pid}/fd"
        while not any(os.readlink(f"{fds}/{fd}").endswith("/pagemap")
                      for fd in os.listdir(fds)):
            assert time.monotonic() < end, "the shell does not get ready"
            time.sleep(0.001)

    @staticmethod
    def _spawn(fds):
        # Out of the way of the target numbers first, then into place.
        def place():
            end = 3 + len(fds)
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, end) for fd in fds]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
            os.closerange(end, os.sysconf("SC_OPEN_MAX"))
        return subprocess.Popen([VMM], preexec_fn=place, close_fds=False,
                                stdin=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, env={})

    def wait(self, timeout=10.0):
        """Waits for the end; returns (reason, console text)."""
        self.pump(STOPPED, timeout)
        self.process.wait(timeout)
        return (self.stopped[2] if self.stopped else None, self.console())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.stderr = self.process.stderr.read().decode()
        self.process.stderr.close()
        super().close()
