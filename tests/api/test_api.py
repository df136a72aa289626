# test_api.py - the published format, end to end against a fake host.
# SPDX-License-Identifier: Apache-2.0

import re
import time


def test_create_execute_delete(daemon):
    reply = daemon.post("/v1/sandboxes/create", {"name": "box"})
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
