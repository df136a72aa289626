"""agent.py - speaks wire/guest.h to brig-init over a unix socket.

SPDX-License-Identifier: Apache-2.0
"""

import os
import pathlib
import signal
import socket
import struct
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(
    os.environ.get("BRIG_INIT", ROOT / "build/test/bin/brig-init"))

HELLO, CONFIGURE, CONFIGURED, PING, PONG = range(1, 6)
EXEC, READ, WRITE, STAT, STATUS, POWEROFF, QUIESCE, THAW = range(16, 24)
STDIN, STDIN_EOF, SIGNAL = 32, 33, 34
DATA, END = 40, 41
STARTED, STDOUT, STDERR, EXIT, FILE_INFO, STATUS_REPLY, ERROR, QUIESCED, \
    THAWED = range(64, 73)

EXITED, SIGNALED, TIMED_OUT, OOM = range(4)
AT_REQUEST, AT_USER, AT_CWD, AT_EXEC, AT_FORK, AT_OPEN, AT_IO, AT_SETUP = \
    range(1, 9)

SHELL, WITH_STDIN, CODE = 1, 2, 4
U64 = (1 << 64) - 1


class AgentError(Exception):
    """An ERROR frame."""

    def __init__(self, payload):
        self.stage, self.errno = struct.unpack_from("<II", payload)
        self.detail = payload[8:].split(b"\0")[0].decode()
        super().__init__(f"{self.stage} {self.errno} {self.detail}")


class Conn:
    """One connection: frames out, frames in."""

    def __init__(self, path, timeout=20):
        if isinstance(path, socket.socket):
            self.sock = path
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        for _ in range(200):
            try:
                self.sock.connect(str(path))
                return
            except BlockingIOError:  # the agent is behind with accepting
                time.sleep(0.05)
        raise TimeoutError("the agent does not accept")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, kind, payload=b""):
        self.raw(struct.pack("<IHH", len(payload), kind, 0) + payload)

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            piece = self.sock.recv(n - len(data))
            if not piece:
                raise EOFError(f"{len(data)} of {n} bytes")
            data += piece
        return data

    def recv(self):
        length, kind, zero = struct.unpack("<IHH", self._exactly(8))
        assert zero == 0 and length <= 256 << 10
        return kind, self._exactly(length)

    def expect(self, wanted):
        kind, payload = self.recv()
        if kind == ERROR and wanted != ERROR:
            raise AgentError(payload)
        assert kind == wanted, kind
        return payload

    def expect_eof(self):
        try:
            assert self.sock.recv(1) == b""
        except ConnectionResetError:
            pass


class Result:
    """What a run said: output and EXIT."""

    def __init__(self, out, err, payload):
        self.out, self.err = out, err
        (self.reason, self.code, self.wall_ns, self.user_ns, self.system_ns,
         self.memory_peak, self.out_bytes,
         self.err_bytes) = struct.unpack("<IIQQQQQQ", payload)


class Run:
    """An EXEC in progress."""

    def __init__(self, conn):
        self.conn = conn
        self.pid = 0

    def started(self):
        self.pid = struct.unpack("<II", self.conn.expect(STARTED))[0]
        return self

    def wait(self, already=b""):
        """The rest of the output, after what was read `already`."""
        out = {STDOUT: [already], STDERR: []}
        while True:
            kind, payload = self.conn.recv()
            if kind == ERROR:
                raise AgentError(payload)
            if kind == EXIT:
                break
            assert payload and len(payload) <= 32 << 10
            out[kind].append(payload)
        self.conn.expect_eof()
        self.conn.sock.close()
        result = Result(b"".join(out[STDOUT]), b"".join(out[STDERR]), payload)
        assert result.out_bytes == len(result.out)
        assert result.err_bytes == len(result.err)
        return result


def exec_payload(argv, shell=False, stdin=False, env=(), cwd="", user="",
                 timeout_ms=0, code=False):
    """The payload of an EXEC frame."""
    flags = (SHELL if shell else 0) | (WITH_STDIN if stdin else 0) | \
        (CODE if code else 0)
    strings = [user, cwd, *argv, *env]
    return struct.pack("<IIII", flags, timeout_ms, len(argv), len(env)) + \
        b"".join((s if isinstance(s, bytes) else s.encode()) + b"\0"
                 for s in strings)


