"""The monitor on the bare /dev/kvm, with guests of a few instructions.

SPDX-License-Identifier: Apache-2.0
"""

import errno
import os
import struct
import time

import pytest
import tiny
from tiny import Tiny, script

MMIO = 0xD0000000
SLOT = 0x1000


def reg(slot, offset):
    return MMIO + slot * SLOT + offset


def test_guest_computes_and_powers_off():
    data = os.urandom(64)
    expected = 0
    for b in data:
        expected = (expected * 31 + b) & 0xFFFFFFFF
    with Tiny("hello", data) as t:
        reason, console = t.wait()
    assert reason == tiny.POWEROFF
    assert console == f"sum={expected:08x}\n"


@pytest.mark.parametrize("memory_mib", [128, 3072, 3073, 4096, 16384])
def test_memory_sizes_and_the_hole(memory_mib):
    """The first and last word below the hole hold; the hole reads ones."""
    low = min(memory_mib, 3072) << 20
    ops = script(
        (tiny.WRITE, low - 4096, 0x12345678),
        (tiny.READ, low - 4096),
        (tiny.READ, 0xC0000000 if low == 3072 << 20 else low),
    )
    with Tiny("script", ops, memory_mib=memory_mib) as t:
        reason, console = t.wait()
    assert reason == tiny.POWEROFF
    lines = console.splitlines()
    assert lines[0] == f"{low - 4096:08x}=12345678"
    assert lines[1].endswith("=ffffffff")


@pytest.mark.parametrize("vcpus", [1, 2, 8])
def test_vcpu_counts(vcpus):
    with Tiny("hello", b"x", vcpus=vcpus) as t:
        assert t.wait() == (tiny.POWEROFF, "sum=00000078\n")


@pytest.mark.parametrize("letter, reason", [
    (b"t", tiny.TRIPLE_FAULT), (b"r", tiny.RESET), (b"p", tiny.PANIC),
])
def test_each_end_has_its_reason(letter, reason):
    with Tiny("faults", letter) as t:
        got, console = t.wait()
        assert t.process.returncode == 0
    assert (got, console) == (reason, "going\n")


def test_a28_every_port_is_harmless():
    with Tiny("ports") as t:
        reason, console = t.wait(60)
    assert reason == tiny.POWEROFF
    touched = int(console.split("=")[1], 16)
    assert touched > 4096


def test_halted_guest_costs_no_cpu_and_ends_when_brigd_goes():
    with Tiny("faults", b"h") as t:
        t.wait_console("going")
        time.sleep(0.1)
        before = cpu_ticks(t.process.pid)
        time.sleep(0.5)
        assert cpu_ticks(t.process.pid) - before <= 1
        t.control.close()
        assert t.process.wait(5) == 0


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_stop_command():
    with Tiny("faults", b"h") as t:
        t.wait_console("going")
        t.request(tiny.STOP)
        assert t.wait()[0] == tiny.COMMAND


def test_device_ids_and_empty_slots():
    ops = script(*[(tiny.READ, reg(slot, 8)) for slot in range(8)],
                 (tiny.READ, reg(0, 0)), (tiny.READ, reg(0, 4)))
    with Tiny("script", ops) as t:
        reason, console = t.wait()
    assert reason == tiny.POWEROFF
    values = [int(line.split("=")[1], 16) for line in console.splitlines()
              if "=" in line]
    assert values == [2, 19, 4, 0, 0, 0, 0, 0, 0x74726976, 2]


# --- a driver in script form ---------------------------------------------------

DESC, AVAIL, USED, DATA = 0x400000, 0x401000, 0x402000, 0x410000


