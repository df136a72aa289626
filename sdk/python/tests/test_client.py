# test_client.py - address and key, the requests, and what becomes of answers.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import brig
import pytest
from conftest import SANDBOX


@pytest.fixture
def no_environment(monkeypatch):
    monkeypatch.delenv("BRIG_BASE_URL", raising=False)
    monkeypatch.delenv("BRIG_API_KEY", raising=False)
    return monkeypatch


def test_address_and_key_from_the_environment(no_environment, server):
    no_environment.setenv("BRIG_BASE_URL", server.url + "/")
    no_environment.setenv("BRIG_API_KEY", "from-env")
    server.add_json({"version": "0.1.0"})
    with brig.Client() as client:
        assert client.host() == {"version": "0.1.0"}
    assert server.requests[0].headers["x-api-key"] == "from-env"
    assert server.requests[0].target == "/v2/host"


def test_arguments_win_over_the_environment(no_environment, server):
    no_environment.setenv("BRIG_BASE_URL", "http://127.0.0.1:1")
    no_environment.setenv("BRIG_API_KEY", "from-env")
    server.add_json({})
    with brig.Client(server.url, "given") as client:
        client.host()
    assert server.requests[0].headers["x-api-key"] == "given"


def test_key_file(no_environment, tmp_path, server):
    (tmp_path / "key").write_text("from-file\n")
    server.add_json({})
    with brig.Client(server.url, key_file=str(tmp_path / "key")) as client:
        client.host()
    assert server.requests[0].headers["x-api-key"] == "from-file"


def test_no_key_says_what_to_do(no_environment, tmp_path):
    with pytest.raises(brig.ConfigurationError) as caught:
        brig.Client(key_file=str(tmp_path / "none"))
    assert "BRIG_API_KEY" in str(caught.value)
    assert str(tmp_path / "none") in str(caught.value)


@pytest.mark.parametrize("key", ["a b", "a\r\nx: y", "clé"])
def test_key_that_cannot_be_in_a_header(key):
    with pytest.raises(brig.ConfigurationError):
        brig.Client("http://127.0.0.1:1", key)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:2744", "https://x", "http://", "http://h:port"]
)
def test_address_that_is_none(url):
    with pytest.raises(brig.ConfigurationError):
        brig.Client(url, "key")


def test_create_sends_what_was_given(client, server):
    server.add_json(SANDBOX)
    sandbox = client.sandboxes.create(
        image="default", name="n", cpus=2, memory=256, storage=5,
        env={"A": "1"}, wait_for_ready=False, idempotency_key="k1",
    )
    request = server.requests[0]
    assert (request.method, request.target) == ("POST", "/v1/sandboxes/create")
    assert request.headers["idempotency-key"] == "k1"
    assert request.json() == {
        "image": "default",
        "name": "n",
        "resources": {"cpus": 2, "memory": 256, "storage": 5},
        "env_vars": {"A": "1"},
        "wait_for_ready": False,
    }
    assert (sandbox.id, sandbox.memory, sandbox.storage) == ("sb_1", 256, 10)


def test_create_without_arguments(client, server):
    server.add_json(SANDBOX)
    server.add_json(SANDBOX)
    client.sandboxes.create()
    client.sandboxes.create()
    assert [r.json() for r in server.requests] == [{}, {}]
    keys = {r.headers["idempotency-key"] for r in server.requests}
    assert len(keys) == 2


def page(number, total_pages):
    return {
        "data": [dict(SANDBOX, id=f"sb_{number}", disk_size=10)],
        "pagination": {
            "page": number,
            "page_size": 1,
            "total_items": total_pages,
            "total_pages": total_pages,
        },
    }


def test_list_and_list_all(client, server):
    server.add_json(page(1, 3))
    got = client.sandboxes.list(page=1, page_size=1)
    assert (got.total_items, len(got), got.page) == (3, 1, 1)
    for number in (1, 2, 3):
        server.add_json(page(number, 3))
    every = list(client.sandboxes.list_all(page_size=1))
    assert [one.id for one in every] == ["sb_1", "sb_2", "sb_3"]
    assert server.requests[0].target == "/v1/sandboxes/list?page=1&page_size=1"
    assert "page=3" in server.requests[3].target


def test_get_knows_more(client, server):
    server.add_json(
        {
            "id": "sb_1", "name": "n", "status": "failed",
            "reason": "guest_panic", "image": "default", "vcpus": 2,
            "memory_mib": 512, "disk_bytes": 1 << 30, "created_at": "t",
            "ready_ms": 5000, "stats": {"x": 1},
        }
    )
    sandbox = client.sandboxes.get("sb_1")
    assert sandbox.reason == "guest_panic"
    assert (sandbox.vcpus, sandbox.memory) == (2, 512)
    assert sandbox.stats == {"x": 1}
    assert server.requests[0].target == "/v2/sandboxes/sb_1"


