# test_snapshots.py - save, restore, clone, pause: end to end on a fake host.
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import sqlite3
import threading
import time

import pytest

from conftest import wait_until

BOOT, RESTORE, RESET = 4, 5, 9
CREATE = "/v1/sandboxes/create"


def v2(daemon, sandbox):
    reply = daemon.get(f"/v2/sandboxes/{sandbox}")
    assert reply.status == 200, reply.body
    return reply.json


def snapshot(daemon, sandbox, **body):
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/snapshots", body)
    assert reply.status == 200, reply.body
    return reply.json


def restore(daemon, snap, **body):
    return daemon.create_v2(snapshot=snap, **body)


def clone(daemon, sandbox, **body):
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/clone", body)
    assert reply.status == 200, reply.body
    assert reply.json["errors"] == []
    return [box["id"] for box in reply.json["sandboxes"]]


def objects(daemon):
    return os.listdir(daemon.dir / "state/snapshots/objects")


def manifests(daemon):
    return os.listdir(daemon.dir / "state/snapshots/snapshots")


# --- snapshots


def test_snapshot_restore(daemon, sandbox):
    daemon.out(sandbox, "@poke 3 three")
    daemon.out(sandbox, "echo a > file")
    snap = snapshot(daemon, sandbox, name="first")
    assert re.fullmatch(r"snap_[a-z0-9]{24}", snap["id"])
    assert snap["name"] == "first" and snap["status"] == "ready"
    assert snap["kind"] == "memory" and snap["consistency"] == "application"
    assert snap["source_sandbox_id"] == sandbox
    assert snap["pause_us"] == 1234 and snap["parent"] is None
    assert snap["own_bytes"] > 0 and snap["shared_bytes"] == 0
    source = daemon.host.vm(sandbox)
    assert source.quiesced == 1 and not source.frozen
    # The source runs on.
    assert daemon.out(sandbox, "cat file") == "a\n"
    daemon.out(sandbox, "@poke 3 later")

    box = restore(daemon, snap["id"], name="copy")
    assert box["origin"] == "snapshot" and box["snapshot"] == snap["id"]
    assert box["name"] == "copy" and box["status"] == "running"
    vm = daemon.host.vm(box["id"])
    assert vm.claim == RESTORE and vm.hostname == "copy"
    assert daemon.out(box["id"], "cat file") == "a\n"
    assert daemon.out(box["id"], "@peek 3 4") == "three -"
    receipt = box["receipt"]
    assert receipt["connections_reset"] and receipt["entropy_reseeded"]
    assert receipt["hostname"] == "copy" and receipt["hooks_failed"] == 0
    assert re.fullmatch(r"[0-9a-f]{32}", receipt["machine_id"])
    assert receipt["clock_error_ms"] < 5000
    steps = receipt["steps_us"]
    assert set(steps) == {"claim", "restore", "configure", "total"}
    assert 0 < steps["configure"] <= steps["total"]


def test_identity_is_never_the_same(daemon, sandbox):
    snap = snapshot(daemon, sandbox)["id"]
    boxes = [sandbox] + [restore(daemon, snap)["id"] for _ in range(4)]
    seen = [daemon.host.vm(box).configured[0] for box in boxes]
    for i in range(4):
        assert len({c[i] for c in seen}) == len(boxes)
    assert len({v2(daemon, b)["receipt"]["machine_id"] for b in boxes}) == 5


@pytest.mark.parametrize("mode,reason", [
    ("no_clock", "identity"), ("no_entropy", "identity"),
    ("no_hostname", "identity"), ("no_machine_id", "identity"),
    ("no_boot_id", "identity"), ("replay", "identity"),
    ("refuse", "identity"), ("garbage", "agent_lost"),
    ("version", "agent_lost")])
def test_a_guest_that_lies_is_not_handed_out(daemon, sandbox, mode, reason):
    snap = snapshot(daemon, sandbox)["id"]
    daemon.host.restored = mode
    reply = daemon.post("/v2/sandboxes", {"snapshot": snap})
    assert reply.status == 500 and reply.code == "restore_failed"
    assert reply.json["error"]["details"]["reason"] == reason
    assert len(daemon.host.vms) == 1


