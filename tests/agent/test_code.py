"""test_code.py - code in interpreters that were started before.

SPDX-License-Identifier: Apache-2.0
"""

import errno
import os
import shutil
import signal
import struct
import subprocess
import time

import pytest

from agent import (AT_CWD, AT_EXEC, AT_REQUEST, EXITED, QUIESCE, QUIESCED,
                   SIGNAL, SIGNALED, STATUS, STATUS_REPLY, STDIN, STDIN_EOF,
                   STDOUT, THAW, THAWED, TIMED_OUT, AgentError, alive,
                   configure, until)

PYTHON = "/usr/bin/python3"
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="no Node")
LANGUAGES = ["python", pytest.param("node", marks=needs_node)]

# A warm process is told from a plain one by what it was started with.
IS_WARM = {
    "python": "print('4, 6' + '5536' in open('/proc/self/cmdline').read())",
    "node": "console.log(fs.readFileSync('/proc/self/cmdline', 'utf8')"
            ".includes('alloc(6' + '5536)') ? 'True' : 'False')",
}


@pytest.fixture
def warm(agent):
    """The agent after a template's warm-up."""
    assert agent.code("python", "").code == 0
    return agent


@pytest.fixture
def warm_node(agent):
    assert agent.code("node", "").code == 0
    return agent


def settle(agent):
    """Waits until interpreters are ready; how many there are."""
    with agent.connect() as c:
        c.send(QUIESCE, struct.pack("<II", 0, 0))
        ready = struct.unpack("<II", c.expect(QUIESCED))[1]
        c.send(THAW)
        c.expect(THAWED)
    return ready


def is_warm(agent, language):
    return agent.code(language, IS_WARM[language]).out == b"True\n"


def plain(*args):
    """What the interpreter itself does."""
    env = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": "/root"}
    return subprocess.run(args, capture_output=True, check=False, cwd="/root",
                          env=env, stdin=subprocess.DEVNULL)


