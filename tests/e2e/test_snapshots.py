# test_snapshots.py - a machine on disk: saved, restored, rolled back, deleted.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest
from support import (inside, quiet_inventory, seconds_of, state_folder,
                     wait_for)
from test_clones import clone, execute, run_code

# `BRIG_CHAIN=50` is what is promised; it takes minutes in emulation.
CHAIN = int(os.environ.get("BRIG_CHAIN", "4"))


def snapshot(api, id, **fields):
    reply = api("POST", f"/v2/sandboxes/{id}/snapshots", fields)
    assert reply.status == 200, reply
    answer = reply.json()
    assert answer["status"] == "ready"
    return answer


def restore(api, snapshot_id, **fields):
    reply = api("POST", "/v2/sandboxes", {"snapshot": snapshot_id, **fields})
    assert reply.status == 200, reply
    answer = reply.json()
    assert (answer["status"], answer["origin"]) == ("running", "snapshot")
    return answer


@pytest.fixture
def clean(api):
    """Deletes the snapshots and sandboxes that a test put into it."""
    made = []
    yield made
    for id in made:
        kind = "/v2/snapshots/{}" if id.startswith("snap_") else \
            "/v1/sandboxes/{}/delete"
        api("DELETE", kind.format(id))


def test_snapshot_restores_memory_disk_and_processes(api, new_sandbox, clean):
    source = new_sandbox(memory=512)
    source.run("echo disk >/root/f; echo memory >/run/f; "
               "setsid sleep 1000 >/dev/null 2>&1 & echo $! >/run/pid").check()
    taken = snapshot(api, source.id, name="first")
    clean.append(taken["id"])
    assert taken["kind"] == "memory"
    assert taken["consistency"] == "application"
    assert taken["own_bytes"] > 0
    source.run("rm /root/f /run/f; kill $(cat /run/pid)").check()
    source.delete()
    for _ in range(2):
        copy = restore(api, taken["id"])
        clean.append(copy["id"])
        said = execute(api, copy["id"], "cat /root/f /run/f; "
                       "kill -0 $(cat /run/pid) && echo alive")
        assert said["stdout"] == "disk\nmemory\nalive\n"


def test_rollback_in_place(api, new_sandbox, clean):
    sandbox = new_sandbox(memory=512)
    sandbox.run("echo one >/root/f; echo one >/run/f").check()
    taken = snapshot(api, sandbox.id, quick=True)
    clean.append(taken["id"])
    assert taken["consistency"] == "crash"
    for round in range(2):
        sandbox.run("echo two >/root/f; echo two >/run/f; sync").check()
        reply = api("POST", f"/v2/sandboxes/{sandbox.id}/rollback",
                    {"snapshot": taken["id"]})
        assert reply.status == 200, reply
        assert reply.json()["id"] == sandbox.id
        said = sandbox.run("cat /root/f /run/f").stdout
        assert said == "one\none\n", round


def test_chain_of_snapshots(api, new_sandbox, clean):
    """Each from a machine that was restored from the one before; the last
    restores as fast as the second."""
    id = new_sandbox(memory=512).id
    chain = []
    for depth in range(1, CHAIN + 1):
        execute(api, id, f"echo {depth} >>/root/f; echo {depth} >>/run/f")
        chain.append(snapshot(api, id, name=f"depth-{depth}")["id"])
        clean.append(chain[-1])
        api("DELETE", f"/v1/sandboxes/{id}/delete")
        id = restore(api, chain[-1])["id"]
    clean.append(id)
    log = "".join(f"{depth}\n" for depth in range(1, CHAIN + 1))
    assert execute(api, id, "cat /root/f /run/f")["stdout"] == log * 2
    times = {chain[1]: [], chain[-1]: []}
    for _ in range(3):
        for one, took in times.items():
            copies = []
            took.append(seconds_of(lambda: copies.append(restore(api, one))))
            api("DELETE", f"/v1/sandboxes/{copies[0]['id']}/delete")
    short, long = (min(took) for took in times.values())
    print(f"a chain of 2 restored in {short:.2f} s, of {CHAIN} in {long:.2f}")
    assert long <= 2 * short
    # Parents may go: what children need stays.
    for one in chain[:3]:
        assert api("DELETE", f"/v2/snapshots/{one}").status == 200
    again = restore(api, chain[-1])
    clean.append(again["id"])
    assert execute(api, again["id"], "cat /root/f")["stdout"] == log


