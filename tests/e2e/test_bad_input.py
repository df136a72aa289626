# test_bad_input.py - bad input gets the documented error, and that is all.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import time

import pytest
from support import quiet_inventory, within

import brig

NO_ID = "sb_" + "0" * 24
# Not ids at all: a URL that is refused as such, or another route.
ODD_IDS = ["..", "%00", "list"]
OTHER_IDS = [NO_ID, "sb_", "x", "sb_" + "a" * 500, "%2e%2e%2fetc"] + ODD_IDS

# Every request of part 1 and of part 2 so far; {} is the id.
REQUESTS = [
    ("POST", "/v1/sandboxes/create"),
    ("GET", "/v1/sandboxes/list"),
    ("DELETE", "/v1/sandboxes/delete-all"),
    ("GET", "/v1/sandboxes/logs"),
    ("DELETE", "/v1/sandboxes/{}/delete"),
    ("POST", "/v1/sandboxes/{}/execute"),
    ("POST", "/v1/sandboxes/{}/execute_async"),
    ("GET", "/v1/sandboxes/{}/status"),
    ("GET", "/v1/sandboxes/{}/download?path=/etc/hostname"),
    ("POST", "/v1/sandboxes/{}/upload"),
    ("GET", "/v2/host"),
    ("GET", "/v2/sandboxes/{}"),
    ("GET", "/v2/sandboxes/{}/console"),
    ("POST", "/v2/sandboxes/{}/runs"),
    ("POST", "/v2/sandboxes/{}/runs/ex_0/stdin"),
]

MARK = "mark"


def form(*parts):
    """A multipart body of (name, text) fields."""
    text = "".join(
        f'--{MARK}\r\ncontent-disposition: form-data; name="{name}"'
        + ('; filename="f"' if name == "file" else "")
        + f"\r\n\r\n{value}\r\n"
        for name, value in parts
    )
    return (text + f"--{MARK}--\r\n").encode()


FORM_TYPE = {"content-type": f"multipart/form-data; boundary={MARK}"}


def body_for(target):
    """A body that would be right, and its headers."""
    if target.endswith("/upload"):
        return form(("path", "x"), ("file", "y")), FORM_TYPE
    if target.endswith(("/execute", "/execute_async")):
        return {"command": "true"}, {}
    if target.endswith("/runs"):
        return {"argv": ["true"]}, {}
    return None, {}


def check_error(reply, *allowed):
    """The documented form of an error, with one of these statuses and codes.

    An entry is a status or a pair (status, code)."""
    statuses = [a if isinstance(a, int) else a[0] for a in allowed]
    assert reply.status in statuses, reply
    assert reply.headers["content-type"].startswith("application/json")
    error = reply.json()["error"]
    assert error["code"] and error["message"]
    assert isinstance(error.get("details", {}), dict)
    assert error["request_id"] == reply.headers["x-request-id"]
    for one in allowed:
        if isinstance(one, tuple) and one[0] == reply.status:
            assert error["code"] == one[1]


@pytest.fixture(scope="module", autouse=True)
def nothing_else_happens(client, shared, api):
    """No request of this file changes what runs."""
    shared.get()

    def ids():
        return sorted(one.id for one in client.sandboxes.list_all())

    before = ids()
    quiet_inventory(api, len(before))
    yield
    time.sleep(0.5)
    assert ids() == before
    quiet_inventory(api, len(before))


# --- keys --------------------------------------------------------------------


@pytest.mark.parametrize("method, target", REQUESTS)
def test_without_a_key_or_with_a_wrong_one(api, sandbox, method, target):
    target = target.format(sandbox.id)
    body, headers = body_for(target)
    for wrong in (
        {},
        {"x-api-key": ""},
        {"x-api-key": "wrong"},
        {"x-api-key": api.key + "x"},
        {"x-api-key": api.key[:-1]},
        {"x-api-key": "k" * 10_000},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {api.key}"},
    ):
        reply = api(method, target, body, {**headers, **wrong}, key=False)
        check_error(reply, (401, "unauthorized"))
        assert api.key not in reply.body.decode()


