# test_templates.py - templates and the pool: what starts ahead of need.
# SPDX-License-Identifier: Apache-2.0

import os
import threading
import time

import pytest

from conftest import wait_until

BOOT, RESTORE, RESET = 4, 5, 9


def templates(daemon):
    return daemon.get("/v2/templates").json["templates"]


def ready(daemon, n=1):
    return wait_until(lambda: [t["status"] for t in templates(daemon)]
                      .count("ready") >= n, 15)


@pytest.fixture
def auto(make_daemon):
    """Makes templates by itself; nothing runs ahead."""
    daemon = make_daemon("--pool", "0", "--standby", "0")
    assert ready(daemon)
    return daemon


@pytest.fixture
def pooled(make_daemon):
    daemon = make_daemon("--pool", "3", "--no-templates")
    assert wait_until(lambda: pool(daemon)["ready"] == 3)
    return daemon


def pool(daemon):
    return daemon.get("/v2/host").json["pool"]


# --- templates


def test_default_template(auto):
    (t,) = templates(auto)
    assert t["automatic"] and t["name"].startswith("auto-")
    assert (t["image"], t["vcpus"], t["memory_mib"], t["disk_gib"]) \
        == ("default", 1, 512, 10)
    assert t["warm"] is None
    builder = auto.host.started[0]
    assert [(r.code, r.argv) for r in builder.runs] == [
        (True, [lang, ""]) for lang in ("python", "node", "bash")]
    assert builder.quiesced == 1
    assert wait_until(lambda: not auto.host.vms)
    # Nobody sees the machine that made it.
    assert auto.get("/v1/sandboxes/list").json["data"] == []
    assert auto.get("/v2/host").json["sandboxes"] == 0
    assert auto.get("/v2/snapshots").json["snapshots"] == []
    assert auto.delete("/v1/snapshots/delete-all").json["deleted_count"] == 0

    box = auto.create_v2()
    assert box["origin"] == "template" and box["template"] == t["name"]
    assert box["snapshot"] is None and box["receipt"]["connections_reset"]
    assert auto.host.vm(box["id"]).claim == RESTORE
    reply = auto.post("/v1/sandboxes/create", {"name": "v1"})
    assert reply.status == 200
    assert auto.host.vm(reply.json["id"]).claim == RESTORE
    assert auto.host.vm(reply.json["id"]).hostname == "v1"


def test_template_on_demand(auto):
    box = auto.create_v2(memory_mib=256)
    assert box["origin"] == "boot"
    assert ready(auto, 2)
    box = auto.create_v2(memory_mib=256)
    assert box["origin"] == "template" and box["memory_mib"] == 256
    assert auto.create_v2(vcpus=2)["origin"] == "boot"


def test_template_is_loaded_again(auto):
    name = templates(auto)[0]["name"]
    assert auto.stop() == 0
    auto.start()
    box = auto.create_v2()  # waits for it, if need be
    assert box["origin"] == "template" and box["template"] == name
    assert len([v for v in auto.host.started if v.claim == BOOT]) == 1


def test_image_that_changed(auto):
    old = templates(auto)[0]["name"]
    (auto.images / "default.ext4").write_bytes(b"\1" * (1 << 20))
    assert auto.create_v2()["origin"] == "boot"
    assert wait_until(lambda: [
        (t["status"], t["name"] != old) for t in templates(auto)]
        == [("ready", True)], 15)
    assert auto.create_v2()["origin"] == "template"


def test_no_sandbox_waits_for_a_template_that_is_made(make_daemon):
    daemon = make_daemon("--pool", "0", "--standby", "0")
    daemon.host.save = "unwritten"
    assert wait_until(lambda: templates(daemon)[0]["status"] == "creating")
    assert daemon.create_v2()["origin"] == "boot"


def test_template_that_does_not_restore(auto):
    auto.host.restored = "no_entropy"
    for _ in range(3):
        assert auto.post("/v2/sandboxes").status == 500
    auto.host.restored = "ok"
    assert templates(auto)[0]["status"] == "wanted"
    assert auto.create_v2()["origin"] == "boot"


def test_template_memory_is_bounded(make_daemon):
    daemon = make_daemon("--pool", "0", "--standby", "0",
                         "--template-memory", "1")
    box = daemon.create_v2()
    assert box["origin"] == "boot"
    time.sleep(1)
    assert templates(daemon) == []  # 512 MiB are over twice the bound


