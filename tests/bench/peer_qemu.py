# peer_qemu.py - QEMU's microvm machine, restored from a snapshot of its own.
# SPDX-License-Identifier: Apache-2.0
"""What brig is measured against, where brigd runs and in the same run.

The guest has the kernel, the root file system, the memory and the number of
processors of brig's default sandbox. Its init (peer_guest.c) holds a Python
that waits for its code, as brig's does. Debian's QEMU is carried there with
its libraries, since the host VM has none.

A snapshot is made once, with x-ignore-shared, so that the memory
stays in a file in /dev/shm that each restored QEMU maps privately, and only
the devices' state is read. That is the fastest restore it has. Each QEMU
writes to a new layer above the one disk (snapshot=on).

peer_host.c starts QEMU and holds the clock. So on the peer's side there is no
API, no jail, no cgroup, no check of the state, no new identity or randomness
for the guest, and nothing between the clock and the guest's answer but
virtio-serial; on brig's side all of that is on the clock.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
from typing import Iterator, List, Tuple

from support import ROOT, brigd_is_here, inside, inside_command

QEMU = "/usr/bin/qemu-system-x86_64"
FIRMWARE = (
    "/usr/share/seabios/bios-microvm.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/pvh.bin",
)
MODULES = (
    "modules/virtio_ring.ko",
    "modules/virtio.ko",
    "modules/virtio_mmio.ko",
    "modules/virtio_blk.ko",
    "modules/virtio-rng.ko",
    "modules-peer/virtio_console.ko",
)
RAM = "/dev/shm/brig-peer.ram"
MEMORY_MIB = 512  # of brig's default sandbox
SAVE_S = 300
ROUND_S = 60

IMAGES = os.path.join(ROOT, "build", "images")
STAGING = os.path.join(ROOT, "build", "bench", "peer")


def overlay(path: str, backing: str, size: int) -> None:
    """An empty qcow2 layer (version 2) above a raw image.

    One cluster each: header, refcount table, refcounts, table of level 1."""
    cluster = 1 << 16
    name = backing.encode()
    format_of_backing = struct.pack(">II8sII", 0xE2792ACA, 3, b"raw", 0, 0)
    entries = -(-size // (cluster * cluster // 8))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        2,
        72 + len(format_of_backing),
        len(name),
        16,
        size,
        0,
        entries,
        3 * cluster,
        cluster,
        1,
        0,
        0,
    )
    with open(path, "wb") as file:
        file.write(header + format_of_backing + name)
        file.seek(cluster)
        file.write(struct.pack(">Q", 2 * cluster))
        file.seek(2 * cluster)
        file.write(struct.pack(">4H", 1, 1, 1, 1))
        file.truncate(4 * cluster)


def initrd(path: str) -> None:
    """The init of the peer's guest, and the modules it loads."""
    tree = os.path.join(STAGING, "tree")
    os.makedirs(os.path.join(tree, "modules"))
    os.makedirs(os.path.join(tree, "newroot"))
    shutil.copy(os.path.join(ROOT, "build/bench/peer_guest"),
                os.path.join(tree, "init"))
    for name in MODULES:
        shutil.copy(os.path.join(IMAGES, name), os.path.join(tree, "modules"))
    with open(os.path.join(tree, "modules", "list"), "w") as file:
        for name in MODULES:
            file.write(os.path.basename(name) + "\n")
    with open(path, "ab") as file:
        subprocess.run("find . | cpio --quiet -o -H newc", shell=True,
                       check=True, cwd=tree, stdout=file)
        # QEMU 7.2 puts a microvm's initrd at the end of memory, where the
        # firmware has put the ACPI tables, 1 KiB. It begins on a page; with
        # this size it ends on the first byte of the last one.
        file.truncate((file.tell() + 4095) // 4096 * 4096 + 1)
    shutil.rmtree(tree)


class Peer:
    """QEMU with a saved guest, where brigd runs. `close` leaves nothing."""

    version = "no QEMU"

    def __init__(self) -> None:
        here = brigd_is_here()
        self.folder = STAGING if here else "/data/brig-peer"
        self.kernel = (os.path.join(IMAGES, "vmlinux") if here
                       else "/opt/brig/kernel/vmlinux")
        self.image = (os.path.join(IMAGES, "default.ext4") if here
                      else "/run/brig/images/default.ext4")
        self.saved = False

    # --- files ---------------------------------------------------------------

    def _stage(self) -> None:
        self.version = subprocess.run(
            [QEMU, "--version"], check=True, text=True, capture_output=True,
        ).stdout.splitlines()[0]
        shutil.rmtree(STAGING, ignore_errors=True)
        os.makedirs(os.path.join(STAGING, "lib"))
        os.makedirs(os.path.join(STAGING, "share"))
        needed = subprocess.run(["ldd", QEMU], check=True, text=True,
                                capture_output=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            shutil.copy(library, os.path.join(STAGING, "lib"))
        for name in FIRMWARE:
            shutil.copy(name, os.path.join(STAGING, "share"))
        shutil.copy(QEMU, STAGING)
        shutil.copy(os.path.join(ROOT, "build/bench/peer_host"), STAGING)
        initrd(os.path.join(STAGING, "initrd.img"))
        size = os.path.getsize(os.path.join(IMAGES, "default.ext4"))
        overlay(os.path.join(STAGING, "disk.qcow2"), self.image, size)

    def _push(self) -> None:
        if brigd_is_here():
            return
        pack = subprocess.Popen(["tar", "-C", STAGING, "-cf", "-", "."],
                                stdout=subprocess.PIPE)
        folder = shlex.quote(self.folder)
        subprocess.run(
            inside_command()
            + [f"rm -rf {folder} && mkdir {folder} && tar -C {folder} -xf -"],
            stdin=pack.stdout, check=True, timeout=SAVE_S,
        )
        if pack.wait() != 0:
            raise SystemExit("bench: QEMU cannot be packed")

    # --- QEMU ----------------------------------------------------------------

    def _qemu(self, restored: bool) -> List[str]:
        command_line = (
            "console=ttyS0,115200 panic=-1 reboot=a tsc=reliable pci=off "
            "8250.nr_uarts=1 random.trust_cpu=on rdinit=/init quiet loglevel=1"
        )
        share, layer = ("off", "on") if restored else ("on", "off")
        serial = "null" if restored else "file:console.log"
        argv = [
            f"{self.folder}/lib/ld-linux-x86-64.so.2",
            "--library-path", f"{self.folder}/lib",
            f"{self.folder}/{os.path.basename(QEMU)}",
            "-L", f"{self.folder}/share",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-cpu", "host", "-m", str(MEMORY_MIB),
            "-M", "microvm,accel=kvm,acpi=on,pit=off,pic=off,rtc=off,usb=off,"
            "memory-backend=ram",
            "-object", f"memory-backend-file,id=ram,size={MEMORY_MIB}M,"
            f"mem-path={RAM},share={share}",
            "-kernel", self.kernel, "-append", command_line,
            "-global", "virtio-mmio.force-legacy=off",
            "-drive", "if=none,id=disk,file=disk.qcow2,format=qcow2,"
            f"snapshot={layer}",
            "-device", "virtio-blk-device,drive=disk",
            "-device", "virtio-rng-device",
            "-device", "virtio-serial-device,max_ports=2",
            "-chardev", "socket,id=port,fd=3",
            "-device", "virtserialport,chardev=port,nr=1",
            "-chardev", "socket,id=qmp,fd=4",
            "-mon", "chardev=qmp,mode=control",
            "-serial", serial,
        ]
        return argv + (["-incoming", "defer"] if restored
                       else ["-initrd", "initrd.img"])

    def _command(self, *arguments: str) -> List[str]:
        qemu = self._qemu(restored=arguments[0] != "save")
        line = shlex.join(["./peer_host", *arguments, "--", *qemu])
        folder = shlex.quote(self.folder)
        # Layers are files in TMPDIR.
        return inside_command() + [
            f"cd {folder} && TMPDIR=/dev/shm exec {line}"
        ]

    def _run(self, *arguments: str, seconds: float) -> str:
        done = subprocess.run(
            self._command(*arguments), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds,
        )
        if done.returncode != 0:
            raise SystemExit(f"bench: peer {arguments}: {done.stderr}")
        return done.stdout

    def save(self) -> None:
        """Makes the snapshot, unless it was made."""
        if self.saved:
            return
        self._stage()
        self._push()
        inside(f"rm -f {RAM}")
        self._run("save", seconds=SAVE_S)
        self.saved = True

    # --- measurements ----------------------------------------------------------

    def ask(self, what: str, how: str, rounds: int) -> List[float]:
        """Milliseconds; `what` is ask or standby, `how` S or P."""
        self.save()
        text = self._run(what, how, str(rounds), seconds=rounds * ROUND_S)
        return [int(line) / 1000 for line in text.split()]

    @contextlib.contextmanager
    def clones(self, count: int) -> Iterator[Tuple[float, List[int]]]:
        """Milliseconds, and the pids of QEMUs that live on in the block."""
        self.save()
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            self._command("clones", str(count)), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, text=True,
        ) as driver:
            assert driver.stdin and driver.stdout
            taken = driver.stdout.readline()
            pids = driver.stdout.readline()
            if not pids:
                errors.seek(0)
                raise SystemExit(f"bench: peer clones: {errors.read()}")
            yield int(taken) / 1000, [int(pid) for pid in pids.split()]
            driver.stdin.close()

    def close(self) -> None:
        remove = f"rm -rf {shlex.quote(self.folder)} {RAM}"
        inside(remove, check=False)
