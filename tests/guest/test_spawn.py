"""brig-spawn: requests, jail and life cycle, with tiny guests.

SPDX-License-Identifier: Apache-2.0
"""

import errno
import os
import signal
import socket
import struct
import time
from pathlib import Path

import pytest
import spawner
import tiny
from spawner import SHAPE, Shell, Spawner, new_id

UID_BASE = 0x6B000000


@pytest.fixture(name="spawn")
def make_spawn():
    with Spawner() as s:
        yield s


@pytest.fixture(name="shell")
def make_shell():
    with Shell() as s:
        yield s


def pid_of(pidfd):
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(next(line.split()[1] for line in info.splitlines()
                    if line.startswith("Pid:")))


class Running(Shell):
    """A guest that does nothing until it is killed."""

    def __init__(self, spawn, **fields):
        super().__init__()
        self.id = new_id()
        m = spawn.start(self, id=self.id, **fields)
        assert m["status"] == 0, spawn.read_log()
        assert m["type"] == spawner.STARTED
        self.handle, self.uid = m["handle"], m["uid"]
        self.pidfd, self.cgroup_fd = m["fds"]
        self.pid = pid_of(self.pidfd)
        self.sent()
        self.boot_guest("faults", b"h")
        self.wait_console("going")

    def alive(self):
        return Path(f"/proc/{self.pid}/status").exists()

    def proc(self, name):
        return Path(f"/proc/{self.pid}/{name}")

    def close(self):
        os.close(self.pidfd)
        os.close(self.cgroup_fd)
        super().close()


@pytest.fixture(name="vm")
def make_vm(spawn):
    with Running(spawn) as vm:
        yield vm


def test_guest_runs_to_its_end(spawn, shell):
    m = spawn.start(shell)
    assert (m["status"], m["type"]) == (0, spawner.STARTED)
    shell.sent()
    shell.boot_guest()
    assert shell.pump(tiny.STOPPED)[2] == tiny.POWEROFF
    assert shell.ready and shell.running
    gone = spawn.wait_exited(m["handle"])
    assert os.waitstatus_to_exitcode(gone["wait_status"]) == 0
    assert gone["status"] == 0
    assert shell.console() == "sum=00000078\n"
    assert spawn.sandboxes() == []
    for fd in m["fds"]:
        os.close(fd)


def test_jail_of_a_running_monitor(vm):
    status = dict(line.split(":\t", 1) for line in
                  vm.proc("status").read_text().splitlines() if ":\t" in line)
    uid = str(vm.uid)
    assert UID_BASE <= vm.uid < UID_BASE + 4096
    assert status["Uid"].split() == [uid] * 4
    assert status["Gid"].split() == [uid] * 4
    assert status["Groups"].split() == []
    for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[which], 16) == 0, which
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[1:] == ["1"]
    assert int(status["SigBlk"], 16) == 0
    assert os.listdir(vm.proc("root")) == []
    mounts = vm.proc("mountinfo").read_text().splitlines()
    assert len(mounts) == 1
    assert " / / ro,nosuid,nodev,noexec" in mounts[0]
    assert vm.proc("environ").read_bytes() == b""
    assert vm.proc("cmdline").read_bytes() == b"brig-vmm\0"
    for ns in ("mnt", "ipc", "uts", "net", "pid", "cgroup"):
        assert os.readlink(vm.proc(f"ns/{ns}")) != \
            os.readlink(f"/proc/self/ns/{ns}")
    assert vm.proc("cgroup").read_text().splitlines()[-1].endswith(vm.id)
    limits = {line[:25].strip(): line[26:].split()[:2]
              for line in vm.proc("limits").read_text().splitlines()}
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == ["1024", "1024"]
    assert limits["Max file size"] == [str((128 + 64) << 20)] * 2


def test_descriptors_of_a_running_monitor(vm):
    names = {int(fd.name): os.readlink(fd) for fd in vm.proc("fd").iterdir()}
    assert names[0] == names[1] == "/dev/null"
    assert names[3].startswith("pipe:")
    assert names[4].startswith("socket:")
    assert names[5] == "/dev/kvm"
    assert names[6] == "/"
    # What came later is what brigd sent and what brig-vmm made itself; of its
    # own pages it may know which are its own.
    for fd, name in names.items():
        assert fd < 7 or name.startswith(
            ("anon_inode:", "/memfd:base", "/tmp/#", "/1/pagemap")), (fd, name)


def test_procfs_of_a_running_monitor(vm):
    """It shows the one process, nothing of the system, and has no parent."""
    proc = vm.proc("fd/6")
    assert set(os.listdir(proc)) == {"1", "self", "thread-self"}
    assert (proc / "1/stat").read_text().split()[1] == "(brig-vmm)"
    for name in ("999", "sys", "kcore", "meminfo", "sysrq-trigger", "mounts"):
        assert not os.path.exists(proc / name), name
    assert os.path.samefile(proc, f"{proc}/..")
    with pytest.raises(OSError) as e:
        os.open(proc / "1/oom_score_adj", os.O_WRONLY)
    assert e.value.errno == errno.EROFS


