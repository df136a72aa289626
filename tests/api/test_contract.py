# test_contract.py - wire/api.yaml says what brigd serves, and nothing else.
# SPDX-License-Identifier: Apache-2.0

import re

import brig
from conftest import TREE


def documented():
    text = (TREE / "wire/api.yaml").read_text()
    routes, path = set(), None
    for line in text.split("components:")[0].splitlines():
        if m := re.match(r"  (/\S*):$", line):
            path = re.sub(r"\{\w+\}", "{}", m.group(1))
        elif m := re.match(r"    (get|post|put|patch|delete):$", line):
            routes.add((m.group(1).upper(), path))
    return routes


def served():
    text = (TREE / "src/brigd/route.c").read_text()
    for name, value in re.findall(r'#define (ID2?) "(\S+)"', text):
        text = re.sub(rf'\b{name} "', f'"{value}', text)
        text = re.sub(rf'\b{name},', f'"{value}",', text)
    return set(re.findall(r'\{ "([A-Z]+)", "([^"]+)"', text))


def test_paths():
    assert len(served()) == 39
    assert documented() == served()


def fields(schema):
    """Names of the properties of an object in components/schemas."""
    text = (TREE / "wire/api.yaml").read_text().split("\n  schemas:\n")[1]
    block = re.search(rf"^    {schema}:\n((?: {{6}}.*\n|\n)+)", text, re.M)[1]
    required = re.search(r"^      required: \[([^]]*)\]", block, re.M)[1]
    names = re.findall(r"^        (\w+):", block.split("properties:\n", 1)[1],
                       re.M)
    return set(names), set(re.split(r",\s*", required))


def check_fields(schema, reply, extra=()):
    known, required = fields(schema)
    assert required <= set(reply) <= known | set(extra), schema


def test_objects(make_daemon):
    """What comes has the fields that are documented, and no other."""
    daemon = make_daemon("--pool", "0", "--no-templates")
    box = daemon.post("/v1/sandboxes/create").json
    check_fields("Sandbox", box)
    path = f"/v2/sandboxes/{box['id']}"
    own = daemon.get(path).json
    check_fields("SandboxV2", own)
    check_fields("Receipt", own["receipt"])
    (row,) = daemon.get("/v1/sandboxes/list").json["data"]
    check_fields("ListedSandbox", row)
    snap = daemon.post(f"{path}/snapshots", {}).json
    check_fields("Snapshot", snap)
    check_fields("Snapshot", daemon.get(f"/v2/snapshots/{snap['id']}").json)
    (row,) = daemon.get("/v1/snapshots/list").json["data"]
    check_fields("ListedSnapshot", row)
    v1 = daemon.post(f"/v1/sandboxes/{box['id']}/snapshot", {}).json
    check_fields("SnapshotV1", v1)
    reply = daemon.post(f"/v1/snapshots/{snap['id']}/restore", {"name": "a"})
    check_fields("Sandbox", reply.json, ("storage_id", "storage_name"))
    clones = daemon.post(f"{path}/clone", {}).json
    check_fields("Sandboxes", clones)
    check_fields("SandboxV2", clones["sandboxes"][0])
    made = daemon.post("/v2/templates", {"name": "t", "warm": "true"}).json
    check_fields("Template", made)
    reply = daemon.delete(f"/v2/snapshots/{snap['id']}")
    check_fields("DeletedSnapshot", reply.json)
    reply = daemon.run(box["id"], command="true")
    check_fields("RunSummary", reply.json, (
        "stdout", "stderr", "stdout_encoding", "stderr_encoding"))
    reply = daemon.execute(box["id"], "true")
    check_fields("Execution", reply.json)


def test_python_sdk(make_daemon):
    """Each request that the SDK can make is one that brigd takes."""
    daemon = make_daemon("--pool", "0", "--no-templates")
    with brig.Client(f"http://127.0.0.1:{daemon.port}", daemon.key) as client:
        boxes = client.sandboxes
        one = boxes.create(vcpus=2, memory=256, storage=3, env={"A": "1"})
        assert one.run("echo $A").stdout == "1\n"
        kept = one.snapshot("kept")
        assert client.snapshots.get(kept.id).name == "kept"
        assert not one.snapshot(quick=True, memory=False).problem
        back = kept.restore(env={"A": "2"})
        assert back.run("echo $A").stdout == "2\n"
        assert len(boxes.create(snapshot=kept.id, count=2)) == 2
        assert len(one.clone(2, name="twin")) == 2
        assert one.rollback(kept).pause().resume().status == "running"
        made = client.templates.create("t", warm="true", memory=256)
        assert made.warm == "true" and client.templates.list() == [made]
        assert boxes.create(template="t").reset().origin == "template"
        assert len(boxes.create(template="t", count=2)) == 2
        assert one.runs(["echo", "x"], user="root").stdout == "x\n"
        assert boxes.delete(one.id, create_snapshot=True).snapshot_created
        assert len(client.snapshots.list()) == 3
        assert boxes.delete_all().deleted_count == 8
        client.templates.delete("t")


def test_error_codes_are_few():
    """Statuses that api.md allows, and no other, are written in the code."""
    allowed = {400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507}
    for file in (TREE / "src/brigd").glob("*.c"):
        text = file.read_text()
        for status in re.findall(
                r"(?:fault_set|http_reply_error)\(\s*&?[\w.>-]+,\s*(\d{3})",
                text):
            assert int(status) in allowed, (file, status)
