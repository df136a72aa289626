/* memory.c - guest RAM: from files, to files, and nothing else in between.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Real memfds and the real page tables of this process. ioctl is wrapped by
 * the linker, so that PAGEMAP_SCAN can be missing as it is before Linux 6.7.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/vmm/memory.h"
#include "wire/boot.h"

#define PAGE 4096u
#define MIB 16u
#define BYTES ((uint64_t)MIB << 20)
#define PAGES ((uint32_t)(BYTES / PAGE))
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static bool no_scan;        /* PAGEMAP_SCAN is not there */
static unsigned int ioctls; /* how often it was asked for */
static bool no_prepare;     /* memory_prepare_reset() is not called */
static int proc_fd;

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	ioctls++;
	if (!no_scan)
		return __real_ioctl(fd, request, arg);
	errno = ENOTTY;
	return -1;
}

/* --- files with a pattern -------------------------------------------------- */

/* Different in each page of each file (`who`), and never zero. */
static void fill(uint8_t *page, uint32_t who, uint32_t number)
{
	uint32_t v = (who << 28 ^ number) * 2654435761u | 1;

	for (uint32_t i = 0; i < PAGE; i += sizeof(v), v += 2)
		memcpy(page + i, &v, sizeof(v));
}

static int file(uint64_t bytes)
{
	int fd = memfd_create("ram", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void put(int fd, uint32_t who, uint32_t number)
{
	uint8_t page[PAGE];

	fill(page, who, number);
	assert_int_equal(pwrite(fd, page, PAGE, (off_t)number * PAGE), PAGE);
}

static int sealed(int fd)
{
	assert_int_equal(fcntl(fd, F_ADD_SEALS, ALL_SEALS), 0);
	return fd;
}

static int full_base_of(uint32_t who)
{
	int fd = file(BYTES);

	for (uint32_t i = 0; i < PAGES; i++)
		put(fd, who, i);
	return sealed(fd);
}

static int full_base(void)
{
	return full_base_of(1);
}

static bool has_data(int fd, uint32_t page)
{
	off_t at = (off_t)page * PAGE;

	return lseek(fd, at, SEEK_DATA) == at;
}

static void reserve(struct memory *m, uint32_t mib)
{
	struct gmem map;

	assert_int_equal(memory_reserve(m, mib, &map), 0);
}

static void release(struct memory *m)
{
	assert_int_equal(munmap(m->host, m->bytes), 0);
}

static void assert_page(const struct memory *m, uint32_t who, uint32_t number)
{
	uint8_t page[PAGE];

	fill(page, who, number);
	if (memcmp(m->host + (uint64_t)number * PAGE, page, PAGE) != 0)
		fail_msg("page %u is not that of file %u", number, who);
}

static void touch(struct memory *m, uint32_t who, uint32_t number)
{
	fill(m->host + (uint64_t)number * PAGE, who, number);
}

static unsigned long own_faults(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return (unsigned long)usage.ru_minflt;
}

static int write_out(const struct memory *m, uint64_t *ret_bytes)
{
	int out = file(0);

	assert_int_equal(memory_write(m, proc_fd, out, ret_bytes), 0);
	assert_int_equal(lseek(out, 0, SEEK_END), m->bytes);
	return out;
}

/* --- the map --------------------------------------------------------------- */

static void leaves_the_hole_out(void **state)
{
	const uint32_t low_mib = BRIG_RAM_LOW_END >> 20;
	const uint32_t sizes[] = { 128, low_mib, low_mib + 1, 16384 };

	for (size_t i = 0; i < 4; i++) {
		struct memory m;
		struct gmem map;
		uint64_t bytes = (uint64_t)sizes[i] << 20;

		assert_int_equal(memory_reserve(&m, sizes[i], &map), 0);
		assert_int_equal(m.bytes, bytes);
		assert_int_equal(map.count, i < 2 ? 1 : 2);
		assert_int_equal(map.regions[0].start, 0);
		assert_ptr_equal(map.regions[0].host, m.host);
		if (map.count == 2) {
			assert_int_equal(map.regions[0].size, BRIG_RAM_LOW_END);
			assert_int_equal(map.regions[1].start,
					 BRIG_RAM_HIGH_START);
			assert_int_equal(map.regions[1].size,
					 bytes - BRIG_RAM_LOW_END);
			assert_ptr_equal(map.regions[1].host,
					 m.host + BRIG_RAM_LOW_END);
		} else {
			assert_int_equal(map.regions[0].size, bytes);
		}
		release(&m);
	}
}

/* --- after a boot ---------------------------------------------------------- */

static void writes_what_is_not_zero(void **state)
{
	struct memory m;
	uint64_t bytes;
	uint32_t expected = 0;

	reserve(&m, MIB);
	for (uint32_t i = 0; i < PAGES; i += 3)
		touch(&m, 2, i);
	/* used, and zero again; and one with a single byte at its end */
	memset(m.host + 3 * PAGE, 0, PAGE);
	m.host[4 * PAGE] = 0;
	m.host[6 * PAGE - 1] = 1;
	int out = write_out(&m, &bytes);
	for (uint32_t i = 0; i < PAGES; i++) {
		bool data = (i % 3 == 0 && i != 3) || i == 5;
		expected += data;
		if (has_data(out, i) != data)
			fail_msg("page %u", i);
	}
	assert_int_equal(bytes, (uint64_t)expected * PAGE);

	uint8_t *saved = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, out, 0);
	assert_true(saved != MAP_FAILED);
	assert_memory_equal(saved, m.host, BYTES);
	munmap(saved, BYTES);
	close(out);
	release(&m);
}

static void writes_nothing_of_nothing(void **state)
{
	struct memory m;
	uint64_t bytes = 1;

	reserve(&m, 16384);
	/* read only: the zero page */
	assert_int_equal(((volatile uint8_t *)m.host)[5 * PAGE], 0);
	int out = write_out(&m, &bytes);
	assert_int_equal(bytes, 0);
	assert_true(lseek(out, 0, SEEK_DATA) < 0);
	close(out);
	release(&m);
}

/* --- after a restore ------------------------------------------------------- */

enum {
	DELTA_FIRST = 100,
	DELTA_LAST = 300
};

static bool is_touched(uint32_t page)
{
	return page % 7 == 0;
}

/* Base, one long run of a delta, writes of the guest: what comes out has data
 * where the guest wrote, and nowhere else. */
static void writes_what_was_touched(void **state)
{
	struct memory m;
	uint64_t bytes;
	int base = full_base();
	int delta = file(BYTES);
	uint32_t touched = 0;

	for (uint32_t i = DELTA_FIRST; i <= DELTA_LAST; i++)
		put(delta, 2, i);
	reserve(&m, MIB);
	assert_int_equal(memory_map(&m, base, sealed(delta)), 0);
	assert_true(m.inherits);
	for (uint32_t i = 0; i < PAGES; i++) {
		bool in_delta = i >= DELTA_FIRST && i <= DELTA_LAST;
		assert_page(&m, in_delta ? 2 : 1, i);
		if (is_touched(i)) {
			touch(&m, 3, i);
			touched++;
		}
	}
	/* a page that the guest cleared differs from what it inherits */
	memset(m.host + 7 * PAGE, 0, PAGE);

	int out = write_out(&m, &bytes);
	assert_int_equal(bytes, (uint64_t)touched * PAGE);
	for (uint32_t i = 0; i < PAGES; i++) {
		uint8_t page[PAGE];
		if (has_data(out, i) != is_touched(i))
			fail_msg("page %u", i);
		if (!is_touched(i))
			continue;
		assert_int_equal(pread(out, page, PAGE, (off_t)i * PAGE), PAGE);
		assert_memory_equal(page, m.host + (uint64_t)i * PAGE, PAGE);
	}

	/* what came out is the delta of the next machine */
	struct memory next;
	reserve(&next, MIB);
	assert_int_equal(memory_map(&next, base, sealed(out)), 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		if (i != 7)
			assert_page(&next, is_touched(i) ? 3 : 1, i);
	}
	release(&next);
	release(&m);
	close(base);
	close(delta);
	close(out);
}

static void maps_again(void **state)
{
	struct memory m;
	uint64_t bytes;
	int base = full_base();

	reserve(&m, MIB);
	touch(&m, 2, 9);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(memory_map(&m, base, -1), 0);
		for (uint32_t i = 0; i < PAGES; i++)
			assert_page(&m, 1, i);
		int out = write_out(&m, &bytes);
		assert_int_equal(bytes, 0);
		close(out);
		for (uint32_t i = 0; i < PAGES; i++)
			touch(&m, 3, i);
	}
	/* the base is as it was */
	assert_int_equal(memory_map(&m, base, -1), 0);
	assert_page(&m, 1, 9);
	release(&m);
	close(base);
}

