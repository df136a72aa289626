"""Saved machines: what goes on elsewhere, what does not, what is refused.

The guest is tests/guest/state.c on the bare /dev/kvm.
SPDX-License-Identifier: Apache-2.0
"""

import contextlib
import errno
import os
import random
import struct
import time

import pytest
import tiny
from test_tiny import (AVAIL, DATA, INDIRECT, NEXT, USED, WRITABLE, descriptor,
                       driver, kick, reg)
from tiny import Tiny, script

PAGE = 4096
# `BRIG_RESTORES=1000` is what is promised.
RESTORES = int(os.environ.get("BRIG_RESTORES", "200"))
TALKING = [(tiny.WRITE, tiny.TALK, 1)]
# A word that nobody but a test writes to.
WORD = 0x300000


def lcg(number):
    return (number * 1664525 + 1013904223) & 0xFFFFFFFF


def talk(lines):
    """What a talking guest says first, if nothing goes wrong."""
    out, number = ["up\n"], 0
    for _ in range(lines):
        number = lcg(number)
        out.append(f"n={number:08x}\n")
    return "".join(out)


TALK = talk(20000)


def booted(*ops, **kw):
    return Tiny("state", script(*ops), **kw)


def wait_bytes(vm, more, timeout=10.0):
    """Waits until the console has so many bytes more."""
    wanted = len(vm.console()) + more
    end = time.monotonic() + timeout
    while len(vm.console()) < wanted:
        assert time.monotonic() < end, vm.console()[-100:]
        time.sleep(0.002)


def saved_of(*ops, **kw):
    """Boots, does the operations, saves, ends."""
    with booted(*ops, **kw) as vm:
        vm.wait_console("up\n", 60)
        return vm.save(timeout=30)


@pytest.fixture(name="quiet", scope="module")
def make_quiet():
    """A machine that was saved after its start."""
    with saved_of((tiny.WRITE, WORD, 0x11111111)) as saved:
        yield saved


@pytest.fixture(name="shells", params=["new", "idle"])
def make_shells(request, monkeypatch):
    """Restores into a shell that has just been started, and into one that
    had the time to look at what it need not set."""
    monkeypatch.setattr(Tiny, "waits", request.param == "idle")


def word(saved, at):
    return struct.unpack("<I", saved.read(at, 4))[0]


# --- the machine goes on -----------------------------------------------------

@pytest.mark.usefixtures("shells")
def test_source_and_copy_go_on_from_the_same_value():
    """Registers, memory, and a line that was half way out."""
    with booted(*TALKING) as vm:
        wait_bytes(vm, 100)
        before = len(vm.console())
        saved = vm.save()
        after = len(vm.console())
        with saved, Tiny(saved=saved) as copy:
            wait_bytes(copy, 100)
            wait_bytes(vm, 100)
            assert TALK.startswith(vm.console())
            text = copy.console()
            at = TALK.index(text)
            assert before <= at <= after, (before, at, after)


def test_source_that_stays_paused():
    with booted(*TALKING) as vm:
        wait_bytes(vm, 50)
        with vm.save(tiny.STAY_PAUSED) as saved:
            stopped_at = vm.console()
            assert saved.pause_ns > 0
            with Tiny(saved=saved) as copy:
                wait_bytes(copy, 50)
                assert TALK.startswith(stopped_at + copy.console())
            assert vm.console() == stopped_at
            assert vm.command(tiny.RESUME) == 0
            wait_bytes(vm, 50)
            assert TALK.startswith(vm.console())


def test_copy_that_starts_paused(quiet):
    with Tiny(saved=quiet, ask=[(tiny.READ, WORD)],
              flags=tiny.RESTORE_PAUSED) as copy:
        copy.pump(tiny.RUNNING)
        time.sleep(0.1)
        assert copy.console() == ""
        assert copy.command(tiny.RESUME) == 0
        assert copy.answer() == [f"{WORD:08x}=11111111"]


def test_pause_and_resume():
    with booted(*TALKING, vcpus=2) as vm:
        for _ in range(20):
            wait_bytes(vm, 30)
            assert vm.command(tiny.PAUSE) == 0
            assert vm.command(tiny.PAUSE) == 0, "it is paused"
            text = vm.console()
            time.sleep(0.01)
            assert vm.console() == text
            assert vm.command(tiny.RESUME) == 0
            assert vm.command(tiny.RESUME) == 0, "it runs"
        wait_bytes(vm, 30)
        assert TALK.startswith(vm.console())


def test_save_of_a_paused_machine():
    with booted(*TALKING) as vm:
        wait_bytes(vm, 50)
        assert vm.command(tiny.PAUSE) == 0
        text = vm.console()
        with vm.save() as saved, Tiny(saved=saved) as copy:
            wait_bytes(copy, 50)
            assert TALK.startswith(text + copy.console())
        assert vm.console() == text, "it still is paused"
        assert vm.command(tiny.RESUME) == 0
        wait_bytes(vm, 50)
        assert TALK.startswith(vm.console())


def follows(id_, count):
    number = id_
    for _ in range(count):
        number = lcg(number)
    return number


def counters(saved, vcpus):
    """The count of each; every number must be the one of its count."""
    counts = []
    for i in range(vcpus):
        count, number = struct.unpack(
            "<II", saved.read(tiny.COUNTERS + i * 64, 8))
        now = follows(i, count)
        # It may have been stopped between its two writes.
        assert number in (now, lcg(now)), i
        counts.append(count)
    return counts


