# test_observe.py - status, logs, boot log, host: what brigd says of itself.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from support import wait_for

import brig


def test_status(sandbox):
    status = sandbox.load()
    assert status.sandbox_name == "shared"
    assert 0 <= status.current.cpu_percent <= 100
    assert 10 < status.current.memory_mb <= 256
    assert 0 < status.current.memory_percent <= 100
    moment = datetime.fromisoformat(status.timestamp.replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - moment).total_seconds()) < 5


def test_status_sees_load(sandbox):
    idle = sandbox.load().current
    with sandbox.stream(
        "python3 -c \"b = b'x' * (64 << 20); print('up', flush=True)\n"
        'while True: pass"'
    ) as stream:
        assert next(stream) == ("stdout", "up\n")
        sandbox.load()
        time.sleep(1)
        busy = sandbox.load().current
    assert busy.memory_mb > idle.memory_mb + 50
    assert busy.cpu_percent > 50


def test_status_has_a_history(sandbox):
    history = wait_for(lambda: sandbox.load().history, 15, "a sample")
    times = [point.timestamp for point in history]
    assert times == sorted(times)
    assert all(0 < point.memory_mb <= 256 for point in history)


def test_logs_tell_what_was_run(client, sandbox):
    word = uuid.uuid4().hex
    ran = sandbox.run(
        f"echo {word}; echo err >&2; exit 3", working_dir="/tmp", timeout=20
    )
    with sandbox.stream(f"echo streamed {word}") as stream:
        list(stream)
    sandbox.run(f": {word}; sleep 60", timeout=1)

    def mine():
        logs = sandbox.logs(limit=1000).logs
        found = [entry for entry in logs if word in entry.command]
        return found if len(found) == 3 else None

    found = wait_for(mine, 5, "three log entries")
    by_kind = {(one.source, one.status): one for one in found}
    sync = by_kind["sync", "completed"]
    assert (sync.exit_code, sync.stdout) == (3, f"{word}\n")
    assert (sync.stderr, sync.working_dir) == ("err\n", "/tmp")
    assert sync.execution_id == ran.id
    assert sync.sandbox_id == sandbox.id and sync.request_id
    assert sync.stdout_truncated is False
    assert by_kind["stream", "completed"].exit_code == 0
    late = by_kind["sync", "timeout"]
    assert late.exit_code == 124 and 900 < late.execution_time_ms < 3000


def test_logs_can_be_narrowed(client, sandbox):
    for number in range(3):
        sandbox.run(f"echo log {number}", timeout=20)
    wait_for(lambda: client.sandboxes.logs().total >= 3, 5, "log entries")
    page = client.sandboxes.logs(limit=2)
    assert len(page.logs) == 2 and page.total >= 3
    now = datetime.now(timezone.utc)

    def iso(moment):
        return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    future = client.sandboxes.logs(since=iso(now + timedelta(hours=1)))
    assert (future.logs, future.total) == ([], 0)
    past = client.sandboxes.logs(
        since=iso(now - timedelta(days=3)), until=iso(now - timedelta(days=2))
    )
    assert past.logs == []
    other = client.sandboxes.logs(sandbox_id="sb_" + "0" * 24)
    assert other.logs == []


def test_host(client, sandbox):
    host = client.host()
    assert host["version"]
    assert host["kvm"]["kind"] == "hardware"
    assert host["kvm"]["iterations_per_s"] > 0
    assert "default" in host["images"]
    assert host["sandboxes"] >= 1
    assert 256 <= host["memory_mib_committed"] <= host["memory_mib_total"]


def test_get(client, sandbox):
    got = client.sandboxes.get(sandbox.id)
    assert (got.name, got.status, got.reason) == ("shared", "running", None)
    assert (got.memory, got.image) == (256, "default")
    before = got.stats
    sandbox.run("head -c 5000000 /dev/urandom >f; sync; rm f", timeout=20)
    after = client.sandboxes.get(sandbox.id).stats
    grown = [
        name for name in before
        if isinstance(before[name], int) and after[name] > before[name]
    ]
    assert any("write" in name for name in grown), after


def test_console(sandbox):
    text = sandbox.console()
    assert isinstance(text, str) and len(text.encode()) <= 3 * 65536


def test_admission(client):
    """More memory than there is gets a clear answer and no sandbox."""
    total = client.host()["memory_mib_total"]
    if total >= 16384:
        count = total // 16384 + 1
        made = []
        try:
            with pytest.raises(brig.ServerError) as caught:
                for _ in range(count):
                    made.append(
                        client.sandboxes.create(
                            memory=16384, wait_for_ready=False
                        )
                    )
        finally:
            for sandbox in made:
                sandbox.delete()
    else:
        with pytest.raises(brig.ServerError) as caught:
            client.sandboxes.create(memory=16384, wait_for_ready=False)
    assert caught.value.status in (503, 507)
    assert "memory" in caught.value.message