def test_named_template(daemon):
    reply = daemon.post("/v2/templates", {
        "name": "tools", "warm": "echo warm > made; echo x", "vcpus": 2,
        "memory_mib": 256, "disk_gib": 3})
    assert reply.status == 200, reply.body
    t = reply.json
    assert t["name"] == "tools" and t["status"] == "ready"
    assert not t["automatic"] and t["snapshot_id"].startswith("snap_")
    assert t["warm"] == "echo warm > made; echo x"
    assert daemon.get("/v2/templates/tools").json == t
    box = daemon.create_v2(template="tools", env={"A": "b"})
    assert box["origin"] == "template" and box["template"] == "tools"
    assert (box["vcpus"], box["memory_mib"]) == (2, 256)
    assert daemon.out(box["id"], "cat made; echo $A") == "warm\nb\n"
    assert daemon.post("/v2/templates", {"name": "tools"}).status == 422
    assert daemon.post("/v2/sandboxes", {
        "template": "tools", "memory_mib": 512}).code == "shape_differs"
    # It is no snapshot, but lives where they do.
    snap = t["snapshot_id"]
    assert daemon.get(f"/v2/snapshots/{snap}").status == 404
    assert daemon.delete(f"/v2/snapshots/{snap}").status == 404
    assert daemon.post("/v2/sandboxes", {"snapshot": snap}).status == 404
    many = daemon.post("/v2/sandboxes", {"template": "tools", "count": 4})
    assert len(many.json["sandboxes"]) == 4
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.get("/v2/templates/tools").json == {
        **t, "status": "stored", "resident_bytes": 0}
    box = daemon.create_v2(template="tools")
    assert daemon.out(box["id"], "cat made") == "warm\n"
    assert daemon.delete("/v2/templates/tools").status == 200
    assert daemon.get("/v2/templates/tools").status == 404
    assert daemon.delete("/v2/templates/tools").status == 404
    assert daemon.out(box["id"], "cat made") == "warm\n"
    daemon.delete("/v1/sandboxes/delete-all")
    assert wait_until(lambda: os.listdir(
        daemon.dir / "state/snapshots/objects") == [])


def test_warming_that_fails(daemon):
    reply = daemon.post("/v2/templates", {
        "name": "bad", "warm": "echo no such thing >&2; exit 3"})
    assert reply.status == 422 and reply.code == "warm_failed"
    assert "3: no such thing" in reply.json["error"]["message"]
    assert templates(daemon) == []
    assert wait_until(lambda: not daemon.host.vms)
    reply = daemon.post("/v2/templates", {"name": "bad"})
    assert reply.status == 200


@pytest.mark.parametrize("how", [
    {"boot": "panic"}, {"saved_status": -28}, {"quiesce": "error"}])
def test_making_that_fails(daemon, how):
    for key, value in how.items():
        setattr(daemon.host, key, value)
    reply = daemon.post("/v2/templates", {"name": "bad"})
    assert reply.status in (503, 507), reply.body
    assert templates(daemon) == []
    assert wait_until(lambda: not daemon.host.vms)


@pytest.mark.parametrize("body", [
    {"name": "a", "warm": "x" * (16 << 10)},
    {}, {"name": "auto-x"}, {"name": "A"}, {"name": "a", "warm": 1},
    {"name": "a", "x": 1}, {"name": "a", "memory_mib": 1}])
def test_template_unprocessable(daemon, body):
    assert daemon.post("/v2/templates", body).status == 422


def test_template_of_no_image(daemon):
    reply = daemon.post("/v2/templates", {"name": "a", "image": "none"})
    assert reply.status == 404 and reply.code == "image_not_found"


def test_delete_while_it_is_made(daemon):
    daemon.host.boot_delay = 1
    reply = []
    t = threading.Thread(target=lambda: reply.append(
        daemon.post("/v2/templates", {"name": "slow"})))
    t.start()
    assert wait_until(lambda: templates(daemon))
    assert daemon.delete("/v2/templates/slow").status == 200
    t.join(5)
    assert reply[0].status == 422 and reply[0].code == "deleted"
    assert wait_until(lambda: not daemon.host.vms)
    assert templates(daemon) == []


# --- reset


def test_reset(auto):
    box = auto.create_v2(name="keeps")["id"]
    auto.out(box, "@poke 1 x")
    auto.out(box, "echo x > file")
    reply = auto.post(f"/v2/sandboxes/{box}/reset")
    assert reply.status == 200, reply.body
    assert reply.json["id"] == box and reply.json["origin"] == "template"
    vm = auto.host.vm(box)
    assert vm.claim == RESET and vm.hostname == "keeps"
    assert len(vm.configured) == 2
    assert auto.out(box, "@peek 1") == "-"
    assert auto.out(box, "ls") == ""
    # What was sealed in between is not below any more.
    assert auto.post(f"/v2/sandboxes/{box}/snapshots").status == 200
    assert auto.post(f"/v2/sandboxes/{box}/reset").status == 200
    assert auto.host.vm(box).layers == 1


def test_reset_after_a_pause(auto):
    box = auto.create_v2()["id"]
    auto.out(box, "@poke 1 x")
    assert auto.post(f"/v2/sandboxes/{box}/pause").status == 200
    assert auto.post(f"/v2/sandboxes/{box}/resume").status == 200
    assert auto.out(box, "@peek 1") == "x"
    reply = auto.post(f"/v2/sandboxes/{box}/reset")
    assert reply.status == 200, reply.body
    assert auto.out(box, "@peek 1") == "-"
    assert auto.post(f"/v2/sandboxes/{box}/reset").status == 200