/* Resets, looks at every page, writes to every so manieth. */
static void goes_back(struct memory *m, int base, uint32_t who, int delta,
		      uint32_t every)
{
	assert_int_equal(memory_reset(m, base, delta), 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		bool in_delta = delta >= 0 && has_data(delta, i);
		assert_page(m, in_delta ? 2 : who, i);
	}
	for (uint32_t i = 0; i < PAGES; i += every)
		touch(m, 3, i);
}

/* To the same files, to another delta, to none, to another base; with few and
 * with many pages to drop. */
static void resets(void **state)
{
	struct memory m;
	uint64_t bytes;
	int base = full_base();
	int mapped = file(BYTES);
	int copied = file(BYTES);
	int other = full_base_of(4);

	for (uint32_t i = DELTA_FIRST; i <= DELTA_LAST; i++)
		put(mapped, 2, i);
	put(mapped, 2, 0);
	put(copied, 2, 3);
	put(copied, 2, DELTA_FIRST);
	(void)sealed(mapped);
	(void)sealed(copied);
	reserve(&m, MIB);
	if (!no_prepare)
		memory_prepare_reset(&m, proc_fd);
	touch(&m, 3, 1);
	const int deltas[] = { -1,     -1,     copied, copied, -1,
			       mapped, mapped, copied, mapped, -1 };
	for (uint32_t i = 0; i < 2 * ARRAY_LEN(deltas); i++) {
		int delta = deltas[i / 2];
		goes_back(&m, base, 1, delta, i % 2 ? 2 : PAGES / 3);
		if (i % 3 == 0)
			goes_back(&m, other, 4, delta, PAGES / 5);
	}
	/* what is written then is what differs from the base */
	assert_int_equal(memory_reset(&m, base, -1), 0);
	touch(&m, 3, 5);
	int out = write_out(&m, &bytes);
	assert_int_equal(bytes, PAGE);
	assert_int_equal(memory_reset(&m, base, out), -EBADF); /* not sealed */
	assert_page(&m, 3, 5);
	release(&m);
	close(base);
	close(mapped);
	close(copied);
	close(other);
	close(out);
}

