# test_snapshots.py - templates, snapshots, clones, and what moves a sandbox.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import brig
import pytest
from conftest import DESCRIBED, SANDBOX
from fake_server import refuse_early, reply

SNAPSHOT = {
    "id": "snap_1",
    "name": "warm",
    "status": "ready",
    "kind": "memory",
    "consistency": "application",
    "created_at": "2026-01-01T00:00:00.000Z",
    "source_sandbox_id": "sb_1",
    "source_sandbox_name": "calm-otter",
    "image": "default",
    "vcpus": 2,
    "memory_mib": 512,
    "disk_gib": 10,
    "parent": None,
    "own_bytes": 4096,
    "shared_bytes": 1 << 20,
    "pause_us": 850,
    "problem": None,
    "of_the_future": 1,
}

TEMPLATE = {
    "name": "numpy",
    "snapshot_id": "snap_2",
    "image": "default",
    "vcpus": 2,
    "memory_mib": 512,
    "disk_gib": 10,
    "warm": "python3 -c 'import numpy'",
    "status": "ready",
    "automatic": False,
    "resident_bytes": 1 << 28,
    "created_at": "2026-01-01T00:00:00.000Z",
}


def asked(server, at=-1):
    """Method, path and JSON of a request; None for no body."""
    request = server.requests[at]
    body = request.json() if request.body else None
    return request.method, request.target, body


# --- creating ---------------------------------------------------------------


def test_create_from_a_template(client, server):
    server.add_json(dict(DESCRIBED, origin="template", template="numpy"))
    made = client.sandboxes.create(
        template="numpy", name="n", vcpus=2, memory=512, storage=10,
        env={"A": "1"}, wait_for_ready=True, idempotency_key="k",
    )
    assert asked(server) == (
        "POST",
        "/v2/sandboxes",
        {
            "template": "numpy", "name": "n", "vcpus": 2, "memory_mib": 512,
            "disk_gib": 10, "env": {"A": "1"}, "wait_for_ready": True,
        },
    )
    assert server.requests[0].headers["idempotency-key"] == "k"
    assert (made.origin, made.template) == ("template", "numpy")
    assert made.snapshot_id is None


def test_create_with_whole_cpus(client, server):
    server.add_json(DESCRIBED)
    client.sandboxes.create(vcpus=4)
    assert asked(server) == ("POST", "/v2/sandboxes", {"vcpus": 4})


@pytest.mark.parametrize("other", [
    {"template": "t"}, {"snapshot": "snap_1"}, {"vcpus": 1}, {"count": 2},
])
def test_create_takes_one_kind_of_cpus(client, server, other):
    with pytest.raises(TypeError, match="vcpus instead of cpus"):
        client.sandboxes.create(cpus=4, **other)
    assert server.requests == []


def test_options_that_there_are_not(client, sandbox, server):
    with pytest.raises(TypeError, match="no option 'tempalte'.*template"):
        brig.Sandbox.create(client, tempalte="x")
    with pytest.raises(TypeError, match="no option 'timeout'.*timeout_s"):
        sandbox.python("1", timeout=3)
    assert server.requests == []


def test_create_is_repeated_but_not_with_a_count(client, server):
    server.add_error(503, "busy")
    server.add_json(DESCRIBED)
    client.sandboxes.create(template="t")
    first, second = [r.headers["idempotency-key"] for r in server.requests]
    assert first == second
    server.add_error(503, "busy")
    with pytest.raises(brig.ServerError):
        client.sandboxes.create(template="t", count=2)
    assert len(server.requests) == 3


def test_create_with_a_count(client, server):
    two = [dict(DESCRIBED, id=f"sb_{n}") for n in (1, 2)]
    server.add_json({"sandboxes": two, "errors": []})
    made = client.sandboxes.create(snapshot="snap_1", count=2)
    assert asked(server)[2] == {"snapshot": "snap_1", "count": 2}
    assert [one.id for one in made] == ["sb_1", "sb_2"]
    # brigd refuses it with a count: it stands for one sandbox.
    assert "idempotency-key" not in server.requests[0].headers
    with pytest.raises(TypeError, match="idempotency_key"):
        client.sandboxes.create(count=2, idempotency_key="k")


