"""fake_brigd.py - an HTTP server that speaks brigd's API, without any VM.

SPDX-License-Identifier: Apache-2.0

Commands of a run are played by functions of this file, named by argv[0].
"""
import base64
import email.parser
import email.policy
import json
import os
import select
import socket
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "test-key-0123456789"
CREATED = "2026-01-31T12:00:00.250Z"


class Run:
    """One command: what it was asked, what came in, how it ended."""

    def __init__(self, request):
        self.request = request
        self.stdin = bytearray()
        self.stdin_posts = 0
        self.eof = threading.Event()
        self.got = threading.Event()
        self.cut = threading.Event()  # the client closed the stream


class Fake:
    """The state of the server, and what tests want it to do."""

    def __init__(self):
        self.requests = []  # (method, path with query, headers, body)
        self.sandboxes = {}
        self.runs = {}
        self.files = {}
        self.deleted = []
        self.create_delay = 0.0
        self.delete_status = 200
        self.logs = []
        self.console = b""
        self.kvm = "hardware"
        self.made = 0
        self.fail_creates = 0  # of several that are asked for at once
        self.snapshots = {}
        self.templates = {}
        self.export = b""
        self.export_pause = 0.0  # in the middle of it

    def make(self, **fields):
        self.made += 1
        sid = "sb_%024d" % self.made
        self.sandboxes[sid] = {
            "id": sid, "name": "calm-otter-%d" % self.made, "cpu": 4,
            "memory": 512, "disk_size": 10, "status": "running",
            "created_at": CREATED, **fields}
        return sid

    def snap(self, **fields):
        sid = "snap_%024d" % (len(self.snapshots) + 1)
        self.snapshots[sid] = {
            "id": sid, "name": "still-lake", "status": "ready",
            "kind": "memory", "consistency": "application",
            "created_at": CREATED, "source_sandbox_id": "sb_1",
            "source_sandbox_name": "calm-otter", "image": "default",
            "vcpus": 1, "memory_mib": 512, "disk_gib": 10, "parent": None,
            "own_bytes": 5 << 20, "shared_bytes": 3 << 30, "pause_us": 900,
            **fields}
        return sid

    def paths(self, method):
        return [r[1] for r in self.requests if r[0] == method]

    def body_of(self, method, part):
        """The JSON of the last request to a path that contains `part`."""
        for m, path, _, body in reversed(self.requests):
            if m == method and part in path:
                return json.loads(body)
        raise AssertionError("no %s of %s" % (method, part))


class Refused(Exception):
    def __init__(self, status, code, message, **details):
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message, "details": details,
                      "request_id": "req_1"}


def result(**fields):
    return {"exit_code": 0, "signal": None, "reason": "exit",
            "stdout_bytes": 0, "stdout_truncated": False,
            "stderr_bytes": 0, "stderr_truncated": False,
            "created_at": CREATED, "completed_at": CREATED,
            "usage": {"wall_ms": {"value": 1, "source": "host"}}, **fields}


# --- commands that runs can name -------------------------------------------


def cmd_echo(send, run):
    send.out((" ".join(run.request["argv"][1:]) + "\n").encode())
    return result()


def cmd_exit(_send, run):
    return result(exit_code=int(run.request["argv"][1]))


def cmd_bytes(send, _run):
    """Every byte value, on both outputs, in both encodings."""
    send.event({"event": "stdout", "offset": 0, "encoding": "utf-8",
                "data": "zero \0, snowman \u2603, escape \x1b[31m\n"})
    send.out(bytes(range(256)))
    send.event({"event": "of-the-future", "data": 1})
    send.err(bytes(reversed(range(256))))
    return result(exit_code=3)


def cmd_much(send, run):
    chunk = bytes(range(256)) * 128
    for _ in range(int(run.request["argv"][1])):
        send.out(chunk)
    return result()


def cmd_cat(send, run):
    sent = 0
    while True:
        done = run.eof.wait(0.01)
        data = bytes(run.stdin[sent:])
        if data:
            send.out(data)
        sent += len(data)
        if done and sent == len(run.stdin):
            return result()


def cmd_head(send, run):
    """Ends at the first input."""
    run.got.wait(10)
    send.out(bytes(run.stdin[:4]))
    return result()


