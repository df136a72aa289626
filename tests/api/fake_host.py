# fake_host.py - a brig-spawn, its VMMs and the agents inside, in one process.
# SPDX-License-Identifier: Apache-2.0
#
# Speaks wire/spawn.h, wire/vmm.h and wire/guest.h, so that brigd can be tested
# without KVM or root. A "guest" is a directory; its commands run as processes
# of this machine. A command that begins with "@" makes the agent misbehave.

import base64
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

START, KILL, PROBE, STARTED, DONE, PROBED, EXITED = 1, 2, 3, 16, 17, 18, 19
SPAWN = struct.Struct("<IIiI32sIIQIIiIQ")
(CONNECT, STATS, STOP, BOOT, RESTORE, PAUSE, RESUME, SAVE, RESET_VM,
 WORKING_SET) = range(1, 11)
WORKING_PAGES = struct.pack("<IIII", 3, 2, 1, 0)
REPLY, RUNNING, ACCEPT, STOPPED, READY, SAVED = range(16, 22)
VMM = struct.Struct("<IIiIQ56s")
HEAD = struct.Struct("<IHH")
(HELLO, CONFIGURE, CONFIGURED, PING, PONG) = (1, 2, 3, 4, 5)
(EXEC, READ, WRITE, STAT, STATUS, POWEROFF_GUEST, QUIESCE, THAW) = range(16, 24)
(STDIN, STDIN_EOF, SIGNAL, DATA, END) = (32, 33, 34, 40, 41)
(G_STARTED, STDOUT, STDERR, EXIT, FILE_INFO, STATUS_REPLY, ERROR, QUIESCED,
 THAWED) = range(64, 73)
(AT_REQUEST, AT_USER, AT_CWD, AT_EXEC, AT_FORK, AT_OPEN, AT_IO,
 AT_SETUP) = range(1, 9)

POWEROFF, RESET, PANIC, TRIPLE_FAULT = 1, 2, 3, 4
PIECE = 32 << 10
PAGE = 4096
LANGUAGES = {"python": "/usr/bin/python3", "bash": "/bin/bash"}


def recv_exact(sock, n):
    data = b""
    while len(data) < n:
        piece = sock.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def error_frame(stage, number, detail):
    return struct.pack("<II120s", stage, number, detail.encode()[:119])


class Stream:
    """One agent connection: frames both ways."""

    def __init__(self, sock):
        self.sock = sock
        self.lock = threading.Lock()

    def recv(self):
        length, kind, zero = HEAD.unpack(recv_exact(self.sock, HEAD.size))
        assert zero == 0 and length <= 256 << 10
        return kind, recv_exact(self.sock, length)

    def send(self, kind, payload=b""):
        with self.lock:
            self.sock.sendall(HEAD.pack(len(payload), kind, 0) + payload)

    def send_raw(self, data):
        with self.lock:
            self.sock.sendall(data)