def test_create_where_only_some_come_up(client, server):
    error = {"code": "out_of_memory", "message": "no room"}
    server.add_json(
        {"sandboxes": [DESCRIBED], "errors": [{"error": error}] * 2}
    )
    with pytest.raises(brig.PartialError, match="2 of 3.*no room") as caught:
        client.sandboxes.create(count=3)
    assert [one.id for one in caught.value.sandboxes] == ["sb_2"]
    assert caught.value.failures == [error, error]


def test_receipt(client, server):
    server.add_json(DESCRIBED)
    receipt = client.sandboxes.get("sb_2").receipt
    assert receipt.entropy_reseeded and receipt.clock_set
    assert (receipt.clock_error_ms, receipt.hooks_failed) == (0.4, 0)
    assert receipt.hostname == "calm-heron"
    assert receipt.steps_us["total"] == 3300


def test_receipt_of_a_sandbox_that_is_not_ready(client, server):
    server.add_json(dict(DESCRIBED, status="creating", receipt=None))
    server.add_json(DESCRIBED)
    made = client.sandboxes.create(template="t", wait_for_ready=False)
    assert made.receipt is None
    assert made.refresh().receipt.machine_id.startswith("0123")


def test_a_receipt_claims_nothing_that_is_not_in_it(client, server):
    server.add_json(dict(DESCRIBED, receipt={}))
    receipt = client.sandboxes.get("sb_2").receipt
    assert not receipt.entropy_reseeded and not receipt.clock_set


# --- snapshots --------------------------------------------------------------


def test_snapshot_and_restore(server, sandbox):
    server.add_json(SNAPSHOT)
    snapshot = sandbox.snapshot("warm", quick=True, memory=False)
    assert asked(server) == (
        "POST",
        "/v2/sandboxes/sb_1/snapshots",
        {"name": "warm", "quick": True, "memory": False},
    )
    assert (snapshot.id, snapshot.kind, snapshot.pause_us) == (
        "snap_1", "memory", 850,
    )
    server.add_json(dict(DESCRIBED, origin="snapshot", snapshot="snap_1"))
    restored = snapshot.restore(name="again")
    assert asked(server) == (
        "POST", "/v2/sandboxes", {"snapshot": "snap_1", "name": "again"},
    )
    assert (restored.origin, restored.snapshot_id) == ("snapshot", "snap_1")


def test_snapshot_by_the_client(client, server):
    server.add_json(SNAPSHOT)
    snapshot = client.sandboxes.create_snapshot("sb_1")
    assert asked(server) == ("POST", "/v2/sandboxes/sb_1/snapshots", {})
    server.add_json(DESCRIBED)
    client.sandboxes.create_from_snapshot(snapshot.id, memory=256)
    assert asked(server)[2] == {"snapshot": "snap_1", "memory_mib": 256}
    assert "sb_1" in repr(snapshot) and "Client" not in repr(snapshot)


def test_a_snapshot_is_not_asked_for_twice(server, sandbox):
    server.add_error(507, "no_space")
    with pytest.raises(brig.InsufficientStorageError):
        sandbox.snapshot()
    assert len(server.requests) == 1


def test_snapshots_list_get_delete(client, server):
    server.add_json({"snapshots": [SNAPSHOT, dict(SNAPSHOT, id="snap_2")]})
    first, second = client.snapshots.list()
    assert (first.id, second.id) == ("snap_1", "snap_2")
    assert server.requests[0].target == "/v2/snapshots"
    server.add_json(SNAPSHOT)
    assert client.snapshots.get("snap_1") == first
    assert server.requests[1].target == "/v2/snapshots/snap_1"
    server.add_json({"deferred": True, "message": "later", "name": "warm"})
    assert first.delete().deferred
    assert asked(server) == ("DELETE", "/v1/snapshots/snap_1", None)


@pytest.mark.parametrize("answer", [{}, [], "snap_1", {"id": "snap_1"}])
def test_what_is_no_snapshot(client, server, answer):
    server.add_json(answer)
    with pytest.raises(brig.ProtocolError):
        client.snapshots.get("snap_1")


