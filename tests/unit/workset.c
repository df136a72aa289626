/* workset.c - what a working set may say, and what it does.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Real memfds and the real page tables of this process; the vCPU is a wrapped
 * ioctl that notes what it is asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/vmm/workset.h"
#include "wire/boot.h"

#define MIB 4u
#define BYTES ((uint64_t)MIB << 20)
#define PAGES ((uint32_t)(BYTES / MEMORY_PAGE))
#define VCPU_FD 1000000 /* of no file */
#define ASKED_MAX 16

struct pre_fault {
	uint64_t gpa;
	uint64_t size;
	uint64_t flags;
	uint64_t zero[5];
};

static struct pre_fault asked[ASKED_MAX];
static unsigned int asked_count;
static uint64_t at_once; /* bytes that one ioctl does */
static int refuse;       /* errno of each */

int __real_ioctl(int fd, unsigned long request, void *arg);
int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	struct pre_fault *f = arg;

	if (fd != VCPU_FD)
		return __real_ioctl(fd, request, arg);
	assert_true(asked_count < ASKED_MAX);
	asked[asked_count++] = *f;
	if (refuse != 0) {
		errno = refuse;
		return -1;
	}
	uint64_t n = f->size < at_once ? f->size : at_once;
	f->gpa += n;
	f->size -= n;
	return 0;
}

static int set_up(void **state)
{
	asked_count = 0;
	at_once = UINT64_MAX;
	refuse = 0;
	return 0;
}

static int list(const struct vmm_pages *runs, size_t n)
{
	int fd = memfd_create("pages", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, runs, n * sizeof(*runs)), n * sizeof(*runs));
	return fd;
}

/* RAM that goes on from a file in which each byte is 7. */
static void make(struct memory *m, uint32_t mib)
{
	struct gmem map;

	assert_int_equal(memory_reserve(m, mib, &map), 0);
	int fd = memfd_create("ram", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)m->bytes), 0);
	uint8_t *p =
		mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 7, BYTES);
	assert_int_equal(munmap(p, BYTES), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS,
			       F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
			 0);
	assert_int_equal(memory_map(m, fd, -1), 0);
	assert_int_equal(close(fd), 0);
	int proc_fd = open("/proc", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
	memory_prepare_reset(m, proc_fd);
	assert_true(m->pagemap_fd >= 0);
	assert_int_equal(close(proc_fd), 0);
}

static void release(struct memory *m)
{
	assert_int_equal(munmap(m->host, m->bytes), 0);
	assert_int_equal(close(m->pagemap_fd), 0);
}

static enum memory_page kind(const struct memory *m, uint32_t page)
{
	uint64_t word;

	assert_int_equal(memory_words(m, m->pagemap_fd, page, &word, 1), 0);
	return memory_page(word);
}

static int apply(const struct memory *m, const struct vmm_pages *runs, size_t n)
{
	int fd = list(runs, n);
	int r = workset_apply(m, fd, VCPU_FD);

	assert_int_equal(close(fd), 0);
	return r;
}

/* --- applying ----------------------------------------------------------------- */

static void makes_pages_ready(void **state)
{
	const struct vmm_pages runs[] = {
		{ 3, 2, VMM_PAGES_WRITTEN, 0 },
		{ 5, 1, 0, 0 },
		{ 600, 1, VMM_PAGES_WRITTEN, 0 },
	};
	struct memory m;

	make(&m, MIB);
	at_once = MEMORY_PAGE; /* it goes on where the kernel stopped */
	assert_int_equal(apply(&m, runs, 3), 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		bool own = i == 3 || i == 4 || i == 600;
		if ((kind(&m, i) == MEMORY_PAGE_OWN) != own)
			fail_msg("page %u", i);
		assert_int_equal(m.host[(uint64_t)i * MEMORY_PAGE], 7);
	}
	assert_int_equal(asked_count, 4);
	assert_int_equal(asked[0].gpa, 3 * MEMORY_PAGE);
	assert_int_equal(asked[0].size, 2 * MEMORY_PAGE);
	assert_int_equal(asked[1].gpa, 4 * MEMORY_PAGE);
	assert_int_equal(asked[2].gpa, 5 * MEMORY_PAGE);
	assert_int_equal(asked[3].gpa, 600 * MEMORY_PAGE);
	release(&m);
}

/* Pages are counted through RAM, guest addresses have a hole. */
static void steps_over_the_hole(void **state)
{
	const uint32_t low = (uint32_t)(BRIG_RAM_LOW_END / MEMORY_PAGE);
	const struct vmm_pages runs[] = { { low - 1, 3, 0, 0 },
					  { low + 7, 1, 0, 0 } };
	struct memory m;

	make(&m, (uint32_t)(BRIG_RAM_LOW_END >> 20) + 1);
	assert_int_equal(apply(&m, runs, 2), 0);
	assert_int_equal(asked_count, 3);
	assert_int_equal(asked[0].gpa, BRIG_RAM_LOW_END - MEMORY_PAGE);
	assert_int_equal(asked[0].size, MEMORY_PAGE);
	assert_int_equal(asked[1].gpa, BRIG_RAM_HIGH_START);
	assert_int_equal(asked[1].size, 2 * MEMORY_PAGE);
	assert_int_equal(asked[2].gpa, BRIG_RAM_HIGH_START + 7 * MEMORY_PAGE);
	release(&m);
}