@pytest.mark.parametrize("vcpus", [2, 4, 8])
@pytest.mark.usefixtures("shells")
def test_every_vcpu_goes_on(vcpus):
    first = saved_of((tiny.START_VCPUS, vcpus - 1), vcpus=vcpus)
    with first, Tiny(saved=first) as copy, Tiny(saved=first) as other:
        at_save = counters(first, vcpus)
        assert min(at_save[1:]) > 0
        time.sleep(0.2)
        with copy.save() as second, other.save() as third:
            for later in counters(second, vcpus), counters(third, vcpus):
                assert all(a < b for a, b in zip(at_save, later))


# --- registers ---------------------------------------------------------------

def fx_image():
    """FXSAVE's area: legal control words, random registers."""
    image = bytearray(512)
    struct.pack_into("<HHB", image, 0, 0x027F, 0x3800, 0xFF)
    struct.pack_into("<I", image, 24, 0x1F80 | 0x6000)  # MXCSR: round to zero
    for i in range(8):
        image[32 + 16 * i:42 + 16 * i] = os.urandom(10)
        image[160 + 16 * i:176 + 16 * i] = os.urandom(16)
    return bytes(image)


def fill(at, data):
    return [(tiny.WRITE, at + i, v) for i, (v,) in
            zip(range(0, len(data), 4), struct.iter_unpack("<I", data))]


def registers_of(image):
    """What FXSAVE's area says of the registers of 32-bit code."""
    mantissas = [image[32 + 16 * i:42 + 16 * i] for i in range(8)]
    return image[:5], image[24:28], mantissas, image[160:288]


@pytest.mark.usefixtures("shells")
def test_floating_point_and_sse_registers():
    image = fx_image()
    saved = saved_of(*fill(WORD, image), (tiny.FXRSTOR, WORD))
    with saved, Tiny(saved=saved, ask=[(tiny.FXSAVE, WORD + 512)]) as copy:
        copy.answer()
        with copy.save() as after:
            assert registers_of(after.read(WORD + 512, 512)) == \
                registers_of(image)


MSRS = {
    0x174: 0x10, 0x175: 0x12345678, 0x176: 0x23456789,  # SYSENTER
    0x277: 0x0007010600070106,  # PAT
    0xC0000081: 0x0023001000000000,  # STAR
    0xC0000082: 0x00007FFF12345678, 0xC0000084: 0x47700,  # LSTAR, SFMASK
    0xC0000102: 0xFFFF888012345678,  # KERNEL_GS_BASE
}


@pytest.mark.usefixtures("shells")
def test_msrs_and_debug_registers():
    ops = [(tiny.WRMSR, i, v & 0xFFFFFFFF, v >> 32) for i, v in MSRS.items()]
    saved = saved_of(*ops, (tiny.SET_DR0, 0x89ABCDE0))
    ask = [(tiny.RDMSR, i) for i in MSRS] + [(tiny.GET_DR0,)]
    with saved, Tiny(saved=saved, ask=ask) as copy:
        words = [int(line.split("=")[1], 16) for line in copy.answer()]
    got = [high << 32 | low for high, low in zip(words[:-1:2], words[1::2])]
    assert dict(zip(MSRS, got)) == MSRS
    assert words[-1] == 0x89ABCDE0


@pytest.mark.usefixtures("shells")
def test_time_stamp_counter_goes_on():
    """It goes on from where it was, at its pace; it does not jump back."""
    def tsc(lines):
        return int(lines[-2][4:], 16) << 32 | int(lines[-1][4:], 16)

    with booted((tiny.RDMSR, 0x10)) as vm:
        vm.wait_console("up\n")
        first = tsc(vm.console().splitlines()[:2])
        started = time.monotonic()
        saved = vm.save()
    time.sleep(0.3)
    with saved:
        for _ in range(3):
            with Tiny(saved=saved, ask=[(tiny.RDMSR, 0x10)]) as copy:
                later = tsc(copy.answer())
            assert first < later
            # At most as far as a clock of 6 GHz could have come.
            assert later - first < (time.monotonic() - started) * 6e9


APIC = 0xFEE00000
TIMER, INITIAL, CURRENT, DIVIDE, IRR_40 = 0x320, 0x380, 0x390, 0x3E0, 0x220


@pytest.mark.usefixtures("shells")
def test_timer_of_the_local_apic_expires_in_the_copy():
    """One shot that was running when the machine was saved."""
    saved = saved_of(
        (tiny.WRITE, APIC + 0xF0, 0x1FF), (tiny.WRITE, APIC + DIVIDE, 0xB),
        (tiny.WRITE, APIC + TIMER, 0x41),
        (tiny.WRITE, APIC + INITIAL, 300_000_000))  # 0.3 s of the bus clock
    ask = [(tiny.READ, APIC + IRR_40), (tiny.EXPECT, APIC + IRR_40, 2, 2),
           (tiny.READ, APIC + CURRENT)]
    with saved, Tiny(saved=saved, ask=ask) as copy:
        lines = copy.answer()
    assert lines == [f"{APIC + IRR_40:08x}=00000000",
                     f"{APIC + CURRENT:08x}=00000000"], lines