@pytest.mark.parametrize("mode,reason", [
    ("hang", "identity"), ("never", "restore_timeout")])
def test_a_guest_that_hangs_is_not_handed_out(make_daemon, mode, reason):
    daemon = make_daemon("--boot-timeout", "1")
    snap = snapshot(daemon, daemon.create())["id"]
    daemon.host.restored = mode
    reply = daemon.post("/v2/sandboxes", {"snapshot": snap})
    assert reply.json["error"]["details"]["reason"] == reason
    assert len(daemon.host.vms) == 1


def test_state_that_the_monitor_refuses(daemon, sandbox):
    snap = snapshot(daemon, sandbox)["id"]
    for status, reason in ((-74, "state_damaged"), (-95, "state_version"),
                           (-22, "vmm_error")):
        daemon.host.restore_status = status
        reply = daemon.post("/v2/sandboxes", {"snapshot": snap})
        assert reply.code == "restore_failed"
        assert reply.json["error"]["details"]["reason"] == reason


def test_snapshot_chain(daemon, sandbox):
    """Each is restored from the one before; memory of all is there."""
    box = sandbox
    for i in range(6):
        daemon.out(box, f"@poke {i} v{i}")
        daemon.out(box, f"echo {i} >> log")
        snap = snapshot(daemon, box)["id"]
        box = restore(daemon, snap)["id"]
    assert daemon.out(box, "@peek 0 1 2 3 4 5") == "v0 v1 v2 v3 v4 v5"
    assert daemon.out(box, "wc -l < log").strip() == "6"
    assert daemon.host.vm(box).layers == 6
    # Any but the last may go.
    snaps = daemon.get("/v2/snapshots").json["snapshots"]
    assert [s["id"] for s in snaps][0] == snap
    assert snaps[0]["parent"] == snaps[1]["id"]
    for s in snaps[1:]:
        assert daemon.delete(f"/v2/snapshots/{s['id']}").status == 200
    box = restore(daemon, snap)["id"]
    assert daemon.out(box, "@peek 0 5") == "v0 v5"


def test_snapshot_twice_of_one(daemon, sandbox):
    """The second is as whole as the first, and shares its disk."""
    daemon.out(sandbox, "@poke 1 one")
    first = snapshot(daemon, sandbox)
    daemon.out(sandbox, "@poke 2 two")
    second = snapshot(daemon, sandbox)
    assert second["parent"] == first["id"] and second["shared_bytes"] >= 0
    box = restore(daemon, second["id"])["id"]
    assert daemon.out(box, "@peek 1 2") == "one two"
    assert daemon.host.vm(box).layers == 2
    box = restore(daemon, first["id"])["id"]
    assert daemon.out(box, "@peek 1 2") == "one -"


def test_an_empty_layer_stays_on_top(daemon, sandbox):
    daemon.host.seals = 0
    snap = snapshot(daemon, sandbox)["id"]
    box = restore(daemon, snap)["id"]
    assert daemon.host.vm(box).layers == 0
    daemon.host.seals = 1
    again = snapshot(daemon, box)["id"]
    assert daemon.host.vm(restore(daemon, again)["id"]).layers == 1


def test_disk_snapshot_boots(daemon, sandbox):
    snap = snapshot(daemon, sandbox, memory=False)
    assert snap["kind"] == "disk" and snap["pause_us"] == 1234
    assert not daemon.host.vm(sandbox).frozen
    assert daemon.out(sandbox, "echo on") == "on\n"
    # Without memory nothing but the layers is asked of the monitor.
    daemon.host.save = "unwritten"
    assert snapshot(daemon, sandbox, memory=False)["kind"] == "disk"
    box = restore(daemon, snap["id"])
    vm = daemon.host.vm(box["id"])
    assert vm.claim == BOOT and len(vm.layer_fds) == 1
    assert not box["receipt"]["connections_reset"]
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/rollback",
                        {"snapshot": snap["id"]})
    assert reply.status == 422 and reply.code == "snapshot_without_memory"


