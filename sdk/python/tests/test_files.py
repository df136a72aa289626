# test_files.py - the upload form, and downloads.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import email
import email.policy
import os
import re
import stat

import brig
import pytest
from fake_server import reply

DONE = {"message": "written", "path": "/root/x", "size": 3}


def form_of(request):
    """The fields of an upload, read by Python's own MIME parser."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(
        head + request.body, policy=email.policy.HTTP
    )
    return {
        part.get_param("name", header="content-disposition"):
        part.get_payload(decode=True)
        for part in message.iter_parts()
    }


def raw_file_of(request):
    mark = request.headers["content-type"].split("boundary=")[1].encode()
    pattern = rb"octet-stream\r\n\r\n(.*)\r\n--" + mark + rb"--\r\n$"
    return re.search(pattern, request.body, re.DOTALL).group(1)


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), "abc"])
def test_write(server, sandbox, data):
    server.add_json(DONE)
    result = sandbox.files.write("dir/ü \"x\"", data)
    assert result == brig.UploadResult("written", "/root/x", 3)
    request = server.requests[0]
    assert request.target == "/v1/sandboxes/sb_1/upload"
    assert raw_file_of(request) == b"abc"
    fields = form_of(request)
    assert set(fields) == {"path", "file"}
    assert fields["path"] == 'dir/ü "x"'.encode()
    assert int(request.headers["content-length"]) == len(request.body)


def test_write_from_a_local_file(server, sandbox, tmp_path):
    content = os.urandom(300_001)
    (tmp_path / "f").write_bytes(content)
    server.add_json(DONE)
    steps = []
    sandbox.files.write(
        "f", tmp_path / "f", progress=lambda *step: steps.append(step)
    )
    assert raw_file_of(server.requests[0]) == content
    assert steps[-1] == (300_001, 300_001) and len(steps) == 5


def test_write_from_an_open_file_starts_where_it_is(server, sandbox, tmp_path):
    (tmp_path / "f").write_bytes(b"headtail")
    server.add_json(DONE)
    with open(tmp_path / "f", "rb") as file:
        file.seek(4)
        sandbox.files.write("f", file)
    assert raw_file_of(server.requests[0]) == b"tail"


def test_write_from_a_pipe(server, sandbox):
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)
    server.add_json(DONE)
    with open(reader, "rb") as file:
        sandbox.files.write("f", file)
    assert server.requests[0].headers["transfer-encoding"] == "chunked"
    assert raw_file_of(server.requests[0]) == b"piped"


def test_an_upload_is_never_sent_twice(server, sandbox):
    server.add_error(503, "busy")
    with pytest.raises(brig.ServerError):
        sandbox.files.write("f", b"x")
    assert len(server.requests) == 1


def test_read(server, sandbox):
    server.add(reply(b"\x00\xff"))
    server.add(reply("ü".encode()))
    assert sandbox.files.read("/tmp/a b&c=ü") == b"\x00\xff"
    assert sandbox.files.read_text("x") == "ü"
    assert server.requests[0].target == (
        "/v1/sandboxes/sb_1/download?path=%2Ftmp%2Fa+b%26c%3D%C3%BC"
    )


def test_download(server, sandbox, tmp_path):
    content = os.urandom(200_000)
    server.add(reply(content))
    steps = []
    size = sandbox.files.download(
        "x", tmp_path / "x", progress=lambda *step: steps.append(step)
    )
    assert size == 200_000 and (tmp_path / "x").read_bytes() == content
    assert steps[-1] == (200_000, 200_000)
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE((tmp_path / "x").stat().st_mode)
    assert mode == 0o666 & ~umask


def test_a_broken_download_leaves_the_old_file(server, sandbox, tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    server.add(reply(b"new", length=100, close=True))
    with pytest.raises(brig.ConnectionError):
        sandbox.files.download("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_that_is_not_there(server, sandbox, tmp_path):
    server.add_error(404, "file_not_found")
    with pytest.raises(brig.NotFoundError):
        sandbox.files.download("x", tmp_path / "x")
    assert os.listdir(tmp_path) == []