def test_both_headers_take_the_key(api):
    for headers in (
        {"x-api-key": api.key}, {"authorization": f"Bearer {api.key}"},
    ):
        assert api("GET", "/v2/host", headers=headers, key=False).status == 200


def test_health_needs_no_key(api):
    reply = api("GET", "/healthz", key=False)
    assert (reply.status, reply.json()["status"]) == (200, "ok")
    assert reply.headers["x-request-id"]


# --- ids and paths -----------------------------------------------------------


@pytest.mark.parametrize(
    "method, target", [r for r in REQUESTS if "{}" in r[1]]
)
def test_unknown_ids(api, method, target):
    for id in OTHER_IDS:
        path = target.format(id)
        body, headers = body_for(path)
        reply = api(method, path, body, headers)
        if id in ODD_IDS:
            check_error(reply, 400, 404, 405)
        else:
            check_error(reply, (404, "not_found"))


@pytest.mark.parametrize(
    "method, target",
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/sandboxes"),
        ("GET", "/v3/sandboxes/list"),
        ("POST", "/v1/sandboxes/list"),
        ("GET", "/v1/sandboxes/create"),
        ("DELETE", "/v1/sandboxes/list"),
        ("PUT", "/v1/sandboxes/create"),
        ("GET", "/v1/sandboxes/../../etc/passwd"),
        ("GET", "/v1/sandboxes//list"),
    ],
)
def test_unknown_routes(api, method, target):
    check_error(api(method, target), 404, 405)


# --- JSON --------------------------------------------------------------------

POSTS = ["/v1/sandboxes/create", "/v1/sandboxes/{}/execute",
         "/v1/sandboxes/{}/execute_async", "/v2/sandboxes/{}/runs"]
JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize("target", POSTS)
@pytest.mark.parametrize(
    "text",
    [
        b"{", b"}", b'{"command": }', b'{"command": "x",}', b"nonsense",
        b'{"command": "x"} extra', b'{"command": "\xff\xfe"}', b"\x00",
        b"[" * 5000, b'{"a":' * 5000,
    ],
)
def test_malformed_json(api, sandbox, target, text):
    reply = api("POST", target.format(sandbox.id), text, JSON_TYPE)
    check_error(reply, 400)


@pytest.mark.parametrize("target", POSTS)
@pytest.mark.parametrize("text", [b"[]", b'"command"', b"5", b"true"])
def test_json_that_is_no_object(api, sandbox, target, text):
    reply = api("POST", target.format(sandbox.id), text, JSON_TYPE)
    check_error(reply, 422)


# --- values ------------------------------------------------------------------

BAD_CREATE = [
    {"image": 5},
    {"image": "a\0b"},
    {"name": 5},
    {"name": "a\0b"},
    {"name": "x" * 1000},
    {"name": "under_score and space"},
    {"env_vars": []},
    {"env_vars": {"A": 1}},
    {"env_vars": {"A": None}},
    {"env_vars": {"": "x"}},
    {"env_vars": {"A=B": "x"}},
    {"env_vars": {"A": "x\0y"}},
    {"env_vars": {f"A{n}": "x" for n in range(2000)}},
    {"env_vars": {"A": "x" * 300_000}},
    {"resources": []},
    {"resources": "big"},
    {"wait_for_ready": "yes"},
    {"wait_for_ready": 1},
]
for _field, _values in {
    "cpus": [0, -1, 33, 10**6, 10**18, 10**30, 1e308, "4", True, [], {}],
    "memory": [0, -1, 127, 16385, 2**31, 2**63, 2**64, 1e300, "256", True],
    "storage": [0, -1, 257, 2**32, 2**63, 1e300, "10", False, [10]],
}.items():
    BAD_CREATE += [{"resources": {_field: value}} for value in _values]


@pytest.mark.parametrize("body", BAD_CREATE, ids=lambda b: str(b)[:60])
def test_create_with_bad_values(api, body):
    check_error(api("POST", "/v1/sandboxes/create", body), 422)


def test_a_name_of_a_variable_with_a_nul(api):
    """The JSON library has no keys with NUL, so it counts as malformed."""
    body = {"env_vars": {"A\0": "x"}}
    check_error(api("POST", "/v1/sandboxes/create", body), 400, 422)