def test_cgroup_of_a_running_monitor(spawn, vm):
    """Everybody may read it; brigd does."""
    assert os.fstat(vm.cgroup_fd).st_mode & 0o7777 == 0o755
    fd = os.open("cgroup.procs", os.O_RDONLY, dir_fd=vm.cgroup_fd)
    assert os.read(fd, 100).split() == [str(vm.pid).encode()]
    os.close(fd)


def test_save_and_restore_in_jails(spawn):
    """The source reads its page map, and the copy its files, with no rights."""
    with Shell() as source, Shell() as copy:
        for shell in source, copy:
            m = spawn.start(shell)
            assert m["status"] == 0
            shell.sent()
            for fd in m["fds"]:
                os.close(fd)
        source.boot_guest("state", tiny.script((tiny.WRITE, 0x300000, 0x1234)))
        source.wait_console("up\n")
        with source.save() as saved:
            assert 0 < saved.bytes < 1 << 20
            copy.restore(saved, ask=[(tiny.READ, 0x300000),
                                     (tiny.WRITE, 0x300000, 0x5678)])
            assert copy.answer() == ["00300000=00001234"]
            with copy.save() as second:
                assert 0 < second.bytes < 1 << 16
                assert second.read(0x300000, 2) == b"\x78\x56"


def test_kill(spawn, vm):
    m = spawn.ask(spawner.KILL, handle=vm.handle)
    assert (m["type"], m["status"]) == (spawner.DONE, 0)
    gone = spawn.wait_exited(vm.handle)
    assert os.waitstatus_to_exitcode(gone["wait_status"]) == -signal.SIGKILL
    assert not vm.alive()
    assert spawn.sandboxes() == []
    m = spawn.ask(spawner.KILL, handle=vm.handle)
    assert m["status"] == -errno.ESRCH


def test_monitor_killed_by_someone_else(spawn, vm):
    os.kill(vm.pid, signal.SIGKILL)
    gone = spawn.wait_exited(vm.handle)
    assert os.waitstatus_to_exitcode(gone["wait_status"]) == -signal.SIGKILL
    assert spawn.sandboxes() == []


def test_uids_are_not_shared_and_rest(spawn):
    vms = [Running(spawn) for _ in range(3)]
    assert len({vm.uid for vm in vms}) == 3
    assert len({vm.handle for vm in vms}) == 3
    assert sorted(spawn.sandboxes()) == sorted(vm.id for vm in vms)
    spawn.ask(spawner.KILL, handle=vms[0].handle)
    spawn.wait_exited(vms[0].handle)
    late = Running(spawn)
    assert late.uid not in {vm.uid for vm in vms}
    for vm in vms + [late]:
        vm.close()


def test_id_in_use(spawn, vm, shell):
    assert spawn.start(shell, id=vm.id)["status"] == -errno.EEXIST
    assert vm.alive()


@pytest.mark.parametrize("fields, error", [
    ({"id": ""}, errno.EINVAL),
    ({"id": "sb_" + "a" * 23}, errno.EINVAL),
    ({"id": "sb_" + "a" * 25}, errno.EINVAL),
    ({"id": "sb_" + "a" * 29}, errno.EINVAL),
    ({"id": "sb_../../../../../../../x"}, errno.EINVAL),
    ({"id": "sb_aaaaaaaaaaa/aaaaaaaaaaaa"}, errno.EINVAL),
    ({"id": b"sb_aaaaaaaaaaa\0aaaaaaaaaaaa"}, errno.EINVAL),
    ({"id": b"sb_aaaaaaaaaaaaaaaaaaaaaaaa\0b"}, errno.EINVAL),
    ({"vcpus": 0}, errno.ERANGE),
    ({"vcpus": 9}, errno.ERANGE),
    ({"memory_mib": 127}, errno.ERANGE),
    ({"memory_mib": 16385}, errno.ERANGE),
    ({"memory_mib": 2**32 - 1}, errno.ERANGE),
    ({"disk_bytes": (64 << 20) + 1}, errno.ERANGE),
    ({"disk_bytes": 2**64 - (1 << 20)}, errno.ERANGE),
    ({"cpu_quota_percent": 801}, errno.ERANGE),
])
def test_fields_out_of_bounds(spawn, shell, fields, error):
    m = spawn.start(shell, **fields)
    assert (m["type"], m["status"]) == (spawner.STARTED, -error)
    assert m["fds"] == [] and m["handle"] == 0
    assert spawn.sandboxes() == []