def test_export_and_import(client, server, tmp_path):
    content = os.urandom(200_000)
    server.add(reply(content))
    steps = []
    size = client.snapshots.export(
        "snap_1", tmp_path / "x", progress=lambda *step: steps.append(step)
    )
    assert size == 200_000 and (tmp_path / "x").read_bytes() == content
    assert steps[-1] == (200_000, 200_000)
    assert server.requests[0].target == "/v2/snapshots/snap_1/export"

    server.add_json(SNAPSHOT)
    steps.clear()
    snapshot = client.snapshots.import_(
        tmp_path / "x", progress=lambda *step: steps.append(step)
    )
    assert snapshot.id == "snap_1"
    request = server.requests[1]
    assert (request.method, request.target) == ("POST", "/v2/snapshots/import")
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["content-length"] == "200000"
    assert request.body == content
    assert steps[-1] == (200_000, 200_000)


def test_import_from_a_pipe(client, server):
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)
    server.add_json(SNAPSHOT)
    with open(reader, "rb") as file:
        client.snapshots.import_(file)
    assert server.requests[0].headers["transfer-encoding"] == "chunked"
    assert server.requests[0].body == b"piped"


def test_an_import_that_is_refused(client, server):
    server.add(refuse_early(422, "damaged"))
    with pytest.raises(brig.UnprocessableError) as caught:
        client.snapshots.import_(b"x" * (8 << 20))
    assert caught.value.code == "damaged"