/* Pages that were only read stay mapped. */
static void drops_only_what_was_written(void **state)
{
	static unsigned char in[PAGES];
	struct memory m;
	int base = full_base();

	reserve(&m, MIB);
	memory_prepare_reset(&m, proc_fd);
	assert_int_equal(memory_map(&m, base, -1), 0);
	(void)madvise(m.host, m.bytes, MADV_POPULATE_READ);
	touch(&m, 3, 5);
	unsigned long faults = own_faults();
	assert_int_equal(memory_reset(&m, base, -1), 0);
	for (uint32_t i = 0; i < PAGES; i++)
		in[i] = *(volatile uint8_t *)(m.host + (uint64_t)i * PAGE);
	assert_in_range(own_faults() - faults, 1, 20);
	assert_page(&m, 1, 5);
	release(&m);
	close(base);
}

static void resets_without_pagemap_scan(void **state)
{
	no_scan = true;
	resets(state);
	no_scan = false;
	no_prepare = true;
	resets(state);
	no_prepare = false;
}

static unsigned int count_mappings(void)
{
	int fd = open("/proc/self/maps", O_RDONLY);
	static char buf[65536];
	unsigned int lines = 0;
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	}
	close(fd);
	return lines;
}

/* `run` pages of data, `gap` pages without, 10,000 times. */
static void scattered(uint32_t run, uint32_t gap)
{
	const uint32_t runs = 10000;
	const uint32_t step = run + gap;
	const uint64_t bytes = ((uint64_t)runs * step / 256 + 1) << 20;
	struct memory m;
	int base = sealed(file(bytes));
	int delta = file(bytes);

	for (uint32_t i = 0; i < runs * step; i++) {
		if (i % step < run)
			put(delta, 2, i);
	}
	reserve(&m, (uint32_t)(bytes >> 20));
	unsigned int before = count_mappings();
	assert_int_equal(memory_map(&m, base, sealed(delta)), 0);
	assert_in_range(count_mappings() - before, 0, 2 * 4096 + 2);
	for (uint32_t i = 0; i < runs * step; i++) {
		if (i % step < run)
			assert_page(&m, 2, i);
		else
			assert_int_equal(m.host[(uint64_t)i * PAGE], 0);
	}
	release(&m);
	close(base);
	close(delta);
}