def test_reset_that_lies(auto):
    box = auto.create_v2()["id"]
    auto.host.restored = "no_machine_id"
    reply = auto.post(f"/v2/sandboxes/{box}/reset")
    assert reply.status == 500 and reply.code == "restore_failed"
    reply = auto.get(f"/v2/sandboxes/{box}")
    assert reply.json["status"] == "failed"
    assert reply.json["reason"] == "identity"


def test_nothing_starts_while_brigd_ends(make_daemon):
    """A template that waits its turn, a client that is still connected."""
    daemon = make_daemon("--pool", "0", "--standby", "0")
    assert ready(daemon)
    daemon.host.boot = "never"
    create_v2 = {"memory_mib": 256, "wait_for_ready": False}
    assert daemon.post("/v2/sandboxes", create_v2).status == 200
    assert wait_until(lambda: daemon.host.vms)
    late = daemon.connect()
    late.connect()
    daemon.host.exit_delay = 2
    started = len(daemon.host.started)
    daemon.process.terminate()
    time.sleep(0.5)
    late.request("POST", "/v2/sandboxes", "{}", {"x-api-key": daemon.key})
    reply = late.getresponse()
    assert reply.status == 503 and b'"ending"' in reply.read()
    late.close()
    assert daemon.process.wait(20) == 0
    assert len(daemon.host.started) == started


# --- the pool


def test_pool(pooled):
    shells = list(pooled.host.started)
    assert all(v.claim is None for v in shells)
    box = pooled.create_v2()
    assert pooled.host.vm(box["id"]) in shells
    assert wait_until(lambda: pool(pooled) == {"size": 3, "ready": 3})
    assert len(pooled.host.started) == 4
    assert pooled.get("/v2/host").json["sandboxes"] == 1
    pooled.delete("/v1/sandboxes/delete-all")
    assert len(pooled.host.vms) == 3


def test_pool_of_another_shape(pooled):
    assert pooled.create_v2(memory_mib=256)
    assert wait_until(lambda: pool(pooled)["ready"] == 6)
    n = len(pooled.host.started)
    box = pooled.create_v2(memory_mib=256)["id"]
    assert pooled.host.vm(box) in pooled.host.started[:n]


def test_pool_shell_that_dies(pooled):
    for _ in range(3):
        pooled.host.started[-1].die()
        assert wait_until(lambda: pool(pooled)["ready"] == 3
                          and len(pooled.host.vms) == 3)
    assert pooled.create_v2()["status"] == "running"


def test_pool_backs_off(make_daemon):
    daemon = make_daemon("--pool", "2", "--no-templates")
    daemon.host.build = "die"
    for vm in list(daemon.host.vms.values()):
        vm.die()
    time.sleep(2)
    assert len(daemon.host.started) < 12
    daemon.host.build = "ok"
    assert wait_until(lambda: pool(daemon)["ready"] == 2)


def test_pool_shell_that_dies_in_the_queue(make_daemon):
    """A sandbox that waits its turn with a shell that ends gets another."""
    at_once = max(2, os.cpu_count())
    daemon = make_daemon("--pool", str(at_once + 2), "--no-templates")
    assert wait_until(lambda: pool(daemon)["ready"] == at_once + 2)
    daemon.host.boot_delay = 0.5
    boxes = [daemon.post("/v2/sandboxes", {"wait_for_ready": False}).json["id"]
             for _ in range(at_once + 2)]
    waiting = [daemon.host.vm(b) for b in boxes[at_once:]]
    assert all(vm.claim is None for vm in waiting)
    waiting[0].stop(8)
    waiting[1].die()
    assert wait_until(lambda: all(
        daemon.get(f"/v2/sandboxes/{b}").json["status"] == "running"
        for b in boxes), 10)


def test_pool_serves_clones(pooled):
    box = pooled.create_v2()["id"]
    pooled.out(box, "@poke 1 x")
    reply = pooled.post(f"/v2/sandboxes/{box}/clone", {"count": 20})
    assert len(reply.json["sandboxes"]) == 20
    for b in reply.json["sandboxes"]:
        assert pooled.out(b["id"], "@peek 1") == "x"


def test_no_pool_without_hardware(make_daemon, tmp_path):
    daemon = make_daemon("--pool", "2", "--no-templates")
    assert wait_until(lambda: pool(daemon)["ready"] == 2)
    daemon.host.kvm = 1
    assert daemon.stop() == 0
    n = len(daemon.host.started)
    daemon.start()
    time.sleep(0.5)
    assert len(daemon.host.started) == n


def test_both(make_daemon):
    daemon = make_daemon("--pool", "4", "--standby", "0")
    assert ready(daemon)
    assert wait_until(lambda: pool(daemon)["ready"] == 4)
    began = time.monotonic()
    reply = daemon.post("/v2/sandboxes", {"count": 30})
    assert len(reply.json["sandboxes"]) == 30
    assert {b["origin"] for b in reply.json["sandboxes"]} == {"template"}
    assert time.monotonic() - began < 10
    daemon.delete("/v1/sandboxes/delete-all")
    assert wait_until(lambda: len(daemon.host.vms) == 4)