def heed_signals():
    """Who starts us in the background may have them ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Agent:
    """A brig-init process, its socket and its cgroup."""

    def __init__(self, directory, cgroup, host=None):
        self.path = directory / "agent.sock"
        self.cgroup = cgroup
        cgroup.mkdir()
        self.log = directory / "log"
        command = [BINARY, "--serve", self.path, cgroup]
        if host:
            command = [*host.namespace, *command, host.path]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                preexec_fn=heed_signals,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._listens)

    def _listens(self):
        try:
            self.connect().sock.close()
            return True
        except OSError:
            return False

    def connect(self, timeout=20):
        return Conn(self.path, timeout)

    def exec(self, argv, **kw):
        conn = self.connect()
        conn.send(EXEC, exec_payload(argv, **kw))
        return Run(conn)

    def run(self, argv, **kw):
        return self.exec(argv, **kw).started().wait()

    def sh(self, line, **kw):
        return self.run([line], shell=True, **kw)

    def sh_started(self, line, **kw):
        return self.exec([line], shell=True, **kw).started()

    def code(self, language, code, **kw):
        return self.run([language, code], code=True, **kw)

    def stat(self, path):
        with self.connect() as c:
            c.send(STAT, os.fsencode(path) + b"\0")
            return struct.unpack("<QQIIII", c.expect(FILE_INFO))

    def read(self, path, offset=0, length=U64):
        with self.connect() as c:
            c.send(READ, struct.pack("<QQ", offset, length) +
                   os.fsencode(path) + b"\0")
            c.expect(FILE_INFO)
            data = b""
            while True:
                kind, payload = c.recv()
                if kind == END:
                    return data
                if kind == ERROR:
                    raise AgentError(payload)
                assert kind == DATA
                data += payload

    def write(self, path, data, mode=0, size=None):
        with self.connect() as c:
            c.send(WRITE, struct.pack(
                "<IIQ", mode, 0, len(data) if size is None else size) +
                os.fsencode(path) + b"\0")
            for at in range(0, len(data), 32 << 10):
                c.send(DATA, data[at:at + (32 << 10)])
            c.send(END)
            return struct.unpack("<QQIIII", c.expect(FILE_INFO))

    def groups(self):
        """Ids of the cgroups that have processes."""
        found = []
        for d in (self.cgroup / "runs").iterdir():
            if d.is_dir():
                try:
                    if "populated 1" in (d / "cgroup.events").read_text():
                        found.append(d.name)
                except OSError:
                    pass
        return found

    def stop(self):
        """Ends the agent; a sanitizer report makes it fail."""
        try:
            with self.connect() as c:
                c.send(POWEROFF)
            code = self.process.wait(10)
        finally:
            self.process.kill()
            (self.cgroup / "cgroup.kill").write_text("1")
        assert code == 0, self.log.read_text()
        until(lambda: "populated 0" in
              (self.cgroup / "cgroup.events").read_text())
        for tree in (self.cgroup / "runs", self.cgroup / "hooks"):
            for d in list(tree.iterdir()):
                if d.is_dir():
                    d.rmdir()
            tree.rmdir()
        self.cgroup.rmdir()


class Host:
    """What the agent reports to, and an /etc and a /run for it to write to."""

    def __init__(self, directory):
        self.path = directory / "host.sock"
        self.etc = directory / "etc"
        for hooks in ("post-restore.d", "pre-snapshot.d"):
            (self.etc / "brig" / hooks).mkdir(parents=True)
        for name in ("passwd", "group", "ld.so.cache", "alternatives"):
            if os.path.exists(f"/etc/{name}"):
                os.symlink(f"/mnt/{name}", self.etc / name)
        self.namespace = [
            "unshare", "--mount", "--uts", "sh", "-euc",
            f"mount --bind /etc /mnt; mount --bind {self.etc} /etc;"
            "mount -t tmpfs tmpfs /run; exec \"$@\"", "sh"]
        self._listen()

    def _listen(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.bind(str(self.path))
        self.sock.listen(8)
        self.sock.settimeout(20)

    def hook(self, directory, name, text):
        path = self.etc / "brig" / directory / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def accept(self):
        """The next ready connection: (connection, version, generation)."""
        sock, _ = self.sock.accept()
        sock.settimeout(20)
        conn = Conn(sock)
        hello = struct.unpack("<IIQQ", conn.expect(HELLO))
        assert hello[1] >= 1 and hello[2] > 0
        return conn, hello[0], hello[3]

    def gone(self):
        self.sock.close()
        os.unlink(self.path)

    def back(self):
        self._listen()


class Receipt:
    """A CONFIGURED frame."""

    FORMAT = "<QIIIIIIIIqQQ"

    def __init__(self, payload):
        (self.generation, self.clock_set, self.entropy_added,
         self.hostname_set, self.machine_id_set, self.boot_id_set,
         self.hooks_failed, self.disk_grown, zero, self.clock_step_ns,
         self.disk_bytes, self.disk_free_bytes) = struct.unpack(
             self.FORMAT, payload)
        assert zero == 0


def configure_payload(generation, hostname=b"guest", machine_id=b"m" * 16,
                      boot_id=b"b" * 16, realtime_ns=None):
    if realtime_ns is None:
        realtime_ns = time.time_ns()
    return struct.pack("<QQ64s16s16s64s", generation, realtime_ns,
                       os.urandom(64), machine_id, boot_id, hostname)


def configure(conn, generation, **kw):
    conn.send(CONFIGURE, configure_payload(generation, **kw))
    return Receipt(conn.expect(CONFIGURED))


def until(condition, seconds=10):
    """Waits for a condition; fails when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.005)


def alive(pid):
    """True while the process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before, or since the open
        return False
