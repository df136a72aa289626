# test_api.py - the published format, end to end against a fake host.
# SPDX-License-Identifier: Apache-2.0

import json
import os
import re
import subprocess
import threading
import time
import urllib.parse

import pytest

from conftest import BRIGD, wait_until

CREATE = "/v1/sandboxes/create"
LIST = "/v1/sandboxes/list"


def test_create_execute_delete(daemon):
    reply = daemon.post(CREATE, {"name": "box"})
    assert reply.status == 200
    made = reply.json
    assert re.fullmatch(r"sb_[a-z0-9]{24}", made["id"])
    assert made["name"] == "box" and made["status"] == "running"
    assert (made["cpu"], made["memory"], made["storage"]) == (4, 512, 10)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
                        made["created_at"])
    vm = daemon.host.vm(made["id"])
    assert (vm.vcpus, vm.memory_mib, vm.disk_bytes) == (1, 512, 10 << 30)
    assert (vm.quota, vm.base_bytes, vm.hostname) == (100, 1 << 20, "box")
    assert abs(vm.realtime_ns / 1e9 - time.time()) < 5

    reply = daemon.execute(made["id"], "echo out; echo err >&2; exit 3")
    assert reply.status == 200
    run = reply.json
    assert run["stdout"] == "out\n" and run["stderr"] == "err\n"
    assert run["exit_code"] == 3 and run["status"] == "completed"
    assert run["execution_time_ms"] >= 0 and run["id"].startswith("ex_")
    assert run["completed_at"] >= run["created_at"]

    reply = daemon.delete(f"/v1/sandboxes/{made['id']}/delete")
    assert reply.status == 200 and reply.json["id"] == made["id"]
    assert reply.json["message"]
    assert not daemon.host.vms  # cleaned up before the reply
    assert daemon.delete(f"/v1/sandboxes/{made['id']}/delete").status == 404
    assert daemon.execute(made["id"], "true").status == 404


# --- create


def test_create_empty_body(daemon):
    for body in (None, "", "{}", " \n"):
        reply = daemon.post(CREATE, body)
        assert reply.status == 200, reply.body
        assert re.fullmatch(r"[a-z]+-[a-z]+-\d\d", reply.json["name"])


def test_create_resources(daemon):
    reply = daemon.post(CREATE, {"resources": {
        "cpus": 5, "memory": 256.0, "storage": 2}, "unknown": 1})
    assert reply.status == 200
    assert (reply.json["cpu"], reply.json["memory"]) == (5, 256)
    vm = daemon.host.vm(reply.json["id"])
    assert (vm.vcpus, vm.quota) == (2, 125)
    assert (vm.memory_mib, vm.disk_bytes) == (256, 2 << 30)


@pytest.mark.parametrize("field,value", [
    ("cpus", 0), ("cpus", -1), ("cpus", 33), ("cpus", 1.5), ("cpus", "4"),
    ("cpus", True), ("cpus", [1]), ("memory", 127), ("memory", 16385),
    ("memory", 1e300), ("memory", -512), ("storage", 0), ("storage", 257),
    ("storage", {})])
def test_create_bad_resources(daemon, field, value):
    reply = daemon.post(CREATE, {"resources": {field: value}})
    assert reply.status == 422 and field in reply.json["error"]["message"]
    assert not daemon.host.started


def test_create_unknown_image(daemon):
    reply = daemon.post(CREATE, {"image": "nope"})
    assert reply.status == 404 and reply.code == "image_not_found"
    assert not daemon.host.started


@pytest.mark.parametrize("body", [
    '{"resources": {"cpus": 99999999999999999999999}}',
    '{"resources": {"cpus": 1e999}}', '{"resources": 4}', '{"name": 4}',
    '{"name": ""}', '{"name": "-a"}', '{"name": "A"}', '{"name": "a.b"}',
    '{"name": "%s"}' % ("a" * 64), '{"name": "a\\u0000b"}',
    '{"image": "../etc"}', '{"image": ""}',
    '{"env_vars": []}', '{"env_vars": {"A": 1}}', '{"env_vars": {"A=B": ""}}',
    '{"env_vars": {"": "x"}}', '{"env_vars": {"A": "x\\u0000"}}',
    '{"wait_for_ready": "yes"}', '[]', '"text"', '5'])
def test_create_unprocessable(daemon, body):
    reply = daemon.post(CREATE, body,
                        headers={"content-type": "application/json"})
    assert reply.status == 422, reply.body
    assert not daemon.host.started


@pytest.mark.parametrize("body", [
    "{", '{"a":1}x', "nul", '{"a":1,"a":2}', "\xff", '{"\\ud800":1}',
    '{"name":"\\ud800"}', "[" * 5000])
def test_create_malformed(daemon, body):
    reply = daemon.post(CREATE, body.encode("latin-1"),
                        headers={"content-type": "application/json"})
    assert reply.status == 400 and reply.code == "malformed_json"


def test_create_unknown_image(daemon):
    reply = daemon.post(CREATE, {"image": "nope"})
    assert reply.status == 404 and reply.code == "image_not_found"


def test_create_storage_below_image(daemon):
    os.truncate(daemon.images / "default.ext4", 3 << 30)
    reply = daemon.post(CREATE, {"resources": {"storage": 2}})
    assert reply.status == 422


def test_create_no_memory(daemon):
    total = int(re.search(r"MemTotal:\s+(\d+)",
                          open("/proc/meminfo").read()).group(1)) >> 10
    if total > 15000:
        ballast = [daemon.post(CREATE, {"resources": {"memory": 128}})]
        assert ballast[0].status == 200
        return
    reply = daemon.post(CREATE, {"resources": {"memory": 16384}})
    assert reply.status == 503 and reply.headers["retry-after"]