# --- warm and plain ---------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_first_use_is_plain_later_ones_are_warm(agent, language):
    assert not is_warm(agent, language)
    assert settle(agent) == 1
    for _ in range(3):
        assert is_warm(agent, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_empty_code_warms_up(agent, language):
    r = agent.code(language, "")
    assert (r.reason, r.code, r.out, r.err) == (EXITED, 0, b"", b"")
    assert settle(agent) == 1
    assert is_warm(agent, language)


@needs_node
def test_one_process_per_language_is_ready(agent):
    for language in ("python", "node", "bash"):
        agent.code(language, "")
    assert settle(agent) == 2


def test_nothing_is_ready_before_it_was_used(agent):
    agent.run(["python3", "-c", ""])
    assert settle(agent) == 0
    assert not agent.groups()


@pytest.mark.parametrize("language", ["ruby", "", "Python", "python3"])
def test_unknown_language(agent, language):
    with pytest.raises(AgentError) as e:
        agent.code(language, "1")
    assert (e.value.stage, e.value.errno) == (AT_REQUEST, errno.EINVAL)


def test_bash(agent):
    r = agent.code("bash", "echo $BASH_VERSION | wc -l; exit 4")
    assert (r.out, r.code) == (b"1\n", 4)
    assert agent.code("bash", "-x; echo ok").out == b"ok\n"


@pytest.mark.parametrize("language, code", [
    ("python", "-1; print(1)"), pytest.param(
        "node", "-1; console.log(1)", marks=needs_node)])
def test_code_that_looks_like_an_option(agent, language, code):
    assert agent.code(language, code).out == b"1\n"
    settle(agent)
    assert agent.code(language, code).out == b"1\n"


@pytest.mark.parametrize("language", ["python", "node"])
def test_interpreter_that_is_not_there(hosted, language):
    hosted.sh("mount -t tmpfs tmpfs /usr/local/bin;"
              "cd /usr/bin; for f in python3 node; do"
              " [ ! -e $f ] || mount --bind /dev/null $(realpath $f); done")
    for code in ("", "1", "1"):
        with pytest.raises(AgentError) as e:
            hosted.code(language, code)
        assert e.value.stage == AT_EXEC
        assert e.value.errno in (errno.ENOENT, errno.EACCES)
        assert e.value.detail == {"python": "python3"}.get(language, language)
    assert settle(hosted) == 0


# --- the same as python3 -c ---------------------------------------------------


SAME = [
    "print('hello'); import sys; print('err', file=sys.stderr)",
    "import sys; sys.exit(7)",
    "import sys; sys.exit('message')",
    "raise SystemExit",
    "raise SystemExit(300)",
    "def f():\n    raise ValueError('x')\nf()",
    "1/0",
    "syntax error here",
    "raise KeyboardInterrupt",
    "import os; os._exit(9)",
    "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "import os; os.abort()",
    "import sys; print(sys.argv, sys.path, sys.flags, sys.warnoptions)",
    "print(sorted(globals()), __name__, __doc__, __spec__, __loader__)",
    "print(__annotations__, __builtins__)",
    "import sys; print(sys.orig_argv[1:])",
    "import sys\nfor f in (sys.stdin, sys.stdout, sys.stderr):\n"
    "    print(f.name, f.encoding, f.errors, f.line_buffering, f.isatty(),"
    "f.fileno())",
    "import atexit; atexit.register(print, 'bye'); print('main')",
    "import threading, time\n"
    "def f():\n    time.sleep(0.2); print('thread')\n"
    "threading.Thread(target=f).start(); print('main')",
    "import signal; print([signal.getsignal(s) for s in range(1, 32)])",
    "import os; print(os.getcwd(), sorted(os.environ.items()))",
    "import os; print(os.sched_getscheduler(0), os.getpriority(0, 0),"
    "os.umask(0), os.getgroups(), os.getresuid(), os.getresgid())",
    "import resource as r; print([r.getrlimit(i) for i in"
    "(r.RLIMIT_NOFILE, r.RLIMIT_CORE, r.RLIMIT_STACK)])",
    "import os; print(sorted(os.listdir('/proc/self/fd')))",
    "import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))",
    "print(open('/proc/self/oom_score_adj').read())",
    "import re; print([line for line in open('/proc/self/status')"
    " if re.match('Sig[^Q]|Shd|Cap|Seccomp|NoNew|Uid|Gid|Groups', line)])",
    "print('\\u00e9\\U0001f600')",
    "# -*- coding: latin-1 -*-\nprint('\u00e9')",
    "import sys; sys.excepthook = lambda *a: print('mine', a[0]); 1/0",
    "import sys, os; sys.stdout.write('no newline'); os._exit(0)",
    "import warnings; warnings.warn('careful')",
    "import pickle; print(pickle.loads(pickle.dumps({1: [2]})))",
    "import subprocess as s; print(s.run(['echo', 'x'], capture_output=True))",
    "import os; p = os.fork(); p and os.wait(); print(p == 0)",
    "import multiprocessing as m\n"
    "def f(q): q.put(1)\n"
    "q = m.Queue(); p = m.Process(target=f, args=(q,)); p.start()\n"
    "print(q.get()); p.join()",
    "import asyncio\nasync def f(): print(1)\nasyncio.run(f())",
    "import locale, time; print(locale.setlocale(locale.LC_ALL), time.tzname)",
    "input()",
    "class A:\n    def __del__(self): print('del')\na = A()",
    "import sys; sys.stdout.close()",
    "import sys; sys.stderr = None; sys.exit('message')",
    "import sys; sys.exit(True)",
    "import sys; sys.exit(-1)",
    "import sys; sys.exit(1 << 70)",
    "import sys; sys.exit((1, 2))",
    "import sys; sys.exit([])",
    "import atexit; atexit.register(print, 'bye'); raise KeyboardInterrupt",
    "import atexit\ndef f(): 1/0\natexit.register(f)",
    "import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'f')",
    "f = open('/proc/self/fd/1', 'w'); f.write('not closed')",
    "f = open('/proc/self/fd/1', 'w'); f.write('in a cycle'); f.me = [f]",
    "import os; os.mine = open('/proc/self/fd/1', 'w'); os.mine.write('kept')",
    "def g():\n    try: yield\n    finally: print('closed')\n"
    "a = g(); next(a)",
    "class A:\n    def __init__(self): self.me = self\n"
    "    def __del__(self): print('del')\nA()",
    "import sys\ndef hook(*a): sys.exit(5)\nsys.excepthook = hook; 1/0",
    "import sys\ndef hook(*a): [][0]\nsys.excepthook = hook; 1/0",
    "import sys; sys.excepthook = None; 1/0",
    "try: 1/0\nexcept Exception as e: raise ValueError('second') from e",
    "try: 1/0\nfinally: [][0]",
    "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
    "def f():\n    1/0\nf.__code__ = f.__code__.replace(co_name='g')\nf()",
    "import threading\nt = threading.Thread(target=lambda: 1/0); t.start()",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(9,),"
    " daemon=True).start(); print('end')",
    "import os\nif os.fork() == 0: print('child')\nelse: print(os.wait()[1])",
    "import os, sys\nif os.fork() == 0: sys.exit(3)\nprint(os.wait()[1])",
    "import sys; print(sys.last_type)",
    "  indented",
    "def f(:",
    "print('x' * 100000)",
    "import logging; logging.warning('w'); logging.getLogger('x').error('e')",
    "import unittest.mock, http.client, xml.dom.minidom; print('imported')",
    "assert False, 'why'",
    "import inspect; print(len(inspect.getmodule(inspect).__name__))",
    "import warnings; warnings.simplefilter('error'); warnings.warn('x')",
    "import contextlib, sys\nwith contextlib.suppress(SystemExit): sys.exit()"
    "\nprint('on')",
    "import sys; sys.stdout.write('a'); sys.stderr.write('b')",
    "import os; os.close(1)",
    "import os; os.close(1); print('lost')",
    "import gc; gc.disable(); print(gc.isenabled())",
    "print(__import__('builtins') is __builtins__)",
    "from __future__ import annotations\ndef f(x: y): pass\nprint(f)",
]


@pytest.mark.parametrize("code", SAME)
def test_same_as_plain_python(warm, code):
    cold = warm.run(["python3", "-c", code])
    settle(warm)
    assert is_warm(warm, "python")
    got = warm.code("python", code)

    def text(data):
        # Only addresses of objects may differ.
        return [w for w in data.split() if not w.startswith(b"0x")]

    assert (got.reason, got.code) == (cold.reason, cold.code)
    assert text(got.out) == text(cold.out)
    assert text(got.err) == text(cold.err)


def test_python_finds_modules_in_the_working_directory(warm, tmp_path):
    (tmp_path / "mine.py").write_text("print('imported')")
    assert warm.code("python", "import mine",
                     cwd=str(tmp_path)).out == b"imported\n"


def test_python_sees_modules_that_were_installed_since(hosted, tmp_path):
    hosted.code("python", "")
    where = hosted.run([PYTHON, "-c", "import site;"
                        "print(site.getsitepackages()[0])"]).out.decode()[:-1]
    target = tmp_path / "site"
    target.mkdir()
    hosted.sh(f"mkdir -p {where}; mount --bind {target} {where}")
    (target / "fresh.py").write_text("print('installed')")
    (target / "more.pth").write_text(str(tmp_path / "more"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/further.py").write_text("print('by path')")
    r = hosted.code("python", "import fresh, further;" + IS_WARM["python"])
    assert r.out == b"installed\nby path\nTrue\n"


def test_python_has_the_users_own_modules(warm, tmp_path):
    version = plain(PYTHON, "-c", "import sys; print('python%d.%d' % sys"
                    ".version_info[:2])").stdout.decode().strip()
    own = tmp_path / ".local/lib" / version / "site-packages"
    own.mkdir(parents=True)
    (own / "personal.py").write_text("print('mine')")
    code = "import personal, sys; print(sys.path)"
    env = [f"HOME={tmp_path}"]
    got = warm.code("python", code, env=env)
    assert got.out == warm.run([PYTHON, "-c", code], env=env).out
    assert got.out.startswith(b"mine\n")


def test_python_as_another_user(warm):
    code = "import os; print(os.getresuid(), os.getresgid(), os.getgroups()," \
        "os.getcwd(), os.environ['HOME'], os.environ['USER'])\n" \
        "open('/dev/stdout', 'w').write('opened'); os.listdir('/proc/self/fd')"
    got = warm.code("python", code, user="nobody")
    cold = warm.run(["python3", "-c", code], user="nobody")
    assert (got.out, got.err, got.code) == (cold.out, cold.err, 0)
    assert warm.code("python", IS_WARM["python"],
                     user="nobody").out == b"True\n"
    r = warm.code("python", "open('/root/x', 'w')", user="nobody")
    assert b"PermissionError" in r.err


def test_python_variables(warm):
    r = warm.code("python", "import os, time; print(os.environ['A'],"
                  "os.environb[b'B'], os.getenv('A'), time.tzname[0]);"
                  "os.system('echo $A'); " + IS_WARM["python"],
                  env=["A=1=2", "B=\xff", "TZ=XYZ-3"])
    assert r.out == b"1=2 b'\\xc3\\xbf' 1=2 XYZ\nTrue\n" or \
        sorted(r.out.splitlines()) == [b"1=2", b"1=2 b'\\xc3\\xbf' 1=2 XYZ",
                                       b"True"]


@pytest.mark.parametrize("name, code, want", [
    ("PYTHONPATH=/nowhere", "import sys; print(sys.path[1])", b"/nowhere\n"),
    ("PYTHONUNBUFFERED=1", "import sys; print(sys.stdout.write_through)",
     b"True\n"),
    ("PATH=/usr/bin", IS_WARM["python"], b"False\n"),
])
def test_variables_that_are_read_at_the_start(warm, name, code, want):
    assert warm.code("python", code, env=[name]).out == want


def test_python_working_directory_that_is_not_there(warm):
    with pytest.raises(AgentError) as e:
        warm.code("python", "1", cwd="/nowhere")
    assert (e.value.stage, e.value.errno, e.value.detail) == (
        AT_CWD, errno.ENOENT, "/nowhere")
    assert warm.code("python", "print(1)").out == b"1\n"


def test_python_large_code_and_output(warm):
    text = "x" * 200000
    r = warm.code("python", f"print({text!r})")
    assert r.out == text.encode() + b"\n"
    r = warm.code("python", "print('y' * 3000000)")
    assert len(r.out) == 3000001


@pytest.mark.parametrize("language, code", [
    ("python", "import sys; data = sys.stdin.read(); print(len(data))"),
    pytest.param("node", "console.log(fs.readFileSync(0).length)",
                 marks=needs_node)])
def test_input(agent, language, code):
    agent.code(language, "")
    run = agent.exec([language, code], code=True, stdin=True)
    for _ in range(100):
        run.conn.send(STDIN, b"z" * 10000)
    run.conn.send(STDIN_EOF)
    assert run.started().wait().out == b"1000000\n"


def test_output_comes_as_it_is_written(warm):
    run = warm.exec(["python", "import sys; print(1, flush=True);"
                     "sys.stdin.read(); print(2)"], code=True, stdin=True)
    run.started()
    assert run.conn.expect(STDOUT) == b"1\n"
    run.conn.send(STDIN_EOF)
    assert run.wait(b"1\n").out == b"1\n2\n"


# --- runs like others -----------------------------------------------------------


@pytest.mark.parametrize("language, code", [
    ("python", "import time; time.sleep(100)"),
    pytest.param("node", "setTimeout(() => {}, 100000)", marks=needs_node)])
def test_code_can_be_stopped(agent, language, code):
    agent.code(language, "")
    r = agent.code(language, code, timeout_ms=500)
    assert (r.reason, r.code) == (TIMED_OUT, signal.SIGKILL)
    run = agent.exec([language, code], code=True).started()
    time.sleep(0.2)
    run.conn.send(SIGNAL, struct.pack("<I", signal.SIGTERM))
    r = run.wait()
    assert (r.reason, r.code) == (SIGNALED, signal.SIGTERM)
    run = agent.exec([language, code], code=True).started()
    run.conn.sock.close()
    until(lambda: not alive(run.pid))


def test_usage_is_that_of_the_code(warm):
    idle = warm.code("python", "pass")
    busy = warm.code("python", "import time\nend = time.process_time() + 0.5\n"
                     "while time.process_time() < end: pass")
    assert idle.user_ns + idle.system_ns < 200e6
    assert 400e6 < busy.user_ns + busy.system_ns < 1200e6


def test_pid_is_the_codes_own(warm):
    run = warm.exec(["python", "import os; print(os.getpid(), os.getppid())"],
                    code=True).started()
    pid, parent = run.wait().out.split()
    assert int(pid) == run.pid
    assert int(parent) == warm.process.pid


def test_code_runs_in_a_cgroup_of_its_own(warm):
    code = "print(open('/proc/self/cgroup').read().split('runs/')[-1])"
    assert len({warm.code("python", code).out for _ in range(4)}) == 4


def test_background_processes_live_on(warm):
    r = warm.code("python", "import subprocess as s; print(s.Popen(["
                  "'sleep', '100']).pid)")
    pid = int(r.out)
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_waiting_processes_are_no_users_processes(warm):
    def processes():
        with warm.connect() as c:
            c.send(STATUS)
            return struct.unpack_from("<7Q3II", c.expect(STATUS_REPLY))[-1]
    settle(warm)
    assert processes() == 0


def test_random_differs(warm):
    code = "import random; print(random.random(), random.getrandbits(64))"
    assert len({warm.code("python", code).out for _ in range(5)}) == 5


@needs_node
def test_many_at_once(agent):
    for language in ("python", "node"):
        agent.code(language, "")
    runs = [agent.exec([("python", f"print({i})"),
                        ("node", f"console.log({i})")][i % 2],
                       code=True) for i in range(20)]
    for i, run in enumerate(runs):
        assert run.started().wait().out == b"%d\n" % i


def test_warm_is_faster(warm):
    def best(function):
        times = []
        for _ in range(5):
            start = time.monotonic()
            function()
            times.append(time.monotonic() - start)
            settle(warm)
        return min(times)
    assert best(lambda: warm.code("python", "import json; print(1)")) < \
        best(lambda: warm.run(["python3", "-c", "import json; print(1)"]))


# --- trouble -----------------------------------------------------------------


def waiting(agent, language):
    """Processes that wait, their forking parent apart."""
    found = []
    for group in (agent.cgroup / "runs").iterdir():
        if group.is_dir():
            for pid in (group / "cgroup.procs").read_text().split():
                found.append(int(pid))
    return sorted(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_process_that_is_killed_is_replaced(agent, language):
    agent.code(language, "")
    for _ in range(3):
        assert settle(agent) == 1
        for pid in waiting(agent, language):
            os.kill(pid, signal.SIGKILL)
        r = agent.code(language, {"python": "print(1)",
                                  "node": "console.log(1)"}[language])
        assert r.out == b"1\n"
    settle(agent)
    assert is_warm(agent, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_process_that_hangs_costs_time_only(agent, language):
    agent.code(language, "")
    settle(agent)
    stuck = waiting(agent, language)
    for pid in stuck:
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    r = agent.code(language, {"python": "print(1)",
                              "node": "console.log(1)"}[language])
    assert r.out == b"1\n"
    assert 4 < time.monotonic() - start < 12
    for pid in stuck:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_zygote_that_is_killed_alone(warm):
    settle(warm)
    zygote, ready = waiting(warm, "python")
    os.kill(zygote, signal.SIGKILL)
    time.sleep(0.1)
    assert is_warm(warm, "python")
    assert not alive(ready)
    settle(warm)
    assert is_warm(warm, "python")


def test_input_survives_a_change_of_interpreter(warm):
    settle(warm)
    for pid in waiting(warm, "python"):
        os.kill(pid, signal.SIGSTOP)
    run = warm.exec(["python", "print(input())"], code=True, stdin=True)
    run.conn.send(STDIN, b"kept\n")
    run.conn.send(STDIN_EOF)
    assert run.started().wait().out == b"kept\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_waiting_costs_no_cpu(agent, language):
    agent.code(language, "")
    settle(agent)

    def used():
        total = 0
        for group in (agent.cgroup / "runs").iterdir():
            if group.is_dir():
                total += int((group / "cpu.stat").read_text().split()[1])
        return total
    before = used()
    time.sleep(2)
    assert used() - before < 10000


def test_abandoned_while_it_waits(agent):
    for _ in range(10):
        conn = agent.exec(["python", ""], code=True).conn
        conn.sock.close()
    assert agent.code("python", "print(1)").out == b"1\n"


# --- copies --------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_warm_processes_are_frozen_and_used_in_a_copy(hosted, host, language):
    conn, _, _ = host.accept()
    configure(conn, 1)
    hosted.code(language, "")
    q = hosted.connect()
    q.send(QUIESCE, struct.pack("<II", 0, 0))
    assert struct.unpack("<II", q.expect(QUIESCED))[1] == 1
    run = hosted.exec([language, IS_WARM[language]], code=True)
    time.sleep(0.2)
    q.send(THAW)
    q.expect(THAWED)
    assert run.started().wait().out == b"False\n"
    q = hosted.connect()
    q.send(QUIESCE, struct.pack("<II", 0, 0))
    q.expect(QUIESCED)
    q.sock.close()
    conn.sock.close()
    conn, _, _ = host.accept()
    configure(conn, 2, hostname=b"copy")
    assert is_warm(hosted, language)
    r = hosted.code("python", "import platform; print(platform.node())")
    assert r.out == b"copy\n"


# --- node ------------------------------------------------------------------------


NODE_SAME = [
    "console.log('out'); console.error('err')",
    "process.exit(5)",
    "process.exitCode = 6",
    "console.log(typeof require, typeof module, typeof exports, __filename,"
    "__dirname, module.paths, module.filename)",
    "console.log(process.argv, process.cwd(), process.env)",
    "console.log(require('os').EOL === os.EOL, path.sep)",
    "let a = 1; const b = 2; var c = 3; console.log(a, b, c, globalThis.c)",
    "setTimeout(() => console.log('timer'), 50); console.log('main')",
    "setImmediate(() => console.log('i')); process.nextTick(() =>"
    " console.log('t')); Promise.resolve().then(() => console.log('p'))",
    "import('fs').then((m) => console.log(typeof m.readFileSync))",
    "process.on('exit', (c) => console.log('bye', c))",
    "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 1000)",
    "console.log(Object.keys(globalThis).sort().join())",
    "console.log(process.stdout.isTTY, process.stdin.isTTY)",
    "process.stdin.on('data', () => {}).on('end', () => console.log('end'))",
    "console.log(fs.readdirSync('/proc/self/fd').length > 3)",
    "console.log(typeof crypto.randomUUID())",
    "console.log('\u00e9\U0001f600')",
]


@needs_node
@pytest.mark.parametrize("code", NODE_SAME)
def test_same_as_plain_node(warm_node, code):
    cold = warm_node.run(["node", "-e", code])
    got = warm_node.code("node", code)
    assert (got.reason, got.code, got.out, got.err) == (
        cold.reason, cold.code, cold.out, cold.err)


@needs_node
def test_node_errors(warm_node):
    r = warm_node.code("node", "const x = 1;\nthrow new Error('mine')")
    assert r.code == 1
    assert r.err.startswith(b"[eval]:2\nthrow new Error('mine')\n^\n\nError: ")
    r = warm_node.code("node", "syntax error")
    assert r.code == 1 and b"SyntaxError" in r.err
    r = warm_node.code("node", "Promise.reject(new Error('late'))")
    assert r.code == 1 and b"late" in r.err


@needs_node
def test_node_finds_modules_in_the_working_directory(warm_node, tmp_path):
    (tmp_path / "mine.js").write_text("console.log('required')")
    (tmp_path / "mine.mjs").write_text("console.log('imported')")
    package = tmp_path / "node_modules/pack"
    package.mkdir(parents=True)
    (package / "index.js").write_text("console.log('package')")
    r = warm_node.code("node", "require('./mine'); require('pack');"
                       "import('./mine.mjs').then(() => import('pack'))",
                       cwd=str(tmp_path))
    assert r.out == b"required\npackage\nimported\n", r.err
    settle(warm_node)
    r = warm_node.code("node", "import('pack')", cwd=str(tmp_path))
    assert r.out == b"package\n", r.err


@needs_node
def test_node_variables_and_directory(warm_node):
    r = warm_node.code("node", "console.log(process.env.A, process.cwd(),"
                       "new Date(0).getHours())",
                       env=["A=1=2", "TZ=XYZ-3"], cwd="/usr")
    assert r.out == b"1=2 /usr 3\n"
    settle(warm_node)
    with pytest.raises(AgentError) as e:
        warm_node.code("node", "1", cwd="/nowhere")
    assert (e.value.stage, e.value.errno) == (AT_CWD, errno.ENOENT)


@needs_node
def test_node_as_another_user_is_plain(warm_node):
    r = warm_node.code("node", "console.log(process.getuid());" +
                       IS_WARM["node"], user="nobody")
    assert r.out == b"65534\nFalse\n"


@needs_node
def test_node_random_differs(warm_node):
    code = "console.log(Math.random(), require('crypto').randomInt(1e9))"
    assert len({warm_node.code("node", code).out for _ in range(3)}) == 3