def test_quick_is_a_crash_to_applications(daemon, sandbox):
    assert snapshot(daemon, sandbox, quick=True)["consistency"] == "crash"
    assert daemon.host.vm(sandbox).quiesced == 0


def test_snapshot_v1(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    reply = daemon.post(f"/v1/sandboxes/{sandbox}/snapshot", {"name": "s1"})
    assert reply.status == 200
    made = reply.json
    assert set(made) == {"id", "consistency", "created_at", "name",
                         "source_sandbox_id", "source_sandbox_name", "status"}
    assert made["status"] == "ready" and made["name"] == "s1"
    assert daemon.post(f"/v1/sandboxes/{sandbox}/snapshot").status == 200
    page = daemon.get("/v1/snapshots/list?page=2.0&page_size=1").json
    assert page["pagination"] == {"page": 2, "page_size": 1, "total_items": 2,
                                  "total_pages": 2}
    assert page["data"][0]["id"] == made["id"]
    assert set(page["data"][0]) == {"id", "created_at", "name", "status",
                                    "depends_on", "size"}
    assert isinstance(page["data"][0]["size"], str)
    reply = daemon.post(f"/v1/snapshots/{made['id']}/restore",
                        {"name": "back", "resources": {
                            "cpus": 3, "memory": 512, "storage": "10"},
                         "unknown": 1})
    assert reply.status == 200, reply.body
    box = reply.json
    assert set(box) >= {"id", "cpu", "created_at", "memory", "name", "status",
                        "storage_id", "storage_name"}
    assert box["name"] == "back" and box["cpu"] == 3
    assert daemon.out(box["id"], "@peek 1") == "x"
    reply = daemon.post(f"/v1/snapshots/{made['id']}/restore",
                        {"name": "b", "resources": {"memory": 1024}})
    assert reply.status == 422 and reply.code == "shape_differs"
    reply = daemon.delete(f"/v1/snapshots/{made['id']}")
    assert reply.status == 200 and reply.json["deferred"] is False
    assert reply.json["name"] == "s1" and reply.json["message"]
    assert daemon.delete(f"/v1/snapshots/{made['id']}").status == 404
    reply = daemon.delete("/v1/snapshots/delete-all")
    assert reply.json["deleted_count"] == 1
    assert daemon.get("/v1/snapshots/list").json["data"] == []


def test_environment_and_quota_go_with_the_snapshot(daemon):
    """Also when brigd began anew, the source is gone, and elsewhere."""
    reply = daemon.post("/v1/sandboxes/create", {
        "env_vars": {"A": "1", "B": "2"}, "resources": {"cpus": 3}})
    box = reply.json["id"]
    snap = snapshot(daemon, box)["id"]
    file = daemon.get(f"/v2/snapshots/{snap}/export").body
    assert daemon.delete(f"/v1/sandboxes/{box}/delete").status == 200
    assert daemon.stop() == 0
    daemon.start()
    reply = daemon.post("/v2/snapshots/import", file)
    assert reply.status == 200, reply.body
    for source in snap, reply.json["id"]:
        back = restore(daemon, source, env={"B": "3", "C": "4"})["id"]
        assert daemon.out(back, "echo $A $B $C") == "1 3 4\n"
        assert daemon.host.vm(back).quota == 75
        reply = daemon.post(f"/v1/snapshots/{source}/restore", {"name": "x"})
        assert reply.json["cpu"] == 3
        assert daemon.out(reply.json["id"], "echo $A $B $C") == "1 2\n"
        reply = daemon.post(f"/v1/snapshots/{source}/restore",
                            {"name": "x", "resources": {"cpus": 2}})
        assert reply.json["cpu"] == 2
    (twin,) = daemon.post(f"/v2/sandboxes/{back}/clone").json["sandboxes"]
    assert daemon.out(twin["id"], "echo $A $B $C") == "1 3 4\n"
    assert daemon.host.vm(twin["id"]).quota == 75


def test_too_much_environment(daemon):
    """Each fits alone; a sandbox keeps at most 32 KiB."""
    half = {"A": "a" * (20 << 10)}
    box = daemon.create(env_vars=half)
    snap = snapshot(daemon, box)["id"]
    reply = daemon.post("/v2/sandboxes", {"snapshot": snap, "env": {
        "B": "b" * (20 << 10)}})
    assert reply.status == 422 and reply.code == "invalid_field"
    restore(daemon, snap, env={"A": "b" * (20 << 10)})
    for path, field in (("/v1/sandboxes/create", "env_vars"),
                        ("/v2/sandboxes", "env")):
        reply = daemon.post(path, {field: {"A": "a" * (32 << 10)}})
        assert reply.status == 422 and reply.code == "invalid_field"


def test_clone_v1(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    reply = daemon.post(f"/v1/sandboxes/{sandbox}/clone", {
        "name": "twin", "snapshot_name": "kept"})
    assert reply.status == 200, reply.body
    assert reply.json["snapshot"]["name"] == "kept"
    assert reply.json["snapshot"]["source_sandbox_id"] == sandbox
    twin = reply.json["sandbox"]
    assert twin["name"] == "twin" and twin["status"] == "running"
    assert {"id", "cpu", "created_at", "memory", "storage"} <= set(twin)
    assert daemon.out(twin["id"], "@peek 1") == "x"
    reply = daemon.post(f"/v1/sandboxes/{sandbox}/clone",
                        {"resources": {"cpus": 8}})
    assert reply.status == 422


def test_delete_with_snapshot(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 kept")
    reply = daemon.delete(f"/v1/sandboxes/{sandbox}/delete", body={
        "create_snapshot": True, "snapshot_name": "last",
        "keep_storage": True})
    assert reply.status == 200, reply.body
    assert reply.json["snapshot_created"] is True
    assert reply.json["snapshot_name"] == "last"
    snap = daemon.get("/v1/snapshots/list").json["data"][0]
    assert daemon.out(restore(daemon, snap["id"])["id"], "@peek 1") == "kept"


def test_delete_stays_when_its_snapshot_fails(daemon, sandbox):
    daemon.host.saved_status = -28
    reply = daemon.delete(f"/v1/sandboxes/{sandbox}/delete",
                          body={"create_snapshot": True})
    assert reply.status == 507
    assert daemon.out(sandbox, "echo here") == "here\n"


# --- what goes wrong while saving


def test_disk_full(daemon, sandbox):
    for where in ("save_status", "saved_status"):
        setattr(daemon.host, where, -28)
        reply = daemon.post(f"/v2/sandboxes/{sandbox}/snapshots")
        assert reply.status == 507 and reply.code == "disk_full"
        setattr(daemon.host, where, 0)
        assert not daemon.host.vm(sandbox).frozen
        assert daemon.out(sandbox, "echo on") == "on\n"
        assert daemon.get("/v2/snapshots").json["snapshots"] == []
    assert objects(daemon) == [] and manifests(daemon) == []
    # The layer that the second one sealed is still below.
    box = restore(daemon, snapshot(daemon, sandbox)["id"])
    assert daemon.host.vm(box["id"]).layers == 2


@pytest.mark.parametrize("mode", ["error"])
def test_quiesce_fails(daemon, sandbox, mode):
    daemon.host.quiesce = mode
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/snapshots")
    assert reply.status == 503 and reply.code == "quiesce_failed"
    daemon.host.quiesce = "ok"
    assert snapshot(daemon, sandbox)["status"] == "ready"


def test_memory_of_the_wrong_size(daemon, sandbox):
    daemon.host.save = "short"
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/snapshots")
    assert reply.status == 503 and reply.code == "save_failed"
    daemon.host.save = "ok"
    assert snapshot(daemon, sandbox)["status"] == "ready"


def test_sandbox_ends_while_it_is_saved(daemon, sandbox):
    daemon.host.save = "unwritten"
    replies = []
    t = threading.Thread(target=lambda: replies.append(
        daemon.post(f"/v2/sandboxes/{sandbox}/snapshots")))
    t.start()
    time.sleep(0.3)
    daemon.host.vm(sandbox).stop(1)
    t.join(10)
    assert replies[0].status == 422
    assert replies[0].code == "sandbox_not_running"
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200


def test_one_save_at_a_time(daemon, sandbox):
    daemon.host.save_delay = 0.5
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(
        daemon.post(f"/v2/sandboxes/{sandbox}/snapshots")))
        for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    codes = sorted(r.status for r in replies)
    assert codes == [200, 409, 409]
    assert {r.code for r in replies if r.status == 409} == {"busy"}


def test_runs_go_on_while_files_are_written(daemon, sandbox):
    daemon.host.save_delay = 1
    t = threading.Thread(target=snapshot, args=(daemon, sandbox))
    t.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert daemon.out(sandbox, "echo quick") == "quick\n"
    assert time.monotonic() - began < 0.5
    t.join()


def test_client_leaves_while_it_saves(daemon, sandbox):
    daemon.host.save_delay = 0.5
    conn = daemon.connect()
    conn.request("POST", f"/v2/sandboxes/{sandbox}/snapshots", "{}",
                 {"x-api-key": daemon.key, "content-type": "application/json"})
    time.sleep(0.1)
    conn.close()
    assert wait_until(lambda: daemon.get("/v2/snapshots").json["snapshots"])
    assert daemon.out(sandbox, "echo on") == "on\n"


def test_not_found(daemon, sandbox):
    other = "snap_" + "a" * 24
    assert daemon.get(f"/v2/snapshots/{other}").status == 404
    assert daemon.delete(f"/v2/snapshots/{other}").status == 404
    assert daemon.get(f"/v2/snapshots/{other}/export").status == 404
    assert daemon.post("/v2/sandboxes", {"snapshot": other}).status == 404
    assert daemon.post(f"/v1/snapshots/{other}/restore").status == 404
    assert daemon.post(f"/v2/sandboxes/{sandbox}/rollback",
                       {"snapshot": other}).status == 404


@pytest.mark.parametrize("path,body", [
    ("snapshots", {"name": "A"}), ("snapshots", {"name": "auto-x"}),
    ("snapshots", {"name": "pause-x"}), ("snapshots", {"quick": 1}),
    ("snapshots", {"x": 1}), ("clone", {"count": 0}),
    ("clone", {"count": 1001}), ("clone", {"image": "default"}),
    ("pause", {"x": 1}), ("rollback", {}), ("rollback", {"snapshot": 5}),
    ("code", {"language": "perl", "code": ""}), ("code", {"code": "1"}),
    ("code", {"language": "python"}), ("reset", {"x": 1}), ("reset", {})])
def test_unprocessable(daemon, sandbox, path, body):
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/{path}", body)
    assert reply.status == 422, reply.body


# --- clones


def test_clones(daemon, sandbox):
    daemon.out(sandbox, "@poke 7 seven")
    boxes = clone(daemon, sandbox, count=12, name="w")
    assert len(set(boxes)) == 12
    assert objects(daemon) == []
    names = set()
    for box in boxes:
        info = v2(daemon, box)
        assert info["origin"] == "clone" and info["receipt"]
        names.add(info["name"])
        assert daemon.out(box, "@peek 7") == "seven"
    assert names == {f"w-{i}" for i in range(1, 13)}
    # One save for all of them.
    assert daemon.host.vm(sandbox).layers == 1
    daemon.out(boxes[0], "@poke 7 mine")
    assert daemon.out(boxes[1], "@peek 7") == "seven"
    assert daemon.out(sandbox, "@peek 7") == "seven"


def test_clone_of_a_clone(daemon, sandbox):
    box = sandbox
    for i in range(4):
        daemon.out(box, f"@poke {i} g{i}")
        box = clone(daemon, box)[0]
    assert daemon.out(box, "@peek 0 1 2 3") == "g0 g1 g2 g3"
    # And to disk: what lived in memory only becomes files.
    daemon.out(box, "@poke 9 last")
    snap = snapshot(daemon, box)["id"]
    for b in daemon.get("/v1/sandboxes/list").json["data"]:
        daemon.delete(f"/v1/sandboxes/{b['id']}/delete")
    copy = restore(daemon, snap)["id"]
    assert daemon.out(copy, "@peek 0 1 2 3 9") == "g0 g1 g2 g3 last"


def test_many_generations_of_clones(daemon, sandbox):
    box = sandbox
    for i in range(20):
        daemon.out(box, f"@poke {i} g{i}")
        new = clone(daemon, box)[0]
        daemon.delete(f"/v1/sandboxes/{box}/delete")
        box = new
    snap = snapshot(daemon, box)["id"]
    copy = restore(daemon, snap)["id"]
    assert daemon.out(copy, "@peek 0 10 19") == "g0 g10 g19"


def test_some_clones_fail(daemon, sandbox):
    daemon.host.restored = "no_entropy"
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/clone", {"count": 3})
    assert reply.status == 200
    assert reply.json["sandboxes"] == [] and len(reply.json["errors"]) == 3
    assert reply.json["errors"][0]["error"]["code"] == "restore_failed"
    assert wait_until(lambda: len(daemon.host.vms) == 1)
    assert daemon.out(sandbox, "echo on") == "on\n"


def test_clones_outlive_their_source(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    box = clone(daemon, sandbox)[0]
    daemon.delete(f"/v1/sandboxes/{sandbox}/delete")
    assert daemon.out(box, "@peek 1") == "x"
    assert daemon.out(clone(daemon, box)[0], "@peek 1") == "x"


def test_nothing_is_left(daemon):
    before = None
    for _ in range(3):
        box = daemon.create()
        daemon.out(box, "@poke 1 x")
        snap = snapshot(daemon, box)["id"]
        copy = restore(daemon, snap)["id"]
        clone(daemon, copy, count=3)
        daemon.post(f"/v2/sandboxes/{copy}/pause")
        daemon.delete("/v1/sandboxes/delete-all")
        daemon.delete("/v1/snapshots/delete-all")
        assert wait_until(lambda: objects(daemon) == [])
        assert manifests(daemon) == []
        assert wait_until(lambda: daemon.fds() <= (before or 1000)), \
            (before, daemon.fds())
        before = before or daemon.fds()
    assert not daemon.host.vms


def test_count_creates_many(daemon):
    reply = daemon.post("/v2/sandboxes", {"count": 5, "memory_mib": 256})
    assert reply.status == 200
    assert len(reply.json["sandboxes"]) == 5 and reply.json["errors"] == []
    assert {b["memory_mib"] for b in reply.json["sandboxes"]} == {256}


def test_create_v2(daemon):
    reply = daemon.post("/v2/sandboxes", {"name": "x", "vcpus": 2,
                                          "disk_gib": 3, "env": {"A": "b"}})
    assert reply.status == 200, reply.body
    box = reply.json
    assert box["origin"] == "boot" and box["template"] is None
    assert box["snapshot"] is None and box["vcpus"] == 2
    assert box["disk_bytes"] == 3 << 30
    assert daemon.out(box["id"], "echo $A") == "b\n"
    for bad in ({"cpus": 4}, {"vcpus": 9}, {"image": "x", "snapshot": "y"},
                {"template": "none", "image": "default"}):
        assert daemon.post("/v2/sandboxes", bad).status == 422
    assert daemon.post("/v2/sandboxes", {"template": "no"}).status == 404


# --- pause, resume, rollback


def test_pause_resume(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/pause")
    assert reply.status == 200 and reply.json["status"] == "paused"
    assert wait_until(lambda: not daemon.host.vms)
    assert daemon.get("/v2/snapshots").json["snapshots"] == []
    assert daemon.get("/v1/snapshots/list").json["data"] == []
    reply = daemon.execute(sandbox, "true")
    assert reply.status == 422
    assert reply.json["error"]["details"]["status"] == "paused"
    assert daemon.post(f"/v2/sandboxes/{sandbox}/pause").status == 200
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/resume")
    assert reply.status == 200 and reply.json["status"] == "running"
    assert reply.json["id"] == sandbox
    assert daemon.out(sandbox, "@peek 1") == "x"
    assert daemon.post(f"/v2/sandboxes/{sandbox}/resume").status == 200
    assert wait_until(lambda: manifests(daemon) == [])
    daemon.out(sandbox, "@poke 2 y")
    for _ in range(2):
        assert daemon.post(f"/v2/sandboxes/{sandbox}/pause").status == 200
        assert daemon.post(f"/v2/sandboxes/{sandbox}/resume").status == 200
    assert daemon.out(sandbox, "@peek 1 2") == "x y"


def test_paused_survives_a_restart(daemon):
    box = daemon.create(env_vars={"A": "b"})
    daemon.out(box, "@poke 1 x")
    machine = v2(daemon, box)["receipt"]["machine_id"]
    assert daemon.post(f"/v2/sandboxes/{box}/pause").status == 200
    assert daemon.stop() == 0
    daemon.start()
    assert v2(daemon, box)["status"] == "paused"
    reply = daemon.post(f"/v2/sandboxes/{box}/resume")
    assert reply.status == 200, reply.body
    assert reply.json["receipt"]["machine_id"] == machine
    assert daemon.out(box, "@peek 1") == "x"
    assert daemon.out(box, "echo $A") == "b\n"


def test_what_held_a_pause_that_is_over_goes(daemon, sandbox):
    """brigd died after it resumed one, before it dropped the snapshot."""
    assert daemon.post(f"/v2/sandboxes/{sandbox}/pause").status == 200
    kept = snapshot(daemon, daemon.create())["id"]
    assert daemon.stop() == 0
    db = sqlite3.connect(daemon.dir / "state/brig.db")
    db.execute("UPDATE sandboxes SET paused = '', status = 'running'")
    db.commit()
    db.close()
    daemon.start()
    assert v2(daemon, sandbox)["status"] == "stopped"
    assert wait_until(lambda: len(manifests(daemon)) == 1)
    assert restore(daemon, kept)["status"] == "running"


def test_pause_that_fails_runs_on(daemon, sandbox):
    daemon.host.saved_status = -28
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/pause")
    assert reply.status == 507
    vm = daemon.host.vm(sandbox)
    assert not vm.paused and not vm.frozen
    assert v2(daemon, sandbox)["status"] == "running"
    daemon.host.saved_status = 0
    assert daemon.post(f"/v2/sandboxes/{sandbox}/pause").status == 200


def test_resume_that_fails_is_paused_again(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    daemon.post(f"/v2/sandboxes/{sandbox}/pause")
    daemon.host.restored = "no_entropy"
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/resume")
    assert reply.status == 500 and reply.code == "restore_failed"
    info = v2(daemon, sandbox)
    assert info["status"] == "paused" and info["reason"] == "identity"
    daemon.host.restored = "ok"
    assert daemon.post(f"/v2/sandboxes/{sandbox}/resume").status == 200
    assert daemon.out(sandbox, "@peek 1") == "x"


def test_rollback(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 before")
    snap = snapshot(daemon, sandbox)["id"]
    daemon.out(sandbox, "@poke 1 after")
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/rollback",
                        {"snapshot": snap})
    assert reply.status == 200, reply.body
    assert reply.json["id"] == sandbox and reply.json["origin"] == "snapshot"
    assert daemon.out(sandbox, "@peek 1") == "before"
    assert wait_until(lambda: len(daemon.host.vms) == 1)


def test_rollback_of_what_failed(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 before")
    snap = snapshot(daemon, sandbox)["id"]
    daemon.host.vm(sandbox).stop(3)
    assert wait_until(lambda: v2(daemon, sandbox)["status"] == "failed")
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/rollback",
                        {"snapshot": snap})
    assert reply.status == 200 and reply.json["reason"] is None
    assert daemon.out(sandbox, "@peek 1") == "before"


def test_rollback_of_a_paused_one(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 before")
    snap = snapshot(daemon, sandbox)["id"]
    daemon.out(sandbox, "@poke 1 after")
    daemon.post(f"/v2/sandboxes/{sandbox}/pause")
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/rollback",
                        {"snapshot": snap})
    assert reply.status == 200
    assert daemon.out(sandbox, "@peek 1") == "before"
    assert wait_until(lambda: len(manifests(daemon)) == 1)


def test_rollback_to_another_shape(daemon, sandbox):
    other = daemon.create(resources={"memory": 256})
    snap = snapshot(daemon, other)["id"]
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/rollback",
                        {"snapshot": snap})
    assert reply.status == 422 and reply.code == "shape_differs"
    assert daemon.out(sandbox, "echo on") == "on\n"


# --- files


def test_snapshots_survive_a_restart(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    snap = snapshot(daemon, sandbox)["id"]
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.out(restore(daemon, snap)["id"], "@peek 1") == "x"


def test_damaged_files(daemon, sandbox):
    snap = snapshot(daemon, sandbox)["id"]
    assert daemon.stop() == 0
    for name in objects(daemon):
        path = daemon.dir / "state/snapshots/objects" / name
        data = path.read_bytes()
        if data.startswith(b"{"):
            os.chmod(path, 0o600)
            path.write_bytes(data.replace(b"generation", b"generatiom"))
    daemon.start()
    reply = daemon.post("/v2/sandboxes", {"snapshot": snap})
    assert reply.status in (422, 500), reply.body
    assert b"damaged" in reply.body


def test_image_that_changed(daemon, sandbox):
    snap = snapshot(daemon, sandbox)["id"]
    (daemon.images / "default.ext4").write_bytes(b"\1" * (1 << 20))
    reply = daemon.post("/v2/sandboxes", {"snapshot": snap})
    assert reply.status == 422 and reply.code == "image_changed"


def test_export_import(daemon, sandbox):
    daemon.out(sandbox, "@poke 1 x")
    daemon.out(sandbox, "head -c 300000 /dev/urandom | base64 > big")
    snap = snapshot(daemon, sandbox, name="mine")["id"]
    reply = daemon.get(f"/v2/snapshots/{snap}/export")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/octet-stream"
    data = reply.body
    assert daemon.delete(f"/v2/snapshots/{snap}").status == 200
    reply = daemon.post("/v2/snapshots/import", data)
    assert reply.status == 200, reply.body
    back = reply.json
    assert back["id"] != snap and back["name"] == "mine"
    box = restore(daemon, back["id"])["id"]
    assert daemon.out(box, "@peek 1") == "x"
    assert daemon.out(box, "cat big") == daemon.out(sandbox, "cat big")
    for bad in (b"", data[:-1], data[:1000], data + b"x",
                data[:5000] + b"\xff" + data[5001:], b"\0" * 100000):
        reply = daemon.post("/v2/snapshots/import", bad)
        assert reply.status == 422 and reply.code == "snapshot_damaged", \
            reply.body
    assert len(daemon.get("/v2/snapshots").json["snapshots"]) == 1


# --- code


def test_code(daemon, sandbox):
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/code", {
        "language": "python", "code": "print(6*7)"})
    assert reply.status == 200, reply.body
    assert reply.json["stdout"] == "42\n" and reply.json["exit_code"] == 0
    run = daemon.host.vm(sandbox).runs[-1]
    assert run.code and run.argv == ["python", "print(6*7)"]
    reply = daemon.post(f"/v2/sandboxes/{sandbox}/code", {
        "language": "bash", "code": "cat; echo $A", "stdin": "in ",
        "env": {"A": "b"}, "stream": True})
    events = [json.loads(x) for x in reply.body.splitlines()]
    assert "".join(e["data"] for e in events if e["event"] == "stdout") \
        == "in b\n"
    logs = daemon.get("/v1/sandboxes/logs").json["logs"]
    assert {row["command"] for row in logs} == {"print(6*7)", "cat; echo $A"}