def test_create_without_waiting(daemon):
    daemon.host.boot_delay = 0.5
    reply = daemon.post(CREATE, {"wait_for_ready": False})
    assert reply.status == 200 and reply.json["status"] == "creating"
    sandbox = reply.json["id"]
    assert daemon.execute(sandbox, "true").code == "sandbox_not_running"
    assert wait_until(lambda: daemon.get(
        f"/v2/sandboxes/{sandbox}").json["status"] == "running")


def test_no_sandbox_on_a_kvm_that_interprets(daemon):
    daemon.host.kvm = 1
    daemon.stop()
    daemon.start()
    assert wait_until(lambda: daemon.get("/v2/host").json["kvm"]["kind"]
                      == "emulated")
    reply = daemon.post(CREATE)
    assert reply.status == 503 and reply.code == "kvm_too_slow"
    assert not daemon.host.started


def test_boots_take_turns(daemon):
    """No more at once than there are processors; each gets its turn."""
    at_once = max(2, os.cpu_count())
    daemon.host.boot_delay = 0.3
    boxes = [daemon.post(CREATE, {"wait_for_ready": False}).json["id"]
             for _ in range(at_once + 3)]
    assert daemon.delete(f"/v1/sandboxes/{boxes[-1]}/delete").status == 200
    assert wait_until(lambda: len(daemon.host.started) >= at_once, 0.2)
    assert len(daemon.host.started) == at_once
    assert wait_until(lambda: all(
        daemon.get(f"/v2/sandboxes/{box}").json["status"] == "running"
        for box in boxes[:-1]))
    assert len(daemon.host.started) == at_once + 2


def test_boot_timeout(make_daemon):
    daemon = make_daemon("--boot-timeout", "1")
    daemon.host.boot = "never"
    reply = daemon.post(CREATE)
    assert reply.status == 500 and reply.code == "boot_failed"
    details = reply.json["error"]["details"]
    assert details["reason"] == "boot_timeout"
    assert "booting sb_" in details["console"]
    assert not daemon.host.vms
    assert daemon.get(LIST).json["data"] == []


@pytest.mark.parametrize("boot,reason", [
    ("panic", "guest_panic"), ("garbage", "agent_lost"),
    ("version", "agent_lost"), ("no_entropy", "identity"),
    ("no_clock", "identity"), ("no_hostname", "identity"),
    ("no_machine_id", "identity"), ("no_boot_id", "identity"),
    ("replay", "identity"), ("refuse", "identity")])
def test_boot_failed(daemon, boot, reason):
    daemon.host.boot = boot
    reply = daemon.post(CREATE)
    assert reply.status == 500 and reply.code == "boot_failed"
    assert reply.json["error"]["details"]["reason"] == reason
    assert daemon.get(LIST).json["data"] == []
    assert not daemon.host.vms
    daemon.host.boot = "ok"
    assert daemon.post(CREATE).status == 200


def test_boot_failed_without_waiting(daemon):
    daemon.host.boot = "panic"
    sandbox = daemon.create(wait_for_ready=False)
    assert wait_until(lambda: daemon.get(
        f"/v2/sandboxes/{sandbox}").json["status"] == "failed")
    reply = daemon.get(f"/v2/sandboxes/{sandbox}")
    assert reply.json["reason"] == "guest_panic"
    assert "Kernel panic" in daemon.get(
        f"/v2/sandboxes/{sandbox}/console").body.decode()
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200


def test_spawn_refuses(daemon):
    daemon.host.start_status = -28
    reply = daemon.post(CREATE)
    assert reply.status == 500 and reply.code == "boot_failed"
    assert daemon.get(LIST).json["data"] == []


def test_spawn_away_and_back(daemon):
    sandbox = daemon.create()
    daemon.host.sock.close()
    daemon.host.disconnect()
    assert wait_until(lambda: daemon.post(CREATE).status == 503)
    assert daemon.execute(sandbox, "echo still").json["stdout"] == "still\n"


def test_client_gives_up_create(daemon):
    daemon.host.boot_delay = 0.5
    conn = daemon.connect()
    conn.request("POST", CREATE, headers={"x-api-key": daemon.key})
    assert wait_until(lambda: daemon.host.started)
    conn.close()
    assert wait_until(lambda: [s["status"] for s in daemon.get(
        LIST).json["data"]] == ["running"])


# --- idempotency


def test_idempotency(daemon):
    headers = {"Idempotency-Key": "k1"}
    first = daemon.post(CREATE, {"name": "a"}, headers=headers)
    again = daemon.post(CREATE, {"name": "a"}, headers=headers)
    assert first.json["id"] == again.json["id"]
    assert daemon.post(CREATE, {"name": "b"}, headers=headers).status == 409
    assert len(daemon.host.started) == 1
    assert daemon.stop() == 0
    daemon.start()
    again = daemon.post(CREATE, {"name": "a"}, headers=headers)
    assert again.json["id"] == first.json["id"]


