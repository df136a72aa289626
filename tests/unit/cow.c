/* cow.c - the copy-on-write disk against a plain array, and with faults.
 * SPDX-License-Identifier: Apache-2.0
 *
 * preadv and pwritev are wrapped by the linker: a fault plan makes one call
 * short, interrupted or failing, and every byte that moves into or out of the
 * test's buffers is counted (security.md A-16).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/vmm/blk/cow.h"
#include "wire/limits.h"

#define BLOCKS 40u
#define DISK_BYTES (BLOCKS * COW_BLOCK_BYTES)
#define BASE_BYTES (13u * COW_BLOCK_BYTES + 1000u)

/* --- faults --------------------------------------------------------------- */

static struct {
	int calls;         /* so far */
	int at_call;       /* the call that goes wrong; -1: none */
	size_t limit;      /* with error 0: it moves no more than this */
	int error;         /* it fails with this */
	bool always_short; /* every call moves 1..limit bytes */
	uint8_t *watched;  /* the test's buffer */
	uint8_t moved[DISK_BYTES]; /* how often each byte of it was moved */
} plan;

static void plan_reset(uint8_t *watched)
{
	memset(&plan, 0, sizeof(plan));
	plan.at_call = -1;
	plan.watched = watched;
}

ssize_t __real_preadv(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t at);

typedef ssize_t move_fn(int, const struct iovec *, int, off_t);

static void count_moved(const struct iovec *iov, size_t done)
{
	for (; done > 0; iov++) {
		uint8_t *p = iov->iov_base;
		size_t here = done < iov->iov_len ? done : iov->iov_len;
		for (size_t i = 0; i < here; i++) {
			if (p + i >= plan.watched &&
			    p + i < plan.watched + DISK_BYTES)
				plan.moved[p + i - plan.watched]++;
		}
		done -= here;
	}
}

static ssize_t move(move_fn *real, int fd, const struct iovec *iov, int n,
		    off_t at)
{
	struct iovec cut[1024];
	size_t limit = SIZE_MAX;
	bool hit = plan.calls++ == plan.at_call;

	assert_in_range(n, 1, 1024);
	if (hit && plan.error != 0) {
		errno = plan.error;
		return -1;
	}
	if (hit)
		limit = plan.limit;
	else if (plan.always_short)
		limit = 1 + (size_t)random() % plan.limit;
	int used = 0;
	for (; used < n && limit > 0; used++) {
		cut[used] = iov[used];
		if (cut[used].iov_len > limit)
			cut[used].iov_len = limit;
		limit -= cut[used].iov_len;
	}
	ssize_t done = real(fd, cut, used, at);
	if (done > 0)
		count_moved(cut, (size_t)done);
	return done;
}

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t at)
{
	return move(__real_preadv, fd, iov, n, at);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	return move(__real_pwritev, fd, iov, n, at);
}

/* --- a disk and its model ------------------------------------------------- */

struct disk {
	struct cow cow;
	uint64_t bitmap[(BLOCKS + 63) / 64];
	uint8_t model[DISK_BYTES];
	uint8_t base[BASE_BYTES];
	uint8_t buffer[DISK_BYTES];
};

static void fill_random(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)random();
}

static struct disk *disk_new(void)
{
	struct disk *d = calloc(1, sizeof(*d));
	int base = memfd_create("base", MFD_CLOEXEC);
	int layer = memfd_create("layer", MFD_CLOEXEC);

	assert_non_null(d);
	assert_true(base >= 0 && layer >= 0);
	fill_random(d->base, sizeof(d->base));
	memcpy(d->model, d->base, sizeof(d->base));
	assert_int_equal(pwrite(base, d->base, sizeof(d->base), 0),
			 sizeof(d->base));
	assert_int_equal(cow_bitmap_bytes(DISK_BYTES), sizeof(d->bitmap));
	assert_int_equal(cow_init(&d->cow, base, BASE_BYTES, layer, DISK_BYTES,
				  d->bitmap),
			 0);
	plan_reset(d->buffer);
	return d;
}

static void disk_free(struct disk *d)
{
	(void)close(d->cow.base_fd);
	(void)close(d->cow.layer_fd);
	free(d);
}

/* Cuts d->buffer[0..n) into pieces of 1..max bytes. */
static int cut(struct disk *d, size_t n, size_t max, struct iovec *iov)
{
	uint8_t *p = d->buffer;
	int count = 0;

	while (n > 0) {
		size_t here = 1 + (size_t)random() % max;
		if (here > n || count == 1023)
			here = n;
		iov[count++] = (struct iovec){ p, here };
		p += here;
		n -= here;
	}
	return count;
}

static void check_moved_once(size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(plan.moved[i], 1);
	for (size_t i = n; i < DISK_BYTES; i++)
		assert_int_equal(plan.moved[i], 0);
}