def cmd_sleep(send, run):
    """Runs until the client goes away."""
    send.out(b"sleeping\n")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        readable, _, _ = select.select([send.socket], [], [], 0.05)
        if readable and send.socket.recv(1, socket.MSG_PEEK) == b"":
            break
    run.cut.set()
    return result(exit_code=137, signal=9, reason="signal")


def cmd_flood(send, run):
    try:
        while True:
            send.out(b"y\n" * 16384)
    except OSError:
        run.cut.set()
        raise


def cmd_code(send, run):
    """Code is an exit code, or else said."""
    code = run.request["code"]
    send.out((run.request["language"] + ": " + code).encode())
    return result(exit_code=int(code) if code.isdigit() else 0)


def cmd_fail(_send, run):
    """fail CODE ERRNO: as an error event."""
    argv = run.request["argv"]
    return {"event": "error", "error": {
        "code": argv[1], "message": "cannot: \x1b]0;owned\x07",
        "details": {"errno": int(argv[2])}}}


def cmd_result(_send, run):
    return result(**json.loads(run.request["argv"][1]))


def cmd_junk(send, _run):
    send.raw(b'{"event":"stdout","data":"x","encoding":"rot13"}\n')
    return result()


def cmd_no_json(send, _run):
    send.raw(b"\x00\xff not json\n")
    return result()


def cmd_long_line(send, _run):
    send.raw(b'{"event":"stdout","data":"' + b"a" * (3 << 20))
    return result()


def cmd_no_end(_send, _run):
    return None


COMMANDS = {name[4:]: value for name, value in globals().items()
            if name.startswith("cmd_")}


