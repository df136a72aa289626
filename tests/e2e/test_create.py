# test_create.py - a sandbox is what was asked for, as its guest sees it.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import time
import uuid

import pytest
from support import cgroup_file, within

import brig

GIB = 1 << 30

VARIANTS = {
    "plain": {"memory": None},
    "two": {"cpus": 6, "memory": 300, "storage": 5, "name": "two-vcpus"},
    "eight": {"cpus": 32, "memory": 512},
    "large": {"memory": 3136},  # a part of it above 4 GiB
}


@pytest.fixture(scope="module")
def machines(module_sandboxes):
    made = module_sandboxes.several(*VARIANTS.values())
    return dict(zip(VARIANTS, made))


def seen_by_guest(sandbox):
    result = sandbox.run(
        "nproc; awk '/^MemTotal/ { print $2 }' /proc/meminfo; "
        "echo $(($(cat /sys/class/block/vda/size) * 512)); "
        "df -B1 --output=size / | tail -1; hostname; date +%s.%N",
        timeout=30,
    ).check()
    cpus, memory, disk, files, hostname, date = result.stdout.split()
    return {
        "cpus": int(cpus),
        "memory_mib": int(memory) / 1024,
        "disk": int(disk),
        "files": int(files),
        "hostname": hostname,
        "date": float(date),
    }


@pytest.mark.parametrize(
    "name, vcpus, memory_mib, storage",
    [
        ("plain", 1, 512, 10),
        ("two", 2, 300, 5),
        ("eight", 8, 512, 10),
        ("large", 1, 3136, 10),
    ],
)
def test_resources(machines, name, vcpus, memory_mib, storage):
    sandbox = machines[name]
    assert sandbox.status == "running"
    assert (sandbox.memory, sandbox.storage) == (memory_mib, storage)
    seen = seen_by_guest(sandbox)
    assert seen["cpus"] == vcpus
    # the kernel keeps some for itself
    assert memory_mib * 0.80 - 40 < seen["memory_mib"] < memory_mib
    sandbox.refresh()
    assert (sandbox.vcpus, sandbox.image) == (vcpus, "default")
    assert sandbox.disk_bytes in (storage * GIB, storage * 10**9)
    assert seen["disk"] == sandbox.disk_bytes
    assert seen["files"] > sandbox.disk_bytes * 0.9, "the file system grew"
    assert seen["hostname"] == sandbox.name
    assert abs(seen["date"] - time.time()) < 3
    assert 0 < sandbox.ready_ms < 120_000


# One word into each page of more memory than there is above 4 GiB.
TOUCH = """
import mmap, struct
size = 160 << 20
memory = mmap.mmap(-1, size)
for at in range(0, size, 4096):
    struct.pack_into("<Q", memory, at, at * 3 + 1)
for at in range(0, size, 4096):
    assert struct.unpack_from("<Q", memory, at)[0] == at * 3 + 1, at
print("same")
"""


def test_memory_on_both_sides_of_the_hole(machines):
    machines["large"].files.write("/root/touch.py", TOUCH)
    result = machines["large"].run("python3 touch.py", timeout=100)
    assert result.stdout == "same\n", result.stderr


def test_every_cpu_works(machines):
    result = machines["eight"].run(
        "for n in $(seq 0 7); do taskset -c $n sh -c "
        "'grep ^Cpus_allowed_list /proc/self/status' & done; wait",
        timeout=60,
    )
    seen = sorted(re.findall(r"\d+", result.stdout))
    assert seen == [str(n) for n in range(8)], result.stderr


@pytest.mark.parametrize(
    "name, percent", [("plain", 100), ("two", 150), ("eight", 800)]
)
def test_cpu_quota(machines, name, percent):
    quota, period = map(int, cgroup_file(machines[name], "cpu.max"))
    assert quota * 100 == percent * period


def test_memory_limit_around_the_monitor(machines):
    """Twice the guest's RAM (a saved copy counts too) and the overhead."""
    limit = int(cgroup_file(machines["two"], "memory.max")[0])
    assert 600 << 20 < limit < 750 << 20


def test_the_name_is_kept(machines, client):
    assert machines["two"].name == "two-vcpus"
    assert client.sandboxes.get(machines["two"].id).name == "two-vcpus"


def test_names_are_made_up_and_readable(machines):
    assert re.match(r"^[a-z]+-[a-z]+(-[a-z0-9]+)?$", machines["plain"].name)
    assert machines["plain"].name != machines["eight"].name


def test_not_waiting(client, new_sandbox):
    with within(1, "create without waiting"):
        sandbox = new_sandbox(wait_for_ready=False)
    assert sandbox.status == "creating"
    listed = {one.id: one.status for one in client.sandboxes.list_all()}
    assert listed[sandbox.id] in ("creating", "running")
    sandbox.wait_until_ready(60)
    assert sandbox.run("echo ready", timeout=20).stdout == "ready\n"


def test_deleting_what_is_still_creating(client, new_sandbox):
    sandbox = new_sandbox(wait_for_ready=False)
    with within(3, "deleting"):
        sandbox.delete()
    with pytest.raises(brig.NotFoundError):
        client.sandboxes.get(sandbox.id)


def test_the_same_idempotency_key_creates_once(client, new_sandbox):
    key = str(uuid.uuid4())
    before = client.sandboxes.list().total_items
    first = new_sandbox(wait_for_ready=False, idempotency_key=key)
    second = new_sandbox(wait_for_ready=False, idempotency_key=key)
    assert first.id == second.id
    assert client.sandboxes.list().total_items == before + 1


def test_the_reply_has_every_promised_field(api, new_sandbox):
    reply = api(
        "POST",
        "/v1/sandboxes/create",
        {"resources": {"memory": 256}, "wait_for_ready": False, "x": 1},
    )
    created = reply.json()
    assert reply.status == 200
    deleted = api("DELETE", f"/v1/sandboxes/{created['id']}/delete").json()
    assert {
        "id", "cpu", "created_at", "memory", "name", "status", "storage",
    } <= set(created)
    assert (created["cpu"], created["memory"]) == (4, 256)
    assert created["storage"] == 10
    assert re.match(r"^sb_[a-z0-9]{24}$", created["id"])
    assert re.match(
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", created["created_at"]
    )
    assert deleted["id"] == created["id"] and deleted["message"]


def test_list_has_every_promised_field(api, sandbox):
    reply = api("GET", "/v1/sandboxes/list").json()
    mine = [one for one in reply["data"] if one["id"] == sandbox.id]
    assert len(mine) == 1
    assert {
        "id", "cpu", "created_at", "disk_size", "memory", "name", "status",
    } <= set(mine[0])
    assert {"page", "page_size", "total_items", "total_pages"} <= set(
        reply["pagination"]
    )


def test_deleting_twice(new_sandbox):
    sandbox = new_sandbox(wait_for_ready=False)
    sandbox.delete()
    with pytest.raises(brig.NotFoundError):
        sandbox.delete()