static void check_disk(struct disk *d)
{
	struct iovec iov = { d->buffer, DISK_BYTES };
	uint8_t base[BASE_BYTES];
	uint64_t bits = 0;

	plan_reset(d->buffer);
	assert_int_equal(cow_read(&d->cow, 0, &iov, 1), 0);
	assert_memory_equal(d->buffer, d->model, DISK_BYTES);
	for (size_t i = 0; i < BLOCKS; i++)
		bits += d->bitmap[i / 64] >> (i % 64) & 1;
	assert_int_equal(bits, d->cow.layer_blocks);
	assert_int_equal(pread(d->cow.base_fd, base, sizeof(base), 0),
			 sizeof(base));
	assert_memory_equal(base, d->base, sizeof(base));
}

/* --- tests ---------------------------------------------------------------- */

static void test_sizes(void **state)
{
	uint64_t word = 0;
	struct cow c;

	(void)state;
	assert_int_equal(cow_bitmap_bytes(4096), 8);
	assert_int_equal(cow_bitmap_bytes(64 * 4096), 8);
	assert_int_equal(cow_bitmap_bytes(65 * 4096), 16);
	assert_int_equal(cow_bitmap_bytes(BRIG_DISK_BYTES_MAX), 8u << 20);
	assert_int_equal(cow_init(&c, 0, 0, 0, 0, &word), -EINVAL);
	assert_int_equal(cow_init(&c, 0, 0, 0, 4095, &word), -EINVAL);
	assert_int_equal(cow_init(&c, 0, 4097, 0, 4096, &word), -EINVAL);
	assert_int_equal(
		cow_init(&c, 0, 0, 0, BRIG_DISK_BYTES_MAX + 4096, &word),
		-EINVAL);
	assert_int_equal(cow_init(&c, 0, 4096, 0, 4096, &word), 0);
}

static void test_beyond_end(void **state)
{
	static const struct {
		uint64_t at;
		size_t n;
	} bad[] = {
		{ DISK_BYTES, 1 },         { DISK_BYTES - 1, 2 },
		{ 0, DISK_BYTES + 1 },     { UINT64_MAX, 1 },
		{ UINT64_MAX - 511, 512 },
	};
	struct disk *d = disk_new();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct iovec iov = { d->buffer, bad[i].n };
		assert_int_equal(cow_read(&d->cow, bad[i].at, &iov, 1),
				 -EINVAL);
		assert_int_equal(cow_write(&d->cow, bad[i].at, &iov, 1),
				 -EINVAL);
	}
	assert_int_equal(plan.calls, 0);
	check_disk(d);
	disk_free(d);
}

static void random_operations(struct disk *d, int rounds)
{
	struct iovec iov[1024];

	for (int i = 0; i < rounds; i++) {
		uint64_t at = (uint64_t)random() % DISK_BYTES;
		size_t n = 1 + (size_t)random() % (3 * COW_BLOCK_BYTES);
		bool by_sector = random() % 2;
		if (by_sector) {
			at -= at % 512;
			n = (n + 511) / 512 * 512;
		}
		if (n > DISK_BYTES - at)
			n = DISK_BYTES - at;
		int count = cut(d, n, by_sector ? 4096 : 97, iov);
		memset(plan.moved, 0, sizeof(plan.moved));
		if (random() % 2) {
			assert_int_equal(cow_read(&d->cow, at, iov, count), 0);
			assert_memory_equal(d->buffer, d->model + at, n);
			continue;
		}
		fill_random(d->buffer, n);
		memcpy(d->model + at, d->buffer, n);
		assert_int_equal(cow_write(&d->cow, at, iov, count), 0);
		check_moved_once(n);
	}
}

static void test_against_model(void **state)
{
	struct disk *d = disk_new();

	(void)state;
	check_disk(d);
	assert_int_equal(d->cow.layer_blocks, 0);
	for (int i = 0; i < 20; i++) {
		random_operations(d, 10);
		check_disk(d);
	}
	assert_true(d->cow.layer_blocks > 0);
	disk_free(d);
}

static void test_always_short(void **state)
{
	struct disk *d = disk_new();

	(void)state;
	for (int i = 0; i < 10; i++) {
		plan.always_short = true;
		plan.limit = 700;
		random_operations(d, 10);
		check_disk(d);
	}
	disk_free(d);
}

/* A write of parts of the blocks 12 to 15: base, end of base, nothing. */
#define FAULT_AT (12u * COW_BLOCK_BYTES + 3000u)
#define FAULT_BYTES (3u * COW_BLOCK_BYTES + 100u)

/* Writes with one call of `plan`; afterwards each byte is old or new, and a
 * second try makes all new. Returns what the first try returned. */