@pytest.mark.parametrize("image", ["no-such-image", "default.ext4", "vmlinux"])
def test_create_with_an_unknown_image(api, image):
    reply = api("POST", "/v1/sandboxes/create", {"image": image})
    check_error(reply, 404)
    assert image in reply.json()["error"]["message"]


@pytest.mark.parametrize("image", ["../key", "/etc/passwd", "", ".", "a/b"])
def test_create_with_an_image_that_is_no_name(api, image):
    reply = api("POST", "/v1/sandboxes/create", {"image": image})
    check_error(reply, 404, 422)


BAD_RUN = [
    {},
    {"command": None},
    {"command": 5},
    {"command": ["echo"]},
    {"command": "a\0b"},
    {"command": "true", "env": []},
    {"command": "true", "env": {"A": 1}},
    {"command": "true", "env": {"A=B": "1"}},
    {"command": "true", "env": {"": "1"}},
    {"command": "true", "env": {"A": "\0"}},
]
BAD_EXECUTE = BAD_RUN + [
    {"command": "true", "timeout": value}
    for value in (-1, -0.5, "2", True, 1e300, 10**30, [], {})
] + [
    {"command": "true", "working_dir": value} for value in (5, "a\0b", [])
]


@pytest.mark.parametrize("body", BAD_EXECUTE, ids=str)
def test_execute_with_bad_values(api, sandbox, body):
    target = f"/v1/sandboxes/{sandbox.id}/execute"
    check_error(api("POST", target, body), 422)


@pytest.mark.parametrize("body", BAD_RUN, ids=str)
def test_execute_async_with_bad_values(api, sandbox, body):
    target = f"/v1/sandboxes/{sandbox.id}/execute_async"
    check_error(api("POST", target, body), 422)


@pytest.mark.parametrize(
    "body",
    BAD_RUN
    + [
        {"argv": []},
        {"argv": "true"},
        {"argv": [5]},
        {"argv": ["true", "a\0b"]},
        {"argv": ["true"], "command": "true"},
        {"argv": ["x"] * 2000},
        {"argv": ["true"], "cwd": 5},
        {"argv": ["true"], "user": 5},
        {"argv": ["true"], "user": "a\0b"},
        {"argv": ["true"], "user": "x" * 1000},
        {"argv": ["true"], "stdin": 5},
        {"argv": ["true"], "stdin_open": "yes"},
        {"argv": ["true"], "stream": 1},
        {"argv": ["true"], "timeout_s": -1},
        {"argv": ["true"], "timeout_s": "1"},
        {"argv": ["true"], "timeout_s": 1e300},
        {"argv": ["true"], "output_limit": -1},
        {"argv": ["true"], "output_limit": 2**63},
        {"argv": ["true"], "output_limit": 1.5},
        {"argv": ["true"], "unknown": 1},
    ],
    ids=lambda b: str(b)[:60],
)
def test_runs_with_bad_values(api, sandbox, body):
    target = f"/v2/sandboxes/{sandbox.id}/runs"
    check_error(api("POST", target, body), 422)


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=x", "page=1.5", "page=1e300", "page_size=0",
     "page_size=-5", "page_size=99999999999999999999"],
)
def test_list_with_bad_values(api, query):
    check_error(api("GET", f"/v1/sandboxes/list?{query}"), 422)


def test_list_takes_decimals(api):
    reply = api("GET", "/v1/sandboxes/list?page=1.0&page_size=5.0")
    assert reply.status == 200
    assert reply.json()["pagination"]["page_size"] == 5


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=x", "from=yesterday",
     "to=2026-13-01T00:00:00Z", "from=2026-02-30T00:00:00Z"],
)
def test_logs_with_bad_values(api, query):
    check_error(api("GET", f"/v1/sandboxes/logs?{query}"), 422)


# --- sizes -------------------------------------------------------------------


def test_a_body_over_its_limit(client, sandbox):
    for size in (2 << 20, 64 << 20):
        with pytest.raises(brig.PayloadTooLargeError):
            sandbox.run("x" * size)
    with pytest.raises(brig.PayloadTooLargeError):
        client.sandboxes.create(env={"A": "x" * (2 << 20)})