def driver(slot, size=8, queue=0):
    """Reset, features, the queues (vsock wants all), DRIVER_OK.

    `queue` lies at DESC, AVAIL and USED; the others at empty rings.
    """
    r = lambda offset: reg(slot, offset)
    ops = [
        (tiny.WRITE, r(0x70), 0), (tiny.WRITE, r(0x70), 1),
        (tiny.WRITE, r(0x70), 3),
        (tiny.WRITE, r(0x24), 1), (tiny.WRITE, r(0x20), 1),
        (tiny.WRITE, r(0x24), 0), (tiny.WRITE, r(0x20), 0),
        (tiny.WRITE, r(0x70), 11),
    ]
    for q in range(3 if slot == 1 else 1):
        at = DESC if q == queue else 0x500000 + q * 0x10000
        ops += [
            (tiny.WRITE, r(0x30), q), (tiny.WRITE, r(0x38), size),
            (tiny.WRITE, r(0x80), at), (tiny.WRITE, r(0x84), 0),
            (tiny.WRITE, r(0x90), at + 0x1000), (tiny.WRITE, r(0x94), 0),
            (tiny.WRITE, r(0xA0), at + 0x2000), (tiny.WRITE, r(0xA4), 0),
            (tiny.WRITE, r(0x44), 1),
        ]
    return ops + [(tiny.WRITE, r(0x70), 15)]


def descriptor(i, at, length, flags=0, following=0):
    base = DESC + 16 * i
    return [
        (tiny.WRITE, base, at & 0xFFFFFFFF), (tiny.WRITE, base + 4, at >> 32),
        (tiny.WRITE, base + 8, length),
        (tiny.WRITE, base + 12, flags | following << 16),
    ]


def kick(slot, index=1, head=0, queue=0):
    return [
        (tiny.WRITE, AVAIL + 4, head),
        (tiny.WRITE, AVAIL, index << 16),
        (tiny.WRITE, reg(slot, 0x50), queue),
    ]


NEXT, WRITABLE, INDIRECT = 1, 2, 4


