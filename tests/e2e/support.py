# support.py - what the end-to-end tests share and pytest does not know.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
sys.path.insert(0, os.path.join(ROOT, "sdk", "python"))

import brig  # noqa: E402

MEMORY_MIB = 256
MIB = 1 << 20


def environment(name):
    """A variable that must be set: without it a test fails, never skips."""
    value = os.environ.get(name)
    assert value, f"{name} is not set: `make run`, then `. build/env`"
    return value


def brigd_is_here():
    """Whether brigd runs on this machine (tools/brig-local), not in the VM."""
    try:
        with open(os.path.join(ROOT, "build", "local", "brigd.pid")) as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/comm") as file:
            return file.read() == "brigd\n"
    except (OSError, ValueError):
        return False


def inside_command():
    """Runs its last argument as a shell line, as root, where brigd runs."""
    way = os.environ.get("BRIG_INSIDE")
    if way:
        return shlex.split(way)
    if brigd_is_here():
        return ["sh", "-c"]
    return [os.path.join(ROOT, "host", "brig-host"), "ssh"]


def state_folder():
    """Where brigd keeps its database and key."""
    here = os.path.join(ROOT, "build", "local", "state")
    default = here if brigd_is_here() else "/var/lib/brig"
    return os.environ.get("BRIG_STATE", default)


def inside(command, check=True):
    """Runs a shell line as root where brigd runs; its standard output."""
    done = subprocess.run(
        inside_command() + [command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if check:
        assert done.returncode == 0, (
            f"where brigd runs: {command!r} exited {done.returncode}: "
            f"{done.stderr}"
        )
    return done.stdout


def wait_for(condition, seconds, what):
    """Waits until condition() is true; returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@contextlib.contextmanager
def within(seconds, what):
    """Fails if the block takes longer."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took <= seconds, f"{what} took {took:.2f} s, limit {seconds} s"


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def seconds_of(work):
    start = time.monotonic()
    work()
    return time.monotonic() - start


class Later:
    """A call in a thread of its own; result() waits for it."""

    def __init__(self, call):
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.daemon = True
        self._thread.start()

    def _run(self, call):
        try:
            self._outcome = (call(), None)
        except BaseException as error:
            self._outcome = (None, error)

    def result(self, seconds):
        self._thread.join(seconds)
        assert self._outcome is not None, f"no result within {seconds} s"
        value, error = self._outcome
        if error is not None:
            raise error
        return value


def in_parallel(functions):
    """The results of all functions, run at once."""
    return [later.result(600) for later in [Later(f) for f in functions]]


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Api:
    """Requests as they are, without the SDK's care."""

    def __init__(self, base_url, key):
        parts = urlsplit(base_url)
        self.host = parts.hostname
        self.port = parts.port or 80
        self.key = key

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=300)

    def __call__(self, method, target, body=None, headers=None, key=True):
        """`body` is bytes, or a value that is sent as JSON."""
        sent = {"x-api-key": self.key} if key else {}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        sent.update(headers or {})
        connection = self.connect()
        try:
            connection.request(method, target, body, sent)
            raw = connection.getresponse()
            return Reply(raw.status, dict_of(raw.getheaders()), raw.read())
        finally:
            connection.close()


def dict_of(headers):
    return {name.lower(): value for name, value in headers}


def alive_in_guest(sandbox, pid):
    """Whether a process of the guest exists and is no zombie."""
    line = f"grep -s '^State' /proc/{int(pid)}/status || true"
    state = sandbox.run(line, timeout=10).stdout.split()
    return bool(state) and state[1] not in ("Z", "X")


# One line "name value" for each kind of thing that a sandbox can leave.
# Shell builtins as far as possible: a fork is slow in an emulated machine.
INVENTORY = r"""
vmms=0 leased=0 brigd= spawn=
for d in /proc/[0-9]*; do
    read -r comm 2>/dev/null <$d/comm || continue
    case $comm in
    brig-vmm) vmms=$((vmms + 1)) ;;
    brigd) brigd=$d ;;
    brig-spawn) spawn=$d ;;
    esac
    while read -r name uid rest; do
        [ "$name" = Uid: ] || continue
        [ "$uid" -ge 1795162112 ] && [ "$uid" -lt 1795166208 ] &&
            leased=$((leased + 1))
        break
    done 2>/dev/null <$d/status
done
echo vmms $vmms
echo leased_uids $leased
echo cgroups $(find /sys/fs/cgroup -type d -name 'sb_*' | wc -l)
echo brigd_fds $(ls $brigd/fd | wc -l)
echo spawn_fds $(ls $spawn/fd | wc -l)
echo run_files $(find /run/brig | wc -l)
echo state_files $(find STATE -type f ! -name '*.db-*' | wc -l)
echo mounts $(wc -l </proc/mounts)
"""


def inventory():
    """What exists in the host VM, by kind."""
    lines = inside(INVENTORY.replace("STATE", state_folder())).split("\n")
    return {k: int(v) for k, v in (line.split() for line in lines if line)}


def is_settled(api):
    """Whether nothing is being made of what brigd keeps ready for later."""
    templates = api("GET", "/v2/templates").json()["templates"]
    return api("GET", "/v2/host").json()["standby"] > 0 and all(
        t["status"] in ("ready", "stored") for t in templates
    )


def quiet_inventory(api, sandboxes, seconds=180):
    """inventory() without what brigd keeps ready for later (shells, standbys),
    once that has settled: the microVMs left are those of `sandboxes`."""

    def settled():
        if not is_settled(api):
            return None
        host = api("GET", "/v2/host").json()
        ahead = host["pool"]["ready"] + host["standby"]
        now = inventory()
        for kind in ("vmms", "leased_uids", "cgroups"):
            now[kind] -= ahead
        return now if now["vmms"] == now["cgroups"] == sandboxes else None

    return wait_for(settled, seconds, f"{sandboxes} microVMs of sandboxes")


def settled_pools(api, seconds=180):
    """Waits until brigd keeps ready what it keeps without anybody asking."""

    def settled():
        pool = api("GET", "/v2/host").json()["pool"]
        return pool["ready"] == pool["size"] and is_settled(api)

    wait_for(settled, seconds, "brigd to be ready for whatever comes")


def pid_inside(name):
    """The process of this name in the host VM; there must be one."""
    found = inside(f"cd /proc && grep -lx {name} [0-9]*/comm; true").split()
    assert len(found) == 1, f"processes named {name}: {found}"
    return int(found[0].split("/")[0])


def vmm_of(sandbox):
    """The pid of the sandbox's monitor; KVM puts threads of its own beside."""
    found = inside(
        f"for p in $(cat /sys/fs/cgroup/brig/{sandbox.id}/cgroup.procs); do "
        "[ $(cat /proc/$p/comm) = brig-vmm ] && echo $p; done; true"
    ).split()
    assert len(found) == 1, f"monitors of {sandbox.id}: {found}"
    return int(found[0])


def cgroup_file(sandbox, name):
    return inside(
        f"cat $(find /sys/fs/cgroup -type d -name '*{sandbox.id}*' "
        f"| head -1)/{name}"
    ).split()


def memory_kib(pid, field):
    """A figure of /proc/PID/status in the host VM."""
    return int(inside(f"grep ^{field}: /proc/{pid}/status").split()[1])


def reset_peak_memory(pid):
    inside(f"echo 5 >/proc/{pid}/clear_refs")