def test_a_body_that_says_it_is_huge(api, sandbox):
    for length in (1 << 40, 2**63, 2**64, 10**30):
        with socket.create_connection((api.host, api.port), 20) as connection:
            connection.sendall(
                f"POST /v1/sandboxes/{sandbox.id}/execute HTTP/1.1\r\n"
                f"host: x\r\nx-api-key: {api.key}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {length}\r\n\r\n".encode()
            )
            status = connection.recv(4096).split()[1]
        assert status in (b"400", b"413")


def test_headers_over_their_limit(api):
    with socket.create_connection((api.host, api.port), 20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        got = b""
        try:
            for _ in range(64):
                connection.sendall(b"x-filler: " + b"y" * 16_000 + b"\r\n")
            connection.sendall(b"\r\n")
            got = connection.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            pass  # hung up on is a refusal too
    assert got == b"" or got.split()[1] in (b"400", b"413", b"431")


def test_a_command_that_no_guest_could_take(sandbox):
    with pytest.raises(brig.APIError) as caught:
        sandbox.run("x" * 200_000)
    assert caught.value.status in (413, 422)


# --- files -------------------------------------------------------------------


def test_a_path_that_does_not_exist(sandbox):
    for path in ("/no/such/file", "nothing", "/etc/passwd/x"):
        with pytest.raises(brig.NotFoundError):
            sandbox.files.read(path)


def test_a_directory_that_does_not_exist(sandbox):
    with pytest.raises(brig.NotFoundError):
        sandbox.run("pwd", working_dir="/no/such/directory", timeout=20)


def test_downloads_of_what_is_no_file(api, sandbox):
    target = f"/v1/sandboxes/{sandbox.id}/download"
    check_error(api("GET", f"{target}?path=/etc"), 422)
    check_error(api("GET", target), 422)
    check_error(api("GET", f"{target}?path="), 422)
    check_error(api("GET", f"{target}?path=%00"), 400, 422)
    check_error(api("GET", f"{target}?path=" + "x" * 5000), 400, 404, 422)


def test_uploads_that_cannot_be(api, sandbox):
    target = f"/v1/sandboxes/{sandbox.id}/upload"
    for body in (
        form(("file", "x")),
        form(("path", "x")),
        form(("path", ""), ("file", "x")),
        form(("path", "a\0b"), ("file", "x")),
        form(("path", "/etc"), ("file", "x")),
        form(("path", "/etc/passwd/x"), ("file", "x")),
        form(("path", "y" * 5000), ("file", "x")),
    ):
        check_error(api("POST", target, body, FORM_TYPE), 400, 404, 422)
    for headers in (
        {"content-type": "application/json"},
        {"content-type": "multipart/form-data"},
        {},
    ):
        check_error(
            api("POST", target, form(("path", "x"), ("file", "y")), headers),
            400, 415, 422,
        )
    # cut off in the middle
    whole = form(("path", "cut"), ("file", "some text"))
    check_error(api("POST", target, whole[:-12], FORM_TYPE), 400, 422)
    with pytest.raises(brig.NotFoundError):
        sandbox.files.read("cut")


# --- HTTP --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"POST /v1/sandboxes/create HTTP/1.1\r\nhost: x\r\n"
        b"content-length: -5\r\n\r\n",
        b"POST /v1/sandboxes/create HTTP/1.1\r\nhost: x\r\n"
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ],
)
def test_broken_http(api, text):
    with socket.create_connection((api.host, api.port), 20) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        got = connection.recv(4096)
    assert got == b"" or got.split()[1][:1] in (b"4", b"5")
    assert api("GET", "/healthz", key=False).status == 200


def test_clients_that_do_nothing_keep_nobody_out(api):
    idle = [
        socket.create_connection((api.host, api.port), 20) for _ in range(100)
    ]
    try:
        with within(2, "an answer beside 100 silent clients"):
            assert api("GET", "/healthz", key=False).status == 200
    finally:
        for connection in idle:
            connection.close()