def test_blk_reads_the_base_and_writes_the_layer():
    base = os.urandom(1 << 20)
    words = struct.unpack("<128I", base[512 * 7:512 * 8])
    expected = 0
    for w in words:
        expected = (expected * 31 + w) & 0xFFFFFFFF
    header = DATA
    ops = script(
        *driver(0),
        (tiny.WRITE, header, 0), (tiny.WRITE, header + 8, 7),
        *descriptor(0, header, 16, NEXT, 1),
        *descriptor(1, DATA + 0x1000, 512, NEXT | WRITABLE, 2),
        *descriptor(2, DATA + 0x2000, 1, WRITABLE),
        *kick(0),
        (tiny.EXPECT, USED, 1 << 16, 0xFFFF0000),
        (tiny.SUM, DATA + 0x1000, 128),
        (tiny.READ, DATA + 0x2000),
        # the same data written to sector 100
        (tiny.WRITE, header, 1), (tiny.WRITE, header + 8, 100),
        *descriptor(1, DATA + 0x1000, 512, NEXT, 2),
        (tiny.WRITE, AVAIL + 4, 0), (tiny.WRITE, AVAIL, 2 << 16),
        (tiny.WRITE, reg(0, 0x50), 0),
        (tiny.EXPECT, USED, 2 << 16, 0xFFFF0000),
    )
    with Tiny("script", ops, base=base) as t:
        reason, console = t.wait()
        assert reason == tiny.POWEROFF, console
        assert f"sum={expected:08x}" in console
        assert "timeout" not in console
        layer = os.pread(t.top, 4096, 512 * 100 // 4096 * 4096)
    at = 512 * 100 % 4096
    assert layer[at:at + 512] == base[512 * 7:512 * 8]
    assert layer[:at] == base[512 * 96:512 * 100], "the rest of the block"


HOSTILE = {
    "a03_cycle": [*descriptor(0, DATA, 16, NEXT, 1),
                  *descriptor(1, DATA, 16, NEXT, 0)],
    "a04_next_out_of_range": descriptor(0, DATA, 16, NEXT, 200),
    "a06_wrap": descriptor(0, 0xFFFFFFFFFFFFFFF0, 0x20),
    "a06_one_byte_beyond_ram": descriptor(0, (128 << 20) - 15, 16),
    "a06_in_mmio": descriptor(0, MMIO, 16),
    "a06_huge": descriptor(0, DATA, 0xFFFFFFFF),
    "a10_indirect": descriptor(0, DATA, 16, INDIRECT),
    "a11_writable_first": [*descriptor(0, DATA, 16, NEXT | WRITABLE, 1),
                           *descriptor(1, DATA, 16)],
}


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_ring_stops_one_device_only(case, slot):
    """The device needs a reset, works after one; the machine runs on."""
    queue = 1 if slot == 1 else 0  # vsock: the transmit queue
    ops = script(
        *driver(slot, queue=queue), *HOSTILE[case], *kick(slot, queue=queue),
        (tiny.EXPECT, reg(slot, 0x70), 0x40, 0x40),
        (tiny.WRITE, AVAIL, 0),
        *driver(slot, queue=queue),
        (tiny.READ, reg(slot, 0x70)),
    )
    with Tiny("script", ops, base=b"\0" * 512) as t:
        reason, console = t.wait()
    assert reason == tiny.POWEROFF
    assert "timeout" not in console
    assert console.splitlines()[-2].endswith("=0000000f")


def test_a02_registers_are_frozen_after_driver_ok():
    base = os.urandom(4096)
    ops = script(
        *driver(0),
        *[(tiny.WRITE, reg(0, o), v) for o in (0x38, 0x80, 0x84, 0x90, 0x94,
                                                0xA0, 0xA4, 0x20)
          for v in (0, 3, 0xFFFFFFFF)],
        (tiny.WRITE, DATA, 0), (tiny.WRITE, DATA + 8, 0),
        *descriptor(0, DATA, 16, NEXT, 1),
        *descriptor(1, DATA + 0x1000, 512, NEXT | WRITABLE, 2),
        *descriptor(2, DATA + 0x2000, 1, WRITABLE),
        *kick(0),
        (tiny.EXPECT, USED, 1 << 16, 0xFFFF0000),
        (tiny.READ, DATA + 0x1000),
    )
    with Tiny("script", ops, base=base) as t:
        reason, console = t.wait()
    assert reason == tiny.POWEROFF
    word, = struct.unpack_from("<I", base)
    assert f"{DATA + 0x1000:08x}={word:08x}" in console
    assert "timeout" not in console


# --- what the monitor refuses before it runs anything ---------------------------

@pytest.mark.parametrize("config", [
    b"", b"x" * 31,
    tiny.CONFIG.pack(0, 3, 1, 128, 64 << 20, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 2, 1, 128, 64 << 20, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 0, 128, 64 << 20, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 9, 128, 64 << 20, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 1, 127, 64 << 20, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 1, 16385, 64 << 20, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 1, 128, (64 << 20) + 1, 0, 0),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 1, 128, 64 << 20, 0, 1),
    tiny.CONFIG.pack(tiny.MAGIC, 3, 1, 128, 64 << 20, 129, 0) + b"x" * 5160,
    tiny.CONFIG.pack(tiny.MAGIC, 3, 1, 128, 64 << 20, 2, 0) + b"x" * 79,
], ids=range(12))
def test_bad_configuration_is_refused(config):
    t = Tiny(config=config)
    assert t.process.wait(5) == 1
    t.close()
    assert "configuration" in t.stderr


@pytest.mark.parametrize("kernel", [b"", b"MZ" + b"\0" * 1000,
                                    b"\x7fELF\x01\x01" + b"\xff" * 200],
                         ids=["empty", "other", "garbage"])
def test_bad_kernel_is_refused(kernel, tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(kernel)
    with Tiny("", kernel=path) as t:
        assert t.wait()[0] == tiny.SETUP
    assert t.failed in (errno.ENOEXEC, errno.EINVAL, errno.EFAULT)


@pytest.mark.parametrize("base_bytes", [513, (64 << 20) + 512, 2**64 - 512])
def test_bad_base_size_is_refused(base_bytes):
    with Tiny() as t:
        fds = [tiny.memfd("kernel"), tiny.memfd("initrd"),
               tiny.memfd("console", 4096 + tiny.RING), tiny.memfd("base"),
               tiny.memfd("top")]
        t.request(tiny.BOOT, body=tiny.BOOT_BODY.pack(base_bytes, 0, 0),
                  fds=fds)
        assert t.wait()[0] == tiny.SETUP
        for fd in fds:
            os.close(fd)
    assert t.failed == errno.ERANGE