def test_ids_are_escaped_in_paths(client, server):
    server.add_error(404, "not_found")
    with pytest.raises(brig.NotFoundError):
        client.sandboxes.get("../x y?")
    assert server.requests[0].target == "/v2/sandboxes/..%2Fx%20y%3F"


def test_delete_and_delete_all(client, server):
    server.add_json({"id": "sb_1", "message": "gone"})
    assert client.sandboxes.delete("sb_1").message == "gone"
    server.add_json(
        {
            "deleted_count": 2, "deleted_ids": ["a", "b"], "message": "m",
            "storage_deleted_count": 0,
        }
    )
    result = client.sandboxes.delete_all()
    assert (result.deleted_ids, result.errors) == (["a", "b"], [])
    assert [r.method for r in server.requests] == ["DELETE", "DELETE"]
    assert server.requests[0].target == "/v1/sandboxes/sb_1/delete"


def test_status_and_logs(client, server):
    server.add_json(
        {
            "sandbox_name": "n", "timestamp": "t",
            "current": {
                "cpu_percent": 1.5, "memory_mb": 90, "memory_percent": 35.0,
            },
            "history": [{"cpu_percent": 1, "memory_mb": 80, "timestamp": "t"}],
        }
    )
    status = client.sandboxes.status("sb_1")
    assert status.current.memory_percent == 35.0
    assert status.history[0].memory_mb == 80
    entry = {
        "command": "true", "execution_time_ms": 5, "exit_code": 0,
        "request_id": "r", "sandbox_id": "sb_1", "source": "sync",
        "status": "completed", "timestamp": "t", "execution_id": "ex_1",
        "stdout": "", "stderr": "", "stdout_truncated": False,
        "stderr_truncated": False, "working_dir": None, "new_field": 1,
    }
    server.add_json({"logs": [entry], "total": 1})
    logs = client.sandboxes.logs(sandbox_id="sb_1", limit=10, since="2026")
    assert (logs.total, logs.logs[0].command) == (1, "true")
    assert server.requests[1].target == (
        "/v1/sandboxes/logs?sandbox_id=sb_1&from=2026&limit=10"
    )


def test_console(client, server):
    from fake_server import reply

    server.add(reply(b"Linux \xff\n"))
    assert client.sandboxes.console("sb_1") == "Linux \ufffd\n"


def test_sandbox_block_deletes_at_the_end(client, server, sandbox):
    server.add_json({"id": "sb_1", "message": "gone"})
    with sandbox:
        pass
    assert server.requests[0].target == "/v1/sandboxes/sb_1/delete"


def test_sandbox_block_when_it_is_gone_already(server, sandbox):
    server.add_error(404, "not_found")
    with sandbox:
        pass
    assert len(server.requests) == 1


def test_sandbox_block_keeps_the_first_error(server, sandbox):
    for _ in range(3):
        server.add_error(500, "internal")
    with pytest.raises(ZeroDivisionError):
        with sandbox:
            1 // 0
    for _ in range(3):
        server.add_error(500, "internal")
    with pytest.raises(brig.ServerError):
        with sandbox:
            pass


def test_sandbox_create_without_a_client(monkeypatch, server):
    monkeypatch.setenv("BRIG_BASE_URL", server.url)
    monkeypatch.setenv("BRIG_API_KEY", "k")
    server.add_json(SANDBOX)
    server.add_json({"id": "sb_1", "message": "gone"})
    with brig.Sandbox.create(memory=256) as sandbox:
        assert sandbox.name == "calm-otter"
    assert json.loads(server.requests[0].body)["resources"] == {"memory": 256}


def test_wait_until_ready(monkeypatch, server, sandbox):
    state = {"id": "sb_1", "name": "n", "created_at": "t"}
    server.add_json(dict(state, status="creating"))
    server.add_json(dict(state, status="running", reason=None))
    assert sandbox.wait_until_ready().status == "running"
    server.add_json(dict(state, status="failed", reason="boot_timeout"))
    with pytest.raises(brig.SandboxFailedError, match="boot_timeout"):
        sandbox.wait_until_ready()
    server.add_json(dict(state, status="creating"))
    with pytest.raises(brig.RequestTimeoutError):
        sandbox.wait_until_ready(timeout=-1)
