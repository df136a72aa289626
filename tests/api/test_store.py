# test_store.py - snapshots on disk: brigd killed meanwhile, long chains.
# SPDX-License-Identifier: Apache-2.0

import os
import subprocess
import threading
import time

import pytest

from conftest import wait_until
from test_snapshots import manifests, objects, restore, snapshot

# Each snapshot of a machine that was restored adds as much to the chain.
CHAIN = 50
PAGE = 4096


def kill(daemon):
    daemon.process.kill()
    daemon.process.wait()
    daemon.log.close()


def pages(first, count, seed):
    return {n: bytes([n % 251, seed % 251]) * (PAGE // 2)
            for n in range(first, first + count)}


def test_c17_brigd_killed_in_the_middle_of_a_snapshot(daemon):
    """At 16 moments: then it is absent or complete, and nothing else is."""
    def attempt(wait_s):
        box = daemon.create()
        vm = daemon.host.vm(box)
        vm.pages = pages(100, 500, len(known) + 1)
        replies = []

        def ask():
            try:
                replies.append(snapshot(daemon, box))
            except OSError:
                pass  # nobody answers any more

        thread = threading.Thread(target=ask)
        began = time.monotonic()
        thread.start()
        if wait_s is None:
            thread.join()
            wait_s = time.monotonic() - began
        else:
            time.sleep(wait_s)
        kill(daemon)
        thread.join()
        daemon.start()
        return box, vm.pages, replies, wait_s

    known = {}  # snapshot -> its pages
    kinds = {"absent": 0, "complete": 0}
    took = None
    for i in range(16):
        box, content, replies, wait_s = attempt(took and took * i / 13)
        took = took or wait_s
        assert wait_until(lambda: not daemon.host.vms), "its machine ended"
        listed = daemon.get("/v2/snapshots").json["snapshots"]
        assert all(s["status"] == "ready" for s in listed)
        ids = {s["id"] for s in listed}
        assert set(known) <= ids and len(ids - set(known)) <= 1
        known |= {id: content for id in ids - set(known)}
        assert {r["id"] for r in replies} <= ids, "it was promised"
        kinds["complete" if box in {s["source_sandbox_id"] for s in listed}
              else "absent"] += 1
        assert wait_until(lambda: len(objects(daemon)) == 3 * len(ids))
        assert len(manifests(daemon)) == len(ids)
        assert daemon.delete(f"/v1/sandboxes/{box}/delete").status == 200
    assert min(kinds.values()) > 0, kinds
    for id, content in known.items():
        vm = daemon.host.vm(restore(daemon, id)["id"])
        assert {n: vm.read_page(n) for n in content} == content
        assert daemon.delete(f"/v2/snapshots/{id}").status == 200
    assert daemon.delete("/v1/sandboxes/delete-all").status == 200
    assert wait_until(lambda: objects(daemon) == [])


def test_c17_killed_while_snapshots_go(daemon):
    """Deleted ones stay away; what a child needs is not lost."""
    for i in range(6):
        box = daemon.create()
        daemon.host.vm(box).pages = pages(100, 300, 1)
        parent = snapshot(daemon, box)["id"]
        copy = restore(daemon, parent)["id"]
        daemon.host.vm(copy).pages = pages(200, 50, 2)
        child = snapshot(daemon, copy)["id"]
        assert daemon.delete(f"/v2/snapshots/{parent}").status == 200
        time.sleep(0.002 * i)
        kill(daemon)
        daemon.start()
        ids = [s["id"] for s in daemon.get("/v2/snapshots").json["snapshots"]]
        assert child in ids and set(ids) <= {child, parent}
        vm = daemon.host.vm(restore(daemon, child)["id"])
        want = pages(100, 300, 1) | pages(200, 50, 2)
        assert {n: vm.read_page(n) for n in want} == want
        assert daemon.delete("/v1/snapshots/delete-all").status == 200
        assert daemon.delete("/v1/sandboxes/delete-all").status == 200
        assert wait_until(lambda: objects(daemon) == [])


def test_chain_of_50_restores_as_fast_as_one_of_2(daemon):
    """Also the first time after a start, when all of it is verified."""
    base = pages(0, 16384, 0)
    box = daemon.create()
    daemon.host.vm(box).pages = dict(base)
    want, chain = dict(base), []
    for depth in range(1, CHAIN + 1):
        if chain:
            box = restore(daemon, chain[-1])["id"]
            change = pages(depth * 100, 100, depth)
            daemon.host.vm(box).pages = dict(change)
            want |= change
        chain.append(snapshot(daemon, box)["id"])
        assert daemon.delete(f"/v1/sandboxes/{box}/delete").status == 200

    def restored(id):
        began = time.monotonic()
        copy = restore(daemon, id)
        took = time.monotonic() - began
        vm = daemon.host.vm(copy["id"])
        assert vm.layers == chain.index(id) + 1
        if id == chain[-1]:
            assert {n: vm.read_page(n) for n in want} == want
        assert daemon.delete(
            f"/v1/sandboxes/{copy['id']}/delete").status == 200
        return took

    def first(id):
        assert daemon.stop() == 0
        daemon.start()
        return restored(id)

    # In turns, and until the machine had a quiet moment for both.
    for how in first, restored:
        short, long = [], []
        while len(short) < 5 or (min(long) > 2 * min(short)
                                 and len(short) < 20):
            short.append(how(chain[1]))
            long.append(how(chain[-1]))
        print(f"{how.__name__}: chain of 2 {min(short) * 1000:.1f} ms, "
              f"of {CHAIN} {min(long) * 1000:.1f} ms")
        assert min(long) <= 2 * min(short), how.__name__


@pytest.fixture
def small_disk(tmp_path):
    """64 MiB for brigd's state."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700",
                    "tmpfs", state], check=True)
    yield state
    subprocess.run(["umount", "--lazy", state], check=True)


def free_bytes(path):
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def test_full_disk(small_disk, daemon):
    """507, the sandbox runs on, nothing is left, and then it works again."""
    box = daemon.create()
    daemon.host.vm(box).pages = pages(100, 2000, 1)
    daemon.host.vm(box).set_cgroup(0, 8 << 20)
    kept = snapshot(daemon, box)["id"]
    assert wait_until(lambda: len(objects(daemon)) == 3)
    before = free_bytes(small_disk)
    filler = small_disk / "filler"
    # The last sixteenth, 4 MiB, is for the disks of sandboxes that run. What
    # a sandbox may be worth has to be there before anything is written ...
    for room in (0, 1 << 20, 7 << 20, 11 << 20):
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free_bytes(small_disk) - room)
        for path, body in ((f"/v2/sandboxes/{box}/snapshots", {}),
                           (f"/v2/sandboxes/{box}/snapshots",
                            {"quick": True}),
                           (f"/v1/sandboxes/{box}/snapshot", {}),
                           (f"/v2/sandboxes/{box}/pause", {})):
            reply = daemon.post(path, body)
            assert (reply.status, room) == (507, room), reply.body
            assert daemon.out(box, "echo on") == "on\n"
            assert not daemon.host.vm(box).frozen
            assert not daemon.host.vm(box).paused
        assert len(manifests(daemon)) == 1
        os.unlink(filler)
        assert wait_until(lambda: len(objects(daemon)) == 3)
        # Its layers stay its own; of memory and state nothing is left.
        assert before - free_bytes(small_disk) < 1 << 20, room
    for id in (kept, snapshot(daemon, box)["id"]):
        vm = daemon.host.vm(restore(daemon, id)["id"])
        want = pages(100, 2000, 1)
        assert {n: vm.read_page(n) for n in want} == want
    assert daemon.process.poll() is None