static void bounds_its_mappings(void **state)
{
	scattered(1, 1);
	scattered(16, 2);
}

/* --- four gigabytes -------------------------------------------------------- */

static void crosses_the_hole(void **state)
{
	const uint32_t pages = 1u << 20;
	const uint32_t edge = BRIG_RAM_LOW_END / PAGE;
	const uint32_t some[] = { 0, 77, edge - 1, edge, pages / 2, pages - 1 };
	struct memory m;
	struct gmem map;
	uint64_t bytes;
	uint8_t page[PAGE];
	int base = file((uint64_t)pages * PAGE);

	for (size_t i = 0; i < ARRAY_LEN(some); i++)
		put(base, 1, some[i]);
	assert_int_equal(memory_reserve(&m, 4096, &map), 0);
	assert_int_equal(memory_map(&m, sealed(base), -1), 0);
	for (size_t i = 0; i < ARRAY_LEN(some); i++)
		assert_page(&m, 1, some[i]);
	fill(page, 1, edge);
	uint8_t first[PAGE];
	assert_int_equal(gmem_read(&map, GPA(BRIG_RAM_HIGH_START), first, PAGE),
			 0);
	assert_memory_equal(first, page, PAGE);

	touch(&m, 2, edge);
	touch(&m, 2, pages - 1);
	int out = write_out(&m, &bytes);
	assert_int_equal(bytes, 2 * PAGE);
	assert_true(has_data(out, edge) && has_data(out, pages - 1));
	close(out);
	close(base);
	release(&m);
}

/* --- refusals -------------------------------------------------------------- */

static void refuses_what_can_change(void **state)
{
	static const int lacking[] = { 0, F_SEAL_SHRINK | F_SEAL_GROW,
				       F_SEAL_SHRINK | F_SEAL_WRITE,
				       F_SEAL_GROW | F_SEAL_WRITE };
	struct memory m;
	int base = sealed(file(BYTES));

	reserve(&m, MIB);
	touch(&m, 2, 1);
	for (size_t i = 0; i < ARRAY_LEN(lacking); i++) {
		int fd = file(BYTES);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, lacking[i]), 0);
		assert_int_equal(memory_map(&m, fd, -1), -EBADF);
		assert_int_equal(memory_map(&m, base, fd), -EBADF);
		close(fd);
	}
	for (int more = -1; more <= 1; more += 2) {
		int fd = sealed(file(BYTES + (uint64_t)more * PAGE));
		assert_int_equal(memory_map(&m, fd, -1), -EBADF);
		assert_int_equal(memory_map(&m, base, fd), -EBADF);
		close(fd);
	}
	int plain = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	assert_true(plain >= 0 && ftruncate(plain, (off_t)BYTES) == 0);
	assert_int_equal(memory_map(&m, plain, -1), -EBADF);
	assert_int_equal(memory_map(&m, proc_fd, -1), -EBADF);
	assert_int_equal(memory_map(&m, -1, -1), -EBADF);
	/* nothing was done */
	assert_page(&m, 2, 1);
	assert_false(m.inherits);
	close(plain);
	close(base);
	release(&m);
}