def test_idempotency_at_once(daemon):
    daemon.host.boot_delay = 0.3
    ids = []

    def create():
        reply = daemon.post(CREATE, {}, headers={"Idempotency-Key": "x"})
        ids.append((reply.status, reply.json["id"]))

    threads = [threading.Thread(target=create) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(ids) == 5 and len(set(ids)) == 1 and ids[0][0] == 200
    assert len(daemon.host.started) == 1


def test_idempotency_after_failure(daemon):
    headers = {"Idempotency-Key": "k"}
    daemon.host.boot = "panic"
    assert daemon.post(CREATE, headers=headers).status == 500
    daemon.host.boot = "ok"
    assert daemon.post(CREATE, headers=headers).status == 200


def test_idempotency_key_bounds(daemon):
    for key in ("", "k" * 256):
        reply = daemon.post(CREATE, headers={"Idempotency-Key": key})
        assert reply.status == 422
    assert daemon.post(CREATE, headers={
        "Idempotency-Key": "'; DROP TABLE sandboxes;--"}).status == 200
    assert len(daemon.get(LIST).json["data"]) == 1


# --- execute


def test_environment(daemon):
    sandbox = daemon.create(env_vars={"A": "1", "B": "2"})
    reply = daemon.execute(sandbox, "echo $A $B $C", env={"B": "3", "C": "ü"})
    assert reply.json["stdout"] == "1 3 ü\n"


def test_working_dir(daemon, sandbox):
    vm = daemon.host.vm(sandbox)
    os.mkdir(os.path.join(vm.root, "sub"))
    reply = daemon.execute(sandbox, "pwd", working_dir="sub")
    assert reply.json["stdout"].endswith("/sub\n")
    reply = daemon.execute(sandbox, "pwd", working_dir="missing")
    assert reply.status == 404 and reply.code == "bad_working_dir"


@pytest.mark.parametrize("name", ["timeout", "api_timeout"])
def test_timeout(daemon, sandbox, name):
    began = time.monotonic()
    reply = daemon.execute(sandbox, "echo before; sleep 30", **{name: 0.5})
    run = reply.json
    assert reply.status == 200 and time.monotonic() - began < 2
    assert (run["status"], run["exit_code"]) == ("timeout", 124)
    assert run["stdout"] == "before\n"


def test_timeout_that_the_agent_ignores(daemon, sandbox):
    daemon.host.ignore_timeouts = True
    began = time.monotonic()
    run = daemon.execute(sandbox, "@hang", timeout=1).json
    assert 2.5 < time.monotonic() - began < 5
    assert (run["status"], run["exit_code"]) == ("timeout", 124)
    assert run["stdout"] == "before the hang\n"
    assert daemon.host.hung_up.wait(2)


@pytest.mark.parametrize("value", [0, -1, "5", 1e9, True, [1]])
def test_bad_timeout(daemon, sandbox, value):
    assert daemon.execute(sandbox, "true", timeout=value).status == 422


def test_signal(daemon, sandbox):
    run = daemon.execute(sandbox, "kill -TERM $$").json
    assert run["exit_code"] == 128 + 15 and run["status"] == "completed"


def test_invalid_utf8(daemon, sandbox):
    run = daemon.execute(sandbox, r"printf 'a\xff\xe2\x82b\x01\x00\"'").json
    assert run["stdout"] == 'a\ufffd\ufffdb\x01\x00"'
    run = daemon.execute(sandbox, "@split").json
    assert run["stdout"] == "é€😀\ufffd"


def test_output_cap(daemon, sandbox):
    run = daemon.execute(sandbox, "head -c 9000000 /dev/zero | tr '\\0' x;"
                         "echo done >&2").json
    assert run["stdout"] == "x" * (8 << 20)
    assert run["stdout_truncated"] and run["stdout_bytes"] == 9000000
    assert run["stderr"] == "done\n" and not run["stderr_truncated"]


@pytest.mark.parametrize("body", [
    {}, {"command": ""}, {"command": None}, {"command": 5},
    {"command": "a\0b"}, {"command": "x", "env": []},
    {"command": "x", "env": {"A": 1}}, {"command": "x", "env": {"A=": "1"}},
    {"command": "x", "working_dir": 1}, {"command": "x" * (128 << 10)},
    {"command": "x", "env": {str(i): "" for i in range(1025)}},
    {"command": "x", "env": {str(i): "y" * 100000 for i in range(3)}}])
def test_bad_execute(daemon, sandbox, body):
    for what in ("execute", "execute_async"):
        reply = daemon.post(f"/v1/sandboxes/{sandbox}/{what}", body)
        assert reply.status == 422, reply.body


def test_large_command(daemon, sandbox):
    reply = daemon.execute(sandbox, "true " + "x" * 100000,
                           env={"A": "y" * 100000})
    assert reply.status == 200 and reply.json["exit_code"] == 0


def test_parallel_runs(daemon, sandbox):
    outputs = {}

    def run(i):
        outputs[i] = daemon.execute(
            sandbox, f"sleep 0.3; echo {i}").json["stdout"]

    began = time.monotonic()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert outputs == {i: f"{i}\n" for i in range(20)}
    assert time.monotonic() - began < 5


def test_client_gives_up_execute(daemon, sandbox):
    conn = daemon.connect()
    conn.request("POST", f"/v1/sandboxes/{sandbox}/execute",
                 json.dumps({"command": "@hang"}),
                 {"x-api-key": daemon.key, "content-type": "application/json"})
    assert not daemon.host.hung_up.wait(0.3)
    conn.close()
    assert daemon.host.hung_up.wait(2)


# --- the end of a sandbox during a run


@pytest.mark.parametrize("command,status,reason", [
    ("@poweroff", "stopped", "guest_poweroff"),
    ("@panic", "failed", "guest_panic"), ("@crash", "failed", "guest_crash"),
    ("@die", "failed", "vmm_died"), ("@lose_agent", "failed", "agent_lost")])
def test_end_during_run(daemon, sandbox, command, status, reason):
    began = time.monotonic()
    reply = daemon.execute(sandbox, command)
    run = reply.json
    assert time.monotonic() - began < 5
    assert reply.status == 200, reply.body
    assert (run["status"], run["exit_code"]) == ("error", -1)
    assert run["reason"] == "lost" and run["error"]
    assert wait_until(lambda: daemon.get(
        f"/v2/sandboxes/{sandbox}").json["status"] == status)
    box = daemon.get(f"/v2/sandboxes/{sandbox}").json
    assert box["reason"] == reason
    assert wait_until(lambda: not daemon.host.vms)
    reply = daemon.execute(sandbox, "true")
    assert reply.status == 422 and reply.code == "sandbox_not_running"
    assert reply.json["error"]["details"] == {
        "status": status, "reason": reason}
    assert [s["status"] for s in daemon.get(LIST).json["data"]] == [status]
    assert daemon.get(f"/v1/sandboxes/{sandbox}/download?path=a").status == 422
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200


def test_vmm_killed_ends_streams(daemon, sandbox):
    lines = []
    thread = threading.Thread(
        target=lambda: lines.extend(daemon.stream(sandbox,
                                                  "echo a; sleep 60")))
    thread.start()
    time.sleep(0.3)
    daemon.host.vm(sandbox).process.kill()  # its sockets stay open
    thread.join(5)
    assert not thread.is_alive()
    assert lines[0] == {"stdout": "a\n"} and "vmm_died" in lines[-1]["error"]


def test_delete_during_run(daemon, sandbox):
    replies = []
    thread = threading.Thread(
        target=lambda: replies.append(daemon.execute(sandbox, "sleep 60")))
    thread.start()
    time.sleep(0.3)
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200
    thread.join(5)
    assert replies[0].json["status"] == "error"


@pytest.mark.parametrize("command", ["@garbage", "@huge", "@untimely",
                                     "@frame 65 32769", "@frame 65 0",
                                     "@frame 67 55", "@frame 67 57",
                                     "@frame 64 8", "@frame 16 20",
                                     "@frame 68 32", "@frame 9999 4",
                                     "@frame 70 128", "@late_garbage"])
def test_agent_nonsense(daemon, sandbox, command):
    before = daemon.rss_kib()
    for _ in range(3):
        reply = daemon.execute(sandbox, command)
        if command == "@frame 70 128":
            assert reply.json["error"]["code"] == "agent_error" or \
                reply.status == 200
            continue
        assert reply.status == 503 and reply.code == "agent_error", reply.body
    assert daemon.execute(sandbox, "echo ok").json["stdout"] == "ok\n"
    assert daemon.rss_kib() - before < 4096


def test_agent_closes(daemon, sandbox):
    run = daemon.execute(sandbox, "@close").json
    assert run["status"] == "error" and run["stdout"] == "half\n"
    daemon.host.refuse_connect = True
    reply = daemon.execute(sandbox, "true")
    assert reply.status == 503 and reply.code == "agent_error"


def test_second_agent_is_refused(daemon, sandbox):
    assert daemon.execute(sandbox, "@agent").json["exit_code"] == 0


def test_oom(daemon, sandbox):
    run = daemon.execute(sandbox, "@oom").json
    assert run["exit_code"] == 137 and run["reason"] == "oom"


# --- execute_async


def test_stream(daemon, sandbox):
    lines = daemon.stream(sandbox, "echo a; sleep 0.1; echo b >&2; exit 4")
    assert lines == [{"stdout": "a\n"}, {"stderr": "b\n"}, {"exit_code": 4}]


def test_stream_headers_and_order(daemon, sandbox):
    conn = daemon.connect()
    conn.request("POST", f"/v1/sandboxes/{sandbox}/execute_async",
                 json.dumps({"command": "echo now; sleep 1; echo later"}),
                 {"x-api-key": daemon.key, "content-type": "application/json"})
    began = time.monotonic()
    response = conn.getresponse()
    assert response.getheader("content-type") == "application/x-ndjson"
    assert response.getheader("transfer-encoding") == "chunked"
    assert response.getheader("x-request-id").startswith("req_")
    assert json.loads(response.readline()) == {"stdout": "now\n"}
    assert time.monotonic() - began < 0.8
    assert json.loads(response.readline()) == {"stdout": "later\n"}
    assert json.loads(response.readline()) == {"exit_code": 0}
    conn.close()


def test_stream_split_characters(daemon, sandbox):
    lines = daemon.stream(sandbox, "@split")
    assert "".join(x.get("stdout", "") for x in lines) == "é€😀\ufffd"
    assert all("\ufffd" not in x.get("stdout", "") for x in lines[:-2])
    assert lines[-1] == {"exit_code": 0}


def test_stream_large(daemon, sandbox):
    before = daemon.rss_kib()
    conn = daemon.connect()
    conn.request("POST", f"/v1/sandboxes/{sandbox}/execute_async", json.dumps(
        {"command": "yes 0123456789abcde | head -c 104857600"}),
        {"x-api-key": daemon.key, "content-type": "application/json"})
    response = conn.getresponse()
    text = b"0123456789abcde\n"
    total = 0
    for line in response:
        piece = json.loads(line)
        if "stdout" not in piece:
            break
        data = piece["stdout"].encode()
        at = total % 16
        expect = text * (len(data) // 16 + 2)
        assert data == expect[at:at + len(data)]
        total += len(data)
    assert piece == {"exit_code": 0} and total == 100 << 20
    assert daemon.rss_kib() - before < 8192
    conn.close()


def test_slow_reader(daemon, sandbox):
    before = daemon.rss_kib()
    conn = daemon.connect()
    conn.request("POST", f"/v1/sandboxes/{sandbox}/execute_async",
                 json.dumps({"command": "head -c 50000000 /dev/zero"}),
                 {"x-api-key": daemon.key, "content-type": "application/json"})
    response = conn.getresponse()
    response.readline()
    time.sleep(0.5)
    began = time.monotonic()
    for _ in range(20):
        assert daemon.execute(sandbox, "true").json["exit_code"] == 0
    assert time.monotonic() - began < 3
    assert daemon.rss_kib() - before < 8192
    total = 0
    for line in response:
        piece = json.loads(line)
        total += len(piece.get("stdout", ""))
    assert piece == {"exit_code": 0}
    assert total > 49000000
    conn.close()


@pytest.mark.parametrize("command", ["@hang", "echo x; sleep 60 & wait",
                                     "yes", "sleep 1; yes"])
def test_stream_client_leaves(daemon, sandbox, command):
    conn = daemon.connect()
    conn.request("POST", f"/v1/sandboxes/{sandbox}/execute_async",
                 json.dumps({"command": command}),
                 {"x-api-key": daemon.key, "content-type": "application/json"})
    if command != "sleep 1; yes":
        response = conn.getresponse()
        response.readline()
        response.close()
    else:
        time.sleep(0.3)
    conn.close()
    assert wait_until(lambda: len(daemon.host.vm(sandbox).streams) == 1, 3)


def test_stream_refused(daemon, sandbox):
    reply = daemon.post(f"/v1/sandboxes/{sandbox}/execute_async",
                        {"command": "x", "working_dir": "nope"})
    assert reply.status == 404
    lines = daemon.stream(sandbox, "@late_garbage")
    assert lines[0] == {"stdout": "so far\n"} and "nonsense" in \
        lines[-1]["error"]
    assert daemon.stream(sandbox, "@close")[-1]["error"]


def test_too_many_runs(daemon, sandbox):
    conns = []
    for _ in range(200):
        conn = daemon.connect()
        conn.request("POST", f"/v1/sandboxes/{sandbox}/execute",
                     json.dumps({"command": "@silent"}),
                     {"x-api-key": daemon.key,
                      "content-type": "application/json"})
        conns.append(conn)
    vm = daemon.host.vm(sandbox)
    assert wait_until(lambda: len(vm.streams) == 201)
    reply = daemon.execute(sandbox, "true")
    assert reply.status == 429 and reply.headers["retry-after"]
    for conn in conns:
        conn.close()
    assert wait_until(lambda: len(vm.streams) == 1)
    assert daemon.execute(sandbox, "true").status == 200


# --- list and delete


def test_list_pages(daemon):
    ids = [daemon.create(name=f"n{i}") for i in range(5)]
    reply = daemon.get(LIST + "?page=1.0&page_size=2").json
    assert [s["id"] for s in reply["data"]] == [ids[4], ids[3]]
    assert reply["pagination"] == {"page": 1, "page_size": 2,
                                   "total_items": 5, "total_pages": 3}
    row = reply["data"][0]
    assert (row["cpu"], row["disk_size"], row["memory"]) == (4, 10, 512)
    assert (row["name"], row["status"]) == ("n4", "running")
    reply = daemon.get(LIST + "?page=3&page_size=2").json
    assert [s["id"] for s in reply["data"]] == [ids[0]]
    assert daemon.get(LIST + "?page=4&page_size=2").json["data"] == []
    assert len(daemon.get(LIST).json["data"]) == 5
    for query in ("page=0", "page=-1", "page=1.5", "page=x", "page_size=1001",
                  "page_size=0", "page=99999999999999999999", "page=1e3"):
        assert daemon.get(LIST + "?" + query).status == 422, query


def test_delete_all(daemon):
    assert daemon.delete("/v1/sandboxes/delete-all").json[
        "deleted_count"] == 0
    ids = {daemon.create() for _ in range(4)}
    daemon.host.exit_delay = 0.2
    reply = daemon.delete("/v1/sandboxes/delete-all").json
    assert reply["deleted_count"] == 4 and set(reply["deleted_ids"]) == ids
    assert reply["message"] and "errors" not in reply
    assert reply["storage_deleted_count"] == 4
    assert not daemon.host.vms and daemon.get(LIST).json["data"] == []


def test_delete_waits_for_cleanup(daemon, sandbox):
    daemon.host.exit_delay = 0.5
    began = time.monotonic()
    reply = daemon.delete(f"/v1/sandboxes/{sandbox}/delete", body={
        "create_snapshot": False, "keep_storage": True})
    assert reply.status == 200 and time.monotonic() - began >= 0.5
    assert not daemon.host.vms


def test_delete_while_creating(daemon):
    daemon.host.boot = "never"
    sandbox = daemon.create(wait_for_ready=False)
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200
    assert not daemon.host.vms


def test_no_leaks(daemon):
    def cycle():
        sandbox = daemon.create()
        daemon.execute(sandbox, "true")
        daemon.stream(sandbox, "true")
        daemon.delete(f"/v1/sandboxes/{sandbox}/delete")

    for _ in range(5):
        cycle()
    fds, rss = daemon.fds(), daemon.rss_kib()
    for _ in range(50):
        cycle()
    assert wait_until(lambda: daemon.fds() <= fds)
    if "asan" not in BRIGD:  # which keeps what was freed
        assert daemon.rss_kib() - rss < 1024


# --- status, logs, console, host


def test_status(daemon, sandbox):
    reply = daemon.get(f"/v1/sandboxes/{sandbox}/status")
    status = reply.json
    assert reply.status == 200
    assert status["sandbox_name"] and status["timestamp"]
    current = status["current"]
    assert current["memory_mb"] == 100
    assert current["memory_percent"] == pytest.approx(100 * 100 / 512)
    assert 0 <= current["cpu_percent"] <= 100
    assert status["history"] == []
    assert daemon.get(
        f"/v1/sandboxes/{sandbox}/status?from=yesterday").status == 422


def test_status_of_silent_agent(daemon, sandbox):
    daemon.host.silent_status = True
    began = time.monotonic()
    status = daemon.get(f"/v1/sandboxes/{sandbox}/status").json
    assert 1.5 < time.monotonic() - began < 4
    assert status["current"]["memory_mb"] == 64  # the cgroup's


def test_logs(daemon, sandbox):
    daemon.execute(sandbox, "echo one; echo two >&2; exit 2")
    daemon.stream(sandbox, "echo three; head -c 5000 /dev/zero")
    daemon.execute(sandbox, "sleep 9", timeout=0.2, working_dir="")
    daemon.run(sandbox, argv=["echo", "a b"])
    daemon.execute(sandbox, "@close")
    reply = daemon.get("/v1/sandboxes/logs").json
    assert reply["total"] == 5
    lost, argv, late, stream, sync = reply["logs"]
    assert sync["command"] == "echo one; echo two >&2; exit 2"
    assert (sync["stdout"], sync["stderr"]) == ("one\n", "two\n")
    assert (sync["exit_code"], sync["status"]) == (2, "completed")
    assert (sync["source"], stream["source"]) == ("sync", "stream")
    assert sync["sandbox_id"] == sandbox
    assert sync["request_id"].startswith("req_")
    assert sync["execution_id"].startswith("ex_")
    assert stream["stdout_truncated"] and len(stream["stdout"]) == 4096
    assert not stream["stderr_truncated"]
    assert (late["status"], late["exit_code"]) == ("timeout", 124)
    assert argv["command"] == "echo a b" and argv["stdout"] == "a b\n"
    assert lost["status"] == "error"
    for field in ("execution_time_ms", "timestamp", "working_dir"):
        assert field in sync

    def find(query):
        return daemon.get("/v1/sandboxes/logs?" + query)

    assert len(find("limit=2.0").json["logs"]) == 2
    assert find("limit=2").json["total"] == 5
    assert find("sandbox_id=sb_other").json["total"] == 0
    assert find(f"sandbox_id={sandbox}").json["total"] == 5
    assert find("from=2020-01-01&to=2020-01-02T00:00:00Z").json["total"] == 0
    assert find("from=2020-01-01T00:00:00%2B02:00").json["total"] == 5
    for query in ("from=x", "to=2020-13-01", "limit=0", "limit=1001"):
        assert find(query).status == 422


def test_logs_survive_restart(daemon, sandbox):
    daemon.execute(sandbox, "echo kept")
    assert daemon.stop() == 0
    daemon.start()
    rows = daemon.get("/v1/sandboxes/logs").json["logs"]
    assert [r["stdout"] for r in rows] == ["kept\n"]


def test_hostile_text_is_stored_literally(daemon, sandbox):
    text = "'; DROP TABLE runs; -- \" \\ \u202e"
    assert daemon.execute(sandbox, f"true # {text}").status == 200
    row = daemon.get("/v1/sandboxes/logs").json["logs"][0]
    assert row["command"] == f"true # {text}"
    quoted = urllib.parse.quote(text)
    assert daemon.get(
        f"/v1/sandboxes/logs?sandbox_id={quoted}").json["total"] == 0


def test_get_and_console(daemon, sandbox):
    box = daemon.get(f"/v2/sandboxes/{sandbox}").json
    assert box["status"] == "running" and box["reason"] is None
    assert (box["vcpus"], box["memory_mib"]) == (1, 512)
    assert box["disk_bytes"] == 10 << 30 and box["image"] == "default"
    assert box["ready_ms"] >= 0
    assert box["stats"]["disk_read_bytes"] == 4096
    assert box["stats"]["cpu_usec"] == 1000000
    assert box["stats"]["memory_bytes"] == 64 << 20
    vm = daemon.host.vm(sandbox)
    vm.log("x" * 66000 + "\xfe end\n")
    reply = daemon.get(f"/v2/sandboxes/{sandbox}/console")
    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.body.decode().endswith("x\u00fe end\n")
    assert len(reply.body) == 65536
    os.pwrite(vm.console, b"\xff" * 8, 0)  # a VMM that lies
    assert daemon.get(f"/v2/sandboxes/{sandbox}/console").status == 200


def test_host(daemon, sandbox):
    host = daemon.get("/v2/host").json
    assert host["kvm"] == {"kind": "hardware", "iterations_per_s": 123456}
    assert host["sandboxes"] == 1 and host["images"] == ["default"]
    assert host["memory_mib_committed"] == 512
    assert host["memory_mib_total"] > 512 and host["version"] == "0.1.0"


# --- files


def form(boundary, *parts):
    """A multipart body in the order given: (name, bytes, is_file)."""
    out = b""
    for name, data, is_file in parts:
        extra = '; filename="f.bin"\r\ncontent-type: application/octet-stream' \
            if is_file else ""
        out += (f"--{boundary}\r\ncontent-disposition: form-data; "
                f'name="{name}"{extra}\r\n\r\n').encode() + data + b"\r\n"
    return out + f"--{boundary}--\r\n".encode()


def upload(daemon, sandbox, *parts):
    return daemon.post(
        f"/v1/sandboxes/{sandbox}/upload", form("xyz", *parts),
        headers={"content-type": "multipart/form-data; boundary=xyz"})


def download(daemon, sandbox, path):
    return daemon.get(f"/v1/sandboxes/{sandbox}/download?path=" +
                      urllib.parse.quote(path))


@pytest.mark.parametrize("path_first", [True, False])
@pytest.mark.parametrize("size", [0, 1, 1000, 70000, 5 << 20])
def test_upload_and_download(daemon, sandbox, path_first, size):
    data = os.urandom(size)
    parts = [("path", "dir/ü file".encode(), False), ("file", data, True)]
    reply = upload(daemon, sandbox, *(parts if path_first else parts[::-1]))
    assert reply.status == 200, reply.body
    assert reply.json["path"] == "/root/dir/ü file" and reply.json["size"] == size
    reply = download(daemon, sandbox, "dir/ü file")
    assert reply.status == 200 and reply.body == data
    assert reply.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("piece", [b"\r\n", b"\r\n-", b"\r\n--xy", b"\r",
                                   b"--xyz--\r\r\n--", b"\n--xyz\r\n"])
def test_upload_of_almost_boundaries(daemon, sandbox, piece):
    for size in (1, 1000, 30000):
        data = piece * size
        reply = upload(daemon, sandbox, ("path", b"f", False),
                       ("file", data, True))
        assert reply.status == 200, reply.body
        assert download(daemon, sandbox, "f").body == data


def test_large_file_in_bounded_memory(daemon, sandbox):
    data = os.urandom(1 << 20) * 64
    before = daemon.rss_kib()
    for parts in ([("path", b"a", False), ("file", data, True)],
                  [("file", data, True), ("path", b"a", False)]):
        assert upload(daemon, sandbox, *parts).json["size"] == len(data)
        assert download(daemon, sandbox, "a").body == data
    assert daemon.rss_kib() - before < 8192


def test_download_errors(daemon, sandbox):
    root = daemon.host.vm(sandbox).root
    os.mkdir(root + "/d")
    assert download(daemon, sandbox, "missing").status == 404
    assert download(daemon, sandbox, "missing").code == "not_found"
    assert download(daemon, sandbox, "d").status == 422
    assert download(daemon, sandbox, "").status == 422
    assert download(daemon, sandbox, "x" * 5000).status == 422
    assert daemon.get(f"/v1/sandboxes/{sandbox}/download").status == 422
    assert daemon.get(
        f"/v1/sandboxes/{sandbox}/download?path=a%00b").status == 400


def test_slow_download(daemon, sandbox):
    with open(daemon.host.vm(sandbox).root + "/big", "wb") as f:
        f.write(os.urandom(1 << 20) * 40)
    before = daemon.rss_kib()
    conn = daemon.connect()
    conn.request("GET", f"/v1/sandboxes/{sandbox}/download?path=big",
                 headers={"x-api-key": daemon.key})
    response = conn.getresponse()
    response.read(100)
    time.sleep(0.5)
    assert daemon.rss_kib() - before < 4096
    assert daemon.execute(sandbox, "true").status == 200
    assert len(response.read()) == (40 << 20) - 100
    conn.close()


def test_upload_errors(daemon, sandbox):
    path, file = ("path", b"p", False), ("file", b"data", True)
    assert upload(daemon, sandbox, file).status == 422
    assert upload(daemon, sandbox, path).status == 422
    assert upload(daemon, sandbox).status in (400, 422)
    assert upload(daemon, sandbox, ("path", b"", False), file).status == 422
    assert upload(daemon, sandbox, ("path", b"x" * 5000, False),
                  file).status == 422
    assert upload(daemon, sandbox, ("path", b"a\0b", False),
                  file).status == 422
    assert upload(daemon, sandbox, path, file, file).status == 422
    assert upload(daemon, sandbox, path, path, file).status == 422
    assert upload(daemon, sandbox, path, ("other", b"x", False),
                  file).status == 200

    def raw(body, kind):
        return daemon.post(f"/v1/sandboxes/{sandbox}/upload", body,
                           headers={"content-type": kind}).status

    assert raw("{}", "application/json") == 415
    assert raw("path=a&file=b", "application/x-www-form-urlencoded") == 415
    assert raw("x", "multipart/form-data") == 400
    assert raw("x" * 100000, "multipart/form-data; boundary=xyz") in (400, 422)
    assert raw(form("xyz", path, file)[:-11],
               "multipart/form-data; boundary=xyz") == 400
    assert raw("", "multipart/form-data; boundary=xyz") in (400, 422)


def test_upload_to_full_disk(daemon, sandbox):
    daemon.host.disk_free = 100000
    data = os.urandom(20 << 20)
    for parts in ([("path", b"a", False), ("file", data, True)],
                  [("file", data, True), ("path", b"a", False)]):
        reply = upload(daemon, sandbox, *parts)
        assert reply.status == 507 and reply.code == "disk_full"
    assert download(daemon, sandbox, "a").status == 404


def test_upload_too_large(daemon, sandbox):
    conn = daemon.connect()
    conn.putrequest("POST", f"/v1/sandboxes/{sandbox}/upload")
    conn.putheader("x-api-key", daemon.key)
    conn.putheader("content-type", "multipart/form-data; boundary=xyz")
    conn.putheader("content-length", str(6 << 30))
    conn.endheaders()
    response = conn.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "too_large"
    conn.close()


def test_upload_client_leaves(daemon, sandbox):
    conn = daemon.connect()
    conn.putrequest("POST", f"/v1/sandboxes/{sandbox}/upload")
    conn.putheader("x-api-key", daemon.key)
    conn.putheader("content-type", "multipart/form-data; boundary=xyz")
    conn.putheader("content-length", "1000000")
    conn.endheaders()
    conn.send(form("xyz", ("path", b"p", False),
                   ("file", b"x" * 200000, True))[:-11])
    vm = daemon.host.vm(sandbox)
    assert wait_until(lambda: len(vm.streams) == 2)
    conn.close()
    assert wait_until(lambda: len(vm.streams) == 1)
    assert download(daemon, sandbox, "p").status == 404


# --- the daemon's own life


def test_restart_marks_sandboxes(daemon, sandbox):
    daemon.process.kill()
    daemon.process.wait()
    daemon.start()
    box = daemon.get(f"/v2/sandboxes/{sandbox}").json
    assert (box["status"], box["reason"]) == ("stopped", "daemon_restart")
    assert daemon.execute(sandbox, "true").code == "sandbox_not_running"
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200
    assert daemon.get(LIST).json["data"] == []


def test_sigterm(daemon, sandbox):
    replies = []
    threads = [threading.Thread(target=lambda c=c: replies.append(
        daemon.execute(sandbox, c))) for c in ("sleep 60", "@silent")]
    for t in threads:
        t.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5
    for t in threads:
        t.join(5)
    assert [r.json["status"] for r in replies] == ["error", "error"]
    assert not daemon.host.vms


def test_second_daemon_is_refused(daemon):
    second = subprocess.run(daemon.command(), capture_output=True, text=True,
                            timeout=10)
    assert second.returncode != 0 and "another brigd" in second.stderr


def test_key_file_mode(daemon):
    assert daemon.stop() == 0
    key = daemon.dir / "state/key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    second = subprocess.run(daemon.command(), capture_output=True, text=True,
                            timeout=10)
    assert second.returncode != 0 and "0600" in second.stderr


def test_new_key_replaces_old(daemon):
    old = daemon.key
    assert daemon.stop() == 0
    (daemon.dir / "state/key").write_text("another-key-of-some-length\n")
    daemon.start()
    assert daemon.get(LIST).status == 200
    assert daemon.get(LIST, headers={"x-api-key": old}).status == 401


def test_unix_socket(make_daemon, tmp_path):
    path = str(tmp_path / "api.sock")
    daemon = make_daemon("--socket", path)
    out = subprocess.run(["curl", "-s", "--unix-socket", path,
                          "http://brig/healthz"], capture_output=True,
                         text=True, timeout=10).stdout
    assert json.loads(out)["status"] == "ok"
    assert os.stat(path).st_mode & 0o777 == 0o660
    assert daemon.get("/healthz").status == 200


# --- peers that lie


def test_agent_lies_on_its_own_connection(daemon, sandbox):
    daemon.host.vm(sandbox).ready.send_raw(b"\xff" * 64)
    assert wait_until(lambda: daemon.get(
        f"/v2/sandboxes/{sandbox}").json["reason"] == "agent_lost")
    assert wait_until(lambda: not daemon.host.vms)


@pytest.mark.parametrize("lie", ["short", "type", "reason", "accept_nothing",
                                 "accept_file", "unasked", "connect_file"])
def test_vmm_lies(daemon, sandbox, lie):
    vm = daemon.host.vm(sandbox)
    other = daemon.create()
    if lie == "short":
        vm.control.send(b"x")
    elif lie == "type":
        vm.send(77)
    elif lie == "reason":
        vm.send(19, status=1 << 30)
    elif lie == "accept_nothing":
        vm.send(18, port=53)
    elif lie == "accept_file":
        with open("/dev/null") as f:
            vm.send(18, port=53, fd=f.fileno())
    elif lie == "unasked":  # a reply nobody waits for is dropped
        vm.send(16, seq=999)
        assert daemon.execute(sandbox, "true").status == 200
        return
    else:
        def handle(kind, seq, *_):
            with open("/dev/null") as f:
                vm.send(16, seq, fd=f.fileno())
        vm.handle = handle
        reply = daemon.execute(sandbox, "true")
        assert reply.status == 503 and reply.code == "agent_error"
        return
    assert wait_until(lambda: daemon.get(
        f"/v2/sandboxes/{sandbox}").json["status"] == "failed")
    assert wait_until(lambda: len(daemon.host.vms) == 1)
    assert daemon.execute(other, "true").status == 200
    assert daemon.delete(f"/v1/sandboxes/{sandbox}/delete").status == 200


def test_spawn_lies(daemon, sandbox):
    """brigd starts over with a brig-spawn that makes no sense."""
    for packet in (b"x", b"\xff" * 104, b"x" * 200):
        daemon.host.conn.send(packet)
        assert wait_until(lambda: daemon.post(CREATE).status == 200)
    assert daemon.execute(sandbox, "true").status == 200


def test_unwanted_connections_are_closed(daemon, sandbox):
    vm = daemon.host.vm(sandbox)
    fds = daemon.fds()
    for port in list(range(50, 60)) * 10:
        ours, theirs = vm.open_stream()
        vm.send(18, port=port, fd=theirs.fileno())
        theirs.close()
        assert ours.recv(1) == b""
    for seq in range(100):
        ours, theirs = vm.open_stream()
        vm.send(16, seq=10000 + seq, fd=theirs.fileno())
        theirs.close()
        assert ours.recv(1) == b""
    assert wait_until(lambda: daemon.fds() <= fds)
    assert daemon.execute(sandbox, "true").status == 200
