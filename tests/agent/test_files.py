"""test_files.py - the agent's promises about files.

SPDX-License-Identifier: Apache-2.0
"""

import errno
import os
import pathlib
import stat
import struct
import subprocess
import time

import pytest

from agent import (AT_IO, AT_OPEN, AT_REQUEST, DATA, END, FILE_INFO, READ,
                   STAT, U64, WRITE, AgentError, until)


def write_head(path, size=U64, mode=0):
    return struct.pack("<IIQ", mode, 0, size) + os.fsencode(path) + b"\0"


def no_leftovers(directory):
    return not list(pathlib.Path(directory).glob(".brig-upload-*"))


def test_round_trip(agent, tmp_path):
    for size in (0, 1, 32768, 32769, 5_000_000):
        data = os.urandom(size)
        path = tmp_path / "sub" / "dir" / f"f{size}"
        info = agent.write(path, data)
        assert info[0] == size
        assert stat.S_IMODE(info[2]) == 0o644
        assert path.read_bytes() == data
        assert agent.read(path) == data
        assert agent.stat(path)[:3] == info[:3]


def test_ranges(agent, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(range(100)))
    assert agent.read(path, 10, 5) == bytes(range(10, 15))
    assert agent.read(path, 90) == bytes(range(90, 100))
    assert agent.read(path, 90, 1000) == bytes(range(90, 100))
    assert agent.read(path, 100) == b""
    assert agent.read(path, 5000) == b""
    assert agent.read(path, 0, 0) == b""
    with pytest.raises(AgentError) as e:
        agent.read(path, U64)
    assert (e.value.stage, e.value.errno) == (AT_IO, errno.EINVAL)


def test_files_of_the_kernel(agent):
    assert agent.read("/proc/version").startswith(b"Linux")


def test_relative_paths_are_below_root(agent):
    name = f"brig-test-{os.getpid()}"
    try:
        agent.write(name, b"here")
        assert pathlib.Path("/root", name).read_bytes() == b"here"
        assert agent.read(name) == b"here"
        assert agent.stat(name)[0] == 4
    finally:
        os.unlink(f"/root/{name}")


def test_replaced_file_keeps_mode_and_owner(agent, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(0o750)
    os.chown(path, 12, 34)
    inode = path.stat().st_ino
    info = agent.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != inode
    assert (stat.S_IMODE(info[2]), info[3], info[4]) == (0o750, 12, 34)
    assert stat.S_IMODE(agent.write(path, b"x", mode=0o600)[2]) == 0o600


def test_symbolic_link_is_followed(agent, tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    agent.write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    (tmp_path / "dangling").symlink_to("nowhere")
    agent.write(tmp_path / "dangling", b"file")
    assert (tmp_path / "dangling").read_bytes() == b"file"


def test_nothing_appears_before_the_end(agent, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with agent.connect() as c:
        c.send(WRITE, write_head(path))
        c.send(DATA, b"half")
        until(lambda: not no_leftovers(tmp_path))
        assert path.read_bytes() == b"old"
    until(lambda: no_leftovers(tmp_path))
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("size,sent", [(10, 9), (10, 11), (0, 1)])
def test_announced_size_must_hold(agent, tmp_path, size, sent):
    with pytest.raises(AgentError) as e:
        agent.write(tmp_path / "f", bytes(sent), size=size)
    assert e.value.stage == AT_REQUEST
    assert not (tmp_path / "f").exists()
    assert no_leftovers(tmp_path)


def test_no_space(agent, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small],
                   check=True)
    try:
        (small / "f").write_bytes(b"old")
        with agent.connect() as c:
            c.send(WRITE, write_head(small / "f"))
            # The refusal is readable however much is still under way.
            for _ in range(100):
                c.send(DATA, bytes(32768))
            c.send(END)
            with pytest.raises(AgentError) as e:
                c.expect(FILE_INFO)
        assert (e.value.stage, e.value.errno) == (AT_IO, errno.ENOSPC)
        assert (small / "f").read_bytes() == b"old"
        assert no_leftovers(small)
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_is_no_file(agent, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, error in ((tmp_path, errno.EISDIR),
                        (tmp_path / "fifo", errno.EINVAL),
                        ("/dev/zero", errno.EINVAL),
                        (tmp_path / "none", errno.ENOENT),
                        ("/etc/passwd/x", errno.ENOTDIR)):
        with pytest.raises(AgentError) as e:
            agent.read(path)
        assert (e.value.stage, e.value.errno) == (AT_OPEN, error)
    for path, error in ((tmp_path, errno.EISDIR),
                        (str(tmp_path / "new") + "/", errno.EISDIR),
                        (tmp_path / "fifo", errno.EINVAL),
                        ("/etc/passwd/x", errno.ENOTDIR)):
        with pytest.raises(AgentError) as e:
            agent.write(path, b"")
        assert (e.value.stage, e.value.errno) == (AT_OPEN, error)
    with pytest.raises(AgentError) as e:
        agent.stat(tmp_path / "none")
    assert (e.value.stage, e.value.errno) == (AT_OPEN, errno.ENOENT)


def test_malformed_paths(agent):
    for payload in (b"ab", b"\0\0", b"a\0b\0", b"a" * 4095 + b"x"):
        with agent.connect() as c:
            c.send(STAT, payload)
            with pytest.raises(AgentError) as e:
                c.expect(FILE_INFO)
            assert e.value.stage == AT_REQUEST
    with pytest.raises(AgentError) as e:
        agent.stat("a" * 4094)
    assert (e.value.stage, e.value.errno) == (AT_REQUEST, errno.ENAMETOOLONG)


def test_slow_download_stops_nobody(agent, tmp_path):
    path = tmp_path / "big"
    with open(path, "wb") as f:
        f.truncate(1 << 30)
    with agent.connect() as c:
        c.send(READ, struct.pack("<QQ", 0, U64) + os.fsencode(path) + b"\0")
        c.expect(FILE_INFO)
        start = time.monotonic()
        assert agent.sh("echo quick").out == b"quick\n"
        assert time.monotonic() - start < 2
        helpers = _children(agent)
        assert len(helpers) == 1
    until(lambda: not _children(agent))


def _children(agent):
    pid = agent.process.pid
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return f.read().split()


def test_many_transfers_at_once(agent, tmp_path):
    conns = []
    for i in range(30):
        c = agent.connect()
        c.send(WRITE, write_head(tmp_path / f"f{i}"))
        conns.append(c)
    for i, c in enumerate(conns):
        c.send(DATA, b"%d" % i)
        c.send(END)
    for i, c in enumerate(conns):
        c.expect(FILE_INFO)
        assert (tmp_path / f"f{i}").read_bytes() == b"%d" % i
        c.sock.close()
    until(lambda: not _children(agent))