class Send:
    """The stream of one run."""

    def __init__(self, handler):
        self.handler = handler
        self.socket = handler.connection
        self.offset = {"stdout": 0, "stderr": 0}

    def raw(self, data):
        self.handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.handler.wfile.flush()

    def event(self, event):
        self.raw(json.dumps(event).encode() + b"\n")

    def data(self, name, data):
        for at in range(0, len(data), 32768):  # as the agent's frames are
            part = data[at:at + 32768]
            self.event({"event": name, "offset": self.offset[name],
                        "encoding": "base64",
                        "data": base64.b64encode(part).decode()})
            self.offset[name] += len(part)

    def out(self, data):
        self.data("stdout", data)

    def err(self, data):
        self.data("stderr", data)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake = None

    def log_message(self, *_):
        pass

    # --- plumbing ---

    def body_parts(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                line = self.rfile.readline()
                if not line:
                    raise ConnectionResetError
                size = int(line.split(b";")[0], 16)
                data = self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return
                yield data
        elif self.headers.get("Content-Length"):
            yield self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status, data, kind="application/json"):
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.strip("/").split("/")
        try:
            if url.path.endswith("/stdin"):
                self.fake.requests.append(
                    (self.command, self.path, dict(self.headers), b""))
                return self.post_stdin(*parts[2::2])
            body = b"".join(self.body_parts())
            self.fake.requests.append(
                (self.command, self.path, dict(self.headers), body))
            if url.path != "/healthz" and self.headers.get(
                    "x-api-key") != KEY:
                raise Refused(401, "unauthorized", "no")
            return self.route(parts, body)
        except Refused as e:
            return self.reply(e.status, {"error": e.error})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_DELETE = handle_any

    def sandbox(self, sid):
        if sid not in self.fake.sandboxes:
            raise Refused(404, "not_found", "no sandbox " + sid)
        return self.fake.sandboxes[sid]

    def route(self, parts, body):
        f = self.fake
        key = (self.command, *parts)
        if key == ("GET", "v2", "host"):
            return self.reply(200, {"version": "0.1.0", "kvm": {
                "kind": f.kvm, "iterations_per_s": 1}, "sandboxes": 0})
        if key == ("POST", "v1", "sandboxes", "create"):
            return self.create(json.loads(body or b"{}"))
        if key == ("POST", "v2", "sandboxes"):
            return self.create_own(json.loads(body))
        if key == ("GET", "v1", "sandboxes", "list"):
            return self.list()
        if key == ("DELETE", "v1", "sandboxes", "delete-all"):
            ids = list(f.sandboxes)
            stuck = [i for i in ids if f.sandboxes[i].get("stuck")]
            f.deleted += [i for i in ids if i not in stuck]
            return self.reply(200, {
                "deleted_count": len(ids), "message": "gone",
                "deleted_ids": [i for i in ids if i not in stuck],
                "errors": [{"id": i, "error": "busy"} for i in stuck]})
        if key == ("GET", "v1", "sandboxes", "logs"):
            return self.reply(200, {"logs": f.logs, "total": len(f.logs)})
        if parts[1] in ("snapshots", "templates"):
            return getattr(self, parts[1])(key, parts, body)
        if len(parts) == 3 and parts[0] == "v2":
            return self.reply(200, {**self.sandbox(parts[2]), "reason": None})
        return self.of_sandbox(parts[2], parts[3:], body)

    def of_sandbox(self, sid, rest, body):
        f = self.fake
        sandbox = self.sandbox(sid)
        if rest == ["delete"]:
            if f.delete_status != 200:
                raise Refused(f.delete_status, "internal", "cannot delete")
            del f.sandboxes[sid]
            f.deleted.append(sid)
            return self.reply(200, {"id": sid, "message": "deleted"})
        if rest in (["runs"], ["code"]):
            return self.run(sid, sandbox, json.loads(body))
        if rest == ["clone"]:
            return self.several(json.loads(body), origin="clone")
        if rest == ["snapshots"]:
            time.sleep(f.create_delay)
            name = json.loads(body).get("name", "still-lake")
            return self.reply(200, f.snapshots[f.snap(name=name)])
        if rest[0] in ("pause", "resume", "reset", "rollback"):
            return self.move(sandbox, rest[0], body)
        if rest == ["upload"]:
            return self.upload(body)
        if rest == ["download"]:
            return self.download()
        if rest == ["console"]:
            return self.reply(200, f.console, "text/plain")
        raise Refused(404, "not_found", "no such path")

    # --- sandboxes ---

    def create(self, wanted):
        time.sleep(self.fake.create_delay)
        if wanted.get("image") == "missing":
            raise Refused(422, "invalid_field", "no image \x1b[2Jmissing")
        sid = self.fake.make(name=wanted.get("name", "calm-otter-1"))
        self.reply(200, {**self.fake.sandboxes[sid], "storage": 10})

    def create_own(self, wanted):
        time.sleep(self.fake.create_delay)
        if wanted.get("template", "numpy") != "numpy":
            raise Refused(404, "not_found", "no template of this name")
        if "count" in wanted:
            return self.several(wanted)
        sid = self.fake.make(origin="template")
        return self.reply(200, self.fake.sandboxes[sid])

    def several(self, wanted, **fields):
        count = wanted["count"] - self.fake.fail_creates
        ids = [self.fake.make(**fields) for _ in range(count)]
        time.sleep(self.fake.create_delay)
        self.reply(200, {
            "sandboxes": [self.fake.sandboxes[i] for i in ids],
            "errors": [{"error": {"code": "out_of_memory",
                                  "message": "no room \x1b[31m"}}]
            * self.fake.fail_creates})

    def move(self, sandbox, what, body):
        if what == "rollback":
            wanted = json.loads(body)["snapshot"]
            if wanted not in self.fake.snapshots:
                raise Refused(404, "not_found", "no snapshot " + wanted)
            sandbox["snapshot"] = wanted
        elif body:
            raise Refused(422, "invalid_field", "a body where none may be")
        if what == "resume" and sandbox["status"] != "paused":
            raise Refused(422, "sandbox_not_paused", "it is running")
        sandbox["status"] = "paused" if what == "pause" else "running"
        self.reply(200, sandbox)

    def list(self):
        size = int(self.query["page_size"])
        page = int(self.query["page"])
        every = list(self.fake.sandboxes.values())
        self.reply(200, {
            "data": every[(page - 1) * size:page * size],
            "pagination": {"page": page, "page_size": size,
                           "total_items": len(every),
                           "total_pages": -(-len(every) // size)}})

    # --- snapshots and templates ---

    def snapshots(self, key, parts, body):
        f = self.fake
        if key == ("GET", "v2", "snapshots"):
            return self.reply(200, {"snapshots": list(f.snapshots.values())})
        if key == ("POST", "v2", "snapshots", "import"):
            if body != f.export:
                raise Refused(422, "damaged", "a checksum is wrong")
            return self.reply(200, f.snapshots[f.snap()])
        if parts[2] not in f.snapshots:
            raise Refused(404, "not_found", "no snapshot " + parts[2])
        if self.command == "DELETE":
            name = f.snapshots.pop(parts[2])["name"]
            return self.reply(200, {
                "message": "deleted", "name": name, "deferred": False})
        self.send_response(200)
        self.send_header("Content-Length", str(len(f.export)))
        self.end_headers()
        half = len(f.export) // 2
        self.wfile.write(f.export[:half])
        time.sleep(f.export_pause)
        self.wfile.write(f.export[half:])

    def templates(self, key, parts, body):
        f = self.fake
        if key == ("GET", "v2", "templates"):
            return self.reply(200, {"templates": list(f.templates.values())})
        if key == ("POST", "v2", "templates"):
            time.sleep(f.create_delay)
            wanted = json.loads(body)
            if wanted.get("warm") == "false":
                raise Refused(422, "warm_failed", "it exited with 1")
            made = {"image": "default", "vcpus": 1, "memory_mib": 512,
                    "disk_gib": 10, "status": "ready",
                    "resident_bytes": 300 << 20, "created_at": CREATED,
                    "snapshot_id": "snap_9", **wanted}
            f.templates[wanted["name"]] = made
            return self.reply(200, made)
        if f.templates.pop(parts[2], None) is None:
            raise Refused(404, "not_found", "no template " + parts[2])
        self.send_response(204)
        self.end_headers()

    # --- runs ---

    def run(self, sid, sandbox, request):
        run = Run(request)
        rid = "ex_%024d" % len(self.fake.runs)
        if sandbox["status"] != "running":
            raise Refused(422, "sandbox_not_running", "it is stopped")
        if request.get("argv", [""])[0] == "refuse":
            raise Refused(422, "cannot_execute", "cannot execute it: "
                          + os.strerror(int(request["argv"][1])))
        self.fake.runs[rid] = run
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        send = Send(self)
        send.event({"event": "started", "id": rid, "pid": 42})
        name = "code" if "code" in request else request["argv"][0]
        last = COMMANDS[name](send, run)
        if last is None:
            self.close_connection = True
            self.wfile.write(b"0\r\n\r\n")
            return
        send.event({"event": "exit", "id": rid, "sandbox_id": sid, **last})
        send.raw(b"")

    def post_stdin(self, _sid, rid):
        run = self.fake.runs[rid]
        run.stdin_posts += 1
        for data in self.body_parts():
            run.stdin += data
            run.got.set()
        if self.query.get("eof") != "0":
            run.eof.set()
        self.send_response(204)
        self.end_headers()

    # --- files ---

    def upload(self, body):
        head = "Content-Type: %s\r\n\r\n" % self.headers["Content-Type"]
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            head.encode() + body)
        fields = {p.get_param("name", header="content-disposition"):
                  p.get_payload(decode=True) for p in form.iter_parts()}
        path = fields["path"].decode()
        self.fake.files[path] = fields["file"]
        size = len(fields["file"]) - (1 if path == "/short" else 0)
        self.reply(200, {"message": "stored", "path": path, "size": size})

    def download(self):
        path = self.query["path"]
        if path not in self.fake.files:
            raise Refused(404, "not_found", "no file " + path)
        data = self.fake.files[path]
        if data is None:
            raise Refused(422, "is_a_directory", "this is a directory")
        if path == "/broken":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data) + 1))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True
            return
        self.reply(200, data, "application/octet-stream")


class QuietServer(ThreadingHTTPServer):
    """Clients that are killed reset their connections: no news."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """Runs the fake while a `with` block does."""

    def __init__(self, address="127.0.0.1"):
        self.address = address

    def __enter__(self):
        self.fake = Fake()
        handler = type("BoundHandler", (Handler,), {"fake": self.fake})
        self.http = QuietServer((self.address, 0), handler)
        self.thread = threading.Thread(
            target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.fake.url = "http://%s:%d" % (
            self.address, self.http.server_port)
        return self.fake

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