def test_a_broken_export_leaves_the_old_file(client, server, tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    server.add(reply(b"new", length=100, close=True))
    with pytest.raises(brig.ConnectionError):
        client.snapshots.export("snap_1", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


# --- templates --------------------------------------------------------------


def test_templates(client, server):
    server.add_json(TEMPLATE)
    made = client.templates.create(
        "numpy", image="default", vcpus=2, memory=512, storage=10,
        warm="python3 -c 'import numpy'",
    )
    assert asked(server) == (
        "POST",
        "/v2/templates",
        {
            "name": "numpy", "image": "default", "vcpus": 2,
            "memory_mib": 512, "disk_gib": 10,
            "warm": "python3 -c 'import numpy'",
        },
    )
    assert (made.status, made.resident_bytes) == ("ready", 1 << 28)
    assert made.warm == "python3 -c 'import numpy'" and not made.automatic
    server.add_json({"templates": [TEMPLATE]})
    assert client.templates.list() == [made]
    server.add_json(TEMPLATE)
    assert client.templates.get("numpy") == made
    server.add(reply(b"", status=204))
    assert client.templates.delete("numpy") is None
    assert [asked(server, at)[:2] for at in (1, 2, 3)] == [
        ("GET", "/v2/templates"),
        ("GET", "/v2/templates/numpy"),
        ("DELETE", "/v2/templates/numpy"),
    ]


def test_a_template_whose_warm_up_fails(client, server):
    server.add_error(422, "warm_failed")
    with pytest.raises(brig.UnprocessableError):
        client.templates.create("t", warm="false")
    assert asked(server)[2] == {"name": "t", "warm": "false"}


# --- clones, and what moves a sandbox ---------------------------------------


def test_clone(server, sandbox):
    three = [dict(DESCRIBED, id=f"sb_{n}") for n in (2, 3, 4)]
    server.add_json({"sandboxes": three, "errors": []})
    clones = sandbox.clone(3, name="twin")
    assert asked(server) == (
        "POST", "/v2/sandboxes/sb_1/clone", {"count": 3, "name": "twin"},
    )
    assert [one.id for one in clones] == ["sb_2", "sb_3", "sb_4"]
    assert all(one.receipt.entropy_reseeded for one in clones)
    server.add_json({"sandboxes": [DESCRIBED], "errors": []})
    assert len(sandbox.clone()) == 1
    assert asked(server)[2] == {"count": 1}


def test_clone_where_none_comes_up(server, sandbox):
    error = {"code": "internal", "message": "it broke"}
    server.add_json({"sandboxes": [], "errors": [{"error": error}]})
    with pytest.raises(brig.PartialError, match="1 of 1") as caught:
        sandbox.clone()
    assert caught.value.sandboxes == []


@pytest.mark.parametrize("what, status", [
    ("pause", "paused"), ("resume", "running"), ("reset", "running"),
])
def test_pause_resume_reset(client, server, sandbox, what, status):
    told = dict(DESCRIBED, id="sb_1", status=status)
    server.add_json(told)
    assert getattr(sandbox, what)() is sandbox
    assert asked(server) == ("POST", f"/v2/sandboxes/sb_1/{what}", None)
    assert (sandbox.status, sandbox.vcpus) == (status, 2)
    server.add_json(told)
    assert getattr(client.sandboxes, what)("sb_1").status == status


def test_rollback(server, sandbox):
    server.add_json(SNAPSHOT)
    snapshot = sandbox.snapshot()
    for to in (snapshot, "snap_1"):
        server.add_json(dict(DESCRIBED, id="sb_1", snapshot="snap_1"))
        assert sandbox.rollback(to).snapshot_id == "snap_1"
        assert asked(server) == (
            "POST", "/v2/sandboxes/sb_1/rollback", {"snapshot": "snap_1"},
        )


def test_a_move_that_cannot_be(server, sandbox):
    server.add_error(422, "sandbox_not_paused")
    with pytest.raises(brig.UnprocessableError) as caught:
        sandbox.resume()
    assert caught.value.code == "sandbox_not_paused"
    assert sandbox.status == "running"


def test_delete_into_a_snapshot(client, server):
    server.add_json(
        {
            "id": "sb_1", "message": "gone", "snapshot_created": True,
            "snapshot_name": "last",
        }
    )
    result = client.sandboxes.delete(
        "sb_1", create_snapshot=True, snapshot_name="last"
    )
    assert (result.snapshot_created, result.snapshot_name) == (True, "last")
    assert asked(server) == (
        "DELETE", "/v1/sandboxes/sb_1/delete",
        {"create_snapshot": True, "snapshot_name": "last"},
    )
    server.add_error(503, "busy")
    with pytest.raises(brig.ServerError):
        client.sandboxes.delete("sb_1", create_snapshot=True)
    assert len(server.requests) == 2


def test_a_clone_belongs_to_the_client_of_its_source(monkeypatch, server):
    monkeypatch.setenv("BRIG_BASE_URL", server.url)
    monkeypatch.setenv("BRIG_API_KEY", "k")
    server.add_json(SANDBOX)
    server.add_json({"sandboxes": [DESCRIBED], "errors": []})
    gone = {"id": "x", "message": "gone"}
    server.add_json(gone)
    server.add_json(gone)
    with brig.Sandbox.create() as source:
        (clone,) = source.clone()
    clone.delete()
    assert [r.target for r in server.requests[2:]] == [
        "/v1/sandboxes/sb_1/delete", "/v1/sandboxes/sb_2/delete",
    ]


# --- code -------------------------------------------------------------------

RUN = {
    "id": "ex_1", "sandbox_id": "sb_1", "exit_code": 0, "signal": None,
    "reason": "exit", "stdout": "42\n", "stdout_encoding": "utf-8",
    "stdout_bytes": 3, "stdout_truncated": False, "stderr": "",
    "stderr_encoding": "utf-8", "stderr_bytes": 0, "stderr_truncated": False,
    "created_at": "t", "completed_at": "t", "usage": {},
}


def test_run_code(client, server, sandbox):
    server.add_json(RUN)
    result = sandbox.run_code(
        "print(6 * 7)", cwd="/tmp", env={"A": "1"}, user="user", stdin="in",
        timeout_s=2, output_limit=100,
    )
    assert asked(server) == (
        "POST",
        "/v2/sandboxes/sb_1/code",
        {
            "language": "python", "code": "print(6 * 7)", "cwd": "/tmp",
            "env": {"A": "1"}, "user": "user", "stdin": "in", "timeout_s": 2,
            "output_limit": 100,
        },
    )
    assert (result.stdout, result.ok) == ("42\n", True)


@pytest.mark.parametrize("run, language", [
    (lambda s, c: s.python(c), "python"),
    (lambda s, c: s.run_code(c, "node"), "node"),
    (lambda s, c: s._client.sandboxes.code(s.id, "bash", c), "bash"),
])
def test_languages(server, sandbox, run, language):
    server.add_json(dict(RUN, exit_code=1, stderr="why"))
    result = run(sandbox, "x")
    assert asked(server)[2] == {"language": language, "code": "x"}
    with pytest.raises(brig.CommandError, match="exit code 1: why"):
        result.check()
