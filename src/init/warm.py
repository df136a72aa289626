# warm.py - the agent's Python: forks interpreters that wait for their code.
# SPDX-License-Identifier: Apache-2.0
#
# Runs as `python3 -c` in a namespace of its own. Descriptor 4 is the agent's:
# each message there asks for one process and carries its channel, stdin,
# stdout and stderr. That process tells its pid, is moved to a cgroup, and
# waits for a job: a length and strings that end with NUL (user id, group id,
# other groups, home, working directory, code, variables). It answers with
# stage and errno, or with one byte right before the code begins.
import atexit
import ctypes
import gc
import importlib
import io
import os
import signal
import site
import socket
import struct
import sys
import time

for name in """abc argparse array ast base64 bisect calendar collections
        collections.abc contextlib copy csv dataclasses datetime decimal
        difflib enum fractions functools glob hashlib heapq inspect io
        itertools json keyword linecache locale logging math numbers operator
        pathlib pickle platform pprint random re secrets select shlex shutil
        signal stat statistics string subprocess tempfile textwrap threading
        time tokenize traceback types typing unicodedata urllib.parse uuid
        warnings weakref zlib""".split():
    try:
        __import__(name)
    except ImportError:
        pass

AT_USER, AT_CWD = 2, 3
PR_SET_DUMPABLE = 4
libc = ctypes.CDLL(None, use_errno=True)


def wait_for_fork():
    """In the process that is to run code: its channel and streams."""
    control = socket.socket(fileno=4)
    while True:
        message, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(16))
        if not message:
            os._exit(0)
        fds = struct.unpack("4i", ancillary[0][2])
        child = os.fork()
        if child == 0:
            # The agent reaps it: it is PID 1.
            if os.fork():
                os._exit(0)
            control.close()
            return fds
        os.waitpid(child, 0)
        for fd in fds:
            os.close(fd)


def keep_only(fds):
    """Standard streams in their place, then the channel, nothing else."""
    for target, fd in enumerate(fds[1:]):
        os.dup2(fd, target)
    if fds[0] != 3:
        os.dup2(fds[0], 3)
    os.closerange(4, max(fds) + 1)
    return 3


def read_exactly(fd, n):
    data = b""
    while len(data) < n:
        piece = os.read(fd, n - len(data))
        if not piece:
            os._exit(0)  # the agent has no use for this process any more
        data += piece
    return data


def become(uid, gid, groups):
    if uid:
        for fd in range(3):
            os.fchown(fd, uid, gid)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # As after execve: the user may look at his own /proc/self.
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def enter(home, cwd):
    try:
        os.chdir(home)
    except OSError:
        os.chdir("/")
    if cwd:
        os.chdir(cwd)


def site_directories():
    found = {}
    for path in site.getsitepackages():
        try:
            found[path] = os.stat(path).st_mtime_ns
        except OSError:
            pass
    return found


def refresh_path(seen):
    """Sees modules that were installed since, and the user's own."""
    if site.ENABLE_USER_SITE is not None:
        sys.path[:] = [p for p in sys.path if p != site.USER_SITE]
        site.USER_SITE = site.USER_BASE = None
        site.ENABLE_USER_SITE = site.check_enableusersite()
        end = len(sys.path)
        site.addusersitepackages(None)
        own = sys.path[end:]
        del sys.path[end:]
        common = site.getsitepackages()
        while end > 0 and sys.path[end - 1] in common:
            end -= 1
        sys.path[end:end] = own
    for path, mtime in site_directories().items():
        if seen.get(path) != mtime:
            site.addsitedir(path)
    importlib.invalidate_caches()


def refresh_randomness():
    """Two copies of the machine must not draw the same."""
    sys.modules["random"].seed()
    if "_ssl" in sys.modules:
        sys.modules["_ssl"].RAND_add(os.urandom(32), 32.0)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def refresh_caches():
    time.tzset()
    platform = sys.modules["platform"]
    platform._uname_cache = None
    getattr(platform, "_platform_cache", {}).clear()
    try:
        sys.modules["threading"].main_thread()._set_native_id()
    except AttributeError:
        pass


def make_main():
    """A new __main__: what gc.freeze() has seen is not freed at the end."""
    old = sys.modules["__main__"]
    new = type(sys)("__main__")
    new.__dict__.update(old.__dict__)
    new.__dict__["__annotations__"] = {}
    sys.modules["__main__"] = new


