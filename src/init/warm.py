# warm.py - the agent's Python: forks interpreters that wait for their code.
# SPDX-License-Identifier: Apache-2.0
#
# Runs as `python3 -c` in a namespace of its own. Descriptor 4 is the agent's:
# each message there asks for one process and carries its channel, stdin,
# stdout and stderr. That process tells its pid, is moved to a cgroup, and
# waits for a job: a length and strings that end with NUL (user id, group id,
# other groups, home, working directory, code, variables). It answers with
# stage and errno, or with one byte right before the code begins.
import ctypes
import gc
import importlib
import os
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
PyCF_IGNORE_COOKIE = 0x800
libc = ctypes.CDLL(None, use_errno=True)


class CompilerFlags(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_int), ("feature_version", ctypes.c_int)]


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


def run(code, channel):
    """As `python3 -c`: the status of the process for SystemExit, or None."""
    flags = CompilerFlags(PyCF_IGNORE_COOKIE, sys.version_info.minor)
    sys.orig_argv[1:] = ["-c", os.fsdecode(code)]
    function = ctypes.pythonapi.PyRun_SimpleStringFlags
    os.write(channel, b"r")
    os.close(channel)
    if function(code, ctypes.byref(flags)) == 0:
        return None
    # The interpreter ends itself by SIGINT when nothing is raised here.
    if issubclass(getattr(sys, "last_type", Exception), KeyboardInterrupt):
        return None
    return 1


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
    make_main()
    return run(code, channel)


status = main()
if status is not None:
    raise SystemExit(status)
