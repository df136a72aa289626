/* cow.c - the copy-on-write disk against a plain array, and with faults.
 * SPDX-License-Identifier: Apache-2.0
 *
 * preadv and pwritev are wrapped by the linker: a fault plan makes one call
 * short, interrupted or failing, and every byte that moves into or out of the
 * test's buffers is counted (security.md A-16).
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/vmm/blk/cow.h"
#include "statefile.h"
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
	uint8_t *map;
	uint8_t model[DISK_BYTES];
	uint8_t base[BASE_BYTES];
	uint8_t buffer[DISK_BYTES];
};

static void fill_random(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)random();
}

static uint8_t *map_new(uint64_t disk_bytes)
{
	uint8_t *map =
		mmap(NULL, cow_map_bytes(disk_bytes), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(map != MAP_FAILED);
	return map;
}

static int file_new(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static struct disk *disk_new(void)
{
	struct disk *d = calloc(1, sizeof(*d));
	int base = file_new();

	assert_non_null(d);
	fill_random(d->base, sizeof(d->base));
	memcpy(d->model, d->base, sizeof(d->base));
	assert_int_equal(pwrite(base, d->base, sizeof(d->base), 0),
			 sizeof(d->base));
	assert_int_equal(cow_map_bytes(DISK_BYTES), BLOCKS);
	d->map = map_new(DISK_BYTES);
	assert_int_equal(cow_init(&d->cow, DISK_BYTES, d->map), 0);
	assert_int_equal(
		cow_open(&d->cow, base, BASE_BYTES, NULL, 0, file_new()), 0);
	plan_reset(d->buffer);
	return d;
}

static void disk_free(struct disk *d)
{
	(void)close(d->cow.base_fd);
	(void)close(d->cow.top_fd);
	for (uint32_t i = 0; i < d->cow.sealed; i++)
		(void)close(d->cow.sealed_fds[i]);
	(void)munmap(d->map, BLOCKS);
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
	uint64_t in_top = 0;

	plan_reset(d->buffer);
	assert_int_equal(cow_read(&d->cow, 0, &iov, 1), 0);
	assert_memory_equal(d->buffer, d->model, DISK_BYTES);
	for (size_t i = 0; i < BLOCKS; i++)
		in_top += d->map[i] == d->cow.sealed + 1;
	assert_int_equal(in_top, d->cow.layer_blocks);
	assert_int_equal(pread(d->cow.base_fd, base, sizeof(base), 0),
			 sizeof(base));
	assert_memory_equal(base, d->base, sizeof(base));
}

/* --- tests ---------------------------------------------------------------- */