static void tells_of_a_full_file(void **state)
{
	struct memory m;
	uint64_t bytes = 77;

	reserve(&m, MIB);
	touch(&m, 2, 1);
	int out = sealed(file(0));
	assert_int_equal(memory_write(&m, proc_fd, out, &bytes), -EPERM);
	assert_int_equal(memory_write(&m, out, file(0), &bytes), -ENOTDIR);
	assert_int_equal(bytes, 77);
	close(out);
	release(&m);
}

/* --- where it runs --------------------------------------------------------- */

/* A forked child that is not root and not dumpable, as in brig-vmm. */
static void works_in_an_undumpable_child(void **state)
{
	struct memory m;
	int base = full_base();
	int out = file(0);
	int status;

	reserve(&m, MIB);
	assert_int_equal(memory_map(&m, base, -1), 0);
	touch(&m, 3, 11);
	touch(&m, 3, 12);
	pid_t pid = fork();
	if (pid == 0) {
		uint64_t bytes = 0;
		if (setresgid(65534, 65534, 65534) < 0 ||
		    setresuid(65534, 65534, 65534) < 0 ||
		    prctl(PR_SET_DUMPABLE, 0) < 0)
			_exit(1);
		int r = memory_write(&m, proc_fd, out, &bytes);
		if (r < 0)
			_exit(-r);
		_exit(bytes == 2 * PAGE && prctl(PR_GET_DUMPABLE) == 0 ? 0 : 2);
	}
	touch(&m, 1, 12); /* not what the child sees */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	uint8_t got[PAGE], want[PAGE];
	fill(want, 3, 12);
	assert_int_equal(pread(out, got, PAGE, 12 * PAGE), PAGE);
	assert_memory_equal(got, want, PAGE);
	assert_false(has_data(out, 10) || has_data(out, 13));
	close(base);
	close(out);
	release(&m);
}

/* All that writes, on a kernel without the ioctl. */
static void works_without_pagemap_scan(void **state)
{
	no_scan = true;
	ioctls = 0;
	writes_what_is_not_zero(state);
	writes_nothing_of_nothing(state);
	writes_what_was_touched(state);
	crosses_the_hole(state);
	works_in_an_undumpable_child(state);
	assert_true(ioctls > 0);
	no_scan = false;
}

static int set_up(void **state)
{
	proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return proc_fd < 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaves_the_hole_out),
		cmocka_unit_test(writes_what_is_not_zero),
		cmocka_unit_test(writes_nothing_of_nothing),
		cmocka_unit_test(writes_what_was_touched),
		cmocka_unit_test(maps_again),
		cmocka_unit_test(resets),
		cmocka_unit_test(drops_only_what_was_written),
		cmocka_unit_test(resets_without_pagemap_scan),
		cmocka_unit_test(bounds_its_mappings),
		cmocka_unit_test(crosses_the_hole),
		cmocka_unit_test(refuses_what_can_change),
		cmocka_unit_test(tells_of_a_full_file),
		cmocka_unit_test(works_in_an_undumpable_child),
		cmocka_unit_test(works_without_pagemap_scan),
	};

	return cmocka_run_group_tests_name("memory", tests, set_up, NULL);
}