@pytest.mark.usefixtures("shells")
def test_deadline_timer_that_was_not_armed_works_in_the_copy():
    saved = saved_of((tiny.WRITE, APIC + 0xF0, 0x1FF),
                     (tiny.WRITE, APIC + TIMER, 2 << 17 | 0x41))
    ask = [(tiny.WRMSR, 0x6E0, 1, 0),  # long ago
           (tiny.EXPECT, APIC + IRR_40, 2, 2), (tiny.READ, APIC + IRR_40)]
    with saved, Tiny(saved=saved, ask=ask) as copy:
        assert copy.answer() == [f"{APIC + IRR_40:08x}=00000002"]


# --- copies are private ------------------------------------------------------

def test_twenty_copies_compute_twenty_things(quiet):
    with contextlib.ExitStack() as stack:
        copies = [stack.enter_context(Tiny(saved=quiet, ask=[
            (tiny.FILL, WORD, 10, 1000 + i), (tiny.SUM, WORD, 10)]))
            for i in range(20)]
        for i, copy in enumerate(copies):
            total = 0
            for _ in range(10):
                total = (total * 31 + 1000 + i) & 0xFFFFFFFF
            assert copy.answer() == [f"sum={total:08x}"]
        for i, copy in enumerate(copies):
            with copy.save() as own:
                assert word(own, WORD) == 1000 + i
    assert word(quiet, WORD) == 0x11111111


