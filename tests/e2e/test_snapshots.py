# test_snapshots.py - a machine on disk: saved, restored, rolled back, deleted.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest
from support import inside, inventory, state_folder, wait_for
from test_clones import execute, run_code


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
    """Each from a machine that was restored from the one before."""
    id = new_sandbox(memory=512).id
    for depth in range(1, 5):
        execute(api, id, f"echo {depth} >>/root/f; echo {depth} >>/run/f")
        taken = snapshot(api, id, name=f"depth-{depth}")
        clean.append(taken["id"])
        id = restore(api, taken["id"])["id"]
        clean.append(id)
    assert execute(api, id, "cat /root/f /run/f")["stdout"] == \
        "1\n2\n3\n4\n" * 2
    # Parents may go: what children need stays.
    for one in [x for x in clean if x.startswith("snap_")][:3]:
        assert api("DELETE", f"/v2/snapshots/{one}").status == 200
    again = restore(api, taken["id"])
    clean.append(again["id"])
    assert execute(api, again["id"], "cat /root/f")["stdout"] == "1\n2\n3\n4\n"


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
    slept = "setsid sh -c 'sleep 10; echo woke >/run/woke' >/dev/null 2>&1 &"
    sandbox.run(slept).check()
    time.sleep(2)
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/pause")
    assert reply.status == 200, reply
    assert reply.json()["status"] == "paused"
    assert not inside(f"ls -d /sys/fs/cgroup/brig/{sandbox.id} 2>/dev/null; "
                      "true")
    reply = api("POST", f"/v1/sandboxes/{sandbox.id}/execute",
                {"command": "true"})
    assert reply.status == 422, "a paused sandbox does not run commands"
    time.sleep(8)
    reply = api("POST", f"/v2/sandboxes/{sandbox.id}/resume")
    assert reply.status == 200, reply
    assert reply.json()["id"] == sandbox.id
    assert sandbox.run("cat /run/f").stdout == "kept\n"
    # Time stood still for it: the sleep has most of its ten seconds left.
    assert sandbox.run("cat /run/woke 2>/dev/null").exit_code == 1
    wait_for(lambda: sandbox.run("cat /run/woke").stdout == "woke\n", 20,
             "the end of the sleep")


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


def test_everything_deleted_leaves_nothing(api, new_sandbox, client, shared):
    shared.drop()
    client.sandboxes.delete_all()
    wait_for_template(api)

    def usage():
        left = inventory()
        objects = inside(f"du -s {state_folder()}/snapshots | cut -f1")
        return left["state_files"], int(objects)

    before = usage()
    source = new_sandbox(memory=512)
    source.run("head -c 10000000 /dev/urandom >/root/f; sync").check()
    first = snapshot(api, source.id)
    copy = restore(api, first["id"])
    second = snapshot(api, copy["id"])
    assert usage()[1] > before[1] + 9000
    for id in (source.id, copy["id"]):
        api("DELETE", f"/v1/sandboxes/{id}/delete")
    for one in (first, second):
        assert api("DELETE", f"/v2/snapshots/{one['id']}").status == 200
    wait_for(lambda: usage()[0] <= before[0] and usage()[1] <= before[1] + 64,
             20, f"nothing is left: {before} then {usage()}")


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