@pytest.mark.parametrize("opener", [
    lambda: socket.socket(socket.AF_UNIX).detach(),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach(),
    lambda: os.open("/dev/null", os.O_RDWR),
    lambda: os.open("/etc", os.O_PATH),
    lambda: os.memfd_create("x"),
], ids=["stream", "datagram", "inet", "null", "path", "memfd"])
def test_wrong_descriptor(spawn, shell, opener):
    shell.replace(opener())
    m = spawn.start(shell)
    assert m["status"] == -errno.EBADF
    assert spawn.sandboxes() == []


def test_no_descriptor(spawn):
    m = spawn.ask(spawner.START, id=new_id(), **SHAPE)
    assert m["status"] == -errno.EINVAL


def test_descriptors_do_not_leak(spawn):
    path = Path(f"/proc/{spawn.process.pid}/fd")
    spawn.ask(99)  # connected
    before = len(list(path.iterdir()))
    for _ in range(20):
        with Shell() as shell:
            assert spawn.start(shell, vcpus=9)["status"] < 0
            assert spawn.ask(spawner.KILL, [shell.theirs])["status"] < 0
            m = spawn.start(shell)
        spawn.wait_exited(m["handle"])  # nobody holds its control socket
        for fd in m["fds"]:
            os.close(fd)
    assert len(list(path.iterdir())) == before


@pytest.mark.parametrize("packet", [
    b"x", bytes(spawner.MSG.size - 1), bytes(spawner.MSG.size + 1),
], ids=["byte", "short", "long"])
def test_wrong_packet_ends_the_connection(spawn, packet):
    spawn.sock.send(packet)
    assert spawn.receive() is None
    spawn.sock.close()
    spawn.sock = spawn.connect()
    assert spawn.ask(99)["status"] == -errno.EINVAL


def test_too_many_descriptors_end_the_connection(spawn, shell):
    spawn.send(spawner.START, [shell.theirs, 0], id=new_id(), **SHAPE)
    assert spawn.receive() is None


def test_second_brigd_is_refused_until_the_first_is_gone(spawn, vm):
    second = spawn.connect()
    assert second.recv(1) == b""
    second.close()
    spawn.sock.close()
    spawn.sock = spawn.connect()
    m = spawn.ask(spawner.KILL, handle=vm.handle)
    assert m["status"] == 0
    spawn.wait_exited(vm.handle)


def test_other_users_are_refused(spawn):
    os.chmod(spawn.path, 0o666)
    os.chmod(spawn.dir.name, 0o755)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(len(spawn.connect().recv(1)))
    assert os.waitpid(pid, 0)[1] == 0
    assert "connection refused" in spawn.read_log()


@pytest.mark.parametrize("mode, error", [
    (0o644, errno.EACCES), (0o700, errno.EACCES), (0o755, errno.ENOEXEC),
])
def test_failing_exec_is_reported(tmp_path, mode, error):
    program = tmp_path / "not-a-program"
    program.write_text("x")
    program.chmod(mode)
    with Spawner(vmm=program) as spawn:
        with Shell() as shell:
            assert spawn.start(shell)["status"] == -error
        assert "execveat" in spawn.read_log()
        end = time.monotonic() + 5
        while spawn.sandboxes() and time.monotonic() < end:
            time.sleep(0.01)
        assert spawn.sandboxes() == []


def test_probe(spawn):
    m = spawn.ask(spawner.PROBE)
    assert (m["type"], m["status"]) == (spawner.PROBED, 0)
    assert m["kvm_kind"] in (1, 2)
    assert m["iterations_per_s"] > 1000
    again = spawn.ask(spawner.PROBE)
    assert again["iterations_per_s"] == m["iterations_per_s"]


@pytest.mark.parametrize("program", ["/bin/true", "/bin/sleep"])
def test_probe_of_something_else(program):
    """/bin/sleep --probe prints to stderr only."""
    with Spawner(vmm=program) as spawn:
        assert spawn.ask(spawner.PROBE)["status"] == -errno.EPROTO


def test_sigterm_leaves_microvms_and_the_next_run_sweeps(spawn, vm):
    foreign = spawn.cgroup / "sb_not_ours"
    foreign.mkdir()
    spawn.stop_program()
    assert vm.alive()
    spawn.start_program()
    assert spawn.sandboxes() == ["sb_not_ours"]
    end = time.monotonic() + 5
    while vm.alive() and time.monotonic() < end:
        time.sleep(0.01)  # until whoever adopted it reaps it
    assert not vm.alive() or "Z" in vm.proc("status").read_text()


def test_two_at_once_are_refused(spawn):
    second = spawner.subprocess.run(spawn.command, capture_output=True,
                                    text=True, timeout=10, check=False)
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert spawn.ask(99)["status"] == -errno.EINVAL


def test_struct_is_the_one_of_the_header():
    assert spawner.MSG.size == 88
    assert struct.calcsize("<IIiI32s") == 48