def test_c21_no_copy_sees_another():
    """20 copies at a time: each paints with its own colour."""
    first, pages = 0x1000, 64
    with saved_of((tiny.PAINT | 1 << 8, first, pages, 0xAAAA)) as saved:
        for group in range(RESTORES // 20):
            with contextlib.ExitStack() as stack:
                copies = [stack.enter_context(Tiny(saved=saved, ask=[
                    (tiny.SAME | 1 << 8, first, pages, 0xAAAA),
                    (tiny.PAINT | 2 << 8, first, pages // 2, seed),
                    (tiny.SAME | 2 << 8, first, pages // 2, seed),
                    (tiny.SAME | 2 << 8, first + 1, pages // 2, 0xAAAA),
                ])) for seed in range(group * 20, group * 20 + 20)]
                for copy in copies:
                    assert copy.answer(30) == [
                        f"same={pages:08x}", f"painted={pages // 2:08x}",
                        f"same={pages // 2:08x}", f"same={pages // 2:08x}"]


# --- working sets ------------------------------------------------------------

@pytest.mark.usefixtures("shells")
def test_rehearsal_tells_the_pages_and_the_next_one_has_them():
    first, count = 0x1000, 64
    used = (tiny.SAME | 3 << 8, first, count, 5)
    painted = (tiny.PAINT | 2 << 8, first + 0x1000, count, 6)
    with saved_of((tiny.PAINT | 1 << 8, first, count, 5)) as saved:
        with Tiny(saved=saved, flags=tiny.REHEARSAL, ask=[used, painted]) as vm:
            vm.answer()
            runs = vm.working_set()
        pages = {p: flags for start, n, flags, _ in runs
                 for p in range(start, start + n)}
        mine = {p: pages.get(p) for p in range(first, first + 0x2000)
                if p in pages}
        assert mine == {
            **{first + 3 * i: 0 for i in range(count)},
            **{first + 0x1000 + 2 * i: tiny.PAGES_WRITTEN
               for i in range(count)}}, "exactly what was touched"
        with Tiny(saved=saved, flags=tiny.RESTORE_PAUSED,
                  pages=b"".join(tiny.PAGES.pack(*r) for r in runs)) as vm:
            assert vm.pump(tiny.RUNNING) is not None
            own = vm.save()
        with own:
            for page, flags in mine.items():
                assert (os.lseek(own.memory, page * PAGE, os.SEEK_DATA) ==
                        page * PAGE) == bool(flags)
            with Tiny(saved=own, ask=[(tiny.SAME | 1 << 8, first, count, 5)]
                      ) as copy:
                assert copy.answer() == [f"same={count:08x}"]


@pytest.mark.parametrize("pages", [
    b"", b"x", b"\xff" * 4096, tiny.PAGES.pack(0, 1 << 15, 1, 0) + b"x",
    tiny.PAGES.pack(0, (1 << 15) + 1, 1, 0), b"\0" * (16 * 16384 + 16),
], ids=["empty", "odd", "ones", "odd end", "over", "long"])
def test_hostile_working_sets_do_no_harm(pages, quiet):
    with Tiny(saved=quiet, pages=pages, ask=[(tiny.SUM, WORD, 1)]) as copy:
        assert copy.answer() == [f"sum={0x11111111:08x}"]


@pytest.mark.usefixtures("shells")
def test_c09_every_page_of_a_small_machine():
    """Untouched pages are those of the source, touched ones are private."""
    first, pages = 0x800, 0x7000  # 8 to 120 MiB
    base = saved_of((tiny.PAINT | 1 << 8, first, pages, 1))
    odd = (tiny.PAINT | 16 << 8, first + 1, pages // 16, 2)
    check = [(tiny.SAME | 1 << 8, first, pages, 1),
             (tiny.SAME | 16 << 8, first + 1, pages // 16, 2)]
    with base, Tiny(saved=base, ask=[odd, *check]) as copy:
        expected = [f"same={pages - pages // 16:08x}",
                    f"same={pages // 16:08x}"]
        assert copy.answer(30) == [f"painted={pages // 16:08x}", *expected]
        with copy.save() as delta:
            assert delta.bytes >= pages // 16 * PAGE
            assert delta.bytes < (pages // 16 + 64) * PAGE, "only what differs"
            with Tiny(saved=delta, ask=check) as second:
                assert second.answer(30) == expected
        with Tiny(saved=base, ask=[check[0]]) as again:
            assert again.answer(30) == [f"same={pages:08x}"]


def test_c09_large_machine_with_a_hole():
    """First and last page of every MiB, on both sides; three deltas."""
    def everywhere(op, seed, step=1):
        """Low part without paging, then the high part."""
        parts = []
        for last in 0, 255:
            parts += [(op | 256 * step << 8, 0x800 + last, 3056 // step, seed)]
        parts += [(tiny.PAGING, 1)]
        for last in 0, 255:
            parts += [(op | 256 * step << 8, 0x100000 + last, 1024 // step,
                       seed)]
        return parts + [(tiny.PAGING, 0)]

    def said(lines, name):
        return [int(line.split("=")[1], 16) for line in lines
                if line.startswith(name)]

    saved = saved_of(*everywhere(tiny.PAINT, 7), memory_mib=4096)
    for seed in 8, 9, 10:
        ask = everywhere(tiny.SAME, 7, 16) + everywhere(tiny.PAINT, seed, 16)
        ask += everywhere(tiny.SAME, seed, 16)
        with saved, Tiny(saved=saved, ask=ask) as copy:
            lines = copy.answer(60)
            if seed == 8:
                assert said(lines, "same")[:4] == [191, 191, 64, 64]
            assert said(lines, "same")[4:] == [191, 191, 64, 64]
            saved = copy.save(timeout=30)
        assert saved.bytes < 1200 * PAGE
    with saved, Tiny(saved=saved, ask=everywhere(tiny.SAME, 7) +
                     everywhere(tiny.SAME, 10, 16)) as copy:
        same = said(copy.answer(120), "same")
    assert same == [3056 - 191, 3056 - 191, 1024 - 64, 1024 - 64,
                    191, 191, 64, 64]


def pages_of(fd):
    """The numbers of the pages that a sparse file has data for."""
    return {page for start, length in tiny.data_runs(fd)
            for page in range(start // PAGE, (start + length) // PAGE)}


def page_at(fd, page):
    return os.pread(fd, PAGE, page * PAGE)


def number_pages(saved):
    """Every page that the guest does not use says which one it is, in each
    word. Returns the pages it uses."""
    used = pages_of(saved.memory)
    kept = {page: page_at(saved.memory, page) for page in used}
    for first in range(0, saved.size // PAGE, 256):
        os.pwrite(saved.memory, b"".join(
            page.to_bytes(8, "little") * (PAGE // 8)
            for page in range(first, first + 256)), first * PAGE)
    for page, content in kept.items():
        os.pwrite(saved.memory, content, page * PAGE)
    return used


def guest_memory(vm, base):
    """Where the monitor has mapped it, with `base` under all of it."""
    inode = os.fstat(base).st_ino
    with open(f"/proc/{vm.process.pid}/maps") as maps:
        for line in maps:
            where, _, offset, _, file, *_ = line.split()
            if int(file) == inode:
                return int(where.split("-")[0], 16) - int(offset, 16)
    raise AssertionError("not mapped")


def other_pages(vm, base):
    """{page: content} where a running guest's memory is not as in `base`."""
    size, step, found = vm.shape[1] << 20, 4 << 20, {}
    at = guest_memory(vm, base)
    with open(f"/proc/{vm.process.pid}/mem", "rb", 0) as memory:
        for start in range(0, size, step):
            memory.seek(at + start)
            seen, want = memory.read(step), os.pread(base, step, start)
            assert len(seen) == len(want) == step
            for i in range(0, step if seen != want else 0, PAGE):
                if seen[i:i + PAGE] != want[i:i + PAGE]:
                    found[(start + i) // PAGE] = seen[i:i + PAGE]
    return found


def painted(base, page, seed):
    """What OP_PAINT makes of it; above the hole, pages have other numbers."""
    number = page if page < 0xC0000 else page + 0x40000
    colour = (number + 1) * 2654435761 & 0xFFFFFFFF ^ seed
    return struct.pack("<I", colour) + page_at(base, page)[4:-4] + \
        struct.pack("<I", colour ^ 0xFFFFFFFF)


def test_c09_all_bytes_of_all_pages_of_4_gib():
    """As in the source where untouched, private where touched: read from
    outside in a copy that runs beside another, and in a copy of the other."""
    step, parts = 2048, [(0x1000, 382), (0x100000, 128)]

    def paint(first, seed):
        low, high = [(tiny.PAINT | step << 8, start + first, count, seed)
                     for start, count in parts]
        return [low, (tiny.PAGING, 1), high, (tiny.PAGING, 0)]

    def expect(vm, first, seed):
        found = other_pages(vm, saved.memory)
        want = {page: painted(saved.memory, page, seed)
                for page in [*range(0x1000 + first, 0xC0000, step),
                             *range(0xC0000 + first, 0x100000, step)]}
        assert len(want) == sum(count for _, count in parts)
        assert {page: found.pop(page, None) for page in want} == want
        assert set(found) <= own, sorted(set(found) - own)[:10]

    with saved_of(memory_mib=4096) as saved:
        own = number_pages(saved) | {tiny.MAILBOX // PAGE}
        own |= set(range(tiny.TABLES // PAGE, tiny.TABLES // PAGE + 6))
        assert len(own) < 64
        with Tiny(saved=saved, ask=paint(1, 7)) as one, \
                Tiny(saved=saved, ask=paint(2, 8)) as two:
            one.answer(60)
            two.answer(60)
            expect(two, 2, 8)
            with one.save() as second, Tiny(saved=second) as three:
                three.pump(tiny.RUNNING)
                expect(three, 1, 7)


def test_chain_of_saves(quiet):
    """Each generation adds a word; the last one has all of them."""
    with contextlib.ExitStack() as stack:
        saved = quiet
        for i in range(6):
            copy = stack.enter_context(Tiny(saved=saved, ask=[
                (tiny.WRITE, WORD + PAGE * i, 0x1000 + i)]))
            copy.answer()
            saved = stack.enter_context(copy.save())
            assert saved.bytes < 64 * PAGE
        with Tiny(saved=saved, ask=[(tiny.READ, WORD + PAGE * i)
                                    for i in range(6)]) as copy:
            assert [line[-4:] for line in copy.answer()] == \
                [f"{0x1000 + i:04x}" for i in range(6)]


@pytest.mark.usefixtures("shells")
def test_reset_goes_back(quiet):
    ask = [(tiny.READ, WORD), (tiny.WRITE, WORD, 0x22222222)]
    with Tiny(saved=quiet, ask=ask) as vm:
        first = vm.answer()
        assert first == [f"{WORD:08x}=11111111"]
        for _ in range(20):
            before = len(vm.console())
            vm.restore(quiet, kind=tiny.RESET_VM, ask=ask)
            assert vm.pump(tiny.RUNNING)
            vm.wait_console(f"done={vm.asked:08x}\n")
            assert vm.console()[before:].startswith(f"{WORD:08x}=11111111\n")
        assert vm.process.poll() is None


def test_reset_of_a_talking_machine():
    """Wherever it was, it starts again where it was saved."""
    with booted(*TALKING) as vm:
        wait_bytes(vm, 50)
        saved = vm.save(tiny.STAY_PAUSED)
        at = len(vm.console())
    with saved, Tiny(saved=saved) as copy:
        for _ in range(20):
            wait_bytes(copy, 40)
            assert copy.command(tiny.PAUSE) == 0
            start = len(copy.console())
            copy.restore(saved, kind=tiny.RESET_VM)
            wait_bytes(copy, 40)
            assert TALK[at:].startswith(copy.console()[start:])


# --- devices -----------------------------------------------------------------

def blk_request(kind, sector, data, index, length=512):
    """One request of the device at slot 0, the `index`-th."""
    device_writes = WRITABLE if kind == 0 else 0
    return [
        (tiny.WRITE, DATA, kind), (tiny.WRITE, DATA + 8, sector),
        *descriptor(0, DATA, 16, NEXT, 1),
        *descriptor(1, data, length, NEXT | device_writes, 2),
        *descriptor(2, DATA + 0x2000, 1, WRITABLE),
        (tiny.WRITE16, AVAIL + 4 + 2 * ((index - 1) % 8), 0),
        (tiny.WRITE16, AVAIL + 2, index),
        (tiny.WRITE, reg(0, 0x50), 0),
        (tiny.EXPECT, USED, index << 16, 0xFFFF0000),
    ]


def blk_write(sector, value, index):
    return [(tiny.FILL, DATA + 0x1000, 128, value),
            *blk_request(1, sector, DATA + 0x1000, index)]


def blk_read(sector, index):
    return [(tiny.FILL, DATA + 0x1000, 128, 0),
            *blk_request(0, sector, DATA + 0x1000, index),
            (tiny.READ, DATA + 0x1000), (tiny.READ, DATA + 0x11FC)]


def sectors(lines):
    values = [line.split("=")[1] for line in lines if "=" in line]
    assert values[::2] == values[1::2]
    return [int(v, 16) for v in values[::2]]


def test_disk_before_and_after_a_save():
    """Queues go on at their index; layers are sealed, tops private."""
    base = struct.pack("<I", 0xBA5E) * (1 << 18)
    with booted(*driver(0), *blk_write(8, 0x1111, 1), *blk_write(80, 0x2222, 2),
                base=base) as vm:
        vm.wait_console("up\n")
        with vm.save() as saved:
            assert len(saved.layers) == 1
            read = [*blk_read(8, 3), *blk_read(80, 4), *blk_read(800, 5)]
            write = [*blk_write(8, 0x3333, 6), *blk_read(8, 7)]
            with Tiny(saved=saved, ask=read + write) as copy, \
                    Tiny(saved=saved, ask=read) as other:
                before = [0x1111, 0x2222, 0xBA5E]
                assert sectors(copy.answer()) == before + [0x3333]
                assert sectors(other.answer()) == before
                with copy.save() as second:
                    assert len(second.layers) == 2
                    with Tiny(saved=second, ask=[
                            *blk_read(8, 8), *blk_read(80, 9)]) as third:
                        assert sectors(third.answer()) == [0x3333, 0x2222]
            stats = vm.stats()
            assert stats["layer_bytes"] == 0, "its top is new"
            assert stats["blk_writes"] == 2


def test_boot_from_the_disk_of_a_save():
    """Without its memory: the layers say themselves which blocks they have."""
    base = struct.pack("<I", 0xBA5E) * (1 << 18)
    saved = saved_of(*driver(0), *blk_write(8, 0x1111, 1),
                     *blk_write(80, 0x2222, 2), base=base)
    with saved, Tiny(saved=saved, ask=blk_write(8, 0x3333, 3)) as copy:
        copy.answer()
        with copy.save() as second, Tiny() as vm:
            assert len(second.layers) == 2
            vm.boot(tiny.GUESTS / "script.elf", script(
                *driver(0), *blk_read(8, 1), *blk_read(80, 2),
                *blk_read(800, 3)), disk_of=second)
            reason, console = vm.wait()
    assert reason == tiny.POWEROFF
    assert sectors(console.splitlines()) == [0x3333, 0x2222, 0xBA5E]


def test_save_of_the_disk_alone():
    """One answer, nothing written; the same disk as a whole save has."""
    base = struct.pack("<I", 0xBA5E) * (1 << 18)
    saved = saved_of(*driver(0), *blk_write(8, 0x1111, 1), base=base)
    with saved, Tiny(saved=saved, ask=[
            *blk_write(80, 0x2222, 2), *blk_write(8, 0x3333, 3)]) as copy:
        copy.answer()
        with copy.save(tiny.SAVE_DISK) as disk, Tiny() as vm:
            copy.stats()
            assert copy.saved is None, "nobody writes"
            assert disk.bytes == disk.state_bytes == 0
            with copy.save() as whole:
                assert len(disk.layers) == len(whole.layers) == 2
            vm.boot(tiny.GUESTS / "script.elf", script(
                *driver(0), *blk_read(8, 1), *blk_read(80, 2),
                *blk_read(800, 3)), disk_of=disk)
            reason, console = vm.wait()
    assert reason == tiny.POWEROFF
    assert sectors(console.splitlines()) == [0x3333, 0x2222, 0xBA5E]


def test_save_without_writes_seals_nothing(quiet):
    with Tiny(saved=quiet) as vm, vm.save() as saved:
        assert saved.layers == []


def test_stopped_device_stays_stopped_in_the_copy():
    """DEVICE_NEEDS_RESET is saved; a reset makes the device work again."""
    saved = saved_of(*driver(0), *descriptor(0, DATA, 16, INDIRECT), *kick(0),
                     (tiny.EXPECT, reg(0, 0x70), 0x40, 0x40))
    ask = [(tiny.READ, reg(0, 0x70)), (tiny.WRITE, AVAIL, 0),
           (tiny.WRITE, USED, 0), *driver(0), *blk_read(0, 1)]
    with saved, Tiny(saved=saved, ask=ask) as copy:
        lines = copy.answer()
    assert lines[0] == f"{reg(0, 0x70):08x}=0000004f"
    assert sectors(lines[1:]) == [0]


def test_guest_learns_that_its_connections_are_gone():
    """C-12: the copy's vsock gets VIRTIO_VSOCK_EVENT_TRANSPORT_RESET."""
    event = [(tiny.WRITE, DATA, 0xFFFFFFFF), *descriptor(0, DATA, 8, WRITABLE),
             *kick(1, queue=2)]
    saved = saved_of(*driver(1, queue=2), *event)
    with saved, Tiny(saved=saved, ask=[
            (tiny.EXPECT, USED, 1 << 16, 0xFFFF0000),
            (tiny.READ, DATA)]) as copy:
        assert copy.answer() == [f"{DATA:08x}=00000000"]


def rng_request(index):
    return [*descriptor(0, DATA, 16, WRITABLE), *kick(2, index),
            (tiny.EXPECT, USED, index << 16, 0xFFFF0000),
            *[(tiny.READ, DATA + i) for i in range(0, 16, 4)]]


def test_two_copies_get_different_random_numbers():
    saved = saved_of(*driver(2))
    got = set()
    with saved:
        for _ in range(2):
            with Tiny(saved=saved, ask=rng_request(1)) as copy:
                lines = copy.answer()
            assert not any("timeout" in line for line in lines)
            got.add(tuple(lines))
    assert len(got) == 2


# --- many saves --------------------------------------------------------------

def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid):
    return len(open(f"/proc/{pid}/task/{pid}/children").read().split())


def test_c13_a_hundred_saves_while_it_talks():
    """Not a byte is lost or doubled; nothing leaks."""
    with booted(*TALKING) as vm:
        wait_bytes(vm, 20)
        with vm.save():
            vm.stats()  # so the request before is done with its files
        before = open_files(vm.process.pid)
        for i in range(100):
            at_least = len(vm.console())
            with vm.save() as saved:
                at_most = len(vm.console())
                if i % 10 == 0:
                    with Tiny(saved=saved) as copy:
                        wait_bytes(copy, 30)
                        at = TALK.index(copy.console())
                        assert at_least <= at <= at_most
        vm.stats()
        assert open_files(vm.process.pid) == before
        end = time.monotonic() + 5
        while children(vm.process.pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert children(vm.process.pid) == 0
        wait_bytes(vm, 50)
        assert vm.console() in TALK, "the ring may have gone round"


@pytest.mark.usefixtures("shells")
def test_resets_do_not_leak(quiet):
    with Tiny(saved=quiet, ask=[]) as vm:
        counts = set()
        for _ in range(50):
            vm.answer()
            vm.restore(quiet, kind=tiny.RESET_VM, ask=[])
            vm.stats()  # so the request before is done with its files
            counts.add(open_files(vm.process.pid))
        assert len(counts) == 1, counts


# --- what is refused ---------------------------------------------------------

def save_files():
    return [tiny.memfd("top"), tiny.memfd("state"), tiny.memfd("memory")]


def test_second_save_at_once_is_busy():
    with booted((tiny.PAINT | 1 << 8, 0x1000, 4096, 1)) as vm:
        vm.wait_console("up\n")
        vm.pump(tiny.RUNNING)
        fds = [save_files() for _ in range(2)]
        for three in fds:
            vm.request(tiny.SAVE, body=tiny.SAVE_BODY.pack(0, 0), fds=three)
        assert vm.pump(tiny.REPLY)[2] == 0
        assert vm.pump(tiny.REPLY)[2] == -errno.EBUSY
        assert vm.pump(tiny.SAVED)[2] == 0
        with vm.save() as saved, Tiny(saved=saved, ask=[
                (tiny.SAME | 1 << 8, 0x1000, 4096, 1)]) as copy:
            assert copy.answer() == ["same=00001000"]
        for fd in sum(fds, []):
            os.close(fd)


def test_claims_at_the_wrong_time_do_no_harm(quiet):
    """A reset while a save is being written; a boot, a restore of a guest."""
    with Tiny(saved=quiet, ask=[(tiny.PAINT | 1 << 8, 0x1000, 8192, 1)]) as vm:
        vm.answer()
        three = save_files()
        vm.request(tiny.SAVE, body=bytes(8), fds=three)
        for kind in tiny.RESET_VM, tiny.RESTORE, tiny.BOOT:
            vm.restore(quiet, kind=kind)
            assert vm.reply()[2] == -errno.EBUSY
        assert (vm.saved or vm.pump(tiny.SAVED))[2] == 0
        for fd in three:
            os.close(fd)
        vm.restore(quiet, kind=tiny.RESET_VM, ask=[(tiny.READ, WORD)])
        assert vm.answer()[-1] == f"{WORD:08x}=11111111"


@pytest.mark.parametrize("kind", [tiny.PAUSE, tiny.RESUME, tiny.SAVE])
def test_a_shell_has_nothing_to_save(kind, quiet):
    with Tiny() as vm:
        vm.shape = quiet.shape
        assert vm.command(kind) == -errno.EPROTO
        vm.restore(quiet, ask=[(tiny.READ, WORD)])
        assert vm.answer() == [f"{WORD:08x}=11111111"]


@pytest.mark.parametrize("which", range(3))
def test_save_into_files_that_are_not_empty(which, quiet):
    with Tiny(saved=quiet, ask=[]) as vm:
        vm.answer()
        fds = save_files()
        os.write(fds[which], b"x")
        assert vm.command(tiny.SAVE, body=bytes(8), fds=fds) == -errno.EBADF
        assert vm.command(tiny.SAVE, body=bytes(8), fds=fds[:2]) == \
            -errno.EPROTO
        for flags, count in (0, 1), (tiny.SAVE_DISK, 3), (4, 3):
            assert vm.command(tiny.SAVE, fds=fds[:count],
                              body=tiny.SAVE_BODY.pack(flags, 0)) == \
                -errno.EPROTO
        for fd in fds:
            os.close(fd)
        with vm.save():
            pass


@pytest.mark.parametrize("which", [1, 2])
def test_save_that_cannot_write_fails_and_the_guest_goes_on(which, quiet):
    with Tiny(saved=quiet, ask=[]) as vm:
        vm.answer()
        fds = save_files()
        read_only = os.open(f"/proc/self/fd/{fds[which]}", os.O_RDONLY)
        os.close(fds[which])
        fds[which] = read_only
        assert vm.command(tiny.SAVE, body=bytes(8), fds=fds) == 0
        assert vm.pump(tiny.SAVED)[2] == -errno.EBADF
        for fd in fds:
            os.close(fd)
        with vm.save() as saved, Tiny(saved=saved, ask=[]) as copy:
            copy.answer()


def refused(saved, errors):
    """The shell says why and is gone before the guest has run."""
    with Tiny(saved=saved) as vm:
        assert vm.wait()[0] == tiny.SETUP
        assert vm.running is None
        assert vm.console() == ""
        assert vm.failed in errors, (vm.failed, errors)
        assert vm.process.returncode == 0


@contextlib.contextmanager
def changed(saved, content):
    """The same with another state file."""
    original, saved.state = saved.state, tiny.memfd("state")
    os.pwrite(saved.state, content, 0)
    try:
        yield saved
    finally:
        os.close(saved.state)
        saved.state = original


def state_of(saved):
    return os.pread(saved.state, saved.state_bytes, 0)


@pytest.mark.usefixtures("shells")
def test_c10_flipped_bits_are_refused(quiet):
    """200 bits spread over the file, and all of its head and end."""
    good = state_of(quiet)
    bits = set(random.sample(range(len(good) * 8), 120))
    bits |= set(range(0, 20 * 8, 3)) | set(range(len(good) * 8 - 40,
                                               len(good) * 8))
    for bit in sorted(bits):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with changed(quiet, bad):
            refused(quiet, {errno.EBADMSG, errno.EPROTO, errno.ENOTSUP})


def test_truncated_and_longer_state_is_refused(quiet):
    good = state_of(quiet)
    for n in [0, 1, 7, 8, 16, len(good) // 2, len(good) - 4, len(good) - 1]:
        with changed(quiet, good[:n]):
            refused(quiet, {errno.EBADMSG, errno.EPROTO})
    with changed(quiet, good + b"\0"):
        refused(quiet, {errno.EBADMSG})


@pytest.mark.parametrize("shape", [
    (2, 128, 64 << 20), (1, 256, 64 << 20), (1, 128, 128 << 20)])
def test_state_of_another_shape_is_refused(shape, quiet):
    with Tiny(vcpus=shape[0], memory_mib=shape[1], disk_bytes=shape[2]) as vm:
        if shape[1] != quiet.shape[1]:
            other = tiny.memfd("memory", shape[1] << 20)
            quiet.memory, other = other, quiet.memory
        vm.restore(quiet)
        if shape[1] != quiet.shape[1]:
            quiet.memory, other = other, quiet.memory
            os.close(other)
        assert vm.wait()[0] == tiny.SETUP
        assert vm.failed == errno.ERANGE


def restore_with(saved, with_delta=False, **replace):
    """A restore with other descriptors: state, memory, delta, console, base."""
    with Tiny(vcpus=saved.shape[0], memory_mib=saved.shape[1]) as vm:
        fds = {"state": os.dup(saved.state), "memory": os.dup(saved.memory),
               "console": os.dup(vm.console_fd), "base": os.dup(saved.base)}
        tiny.seal(fds["memory"])
        if with_delta:
            fds["delta"] = tiny.memfd("delta", saved.size)
            tiny.seal(fds["delta"])
        fds["top"] = tiny.memfd("top")
        for name, fd in replace.items():
            os.close(fds[name])
            fds[name] = fd
        vm.request(tiny.RESTORE, body=tiny.RESTORE_BODY.pack(
            saved.base_bytes, tiny.RESTORE_DELTA if with_delta else 0, 0),
            fds=list(fds.values()))
        for fd in fds.values():
            os.close(fd)
        vm.pump(tiny.REPLY)
        if vm.failed:
            assert vm.wait()[0] == tiny.SETUP
        return vm.failed


def memory_like(saved, size=None, seals=2 | 4 | 8):
    fd = tiny.memfd("memory", saved.size if size is None else size)
    tiny.fcntl.fcntl(fd, tiny.F_ADD_SEALS, seals)
    return fd


def plain_file(size):
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.ftruncate(fd, size)
    return fd


BAD_MEMORY = {
    "no_seals": lambda s: memory_like(s, seals=0),
    "may_shrink": lambda s: memory_like(s, seals=4 | 8),
    "may_grow": lambda s: memory_like(s, seals=2 | 8),
    "may_change": lambda s: memory_like(s, seals=2 | 4),
    "may_change_later": lambda s: memory_like(s, seals=2 | 4 | 16),
    "too_small": lambda s: memory_like(s, s.size - PAGE),
    "too_large": lambda s: memory_like(s, s.size + PAGE),
    "empty": lambda s: memory_like(s, 0),
    "plain_file": lambda s: plain_file(s.size),
    "device": lambda s: os.open("/dev/zero", os.O_RDWR),
    "pipe": lambda s: os.pipe()[0],
}


@pytest.mark.parametrize("case", BAD_MEMORY)
@pytest.mark.parametrize("which", ["memory", "delta"])
def test_c20_memory_that_could_change_is_refused(which, case, quiet):
    assert restore_with(quiet, which == "delta",
                        **{which: BAD_MEMORY[case](quiet)}) == errno.EBADF


def test_other_descriptors_are_checked(quiet):
    assert restore_with(quiet) is None
    assert restore_with(quiet, True) is None
    assert restore_with(quiet, console=memory_like(quiet)) == errno.EBADF
    assert restore_with(quiet, state=os.pipe()[0]) == errno.EBADF
    assert restore_with(quiet, state=plain_file(33 << 20)) == errno.EFBIG


@pytest.mark.parametrize("body, count", [
    (tiny.RESTORE_BODY.pack(0, 16, 0), 5),
    (tiny.RESTORE_BODY.pack(0, tiny.RESTORE_WORKING_SET, 0), 5),
    (tiny.RESTORE_BODY.pack(0, 0, 1), 5),
    (tiny.RESTORE_BODY.pack(0, 0, 201), 5),
    (tiny.RESTORE_BODY.pack(0, 1, 0), 5),
    (tiny.RESTORE_BODY.pack(0, 0, 0), 4),
    (tiny.RESTORE_BODY.pack(0, 0, 0), 6),
    (tiny.RESTORE_BODY.pack(0, 0, 2**32 - 1), 5),
], ids=["flag", "pages", "layer", "layers", "delta", "few", "many", "wrap"])
def test_malformed_restores_are_refused(body, count):
    with Tiny() as vm:
        fds = [tiny.memfd("x") for _ in range(count)]
        vm.request(tiny.RESTORE, body=body, fds=fds)
        assert vm.wait()[0] == tiny.SETUP
        assert vm.failed == errno.EPROTO
        for fd in fds:
            os.close(fd)