def test_disk_only_snapshot_boots_again(api, new_sandbox, clean):
    source = new_sandbox(memory=512)
    source.run("echo disk >/root/f; echo memory >/run/f").check()
    taken = snapshot(api, source.id, memory=False)
    clean.append(taken["id"])
    assert taken["kind"] == "disk"
    copy = restore(api, taken["id"])
    clean.append(copy["id"])
    said = execute(api, copy["id"], "cat /root/f; cat /run/f")
    assert said["stdout"] == "disk\n"


def test_pause_keeps_everything_and_its_id(api, new_sandbox):
    sandbox = new_sandbox(memory=512)
    sandbox.run("echo kept >/run/f").check()
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/pause")
    assert reply.status == 200, reply
    assert reply.json()["status"] == "paused"
    assert not inside(f"ls -d /sys/fs/cgroup/brig/{sandbox.id} 2>/dev/null; "
                      "true")
    reply = api("POST", f"/v1/sandboxes/{sandbox.id}/execute",
                {"command": "true"})
    assert reply.status == 422, "a paused sandbox does not run commands"
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/resume")
    assert reply.status == 200, reply
    assert reply.json()["id"] == sandbox.id
    assert sandbox.run("cat /run/f").stdout == "kept\n"


def test_reset_brings_the_template_back(api, new_sandbox):
    wait_for_template(api)
    sandbox = new_sandbox(memory=512)
    state = api("GET", f"/v2/sandboxes/{sandbox.id}").json()
    assert state["origin"] == "template"
    sandbox.run("echo x >/root/f; echo x >/run/f").check()
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/reset")
    assert reply.status == 200, reply
    assert sandbox.run("ls /root/f /run/f 2>/dev/null").stdout == ""


def wait_for_template(api, memory_mib=512):
    def there():
        templates = api("GET", "/v2/templates").json()["templates"]
        return [t for t in templates if t["memory_mib"] == memory_mib
                and t["status"] == "ready"]
    return wait_for(there, 120, f"a template of {memory_mib} MiB")


def test_named_template_with_a_warm_up(api, clean):
    reply = api("POST", "/v2/templates", {
        "name": "warmed", "memory_mib": 512,
        "warm": "echo warmed >/run/warmed; pip --version"})
    assert reply.status == 200, reply
    try:
        made = api("POST", "/v2/sandboxes", {"template": "warmed"})
        assert made.status == 200, made
        clean.append(made.json()["id"])
        assert made.json()["template"] == "warmed"
        said = execute(api, made.json()["id"], "cat /run/warmed")
        assert said["stdout"] == "warmed\n"
    finally:
        assert api("DELETE", "/v2/templates/warmed").status == 200
    assert api("GET", "/v2/templates/warmed").status == 404


def test_template_whose_warm_up_fails_is_not_made(api):
    reply = api("POST", "/v2/templates", {"name": "broken", "warm": "exit 3"})
    assert reply.status == 422, reply
    assert api("GET", "/v2/templates/broken").status == 404


def test_export_and_import(api, new_sandbox, clean):
    source = new_sandbox(memory=512)
    source.run("echo exported >/root/f").check()
    # The disk alone: RAM takes a minute to hash four times in emulation.
    taken = snapshot(api, source.id, memory=False)
    clean.append(taken["id"])
    source.delete()
    exported = api("GET", f"/v2/snapshots/{taken['id']}/export")
    assert exported.status == 200
    assert api("DELETE", f"/v2/snapshots/{taken['id']}").status == 200
    broken = bytearray(exported.body)
    broken[len(broken) // 2] ^= 1
    reply = api("POST", "/v2/snapshots/import", bytes(broken),
                {"content-type": "application/octet-stream"})
    assert reply.status == 422, reply
    reply = api("POST", "/v2/snapshots/import", exported.body,
                {"content-type": "application/octet-stream"})
    assert reply.status == 200, reply
    clean.append(reply.json()["id"])
    copy = restore(api, reply.json()["id"])
    clean.append(copy["id"])
    assert execute(api, copy["id"], "cat /root/f")["stdout"] == "exported\n"


def test_warm_code_in_three_languages(api, new_sandbox):
    sandbox = new_sandbox(memory=512)
    assert run_code(api, sandbox.id, "print(6 * 7)") == "42\n"
    assert run_code(api, sandbox.id, "console.log(6 * 7)", "node") == "42\n"
    assert run_code(api, sandbox.id, "echo $((6 * 7))", "bash") == "42\n"
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/code",
                {"language": "python", "code": "import sys; sys.exit(7)"})
    assert reply.json()["exit_code"] == 7
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/code",
                {"language": "cobol", "code": ""})
    assert reply.status == 422