/* An older kernel is asked once; the pages are copied all the same. */
static void does_without_the_ioctl(void **state)
{
	const struct vmm_pages runs[] = { { 1, 1, VMM_PAGES_WRITTEN, 0 },
					  { 9, 1, VMM_PAGES_WRITTEN, 0 } };
	struct memory m;

	make(&m, MIB);
	refuse = ENOTTY;
	assert_int_equal(apply(&m, runs, 2), 0);
	assert_int_equal(asked_count, 1);
	assert_int_equal(kind(&m, 1), MEMORY_PAGE_OWN);
	assert_int_equal(kind(&m, 9), MEMORY_PAGE_OWN);
	release(&m);
}

static void ends_where_nothing_moves(void **state)
{
	const struct vmm_pages run = { 1, 2, 0, 0 };
	struct memory m;

	make(&m, MIB);
	at_once = 0;
	assert_int_equal(apply(&m, &run, 1), 0);
	assert_int_equal(asked_count, 1);
	release(&m);
}

static void refuses_nonsense(void **state)
{
	const struct vmm_pages bad[][2] = {
		{ { 0, 1, 0, 0 }, { PAGES, 1, 0, 0 } },
		{ { 0, 1, 0, 0 }, { PAGES - 1, 2, 0, 0 } },
		{ { 0, 1, 0, 0 }, { 1, UINT32_MAX, 0, 0 } },
		{ { 0, 1, 0, 0 }, { UINT32_MAX, 1, 0, 0 } },
		{ { 0, 1, 0, 0 }, { 5, 0, 0, 0 } },
		{ { 0, 1, 0, 0 }, { 5, 1, 2, 0 } },
		{ { 0, 1, 0, 0 }, { 5, 1, 0, 1 } },
		{ { 4, 2, 0, 0 }, { 5, 1, 0, 0 } },
		{ { 4, 1, VMM_PAGES_WRITTEN, 0 }, { 3, 1, 0, 0 } },
	};
	struct memory m;

	make(&m, MIB);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (apply(&m, bad[i], 2) != -EBADMSG)
			fail_msg("list %zu", i);
	}
	assert_int_equal(asked_count, 0);
	assert_int_equal(kind(&m, 4), MEMORY_PAGE_NONE);

	int fd = list(bad[0], 1);
	assert_int_equal(ftruncate(fd, sizeof(bad[0][0]) + 1), 0);
	assert_int_equal(workset_apply(&m, fd, VCPU_FD), -EBADMSG);
	assert_int_equal(
		ftruncate(fd, VMM_WORKING_SET_MAX * sizeof(bad[0][0]) + 1), 0);
	assert_int_equal(workset_apply(&m, fd, VCPU_FD), -EFBIG);
	assert_int_equal(close(fd), 0);
	release(&m);
}

/* --- writing ------------------------------------------------------------------- */

static void tells_what_was_used(void **state)
{
	const struct vmm_pages expected[] = {
		{ 2, 1, 0, 0 },
		{ 3, 2, VMM_PAGES_WRITTEN, 0 },
		{ 700, 1, VMM_PAGES_WRITTEN, 0 },
		{ 900, 1, 0, 0 },
	};
	struct vmm_pages got[8] = { { 0 } };
	struct memory m;
	uint64_t bytes = 0;
	volatile uint8_t sum = 0;

	make(&m, MIB);
	assert_int_equal(workset_watch(&m), 0);
	m.host[3 * MEMORY_PAGE] = 1;
	m.host[4 * MEMORY_PAGE] = 1;
	m.host[700 * MEMORY_PAGE] = 1;
	sum = (uint8_t)(m.host[2 * MEMORY_PAGE] + m.host[900 * MEMORY_PAGE]);
	assert_int_equal(sum, 14);
	int fd = list(got, 0);
	assert_int_equal(workset_write(&m, fd, &bytes), 0);
	assert_int_equal(bytes, sizeof(expected));
	assert_int_equal(pread(fd, got, sizeof(got), 0), sizeof(expected));
	assert_memory_equal(got, expected, sizeof(expected));
	assert_int_equal(close(fd), 0);
	release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(makes_pages_ready, set_up),
		cmocka_unit_test_setup(steps_over_the_hole, set_up),
		cmocka_unit_test_setup(does_without_the_ioctl, set_up),
		cmocka_unit_test_setup(ends_where_nothing_moves, set_up),
		cmocka_unit_test_setup(refuses_nonsense, set_up),
		cmocka_unit_test_setup(tells_what_was_used, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
