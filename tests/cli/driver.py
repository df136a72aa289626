"""driver.py - starts brig as a process, with or without a terminal.

SPDX-License-Identifier: Apache-2.0

BRIG_BIN names the program to test (build/gcc/bin/brig).
"""
import os
import pathlib
import pty
import select
import subprocess
import time

from fake_brigd import KEY

ROOT = pathlib.Path(__file__).resolve().parents[2]
BRIG = os.environ.get("BRIG_BIN", str(ROOT / "build/gcc/bin/brig"))


def environment(fake=None, **more):
    env = {"PATH": os.environ["PATH"], "BRIG_API_KEY": KEY, "TERM": "xterm"}
    if fake is not None:
        env["BRIG_BASE_URL"] = fake.url
    env.update(more)
    return {k: v for k, v in env.items() if v is not None}


def start(fake, *args, env=None, **kwargs):
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([BRIG, *args], env=environment(
        fake, **(env or {})), **kwargs)


def brig(fake, *args, input=None, env=None, **kwargs):
    if input is not None:
        kwargs["stdin"] = subprocess.PIPE
    p = start(fake, *args, env=env, **kwargs)
    out, err = p.communicate(input, timeout=30)
    p.out, p.err = out, err
    # whatever happens, the key is nobody's business
    assert KEY.encode() not in (out or b"") + (err or b"")
    return p


def wait_until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def on_terminal(fake, *args, env=None):
    """Runs brig with stdout and stderr on a terminal; (code, what it shows)."""
    master, slave = pty.openpty()
    p = start(fake, *args, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown = b""
    while True:
        if not select.select([master], [], [], 20)[0]:
            break
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        shown += data
    os.close(master)
    return p.wait(10), shown