static int faulty_write(struct disk *d, int at_call, size_t limit, int error)
{
	static uint8_t new[FAULT_BYTES];
	static uint8_t got[FAULT_BYTES];
	struct iovec iov[1024];

	plan_reset(d->buffer);
	fill_random(new, FAULT_BYTES);
	memcpy(d->buffer, new, FAULT_BYTES);
	int count = cut(d, FAULT_BYTES, 900, iov);
	plan.at_call = at_call;
	plan.limit = limit;
	plan.error = error;
	int r = cow_write(&d->cow, FAULT_AT, iov, count);
	if (r == 0)
		check_moved_once(FAULT_BYTES);
	for (size_t i = 0; i < FAULT_BYTES; i++)
		assert_true(plan.moved[i] <= 1);
	assert_memory_equal(d->buffer, new, FAULT_BYTES);

	plan.at_call = -1;
	struct iovec all = { got, FAULT_BYTES };
	assert_int_equal(cow_read(&d->cow, FAULT_AT, &all, 1), 0);
	for (size_t i = 0; i < FAULT_BYTES; i++) {
		if (r < 0 && got[i] == d->model[FAULT_AT + i])
			continue;
		assert_int_equal(got[i], new[i]);
	}
	memcpy(d->model + FAULT_AT, new, FAULT_BYTES);
	if (r < 0) {
		struct iovec again = { d->buffer, FAULT_BYTES };
		assert_int_equal(cow_write(&d->cow, FAULT_AT, &again, 1), 0);
	}
	check_disk(d);
	return r;
}

static void test_write_fails_at_each_call(void **state)
{
	static const int errors[] = { EIO, ENOSPC, EAGAIN };

	(void)state;
	for (size_t e = 0; e < 3; e++) {
		int r = -1;
		int call = 0;
		for (; r < 0; call++) {
			struct disk *d = disk_new();
			r = faulty_write(d, call, 0, errors[e]);
			assert_true(r == 0 || r == -errors[e]);
			disk_free(d);
			assert_true(call < 100);
		}
		/* base, head, part; whole blocks; part, tail; then none */
		assert_int_equal(call, 7);
	}
}

static void test_write_is_interrupted(void **state)
{
	(void)state;
	for (int call = 0; call < 12; call++) {
		struct disk *d = disk_new();
		assert_int_equal(faulty_write(d, call, 0, EINTR), 0);
		disk_free(d);
	}
}

/* The layer takes nothing more: that is an error, not an endless loop. */
static void test_write_of_nothing(void **state)
{
	struct disk *d = disk_new();

	(void)state;
	assert_int_equal(faulty_write(d, 1, 0, 0), -EIO);
	disk_free(d);
}

static void test_write_is_short(void **state)
{
	(void)state;
	for (int call = 0; call < 6; call++) {
		for (size_t limit = 1; limit <= 2 * COW_BLOCK_BYTES;
		     limit += limit < 20 || limit % 512 > 509 ? 1 : 61) {
			struct disk *d = disk_new();
			assert_int_equal(faulty_write(d, call, limit, 0), 0);
			disk_free(d);
		}
	}
}

static void test_read_faults(void **state)
{
	struct disk *d = disk_new();
	struct iovec iov[1024];

	(void)state;
	random_operations(d, 10);
	for (int call = 0; call < 4; call++) {
		for (size_t limit = 1; limit < 3 * COW_BLOCK_BYTES;
		     limit += 37) {
			plan_reset(d->buffer);
			memset(d->buffer, 0xa5, DISK_BYTES);
			plan.at_call = call;
			plan.limit = limit;
			int count = cut(d, DISK_BYTES, 9000, iov);
			assert_int_equal(cow_read(&d->cow, 0, iov, count), 0);
			assert_memory_equal(d->buffer, d->model, DISK_BYTES);
		}
		plan_reset(d->buffer);
		plan.at_call = call;
		plan.error = EINTR;
		struct iovec all = { d->buffer, DISK_BYTES };
		assert_int_equal(cow_read(&d->cow, 0, &all, 1), 0);
		assert_memory_equal(d->buffer, d->model, DISK_BYTES);
	}
	plan_reset(d->buffer);
	plan.at_call = 1;
	plan.error = EIO;
	struct iovec all = { d->buffer, DISK_BYTES };
	assert_int_equal(cow_read(&d->cow, 0, &all, 1), -EIO);
	check_disk(d);
	disk_free(d);
}

/* The base was cut short behind our back. */
static void test_base_shrinks(void **state)
{
	struct disk *d = disk_new();
	struct iovec iov = { d->buffer, COW_BLOCK_BYTES };

	(void)state;
	assert_int_equal(ftruncate(d->cow.base_fd, 100), 0);
	assert_int_equal(cow_read(&d->cow, 0, &iov, 1), -EIO);
	iov = (struct iovec){ d->buffer, 512 };
	assert_int_equal(cow_write(&d->cow, 512, &iov, 1), -EIO);
	assert_int_equal(d->cow.layer_blocks, 0);
	disk_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_beyond_end),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_always_short),
		cmocka_unit_test(test_write_fails_at_each_call),
		cmocka_unit_test(test_write_is_interrupted),
		cmocka_unit_test(test_write_of_nothing),
		cmocka_unit_test(test_write_is_short),
		cmocka_unit_test(test_read_faults),
		cmocka_unit_test(test_base_shrinks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