USAGE = r"""
echo objects_kib $(du -s STATE/snapshots | cut -f1)
for d in /proc/[0-9]*; do
    read -r comm 2>/dev/null <$d/comm || continue
    [ "$comm" = brigd ] || continue
    echo memfds $(ls -l $d/fd | grep -c memfd:)
    echo brigd_kib $(grep ^VmRSS: $d/status | tr -dc 0-9)
done
echo shared_kib $(grep ^Shmem: /proc/meminfo | tr -dc 0-9)
echo shm_files $(find /dev/shm -type f | wc -l)
echo cgroup_kib $(($(cat /sys/fs/cgroup/brig/memory.current) / 1024))
"""


def usage():
    """What the store and the memory of brig are, by kind."""
    lines = inside(USAGE.replace("STATE", state_folder())).split("\n")
    return {k: int(v) for k, v in (line.split() for line in lines if line)}


# What may be more: memory that is kept for the next use, and noise.
MORE = {"objects_kib": 64, "brigd_kib": 4096, "shared_kib": 8192,
        "cgroup_kib": 65536}


def make_and_delete_everything(api, client, new_sandbox):
    """What usage() was in between."""
    source = new_sandbox(memory=512)
    source.run("head -c 10000000 /dev/urandom >/root/f; "
               "head -c 10000000 /dev/urandom >/run/f; sync").check()
    first = snapshot(api, source.id)
    copy = restore(api, first["id"])
    snapshot(api, copy["id"])
    made = clone(api, source.id, 2)
    reply = api("POST", f"/v2/sandboxes/{made[0]['id']}/pause")
    assert reply.status == 200, reply
    between = usage()
    client.sandboxes.delete_all()
    reply = api("DELETE", "/v1/snapshots/delete-all")
    assert reply.status == 200, reply
    return between


def test_everything_deleted_leaves_nothing(api, new_sandbox, client, shared):
    """Store, descriptors and memory, as soon as what runs ahead is there."""
    shared.drop()
    client.sandboxes.delete_all()
    wait_for_template(api)
    # Once before: where the first copy touches memory that the template has
    # nothing for, the template's file gets pages of zeros, and keeps them.
    make_and_delete_everything(api, client, new_sandbox)
    files = quiet_inventory(api, 0)["state_files"]
    before = usage()
    between = make_and_delete_everything(api, client, new_sandbox)
    assert between["objects_kib"] > before["objects_kib"] + 18000
    assert between["shared_kib"] > before["shared_kib"] + 9000

    def left():
        end = usage()
        return {kind: (before[kind], end[kind]) for kind in end
                if end[kind] > before[kind] + MORE.get(kind, 0)}

    assert quiet_inventory(api, 0)["state_files"] <= files
    wait_for(lambda: not left(), 30, f"nothing is left: {left()}")


def test_part_one_snapshot_routes(api, new_sandbox, clean):
    source = new_sandbox(memory=512)
    source.run("echo v1 >/root/f").check()
    reply = api("POST", f"/v1/sandboxes/{source.id}/snapshot",
                {"name": "v1-snap"})
    assert reply.status == 200, reply
    taken = reply.json()
    clean.append(taken["id"])
    assert set(taken) >= {"id", "consistency", "created_at", "name",
                          "source_sandbox_id", "source_sandbox_name", "status"}
    listed = api("GET", "/v1/snapshots/list").json()
    mine = [s for s in listed["data"] if s["id"] == taken["id"]]
    assert len(mine) == 1 and isinstance(mine[0]["size"], str)
    reply = api("POST", f"/v1/snapshots/{taken['id']}/restore",
                {"name": "v1-copy"})
    assert reply.status == 200, reply
    copy = reply.json()
    clean.append(copy["id"])
    assert copy["name"] == "v1-copy"
    assert set(copy) >= {"id", "cpu", "created_at", "memory", "name", "status",
                         "storage_id", "storage_name"}
    assert execute(api, copy["id"], "cat /root/f")["stdout"] == "v1\n"
    reply = api("POST", f"/v1/sandboxes/{source.id}/clone", {"name": "v1-two"})
    assert reply.status == 200, reply
    clean.append(reply.json()["sandbox"]["id"])
    clean.append(reply.json()["snapshot"]["id"])
    reply = api("DELETE", f"/v1/snapshots/{taken['id']}")
    assert reply.status == 200
    assert set(reply.json()) >= {"deferred", "message", "name"}
