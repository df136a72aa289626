# test_clones.py - copies of a running machine: the same past, another future.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time

import pytest
from support import in_parallel, inside, vmm_of, wait_for

# `BRIG_CLONES=100` is what is promised; it takes four minutes when one
# emulated processor runs all of them.
COUNT = int(os.environ.get("BRIG_CLONES", "10"))
CLONE_MIB = 8

# One line for each source of randomness or identity (security.md, C-01), from
# an interpreter that was alive before the clone.
IDENTITY = """
import os, random, secrets, socket
def text(path):
    with open(path) as f:
        return f.read().strip()
print("getrandom", os.getrandom(32).hex())
with open("/dev/urandom", "rb") as f:
    print("urandom", f.read(32).hex())
print("uuid", text("/proc/sys/kernel/random/uuid"))
print("boot_id", text("/proc/sys/kernel/random/boot_id"))
print("machine_id", text("/etc/machine-id"))
print("hostname", socket.gethostname())
print("secrets", secrets.token_hex(16))
print("random", random.getrandbits(128))
"""


def clone(api, id, count, **fields):
    reply = api("POST", f"/v2/sandboxes/{id}/clone", {"count": count, **fields})
    assert reply.status == 200, reply
    answer = reply.json()
    assert answer.get("errors", []) == [], answer["errors"][:3]
    assert len(answer["sandboxes"]) == count
    return answer["sandboxes"]


def delete(api, made):
    in_parallel([lambda one=one: api("DELETE",
                                     f"/v1/sandboxes/{one['id']}/delete")
                 for one in made])


def execute(api, id, command, timeout=60):
    reply = api("POST", f"/v1/sandboxes/{id}/execute",
                {"command": command, "timeout": timeout})
    assert reply.status == 200, reply
    return reply.json()


def run_code(api, id, code, language="python"):
    reply = api("POST", f"/v2/sandboxes/{id}/code",
                {"language": language, "code": code, "timeout_s": 60})
    assert reply.status == 200, reply
    result = reply.json()
    assert (result["reason"], result["exit_code"]) == ("exit", 0), result
    return result["stdout"]


@pytest.fixture(scope="module")
def source(module_sandboxes, api):
    """A sandbox with a past: a file, a warm Python."""
    sandbox = module_sandboxes(memory=512)
    sandbox.run("echo before >/root/past").check()
    assert run_code(api, sandbox.id, "import random\nprint(1)") == "1\n"
    return sandbox


@pytest.fixture
def counting(new_sandbox):
    """One with a process that counts."""
    sandbox = new_sandbox(memory=512)
    sandbox.run("setsid sh -c 'n=0; while sleep 0.5; do n=$((n+1)); "
                "echo $n >/run/count; done' >/dev/null 2>&1 &").check()
    wait_for(lambda: sandbox.run("cat /run/count").stdout, 20, "a count")
    return sandbox


def test_many_clones_compute_and_share_nothing(api, source):
    started = time.monotonic()
    made = clone(api, source.id, COUNT)
    try:
        said = [execute(api, one["id"], f"echo $(({n} * {n}))")["stdout"]
                for n, one in enumerate(made)]
        took = time.monotonic() - started
        assert said == [f"{n * n}\n" for n in range(COUNT)]
        memory = clone_memory_mib(made)
        print(f"{COUNT} clones in {took:.1f} s, {memory:.1f} MiB each")
        check_identities(api, made)
        assert memory <= CLONE_MIB
    finally:
        delete(api, made)


def clone_memory_mib(made):
    """What each clone has of its own, by its cgroup; the middle one."""
    total = sorted(
        int(inside(f"cat /sys/fs/cgroup/brig/{one['id']}/memory.current"))
        for one in made[:10])
    return total[len(total) // 2] / (1 << 20)


def check_identities(api, made):
    seen = {}
    for one in made:
        text = run_code(api, one["id"], IDENTITY)
        lines = [line.split(maxsplit=1) for line in text.splitlines()]
        assert len(lines) == 8 and all(len(line) == 2 for line in lines), text
        for name, value in lines:
            seen.setdefault(name, []).append(value)
    for name, values in seen.items():
        assert len(set(values)) == len(values) == COUNT, \
            f"{name}: {COUNT - len(set(values))} duplicates"


def test_processes_go_on_where_the_source_was(api, counting):
    before = int(counting.run("cat /run/count").stdout)
    made = clone(api, counting.id, 2)
    try:
        for one in made:
            wait_for(lambda: int(execute(api, one["id"], "cat /run/count")
                                 ["stdout"]) > before + 3, 20, "a count")
        assert int(counting.run("cat /run/count").stdout) > before
    finally:
        delete(api, made)


def test_clones_do_not_see_each_other(api, source):
    made = clone(api, source.id, 3)
    try:
        for n, one in enumerate(made):
            execute(api, one["id"], f"echo {n} >/root/mine; sync")
        for n, one in enumerate(made):
            assert execute(api, one["id"], "cat /root/mine")["stdout"] == \
                f"{n}\n"
        assert source.run("cat /root/mine 2>/dev/null").exit_code == 1
    finally:
        delete(api, made)


def test_receipt_says_what_was_done(api, source):
    made = clone(api, source.id, 1)
    try:
        receipt = made[0]["receipt"]
        assert receipt["entropy_reseeded"] is True
        assert receipt["clock_set"] is True
        assert receipt["connections_reset"] is True
        assert receipt["hostname"] == made[0]["name"]
        steps = receipt["steps_us"]
        assert 0 < steps["restore"] <= steps["total"]
        assert made[0]["origin"] == "clone"
    finally:
        delete(api, made)


def test_deleting_the_source_does_not_hurt_its_clones(api, new_sandbox):
    source = new_sandbox(memory=512)
    source.run("head -c 20000000 /dev/urandom >/root/data; "
               "sha256sum /root/data >/root/sum; sync").check()
    made = clone(api, source.id, 2)
    try:
        source.delete()
        for one in made:
            result = execute(api, one["id"], "sha256sum -c /root/sum")
            assert result["exit_code"] == 0, result
    finally:
        delete(api, made)


def test_each_clone_has_a_monitor_user_and_cgroup_of_its_own(api, source):
    made = clone(api, source.id, 2)
    try:
        monitors = [int(inside(
            f"head -1 /sys/fs/cgroup/brig/{one['id']}/cgroup.procs"))
            for one in made] + [vmm_of(source)]
        uids = {inside(f"grep ^Uid: /proc/{pid}/status").split()[1]
                for pid in monitors}
        assert len(set(monitors)) == len(uids) == 3
    finally:
        delete(api, made)


@pytest.mark.parametrize("body", [
    {"count": 0}, {"count": -1}, {"count": 1001}, {"count": "3"},
    {"count": 1.5}, {"counts": 1},
])
def test_bad_counts_are_refused(api, source, body):
    reply = api("POST", f"/v2/sandboxes/{source.id}/clone", body)
    assert reply.status == 422, reply
    assert reply.json()["error"]["code"]


def test_unknown_source(api):
    reply = api("POST", "/v2/sandboxes/sb_aaaaaaaaaaaaaaaaaaaaaaaa/clone", {})
    assert reply.status == 404