def exit_status(code):
    """Of SystemExit; prints what is no status."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 255 if -1 << 63 <= code < 1 << 63 else 255
    if sys.stderr is None:
        os.write(2, f"{code}\n".encode(errors="backslashreplace"))
    else:
        print(code, file=sys.stderr)
    return 1


def show(error, traceback):
    sys.__excepthook__(type(error), error.with_traceback(traceback), traceback)


def report(error, traceback):
    """An exception that nobody caught."""
    hook = sys.excepthook
    sys.last_type, sys.last_value = type(error), error
    sys.last_traceback = traceback
    ended = second = None
    try:
        hook(type(error), error, traceback)
    except SystemExit as other:
        ended = other
    except BaseException as other:
        second = other
    if ended is not None:
        return exit_status(ended.code)
    if second is not None:
        print("Error in sys.excepthook:", file=sys.stderr)
        show(second, second.__traceback__.tb_next)
        print("\nOriginal exception was:", file=sys.stderr)
        show(error, traceback)
    return 1


def execute(code):
    """As `python3 -c`: the exit status, or None for an interrupt."""
    try:
        code.encode()
    except UnicodeEncodeError as error:
        print("Unable to decode the command from the command line:",
              f"UnicodeEncodeError: {error}", sep="\n", file=sys.stderr)
        return 1
    ended = uncaught = None
    try:
        exec(compile(code, "<string>", "exec", 0, True),
             sys.modules["__main__"].__dict__)
    except SystemExit as error:
        ended = error
    except BaseException as error:
        uncaught = error
    # Not while it is handled: a hook may fail, and has no such context.
    if ended is not None:
        return exit_status(ended.code)
    if uncaught is None:
        return 0
    # Without the frame of this function.
    uncaught.__traceback__ = uncaught.__traceback__.tb_next
    status = report(uncaught, uncaught.__traceback__)
    return None if isinstance(uncaught, KeyboardInterrupt) else status


def flush_streams():
    """False when something could not be written."""
    done = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except Exception as error:
            done = False
            if stream is not sys.stderr:
                print(f"Exception ignored in: {stream!r}", file=sys.stderr)
                show(error, None)
    return done


def flush_files():
    """Those that the code left open."""
    for thing in gc.get_objects():
        if isinstance(thing, (io.TextIOWrapper, io.BufferedWriter)):
            try:
                thing.flush()
            except Exception:
                pass


def take_apart(preloaded):
    """Frees what the code made; what was imported before it stays whole,
    since that would touch all the memory that is shared with the parent."""
    sys.last_type = sys.last_value = sys.last_traceback = None
    for name in list(sys.modules):
        if name not in preloaded:
            sys.modules.pop(name, None)
    sys.modules.pop("__main__", None)
    gc.collect()
    flush_files()


def finish(status, preloaded):
    """What the interpreter does at its end, in short."""
    threading = sys.modules["threading"]
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        done = flush_streams()
        flush_files()
        # Daemons go on using what would be freed.
        if threading.active_count() == 1:
            take_apart(preloaded)
        if not done or not flush_streams():
            status = 120
    except BaseException as error:
        show(error, error.__traceback__)
    if status is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(130 if status is None else status)


def main():
    seen = site_directories()
    gc.collect()
    gc.freeze()
    channel = keep_only(wait_for_fork())
    os.setsid()
    os.write(channel, struct.pack("<I", os.getpid()))
    size = struct.unpack("<I", read_exactly(channel, 4))[0]
    uid, gid, groups, home, cwd, code, *env = \
        read_exactly(channel, size)[:-1].split(b"\0")
    stage = AT_USER
    try:
        become(int(uid), int(gid), [int(g) for g in groups.split()])
        stage = AT_CWD
        enter(home, cwd)
    except OSError as error:
        os.write(channel, struct.pack("<II", stage, error.errno))
        os._exit(127)
    os.environ.clear()
    for entry in env:
        variable, _, value = entry.partition(b"=")
        os.environb[variable] = value
    refresh_path(seen)
    refresh_randomness()
    refresh_caches()
    code = os.fsdecode(code)
    sys.orig_argv[1:] = ["-c", code]
    make_main()
    preloaded = set(sys.modules)
    os.write(channel, b"r")
    os.close(channel)
    finish(execute(code), preloaded)


main()
