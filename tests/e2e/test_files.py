# test_files.py - files go in and come out as they were.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import socket
import time

import pytest
from support import MIB, memory_kib, pid_inside, reset_peak_memory, wait_for

import brig


def test_50_mib_there_and_back(sandbox, tmp_path):
    local = tmp_path / "data"
    local.write_bytes(os.urandom(50 * MIB + 12_345))
    want = hashlib.sha256(local.read_bytes()).hexdigest()
    brigd = pid_inside("brigd")
    before = memory_kib(brigd, "VmRSS")
    reset_peak_memory(brigd)

    result = sandbox.files.write("/root/data", local)
    assert (result.path, result.size) == ("/root/data", 50 * MIB + 12_345)
    seen = sandbox.run("sha256sum <data", timeout=60).stdout.split()[0]
    assert seen == want
    size = sandbox.files.download("/root/data", tmp_path / "back")
    assert size == 50 * MIB + 12_345
    got = hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest()
    assert got == want
    grown = memory_kib(brigd, "VmHWM") - before
    assert grown < 16 * 1024, "brigd stores what it passes on"
    sandbox.run("rm data", timeout=20)


@pytest.mark.parametrize(
    "path",
    [
        "/root/plain",
        "/root/with space",
        "/root/quotes ' and \" and $HOME and `id` and \\",
        "/root/ünïcode 漢字 😀",
        "/root/-rf",
        "/root/new\nline",
        "/root/a;b&c=d%20e+f#g?h",
        "/root/made/on/the way/deep/file",
        "/root/" + "n" * 255,
        "/tmp/../root/dots",
    ],
)
def test_odd_paths(sandbox, path):
    content = os.urandom(100)
    assert sandbox.files.write(path, content).size == 100
    assert sandbox.files.read(path) == content
    seen = sandbox.runs(["sha256sum", "--", path], timeout_s=20).check()
    assert hashlib.sha256(content).hexdigest() in seen.stdout
    sandbox.runs(["rm", "--", path], timeout_s=20).check()


def test_relative_paths_begin_at_home(sandbox):
    sandbox.files.write("relative/file", "x")
    assert sandbox.files.read("/root/relative/file") == b"x"
    assert sandbox.files.read("relative/file") == b"x"


@pytest.mark.parametrize("size", [0, 1, 32767, 32768, 32769, 65536, 262_145])
def test_sizes(sandbox, size):
    content = os.urandom(size)
    sandbox.files.write("size", content)
    assert sandbox.files.read("size") == content


def test_what_a_form_could_confuse(sandbox):
    for content in (
        b"\r\n", b"--", b"\r\n--mark\r\n", b"\r\n--mark--\r\n", b"\0" * 10,
        b"content-disposition: form-data; name=\"path\"\r\n\r\n/etc/x\r\n",
    ):
        sandbox.files.write("form", content)
        assert sandbox.files.read("form") == content


def test_modes_and_owners(sandbox):
    sandbox.files.write("script", "#!/bin/sh\necho one\n")
    sandbox.run("chmod 750 script && chown user: script", timeout=20).check()
    sandbox.files.write("script", "#!/bin/sh\necho two\n")
    seen = sandbox.run("stat -c %a script; ./script", timeout=20)
    assert seen.stdout == "750\ntwo\n"
    sandbox.files.write("fresh", "x")
    assert sandbox.run("stat -c '%a %U' fresh").stdout == "644 root\n"


def test_a_program_sees_the_old_file_or_the_new(sandbox):
    """Writing replaces; who has the old file open keeps it."""
    sandbox.files.write("swap", b"old" * 1000)
    run = sandbox.start(
        command="exec 3<swap; echo open; read -r x; cat <&3",
        stdin_open=True,
        timeout_s=20,
    )
    assert next(run).data == b"open\n"
    sandbox.files.write("swap", b"new")
    run.write(b"\n", eof=True)
    assert b"".join(event.data for event in run) == b"old" * 1000
    assert sandbox.files.read("swap") == b"new"


def test_a_broken_upload_leaves_nothing(api, sandbox):
    sandbox.run("rm -rf up; mkdir up; echo old >up/file", timeout=20).check()
    head = (
        b'--mark\r\ncontent-disposition: form-data; name="path"\r\n\r\n'
        b"/root/up/file\r\n--mark\r\n"
        b'content-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    )
    with socket.create_connection((api.host, api.port), 20) as connection:
        connection.sendall(
            f"POST /v1/sandboxes/{sandbox.id}/upload HTTP/1.1\r\nhost: x\r\n"
            f"x-api-key: {api.key}\r\ncontent-length: {10 * MIB}\r\n"
            "content-type: multipart/form-data; boundary=mark\r\n\r\n".encode()
            + head + b"new" * MIB
        )
        time.sleep(0.5)
    wait_for(
        lambda: sandbox.run("ls -A up; cat up/file", timeout=20).stdout
        == "file\nold\n",
        5,
        "nothing of the broken upload is left",
    )


def test_downloads_at_once(sandbox):
    from support import in_parallel

    content = os.urandom(MIB)
    sandbox.files.write("shared-file", content)
    got = in_parallel([lambda: sandbox.files.read("shared-file")] * 4)
    assert got == [content] * 4


def test_a_download_that_is_not_read(sandbox, client):
    """It must not keep others waiting."""
    sandbox.run("head -c 50000000 /dev/zero >zeros", timeout=60).check()
    response = client.transport.request(
        "GET",
        f"/v1/sandboxes/{sandbox.id}/download",
        query={"path": "zeros"},
        stream=True,
    )
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.read_some()[:1] == b"\0"
    assert sandbox.run("echo x", timeout=5).stdout == "x\n"
    response.close()
    sandbox.run("rm zeros", timeout=20)


def test_disk_full(new_sandbox):
    sandbox = new_sandbox(storage=4)
    filled = sandbox.run(
        "n=0; for size in 1G 256M 64M 16M 4M 1M 256K 64K 4K; do "
        "while fallocate -l $size /root/fill.$n 2>/dev/null; do "
        "n=$((n + 1)); done; rm -f /root/fill.$n; done; sync; "
        "df --output=avail / | tail -1",
        timeout=120,
    ).check()
    assert int(filled.stdout) < 64
    with pytest.raises(brig.InsufficientStorageError) as caught:
        sandbox.files.write("/root/more", bytes(MIB))
    assert "disk" in caught.value.message and "full" in caught.value.message
    result = sandbox.run("head -c 1000000 /dev/zero >more", timeout=20)
    assert result.exit_code != 0
    assert "No space left on device" in result.stderr
    assert "more" not in sandbox.run("rm -f more; ls").stdout

    # commands work all along, and so do files when there is space again
    assert sandbox.run("echo fine; rm fill.*", timeout=30).stdout == "fine\n"
    assert sandbox.files.write("/root/more", bytes(MIB)).size == MIB