static void test_sizes(void **state)
{
	uint8_t *map = map_new(4096);
	struct cow c;
	int fd = file_new();

	(void)state;
	assert_int_equal(cow_map_bytes(4096), 1);
	assert_int_equal(cow_map_bytes(BRIG_DISK_BYTES_MAX), 64u << 20);
	assert_int_equal(cow_init(&c, 0, map), -EINVAL);
	assert_int_equal(cow_init(&c, 4095, map), -EINVAL);
	assert_int_equal(cow_init(&c, BRIG_DISK_BYTES_MAX + 4096, map),
			 -EINVAL);
	assert_int_equal(cow_init(&c, 4096, map), 0);
	assert_int_equal(cow_open(&c, fd, 4097, NULL, 0, fd), -EINVAL);
	assert_int_equal(cow_open(&c, fd, 4096, &fd, BRIG_LAYERS_MAX + 1, fd),
			 -E2BIG);
	assert_int_equal(c.base_fd, -1);
	assert_int_equal(c.top_fd, -1);
	assert_int_equal(close(fd), 0);
	(void)munmap(map, 1);
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

/* --- layers --------------------------------------------------------------- */

static void test_layers_against_model(void **state)
{
	struct disk *d = disk_new();

	(void)state;
	for (uint32_t i = 0; i < 30; i++) {
		random_operations(d, 10);
		check_disk(d);
		uint64_t written = d->cow.layer_blocks;
		int fd = file_new();
		int r = cow_seal(&d->cow, fd);
		assert_int_equal(r, written > 0);
		if (r == 0)
			assert_int_equal(close(fd), 0);
		check_disk(d);
		assert_int_equal(d->cow.layer_blocks, 0);
	}
	assert_true(d->cow.sealed > 20);
	for (int i = 0; i < 10; i++) {
		plan.always_short = true;
		plan.limit = 700;
		random_operations(d, 5);
		check_disk(d);
	}
	disk_free(d);
}

static void write_block(struct disk *d, uint64_t block, uint8_t v)
{
	uint8_t *p = d->model + block * COW_BLOCK_BYTES;
	struct iovec iov = { p, COW_BLOCK_BYTES };

	memset(p, v, COW_BLOCK_BYTES);
	assert_int_equal(cow_write(&d->cow, block * COW_BLOCK_BYTES, &iov, 1),
			 0);
}

static void test_sealing(void **state)
{
	struct disk *d = disk_new();
	int first_top = d->cow.top_fd;
	int second = file_new();
	uint8_t was[COW_BLOCK_BYTES];

	(void)state;
	assert_int_equal(cow_seal(&d->cow, second), 0);
	assert_int_equal(d->cow.top_fd, first_top);
	write_block(d, 3, 33);
	assert_int_equal(cow_seal(&d->cow, second), 1);
	assert_int_equal(d->cow.sealed, 1);
	assert_int_equal(d->cow.sealed_fds[0], first_top);
	assert_int_equal(d->cow.top_fd, second);
	write_block(d, 3, 44);
	/* the sealed layer stays as it was */
	assert_int_equal(pread(first_top, was, sizeof(was), 3 * 4096), 4096);
	assert_int_equal(was[0], 33);
	check_disk(d);
	disk_free(d);
}

static void test_no_more_layers(void **state)
{
	struct disk *d = disk_new();
	int fd;

	(void)state;
	for (uint32_t i = 0; i < BRIG_LAYERS_MAX; i++) {
		write_block(d, i % BLOCKS, (uint8_t)i);
		assert_int_equal(cow_seal(&d->cow, file_new()), 1);
	}
	fd = file_new();
	assert_int_equal(cow_seal(&d->cow, fd), 0);
	write_block(d, 7, 7);
	assert_int_equal(cow_seal(&d->cow, fd), -E2BIG);
	assert_int_equal(close(fd), 0);
	write_block(d, 8, 8);
	random_operations(d, 10);
	check_disk(d);
	disk_free(d);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_opened_again(void **state)
{
	struct disk *d = disk_new();
	int base, sealed, top, other;

	(void)state;
	random_operations(d, 20);
	assert_int_equal(cow_seal(&d->cow, file_new()), 1);
	random_operations(d, 20);
	base = d->cow.base_fd;
	sealed = d->cow.sealed_fds[0];
	top = d->cow.top_fd;
	other = dup(base);
	assert_int_equal(
		cow_open(&d->cow, other, BASE_BYTES, NULL, 0, file_new()), 0);
	assert_false(is_open(base) || is_open(sealed) || is_open(top));
	memset(d->model, 0, DISK_BYTES);
	memcpy(d->model, d->base, BASE_BYTES);
	check_disk(d);
	random_operations(d, 20);
	check_disk(d);
	disk_free(d);
}

/* --- saved maps ----------------------------------------------------------- */

/* Four chunks of map, the last one small. */
#define BIG_BLOCKS (3 * COW_CHUNK_BLOCKS + 77)
#define BIG_BYTES ((uint64_t)BIG_BLOCKS * COW_BLOCK_BYTES)
#define FILE_BYTES (COW_STATE_BYTES(BIG_BYTES) + 64)

static struct cow big;
static uint8_t big_want[BIG_BLOCKS];
static uint8_t file[FILE_BYTES];

/* A disk of `n` sealed layers whose files are never looked at. */
static int big_set_up(void **state)
{
	int sealed[3] = { file_new(), file_new(), file_new() };
	uint8_t *map = map_new(BIG_BYTES);

	(void)state;
	assert_int_equal(cow_init(&big, BIG_BYTES, map), 0);
	assert_int_equal(
		cow_open(&big, file_new(), 5000, sealed, 3, file_new()), 0);
	return 0;
}

static void big_clear(void)
{
	assert_int_equal(madvise(big.map, BIG_BLOCKS, MADV_DONTNEED), 0);
}

static int big_tear_down(void **state)
{
	uint8_t *map = big.map;

	(void)state;
	assert_int_equal(cow_open(&big, -1, 0, NULL, 0, -1), 0);
	(void)munmap(map, BIG_BLOCKS);
	return 0;
}

static size_t big_save(void)
{
	struct state_stream s;
	size_t n = 0;

	memcpy(big_want, big.map, BIG_BLOCKS);
	state_save(&s, file, sizeof(file));
	cow_state(&s, &big);
	assert_int_equal(state_finish(&s, &n), 0);
	assert_memory_equal(big_want, big.map, BIG_BLOCKS);
	return n;
}

static int big_load(size_t n)
{
	struct state_stream s;

	big_clear();
	state_load(&s, file, n);
	cow_state(&s, &big);
	return state_finish(&s, NULL);
}

static void check_round_trip(size_t at_most)
{
	size_t n = big_save();

	assert_true(n <= at_most + 40);
	assert_int_equal(big_load(n), 0);
	assert_memory_equal(big.map, big_want, BIG_BLOCKS);
	assert_int_equal(big.layer_blocks, 0);
}

static void test_state_of_an_empty_map(void **state)
{
	(void)state;
	check_round_trip(120);
}

static void test_state_of_runs(void **state)
{
	(void)state;
	memset(big.map + 10, 1, 5);
	memset(big.map + COW_CHUNK_BLOCKS, 3, COW_CHUNK_BLOCKS + 9);
	big.map[BIG_BLOCKS - 1] = 2;
	check_round_trip(400);
	assert_memory_equal(big.map + 9, "\0\1\1\1\1\1\0", 7);
}

static void test_state_of_every_second_block(void **state)
{
	(void)state;
	for (size_t i = 0; i < BIG_BLOCKS; i += 2)
		big.map[i] = 1 + i % 3;
	check_round_trip(COW_STATE_BYTES(BIG_BYTES));
}

static void test_state_of_any_map(void **state)
{
	(void)state;
	for (int round = 0; round < 300; round++) {
		big_clear();
		size_t longest = 1 + (size_t)random() % 3000;
		for (size_t at = (size_t)random() % BIG_BLOCKS;
		     at < BIG_BLOCKS;) {
			size_t n = 1 + (size_t)random() % longest;
			n = n < BIG_BLOCKS - at ? n : BIG_BLOCKS - at;
			memset(big.map + at, (int)(random() % 4), n);
			at += n;
		}
		check_round_trip(COW_STATE_BYTES(BIG_BYTES));
	}
}

/* Replaces bytes after `text` in the file, and loads it. */
static int load_changed(size_t n, const char *text, size_t skip, const void *to,
			size_t len)
{
	uint8_t *p = memmem(file, n, text, strlen(text));

	assert_non_null(p);
	memcpy(p + strlen(text) + skip, to, len);
	statefile_seal(file, n);
	return big_load(n);
}

#define CHANGED(text, skip, to) \
	load_changed(big_save(), text, skip, to, sizeof(to) - 1)

#define BIG_TEST(f) \
	cmocka_unit_test_setup_teardown(f, big_set_up, big_tear_down)

static void runs_for_hostile_tests(void)
{
	big_clear();
	memset(big.map + COW_CHUNK_BLOCKS, 3, 100);
}

/* The file has one chunk, the second, of two runs: 100 of layer 3, the rest
 * of layer 0; before it "bytes" 6. */
static void test_hostile_state(void **state)
{
	static const struct {
		const char *text;
		size_t skip;
		const char *to;
		size_t len;
	} bad[] = {
		{ "runs", 4, "\0\0", 2 },          /* a run of nothing */
		{ "runs", 4, "\x65", 1 },          /* too many blocks */
		{ "runs", 4, "\x63", 1 },          /* too few */
		{ "runs", 4, "\xff\xff", 2 },      /* far too many */
		{ "runs", 6, "\4", 1 },            /* the top */
		{ "runs", 6, "\xff", 1 },          /* no layer at all */
		{ "runs", 9, "\4", 1 },            /* the same, second run */
		{ "4\5bytes", 0, "\0", 1 },        /* no runs */
		{ "4\5bytes", 0, "\1\x10", 2 },    /* more than blocks */
		{ "4\5bytes", 0, "\0\x10", 2 },    /* claims to be raw */
		{ "4\5bytes", 0, "\5", 1 },        /* half a run */
		{ "chunk", 0, "\5", 1 },           /* beyond the disk */
		{ "chunk", 0, "\4", 1 },           /* ends the list too soon */
		{ "chunk", 0, "\xff\xff\xff", 3 }, /* far beyond */
		{ "layers", 0, "\2", 1 },
		{ "layers", 0, "\4", 1 },
		{ "base_bytes", 0, "\x89", 1 },
		{ "disk_bytes", 2, "\1", 1 },
		{ "disk", 0, "\2", 1 }, /* version */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		runs_for_hostile_tests();
		assert_true(load_changed(big_save(), bad[i].text, bad[i].skip,
					 bad[i].to, bad[i].len) < 0);
	}
	runs_for_hostile_tests();
	assert_int_equal(CHANGED("runs", 6, "\1"), 0); /* not all is refused */
	assert_int_equal(big.map[COW_CHUNK_BLOCKS + 99], 1);
	/* two chunks in the wrong order, and the same one twice */
	for (char second = 0; second <= 1; second++) {
		big_clear();
		big.map[COW_CHUNK_BLOCKS] = 1;
		big.map[2 * COW_CHUNK_BLOCKS] = 1;
		size_t n = big_save();
		uint8_t *p = memmem(file, n, "chunk\2", 6);
		assert_non_null(p);
		p[5] = (uint8_t)second;
		statefile_seal(file, n);
		assert_int_equal(big_load(n), -ERANGE);
	}
	/* raw bytes that name the top */
	big_clear();
	for (size_t i = 0; i < COW_CHUNK_BLOCKS; i++)
		big.map[i] = i % 2;
	assert_int_equal(CHANGED("blocks", 8, "\4"), -ERANGE);
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
		cmocka_unit_test(test_layers_against_model),
		cmocka_unit_test(test_sealing),
		cmocka_unit_test(test_no_more_layers),
		cmocka_unit_test(test_opened_again),
		BIG_TEST(test_state_of_an_empty_map),
		BIG_TEST(test_state_of_runs),
		BIG_TEST(test_state_of_every_second_block),
		BIG_TEST(test_state_of_any_map),
		BIG_TEST(test_hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
