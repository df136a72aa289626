# test_many.py - 20 sandboxes side by side, and nothing is left of them.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import sqlite3

import pytest
from support import (
    environment,
    in_parallel,
    inside,
    pid_inside,
    quiet_inventory,
    settled_pools,
    state_folder,
    wait_for,
)

import brig

COUNT = 20


def rows_of_sandboxes(folder):
    """Rows in brigd's table of sandboxes, from a copy of its database."""
    for name in ("brig.db", "brig.db-wal"):
        path = f"{state_folder()}/{name}"
        text = inside(f"base64 {path} 2>/dev/null || true")
        (folder / name).write_bytes(base64.b64decode(text))
    with sqlite3.connect(folder / "brig.db") as database:
        return database.execute("SELECT count(*) FROM sandboxes").fetchone()[0]


@pytest.fixture
def patient():
    """A client that waits for the last of twenty boots that take turns."""
    client = brig.Client(
        environment("BRIG_BASE_URL"), environment("BRIG_API_KEY"), timeout=300
    )
    yield client
    client.close()


@pytest.fixture
def empty_host(client, shared, api, new_sandbox):
    """What the host looks like without any sandbox, but with the template from
    which the twenty will come."""
    shared.drop()
    client.sandboxes.delete_all()
    new_sandbox(memory=256).delete()
    client.close()
    settled_pools(api)
    return quiet_inventory(api, 0)


def compute(sandbox, number):
    """Something that only this sandbox's program can have said."""
    result = sandbox.run(
        f"python3 -c 'print(sum(i * {number} for i in range(200000)))'; "
        "cat /proc/sys/kernel/random/boot_id; hostname",
        timeout=120,
    ).check()
    value, boot_id, hostname = result.stdout.split()
    assert int(value) == number * 199999 * 200000 // 2
    return boot_id, hostname


def check_pages(client, ids):
    pages = [client.sandboxes.list(page=n, page_size=7) for n in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [7, 7, 6, 0]
    for page in pages:
        assert (page.total_items, page.total_pages) == (COUNT, 3)
    assert sorted(one.id for page in pages for one in page) == sorted(ids)
    assert all(one.status == "running" for page in pages for one in page)


def test_twenty_sandboxes(patient, empty_host, api, tmp_path):
    client = patient
    sandboxes = in_parallel(
        [lambda: brig.Sandbox.create(client, memory=256)] * COUNT
    )
    ids = [sandbox.id for sandbox in sandboxes]
    assert len(set(ids)) == len({s.name for s in sandboxes}) == COUNT
    assert quiet_inventory(api, COUNT)["leased_uids"] == COUNT
    uids = inside(
        "cd /sys/fs/cgroup/brig; for id in " + " ".join(ids) + "; do "
        "grep ^Uid: /proc/$(head -1 $id/cgroup.procs)/status; done"
    )
    assert len({line.split()[1] for line in uids.splitlines()}) == COUNT

    # The first command of a restored guest costs most of a second of the one
    # emulated processor: twenty at once would outlast the agent's deadline.
    for sandbox in sandboxes:
        sandbox.run("python3 -c ''", timeout=60).check()
    said = in_parallel(
        [lambda s=s, n=n: compute(s, n + 1) for n, s in enumerate(sandboxes)]
    )
    assert len({boot_id for boot_id, _ in said}) == COUNT
    assert [name for _, name in said] == [s.name for s in sandboxes]
    check_pages(client, ids)

    result = client.sandboxes.delete_all()
    assert result.deleted_count == COUNT
    assert sorted(result.deleted_ids) == sorted(ids)
    assert result.errors == []
    client.close()  # its kept connections are not brigd's fault

    settled_pools(api)

    def left():
        after = quiet_inventory(api, 0)
        return {k: v for k, v in after.items() if v > empty_host[k]}

    wait_for(lambda: not left(), 10, f"nothing is left, but {left()}")
    assert client.sandboxes.list().total_items == 0
    for id in ids[:3]:
        with pytest.raises(brig.NotFoundError):
            client.sandboxes.get(id)
    assert rows_of_sandboxes(tmp_path) == 0
    spawn = pid_inside("brig-spawn")
    children = inside(f"cat /proc/{spawn}/task/*/children").split()
    host = client.host()
    ahead = host["pool"]["ready"] + host["standby"]
    assert len(children) == ahead, "children that nobody reaped"
