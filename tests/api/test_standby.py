# test_standby.py - sandboxes that run ahead: given once, made anew, replaced.
# SPDX-License-Identifier: Apache-2.0

import threading
import time

import pytest

from conftest import wait_until
from fake_host import WORKING_PAGES
from test_templates import RESTORE, ready, templates

EXERCISES = [("bash", True), ("python", True), ("python", True)]


def standby(daemon):
    return daemon.get("/v2/host").json["standby"]


def waiting(daemon):
    """The machines of standbys."""
    return [v for v in daemon.host.vms.values() if v.hostname == "standby"]


def kept(daemon, n, seconds=15):
    return wait_until(lambda: standby(daemon) == n, seconds)


@pytest.fixture
def two(make_daemon):
    daemon = make_daemon("--pool", "0", "--standby", "2")
    assert ready(daemon) and kept(daemon, 2)
    return daemon


def test_is_hidden_and_warm(two):
    assert len(waiting(two)) == len(two.host.vms) == 2
    for vm in waiting(two):
        assert vm.claim == RESTORE and len(vm.configured) == 1
        assert [(r.argv[0], r.code) for r in vm.runs] == EXERCISES
        assert two.get(f"/v2/sandboxes/{vm.id}").status == 404
        assert two.execute(vm.id, "true").status == 404
        assert two.delete(f"/v1/sandboxes/{vm.id}/delete").status == 404
    assert two.get("/v1/sandboxes/list").json["data"] == []
    assert two.get("/v2/host").json["sandboxes"] == 0
    assert two.delete("/v1/sandboxes/delete-all").status == 200
    assert standby(two) == 2


def rehearsals(daemon):
    return [v for v in daemon.host.started
            if v.hostname == "rehearsal"]


def test_each_template_rehearses_once(two):
    """What it used is made ready in all that come from the same memory."""
    (vm,) = rehearsals(two)
    assert [(r.argv[0], r.code) for r in vm.runs] == EXERCISES[:1]
    assert vm not in two.host.vms.values() and vm.working_set == []
    assert vm.flags & 8
    for box in waiting(two), [two.host.vm(two.create_v2()["id"])]:
        assert [v.working_set for v in box] == [[WORKING_PAGES]] * len(box)
        assert not any(v.flags & 8 for v in box)
    assert kept(two, 2) and len(rehearsals(two)) == 1


@pytest.mark.parametrize("how", ["error", "flood"])
def test_rehearsal_that_fails_is_no_reason_to_wait(make_daemon, how):
    daemon = make_daemon("--pool", "0", "--standby", "1")
    if how == "error":
        daemon.host.working_set_status = -95
    else:
        daemon.host.working_set = bytes((256 << 10) + 16)
    assert ready(daemon) and kept(daemon, 1)
    assert [v.working_set for v in waiting(daemon)] == [[]]
    assert len(rehearsals(daemon)) == 1


def test_who_takes_one_gets_it_as_its_own(two):
    before = {vm.id: list(vm.configured) for vm in waiting(two)}
    box = two.create_v2(name="mine", env={"A": "b"})
    assert box["id"] in before, "it ran already"
    vm = two.host.vm(box["id"])
    assert (box["name"], box["origin"], box["status"]) == \
        ("mine", "template", "running")
    assert box["template"] == templates(two)[0]["name"]
    assert vm.hostname == box["receipt"]["hostname"] == "mine"
    # Generation, entropy and boot id are of this moment.
    (old,), (_, new) = before[box["id"]], vm.configured
    assert all(old[i] != new[i] for i in (0, 1, 3))
    assert abs(vm.realtime_ns / 1e9 - time.time()) < 30
    assert two.out(box["id"], "echo $A") == "b\n"
    logs = two.get(f"/v1/sandboxes/logs?sandbox_id={box['id']}").json["logs"]
    assert [entry["command"] for entry in logs] == ["echo $A"]