class Run:
    """One EXEC: a real process of this machine."""

    def __init__(self, vm, stream, payload):
        self.vm = vm
        self.stream = stream
        flags, self.timeout_ms, argc, envc = struct.unpack_from("<IIII", payload)
        strings = payload[16:].split(b"\0")
        assert strings.pop() == b"" and len(strings) == 2 + argc + envc
        self.user, self.cwd = strings[0].decode(), strings[1].decode()
        self.argv = [s.decode() for s in strings[2:2 + argc]]
        self.env = dict(s.decode().split("=", 1) for s in strings[2 + argc:])
        self.shell = bool(flags & 1)
        self.stdin = bool(flags & 2)
        self.code = bool(flags & 4)
        self.counts = {STDOUT: 0, STDERR: 0}
        self.timed_out = False

    def start(self):
        if self.user not in ("", "root"):
            self.stream.send(ERROR, error_frame(AT_USER, 2, self.user))
            return None
        cwd = os.path.join(self.vm.root, self.cwd.lstrip("/"))
        if not os.path.isdir(cwd):
            self.stream.send(ERROR, error_frame(AT_CWD, 2, self.cwd))
            return None
        argv = ["/bin/bash", "-c", self.argv[0]] if self.shell else self.argv
        if self.code:
            argv = [LANGUAGES.get(argv[0], argv[0]), "-c", argv[1]]
        env = {"PATH": "/usr/bin:/bin", "HOME": self.vm.root, **self.env}
        try:
            return subprocess.Popen(
                argv, cwd=cwd, env=env, start_new_session=True,
                stdin=subprocess.PIPE if self.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as e:
            self.stream.send(ERROR, error_frame(AT_EXEC, e.errno, argv[0]))
            return None

    def kill(self, process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def time_out(self, process):
        self.timed_out = True
        self.kill(process)

    def copy(self, pipe, kind):
        try:
            while data := os.read(pipe.fileno(), PIECE):
                self.counts[kind] += len(data)
                self.stream.send(kind, data)
        except OSError:
            pass  # brigd closed the connection

    def listen(self, process):
        """stdin and signals from the host; kills the run when it hangs up."""
        try:
            while True:
                kind, payload = self.stream.recv()
                if kind == STDIN:
                    process.stdin.write(payload)
                    process.stdin.flush()
                elif kind == STDIN_EOF:
                    process.stdin.close()
        except (EOFError, OSError, ValueError):
            self.kill(process)

    def run(self):
        started = time.monotonic_ns()
        process = self.start()
        if process is None:
            return
        self.stream.send(G_STARTED, struct.pack("<II", process.pid, 0))
        threading.Thread(target=self.listen, args=(process,),
                         daemon=True).start()
        timer = None
        if self.timeout_ms and not self.vm.host.ignore_timeouts:
            timer = threading.Timer(self.timeout_ms / 1000, self.time_out,
                                    (process,))
            timer.start()
        copies = [threading.Thread(target=self.copy, args=a) for a in
                  ((process.stdout, STDOUT), (process.stderr, STDERR))]
        for t in copies:
            t.start()
        for t in copies:
            t.join()
        status = process.wait()
        if timer:
            timer.cancel()
        reason, code = (0, status) if status >= 0 else (1, -status)
        if self.timed_out:
            reason, code = 2, 9
        wall = time.monotonic_ns() - started
        self.stream.send(EXIT, struct.pack(
            "<IIQQQQQQ", reason, code, wall, 5000000, 2000000, 3 << 20,
            self.counts[STDOUT], self.counts[STDERR]))


def has_data(fd, at):
    try:
        return os.lseek(fd, at, os.SEEK_DATA) < at + PAGE
    except OSError:
        return False


class VM:
    """A VMM process (a sleeping child stands for it) and its guest.

    The guest's disk is a directory; its RAM is pages that @poke writes and
    @peek reads. A state file holds the directory."""

    def __init__(self, host, msg, fds):
        self.host = host
        (_, self.seq, _, _, name, self.vcpus, self.memory_mib, self.disk_bytes,
         self.quota, *_rest) = msg
        self.id = name.rstrip(b"\0").decode()
        self.control = socket.socket(fileno=fds[0])
        self.fds = []
        self.root = tempfile.mkdtemp(prefix="guest-", dir=host.dir)
        self.cgroup = tempfile.mkdtemp(prefix="cgroup-", dir=host.dir)
        self.set_cgroup(1000000, 64 << 20)
        self.process = subprocess.Popen(["sleep", "1000"])
        self.claim = None  # BOOT, RESTORE, RESET_VM
        self.working_set = []
        self.hostname = None
        self.console = None
        self.ready = None
        self.streams = []
        self.memory = []  # base, delta: where a page is that we have not
        self.pages = {}
        self.layers = 0
        self.generation = 0
        self.frozen = False
        self.paused = False
        self.configured = []  # every CONFIGURE ever
        self.runs = []

    def set_cgroup(self, usec, memory):
        for name, text in (("cpu.stat", f"usage_usec {usec}\nuser_usec 0\n"),
                           ("memory.current", f"{memory}\n")):
            with open(os.path.join(self.cgroup, name), "w") as f:
                f.write(text)

    def log(self, text):
        if self.console is None:
            return
        old = struct.unpack("<Q", os.pread(self.console, 8, 0))[0]
        for i, c in enumerate(text.encode()):
            os.pwrite(self.console, bytes([c]), 4096 + (old + i) % 65536)
        os.pwrite(self.console, struct.pack("<Q", old + len(text.encode())), 0)

    def send(self, kind, seq=0, status=0, port=0, value=0, rest=b"", fd=None):
        msg = VMM.pack(kind, seq, status, port, value, rest)
        fds = [] if fd is None else [fd]
        socket.send_fds(self.control, [msg], fds)

    def stop(self, reason):
        """The VMM's last words, then its end."""
        try:
            self.send(STOPPED, status=reason)
        except OSError:
            pass
        self.die()

    def die(self):
        for s in [self.control, *self.streams]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # brigd was faster
        self.process.kill()

    def open_stream(self):
        ours, theirs = socket.socketpair()
        self.streams.append(ours)
        return ours, theirs

    # --- the control socket

    def serve(self):
        try:
            time.sleep(self.host.build_delay)
            if self.host.build == "die":
                self.die()
                return
            self.send(READY, value=1000000)
            while True:
                msg, fds, _, _ = socket.recv_fds(self.control, VMM.size, 253)
                if not msg:
                    break
                self.handle(fds, *VMM.unpack(msg))
        except OSError:
            pass
        self.process.kill()

    def handle(self, fds, kind, seq, _status, port, _value, rest):
        self.fds += fds
        if kind == CONNECT and self.host.refuse_connect:
            self.send(REPLY, seq, status=-111)
        elif kind == CONNECT and port == 52:
            ours, theirs = self.open_stream()
            self.send(REPLY, seq, fd=theirs.fileno())
            theirs.close()
            threading.Thread(target=self.agent, args=(ours,),
                             daemon=True).start()
        elif kind == STATS:
            stats = struct.pack("<QQIIQQIIQ", 4096, 8192, 1, 2, 3, 4, 0, 0, 5)
            self.send(REPLY, seq, rest=stats)
        elif kind == STOP:
            self.die()
        elif kind in (BOOT, RESTORE, RESET_VM):
            self.start_guest(kind, seq, rest, fds)
        elif kind in (PAUSE, RESUME):
            self.paused = kind == PAUSE
            self.send(REPLY, seq)
        elif kind == WORKING_SET:
            assert self.flags & 8, "it did not rehearse"
            os.write(fds[0], self.host.working_set)
            self.send(REPLY, seq, status=self.host.working_set_status,
                      value=len(self.host.working_set))
        elif kind == SAVE:
            self.save(seq, struct.unpack_from("<I", rest)[0], fds)

    def start_guest(self, kind, seq, rest, fds):
        self.claim = kind
        base_bytes, flags, layers = struct.unpack_from("<QII", rest)
        self.base_bytes, self.flags = base_bytes, flags
        if kind == BOOT:
            assert len(fds) == 5 + layers
            self.console = fds[2]
            self.layer_fds = fds[5:]
            self.log(f"booting {self.id}\n")
        else:
            hints = fds[4 + (flags & 1):][:flags >> 2 & 1]
            assert len(fds) == 5 + layers + (flags & 1) + len(hints)
            self.working_set = [os.pread(fd, 1 << 20, 0) for fd in hints]
            if self.host.restore_status:
                self.send(REPLY, seq, status=self.host.restore_status)
                return
            self.console = fds[2]
            self.restore(fds, flags, layers)
        self.layers = layers
        self.send(REPLY, seq)
        self.send(RUNNING, value=1000000)
        threading.Thread(target=self.boot, daemon=True).start()

    # --- saved state

    def restore(self, fds, flags, layers):
        state_fd = os.open(f"/proc/self/fd/{fds[0]}", os.O_RDONLY)
        with open(state_fd, "rb") as f:
            state = json.load(f)
        assert state["memory_mib"] == self.memory_mib
        assert state["layers"] == layers, (state["layers"], layers)
        assert os.fstat(fds[1]).st_size == self.memory_mib << 20
        self.layer_fds = fds[4 + (flags & 1) + (flags >> 2 & 1):-1]
        for fd in self.layer_fds:
            try:
                os.write(fd, b"x")
                raise AssertionError("a sealed layer can be written to")
            except OSError:
                pass
        self.memory = [fds[1]] + ([fds[4]] if flags & 1 else [])
        self.pages = {}
        for name in os.listdir(self.root):
            os.unlink(os.path.join(self.root, name))
        for name, data in state["files"].items():
            with open(os.path.join(self.root, name), "wb") as f:
                f.write(base64.b64decode(data))
        self.generation = state["generation"]
        self.frozen = state["frozen"]
        self.log("restored\n")
        for s in self.streams:
            s.shutdown(socket.SHUT_RDWR)
        self.ready = None

    def read_page(self, number):
        if number in self.pages:
            return self.pages[number]
        for fd in reversed(self.memory):
            if has_data(fd, number * PAGE):
                return os.pread(fd, PAGE, number * PAGE)
        return bytes(PAGE)

    def save(self, seq, flags, fds):
        disk = bool(flags & 2)
        assert len(fds) == (1 if disk else 3)  # top, state, memory
        for fd in fds:
            assert os.fstat(fd).st_size == 0
        host = self.host
        if host.save == "silent":
            return
        if host.save_status:
            self.send(REPLY, seq, status=host.save_status)
            return
        self.layers += host.seals
        self.paused = bool(flags & 1)
        self.saved_frozen = self.frozen
        files = {}
        for name in os.listdir(self.root):
            with open(os.path.join(self.root, name), "rb") as f:
                files[name] = base64.b64encode(f.read()).decode()
        state = {"files": files, "memory_mib": self.memory_mib,
                 "layers": self.layers, "generation": self.generation,
                 "frozen": self.frozen}
        self.send(REPLY, seq, value=1234567,
                  rest=struct.pack("<QQQII", 0, 0, 0, self.layers, 0))
        if disk:
            return
        threading.Thread(target=self.write_saved, daemon=True, args=(
            seq, json.dumps(state).encode(), dict(self.pages),
            fds[1:])).start()

    def write_saved(self, seq, state, pages, fds):
        host = self.host
        time.sleep(host.save_delay)
        if host.save == "unwritten":
            return
        size = self.memory_mib << 20
        status = host.saved_status
        try:
            os.ftruncate(fds[1], size if host.save != "short" else size - PAGE)
            for number, data in pages.items():
                os.pwrite(fds[1], data, number * PAGE)
            os.pwrite(fds[0], state, 0)
        except OSError as e:
            status = -e.errno
        for fd in fds[:2]:
            if fd in self.fds:  # it still lives
                self.fds.remove(fd)
                os.close(fd)
        try:
            self.send(SAVED, seq, status=status, rest=struct.pack(
                "<QQQII", len(pages) * PAGE, len(state), 0, self.layers, 0))
        except OSError:
            pass

    # --- the agent

    def boot(self):
        mode = self.host.boot if self.claim == BOOT else self.host.restored
        if mode == "never":
            return
        if mode == "panic":
            self.log("Kernel panic - not syncing: no init\n")
            self.stop(PANIC)
            return
        time.sleep(self.host.boot_delay if self.claim == BOOT
                   else self.host.restore_delay)
        ours, theirs = self.open_stream()
        try:
            self.send(ACCEPT, port=53, fd=theirs.fileno())
        except OSError:
            return
        theirs.close()
        self.ready = Stream(ours)
        try:
            self.ready_connection(self.ready, mode)
        except (EOFError, OSError):
            pass

    def ready_connection(self, stream, mode):
        version = 1 if mode == "version" else 2
        if mode == "garbage":
            stream.send_raw(b"\xff" * 64)
        stream.send(HELLO, struct.pack("<IIQQ", version, self.vcpus, 1,
                                       self.generation))
        while True:
            kind, payload = stream.recv()
            if kind == CONFIGURE and mode != "hang":
                # A standby is configured again when it is taken.
                again = len(self.configured) > 0
                self.configure(stream, payload,
                               self.host.restored if again else mode)
            elif kind == PING:
                stream.send(PONG, payload)

    def configure(self, stream, payload, mode):
        (generation, self.realtime_ns, entropy, machine_id, boot_id,
         hostname) = struct.unpack("<QQ64s16s16s64s", payload)
        self.hostname = hostname.rstrip(b"\0").decode()
        self.configured.append((generation, entropy, machine_id, boot_id))
        steps = {"clock": 1, "entropy": 1, "hostname": 1, "machine_id": 1,
                 "boot_id": 1}
        if mode.startswith("no_"):
            steps[mode[3:]] = 0
        self.generation = generation
        if mode == "replay":
            generation ^= 2
        if mode == "refuse":
            stream.send(ERROR, error_frame(AT_SETUP, 1, "settimeofday"))
            return
        self.frozen = False
        stream.send(CONFIGURED, struct.pack(
            "<QIIIIIIIIqQQ", generation, *steps.values(),
            self.host.hooks_failed, 1, 0, 5, 1 << 30, 1 << 29))

    def quiesce(self, stream, payload):
        self.quiesced = struct.unpack("<II", payload)[0]
        if self.host.quiesce == "never":
            stream.recv()
        if self.host.quiesce == "error":
            stream.send(ERROR, error_frame(AT_IO, 5, "freeze"))
            return
        self.frozen = True
        stream.send(QUIESCED, struct.pack("<II", 0, 2))
        kind, _ = stream.recv()
        assert kind == THAW
        if self.host.thaw == "never":
            stream.recv()
        assert not self.paused
        self.frozen = False
        stream.send(THAWED)

    def agent(self, sock):
        stream = Stream(sock)
        try:
            kind, payload = stream.recv()
            {EXEC: self.exec, READ: self.read, WRITE: self.write,
             STATUS: self.status, QUIESCE: self.quiesce}[kind](stream, payload)
        except (EOFError, OSError):
            pass
        finally:
            self.streams.remove(sock)
            sock.close()

    def exec(self, stream, payload):
        run = Run(self, stream, payload)
        self.runs.append(run)
        if self.frozen:
            return  # nobody runs: the stream ends
        if self.host.slow_runs:
            stream.recv()
        words = run.argv[0].split()
        odd = getattr(self, "odd_" + words[0][1:], None) \
            if words and words[0].startswith("@") else None
        if odd:
            odd(stream, *words[1:])
        else:
            run.run()

    def path(self, payload):
        return os.path.join(self.root,
                            payload.rstrip(b"\0").decode().lstrip("/"))

    def info(self, path):
        st = os.stat(path)
        return struct.pack("<QQIIII", st.st_size, st.st_mtime_ns, st.st_mode,
                           0, 0, 0)

    def read(self, stream, payload):
        path = self.path(payload[16:])
        try:
            with open(path, "rb") as f:
                stream.send(FILE_INFO, self.info(path))
                while data := f.read(PIECE):
                    stream.send(DATA, data)
            stream.send(END)
        except IsADirectoryError:
            stream.send(FILE_INFO, self.info(path))
        except FileNotFoundError as e:
            stream.send(ERROR, error_frame(AT_OPEN, e.errno, "open"))

    def write(self, stream, payload):
        path = self.path(payload[16:])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = 0
        with open(path + ".part", "wb") as f:
            while True:
                kind, data = stream.recv()
                if kind == END:
                    break
                assert kind == DATA
                size += len(data)
                if size > self.host.disk_free:
                    stream.send(ERROR, error_frame(AT_IO, 28, "write"))
                    return
                f.write(data)
        os.rename(path + ".part", path)
        stream.send(FILE_INFO, self.info(path))

    def status(self, stream, _payload):
        if self.host.silent_status:
            time.sleep(30)
        stream.send(STATUS_REPLY, struct.pack(
            "<QQQQQQQIIII", 10 ** 9, 500 << 20, 400 << 20, 10 ** 9,
            9 * 10 ** 9, 1 << 30, 1 << 29, 100, 50, 10, 7))

    # --- commands that misbehave

    def odd_garbage(self, stream):
        stream.send_raw(b"\xff" * 100)
        time.sleep(30)

    def odd_huge(self, stream):
        stream.send_raw(HEAD.pack(0xffffffff, STDOUT, 0))
        time.sleep(30)

    def odd_untimely(self, stream):
        stream.send(STDOUT, b"before STARTED")
        time.sleep(30)

    def odd_frame(self, stream, kind, length):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        stream.send_raw(HEAD.pack(int(length), int(kind), 0) +
                        b"x" * min(int(length), 1 << 20))
        time.sleep(30)

    def odd_late_garbage(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        stream.send(STDOUT, b"so far\n")
        stream.send_raw(b"\xff" * 100)
        time.sleep(30)

    def odd_silent(self, stream):
        stream.recv()

    def odd_hang(self, stream):
        try:
            stream.send(G_STARTED, struct.pack("<II", 1, 0))
            stream.send(STDOUT, b"before the hang\n")
            stream.recv()
        except (EOFError, OSError):
            self.host.hung_up.set()

    def odd_close(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        stream.send(STDOUT, b"half\n")

    def odd_oom(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        stream.send(EXIT, struct.pack("<IIQQQQQQ", 3, 9, 1, 1, 1, 1, 0, 0))

    def odd_split(self, stream):
        """One character, a byte a frame; then half of one."""
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        for byte in "é€😀".encode() + b"\xe2\x82":
            stream.send(STDOUT, bytes([byte]))
        stream.send(EXIT, struct.pack("<IIQQQQQQ", 0, 0, 1, 1, 1, 1, 11, 0))

    def odd_poke(self, stream, number, text):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        self.pages[int(number)] = text.encode().ljust(PAGE, b"\0")
        stream.send(EXIT, struct.pack("<IIQQQQQQ", 0, 0, 1, 1, 1, 1, 0, 0))

    def odd_peek(self, stream, *numbers):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        text = b" ".join(self.read_page(int(n)).rstrip(b"\0") or b"-"
                         for n in numbers)
        stream.send(STDOUT, text)
        stream.send(EXIT, struct.pack("<IIQQQQQQ", 0, 0, 1, 1, 1, 1,
                                      len(text), 0))

    def odd_poweroff(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        self.stop(POWEROFF)

    def odd_panic(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        self.stop(PANIC)

    def odd_crash(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        self.stop(TRIPLE_FAULT)

    def odd_die(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        self.die()

    def odd_agent(self, stream):
        """Another process of the guest takes the agent's place."""
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        ours, theirs = self.open_stream()
        self.send(ACCEPT, port=53, fd=theirs.fileno())
        theirs.close()
        try:
            end = ours.recv(1)
        except OSError:
            end = b""
        code = 0 if end == b"" else 1
        stream.send(EXIT, struct.pack("<IIQQQQQQ", 0, code, 1, 1, 1, 1, 0, 0))

    def odd_lose_agent(self, stream):
        stream.send(G_STARTED, struct.pack("<II", 1, 0))
        self.ready.sock.shutdown(socket.SHUT_RDWR)
        stream.recv()


class FakeHost:
    def __init__(self, directory):
        self.dir = directory
        self.path = os.path.join(directory, "spawn.sock")
        self.boot = "ok"  # what a guest does that boots
        self.boot_delay = 0
        self.restored = "ok"  # what a guest does that was restored
        self.restore_delay = 0
        self.restore_status = 0
        self.build = "ok"  # what a shell does
        self.build_delay = 0
        self.save = "ok"
        self.save_status = 0  # of the reply
        self.saved_status = 0  # of SAVED
        self.save_delay = 0
        self.seals = 1  # layers that a save seals
        self.working_set_status = 0
        self.working_set = WORKING_PAGES
        self.quiesce = "ok"
        self.thaw = "ok"
        self.hooks_failed = 0
        self.kvm = 2  # SPAWN_KVM_HARDWARE
        self.start_status = 0
        self.exit_delay = 0
        self.refuse_connect = False
        self.ignore_timeouts = False
        self.silent_status = False
        self.slow_runs = False
        self.disk_free = 1 << 40
        self.hung_up = threading.Event()
        self.vms = {}  # handle -> VM, while alive
        self.started = []  # every VM ever
        self.conn = None
        self.lock = threading.Lock()
        self.next_handle = 1
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.bind(self.path)
        self.sock.listen(1)
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.sock.close()
        self.disconnect()
        for vm in list(self.vms.values()):
            vm.process.kill()

    def disconnect(self):
        if self.conn:
            self.conn.shutdown(socket.SHUT_RDWR)

    def vm(self, sandbox_id):
        return next(v for v in self.started if v.id == sandbox_id)

    def accept(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            self.conn = conn
            try:
                self.serve(conn)
            except OSError:
                pass

    def send(self, kind, seq=0, status=0, handle=0, wait_status=0, kvm=0, n=0,
             fds=()):
        msg = SPAWN.pack(kind, seq, status, handle, b"", 0, 0, 0, 0, 0,
                         wait_status, kvm, n)
        with self.lock:
            socket.send_fds(self.conn, [msg], list(fds))

    def serve(self, conn):
        while True:
            data, fds, _, _ = socket.recv_fds(conn, SPAWN.size, 8)
            if not data:
                return
            msg = SPAWN.unpack(data)
            if msg[0] == START:
                self.start(msg, fds)
            elif msg[0] == KILL:
                self.kill(msg)
            elif msg[0] == PROBE:
                self.send(PROBED, msg[1], kvm=self.kvm, n=123456)

    def start(self, msg, fds):
        assert len(fds) == 1
        if self.start_status:
            for fd in fds:
                os.close(fd)
            self.send(STARTED, msg[1], status=self.start_status)
            return
        vm = VM(self, msg, fds)
        handle = self.next_handle
        self.next_handle += 1
        self.vms[handle] = vm
        self.started.append(vm)
        pidfd = os.pidfd_open(vm.process.pid)
        cgroup = os.open(vm.cgroup, os.O_PATH | os.O_DIRECTORY)
        self.send(STARTED, msg[1], handle=handle, fds=(pidfd, cgroup))
        os.close(pidfd)
        os.close(cgroup)
        threading.Thread(target=vm.serve, daemon=True).start()
        threading.Thread(target=self.reap, args=(handle, vm),
                         daemon=True).start()

    def reap(self, handle, vm):
        status = vm.process.wait()
        time.sleep(self.exit_delay)
        vm.control.close()
        vm.console = None
        fds, vm.fds = vm.fds, []
        for fd in fds:
            os.close(fd)
        del self.vms[handle]
        try:
            self.send(EXITED, handle=handle, wait_status=-status)
        except OSError:
            pass

    def kill(self, msg):
        vm = self.vms.get(msg[3])
        if vm is None:
            self.send(DONE, msg[1], status=-2)
            return
        vm.process.kill()
        self.send(DONE, msg[1])