def test_none_is_given_twice(two):
    ahead = {vm.id for vm in waiting(two)}
    made, lock = [], threading.Lock()

    def make():
        box = two.create_v2()
        with lock:
            made.append(box)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    ids = [box["id"] for box in made]
    assert len(set(ids)) == 6
    assert ahead <= set(ids), "those that were there were given"
    seen = [two.host.vm(id).configured[-1] for id in ids]
    for i in range(4):
        assert len({c[i] for c in seen}) == 6


def test_is_replaced_when_taken(two):
    for _ in range(3):
        before = {vm.id for vm in waiting(two)}
        taken = two.create_v2()["id"]
        assert taken in before and kept(two, 2)
        now = {vm.id for vm in waiting(two)}
        assert len(now) == 2 and now & before == before - {taken}


def test_another_shape_takes_none(two):
    ahead = {vm.id for vm in waiting(two)}
    for body in ({"memory_mib": 256}, {"vcpus": 2}, {"disk_gib": 20}):
        assert two.create_v2(**body)["id"] not in ahead
    assert ahead <= {vm.id for vm in two.host.vms.values()}


@pytest.mark.parametrize("how", ["die", "silent_end"])
def test_dead_one_is_replaced(two, how):
    dead, alive = waiting(two)
    if how == "die":
        dead.die()
    else:
        dead.process.kill()
    assert wait_until(lambda: dead not in two.host.vms.values())
    assert wait_until(lambda: len(waiting(two)) == 2 and standby(two) == 2, 15)
    assert alive in waiting(two)
    ids = {two.create_v2()["id"] for _ in range(2)}
    assert dead.id not in ids and alive.id in ids
    assert all(two.out(id, "echo up") == "up\n" for id in ids)


def test_ones_that_die_as_one_is_taken(two):
    """The sandbox is made all the same, or it is told that it was not."""
    for vm in waiting(two):
        vm.die()
    reply = two.post("/v2/sandboxes", {})
    if reply.status == 200:
        assert two.out(reply.json["id"], "echo up") == "up\n"
    else:
        assert reply.status == 500 and reply.code == "restore_failed"
    assert kept(two, 2)


def test_of_a_template_that_is_gone(two):
    old = waiting(two)
    (two.images / "default.ext4").write_bytes(b"\1" * (1 << 20))
    assert two.create_v2()["origin"] == "boot", "none of the old image"
    assert wait_until(lambda: not set(old) & set(two.host.vms.values()), 15)
    assert kept(two, 2)
    assert two.create_v2()["origin"] == "template"


def test_one_that_lies_is_not_handed_out(two):
    two.host.restored = "no_entropy"
    reply = two.post("/v2/sandboxes", {"name": "mine"})
    assert reply.status == 500, reply.body
    assert two.get("/v1/sandboxes/list").json["data"] == []


def test_none_are_kept_when_none_are_wanted(make_daemon):
    daemon = make_daemon("--pool", "0", "--standby", "0")
    assert ready(daemon)
    assert wait_until(lambda: not daemon.host.vms)
    time.sleep(1.5)
    assert standby(daemon) == 0 and not daemon.host.vms
    assert daemon.create_v2()["origin"] == "template"
    time.sleep(1)
    assert len(daemon.host.vms) == 1


@pytest.mark.parametrize("stage", ["restore", "exercise"])
def test_stop_while_one_starts(two, stage):
    """brigd ends at once and leaves no machine."""
    if stage == "restore":
        two.host.restore_delay = 60
    else:
        two.host.slow_runs = True
    known = set(two.host.started)
    waiting(two)[0].die()
    assert wait_until(lambda: set(two.host.started) - known, 15)
    if stage == "exercise":
        assert wait_until(lambda: any(
            vm.runs for vm in set(two.host.started) - known), 15)
    began = time.monotonic()
    assert two.stop() == 0
    assert time.monotonic() - began < 5
    assert wait_until(lambda: not two.host.vms)


def test_one_that_cannot_start_is_tried_again(make_daemon):
    daemon = make_daemon("--pool", "0", "--standby", "1")
    daemon.host.restored = "no_clock"
    assert ready(daemon)
    assert wait_until(lambda: len(daemon.host.started) >= 3, 15)
    assert standby(daemon) == 0
    daemon.host.restored = "ok"
    assert kept(daemon, 1)
