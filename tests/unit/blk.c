/* blk.c - the block device, from the driver's side of the ring.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The disk behind it is a copy-on-write disk on two memfds. preadv and pwritev
 * are wrapped by the linker, so that the backend can be made to fail.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "ring.h"
#include "src/vmm/dev/blk.h"

#define DISK_BYTES (256u << 10)
#define BASE_BYTES (99u << 10)
#define SECTORS (DISK_BYTES / 512)

/* Guest memory: rings, then header, status and data. */
#define HEADER_AT 0x2000u
#define STATUS_AT 0x2100u
#define DATA_AT 0x3000u
#define DATA_BYTES 0xd000u

enum {
	IN = 0,
	OUT = 1,
	FLUSH = 4,
	GET_ID = 8
};
enum {
	OK = 0,
	IOERR = 1,
	UNSUPP = 2,
	UNTOUCHED = 0xee
};

static struct {
	struct guest guest;
	struct ring ring;
	struct cow cow;
	struct blk blk;
	uint8_t *map;
	uint8_t model[DISK_BYTES];
	int irq_fd;
} t;

static int backend_error; /* of every call, if not 0 */

ssize_t __real_preadv(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t at);

ssize_t __wrap_preadv(int fd, const struct iovec *iov, int n, off_t at)
{
	errno = backend_error;
	return backend_error != 0 ? -1 : __real_preadv(fd, iov, n, at);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	errno = backend_error;
	return backend_error != 0 ? -1 : __real_pwritev(fd, iov, n, at);
}

/* --- set-up --------------------------------------------------------------- */

static void bring_up(void)
{
	ring_init(&t.ring, &t.guest, 256, 0);
	assert_int_equal(reg_bring_up(&t.blk.dev, 0, &t.ring, 1), 15);
}

static int set_up(void **state)
{
	int base = memfd_create("base", MFD_CLOEXEC);
	int layer = memfd_create("layer", MFD_CLOEXEC);

	(void)state;
	memset(&t, 0, sizeof(t));
	backend_error = 0;
	for (size_t i = 0; i < BASE_BYTES; i++)
		t.model[i] = (uint8_t)random();
	guest_init(&t.guest);
	t.map = mmap(NULL, cow_map_bytes(DISK_BYTES), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t.map == MAP_FAILED)
		return -1;
	t.irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (t.irq_fd < 0 || base < 0 || layer < 0 ||
	    pwrite(base, t.model, BASE_BYTES, 0) != BASE_BYTES ||
	    cow_init(&t.cow, DISK_BYTES, t.map) != 0 ||
	    cow_open(&t.cow, base, BASE_BYTES, NULL, 0, layer) != 0)
		return -1;
	blk_init(&t.blk, &t.cow, &t.guest.mem, t.irq_fd);
	bring_up();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	(void)close(t.cow.base_fd);
	(void)close(t.cow.top_fd);
	(void)munmap(t.map, cow_map_bytes(DISK_BYTES));
	(void)close(t.irq_fd);
	guest_fini(&t.guest);
	return 0;
}

static uint64_t interrupts(void)
{
	uint64_t n = 0;

	if (read(t.irq_fd, &n, sizeof(n)) < 0)
		assert_int_equal(errno, EAGAIN);
	return n;
}

static bool needs_reset(void)
{
	return (reg_read(&t.blk.dev, R_STATUS) & 64) != 0;
}

/* --- requests ------------------------------------------------------------- */

struct segment {
	uint64_t at;
	uint32_t len;
	bool writable;
};

static void put_header(uint32_t type, uint64_t sector)
{
	const uint32_t zero = 0;

	guest_put(&t.guest, HEADER_AT, &type, 4);
	guest_put(&t.guest, HEADER_AT + 4, &zero, 4);
	guest_put(&t.guest, HEADER_AT + 8, &sector, 8);
	memset(guest_at(&t.guest, STATUS_AT, 1), UNTOUCHED, 1);
}

static uint8_t status(void)
{
	return *guest_at(&t.guest, STATUS_AT, 1);
}

static void offer(const struct segment *s, uint16_t first, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++)
		ring_desc(&t.ring, (uint16_t)(first + i), s[i].at, s[i].len,
			  (uint16_t)((i + 1 < n ? DESC_NEXT : 0) |
				     (s[i].writable ? DESC_WRITE : 0)),
			  (uint16_t)(first + i + 1));
	ring_offer(&t.ring, first);
}

/* Offers one chain and kicks; it must come back. Returns its used length. */
static uint32_t submit(const struct segment *s, uint16_t n)
{
	uint16_t before = ring_used_idx(&t.ring);
	uint32_t id;
	uint32_t len;

	offer(s, 0, n);
	virtio_kick(&t.blk.dev, 0);
	assert_false(needs_reset());
	assert_int_equal((uint16_t)(ring_used_idx(&t.ring) - before), 1);
	assert_int_equal(interrupts(), 1);
	ring_used(&t.ring, before, &id, &len);
	assert_int_equal(id, 0);
	return len;
}

/* One request of the usual shape. Returns the used length. */
static uint32_t request(uint32_t type, uint64_t sector, uint32_t n)
{
	const struct segment s[] = {
		{ HEADER_AT, 16, false },
		{ DATA_AT, n, type != OUT },
		{ STATUS_AT, 1, true },
	};
	const struct segment no_data[] = { s[0], s[2] };

	put_header(type, sector);
	return n > 0 ? submit(s, 3) : submit(no_data, 2);
}

/* Cuts [at, at + n) into random pieces. */
static uint16_t cut(uint64_t at, uint32_t n, uint32_t max, bool writable,
		    struct segment *ret)
{
	uint16_t count = 0;

	while (n > 0) {
		uint32_t here = 1 + (uint32_t)random() % max;
		here = here < n ? here : n;
		ret[count++] = (struct segment){ at, here, writable };
		at += here;
		n -= here;
	}
	return count;
}

/* --- tests ---------------------------------------------------------------- */

static void test_configuration(void **state)
{
	struct virtio_dev *d = &t.blk.dev;

	(void)state;
	assert_int_equal(reg_read(d, R_DEVICE_ID), VIRTIO_ID_BLK);
	assert_int_equal(reg_read(d, R_CONFIG), SECTORS);
	assert_int_equal(reg_read(d, R_CONFIG + 4), 0);
	assert_int_equal(reg_read(d, R_CONFIG + 12), 126);
	assert_int_equal(reg_read(d, R_CONFIG + 20), 0);
	reg_write(d, R_DEVICE_FEATURES_SEL, 0);
	assert_int_equal(reg_read(d, R_DEVICE_FEATURES), 1u << 2 | 1u << 9);
	reg_write(d, R_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(reg_read(d, R_DEVICE_FEATURES), 1);
}

static void test_read_and_write(void **state)
{
	(void)state;
	assert_int_equal(request(IN, 3, 1024), 1025);
	assert_int_equal(status(), OK);
	assert_memory_equal(guest_at(&t.guest, DATA_AT, 1024),
			    t.model + 3 * 512, 1024);

	memset(guest_at(&t.guest, DATA_AT, 4096), 0x5a, 4096);
	uint64_t before = guest_hash(&t.guest, 0, DATA_AT);
	assert_int_equal(request(OUT, 5, 4096), 1);
	assert_int_equal(status(), OK);
	assert_int_equal(guest_hash(&t.guest, 0, DATA_AT), before);
	assert_int_equal(blk_layer_bytes(&t.blk), 8192);

	memset(t.model + 5 * 512, 0x5a, 4096);
	assert_int_equal(request(IN, 0, 16384), 16385);
	assert_memory_equal(guest_at(&t.guest, DATA_AT, 16384), t.model, 16384);
	assert_int_equal(t.blk.reads, 2);
	assert_int_equal(t.blk.writes, 1);
	assert_int_equal(t.blk.read_bytes, 1024 + 16384);
	assert_int_equal(t.blk.write_bytes, 4096);
}

/* virtio 1.2, 2.7.4: where descriptors begin and end means nothing. */
static void test_any_layout(void **state)
{
	static struct segment s[QUEUE_SIZE_MAX];

	(void)state;
	for (int i = 0; i < 500; i++) {
		bool write = random() % 2;
		uint32_t n = 512 * (1 + (uint32_t)random() % 32);
		uint64_t sector = (uint64_t)random() % (SECTORS - n / 512);
		put_header(write ? OUT : IN, sector);
		uint8_t *data = guest_at(&t.guest, DATA_AT, n);
		for (uint32_t b = 0; b < n; b++)
			data[b] = (uint8_t)random();
		uint16_t used = cut(HEADER_AT, 16, 16, false, s);
		used += cut(DATA_AT, n, 1 + n / 20, !write, s + used);
		used += cut(STATUS_AT, 1, 1, true, s + used);
		if (write)
			memcpy(t.model + sector * 512, data, n);
		assert_int_equal(submit(s, used), write ? 1 : n + 1);
		assert_int_equal(status(), OK);
		assert_memory_equal(data, t.model + sector * 512, n);
	}
}

/* Header and data share a descriptor, data and status do too. */
static void test_joined_descriptors(void **state)
{
	const struct segment out[] = { { HEADER_AT, 16 + 512, false },
				       { STATUS_AT + 0x400, 1, true } };
	const struct segment in[] = { { HEADER_AT, 16, false },
				      { DATA_AT, 513, true } };

	(void)state;
	put_header(OUT, 7);
	memset(guest_at(&t.guest, HEADER_AT + 16, 512), 0x77, 512);
	assert_int_equal(submit(out, 2), 1);
	assert_int_equal(*guest_at(&t.guest, STATUS_AT + 0x400, 1), OK);
	put_header(IN, 7);
	assert_int_equal(submit(in, 2), 513);
	for (uint32_t i = 0; i < 512; i++)
		assert_int_equal(*guest_at(&t.guest, DATA_AT + i, 1), 0x77);
	assert_int_equal(*guest_at(&t.guest, DATA_AT + 512, 1), OK);
}

static void test_beyond_the_disk(void **state)
{
	static const struct {
		uint64_t sector;
		uint32_t n;
	} bad[] = {
		{ SECTORS, 512 },
		{ SECTORS - 1, 1024 },
		{ UINT64_MAX, 512 },
		{ UINT64_MAX / 512, 512 },
		{ UINT64_MAX / 512 + 1, 512 },
		{ 1ull << 55, 512 },
		{ 0, 511 },
		{ 0, 513 },
		{ 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint64_t before = guest_hash(&t.guest, 0, DATA_AT);
		assert_int_equal(request(IN, bad[i].sector, bad[i].n), 1);
		assert_int_equal(status(), IOERR);
		assert_int_equal(request(OUT, bad[i].sector, bad[i].n), 1);
		assert_int_equal(status(), IOERR);
		assert_int_equal(guest_hash(&t.guest, 0, DATA_AT), before);
	}
	assert_int_equal(request(IN, SECTORS - 1, 512), 513);
	assert_int_equal(status(), OK);
	assert_int_equal(t.blk.reads, 1);
	assert_int_equal(t.blk.writes, 0);
	assert_int_equal(blk_layer_bytes(&t.blk), 0);
}

static void test_other_types(void **state)
{
	const uint32_t unknown[] = { 2,  3,  5,           10,        11,
				     13, 16, 0x80000000u, UINT32_MAX };

	(void)state;
	assert_int_equal(request(FLUSH, 0, 0), 1);
	assert_int_equal(status(), OK);
	for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
		assert_int_equal(request(unknown[i], 0, 512), 1);
		assert_int_equal(status(), UNSUPP);
	}
	memset(guest_at(&t.guest, DATA_AT, 64), 0xff, 64);
	assert_int_equal(request(GET_ID, 0, 20), 21);
	assert_int_equal(status(), OK);
	assert_memory_equal(guest_at(&t.guest, DATA_AT, 20),
			    "brig-root\0\0\0\0\0\0\0\0\0\0", 20);
	assert_int_equal(*guest_at(&t.guest, DATA_AT + 20, 1), 0xff);
	assert_int_equal(request(GET_ID, 0, 3), 4);
	assert_int_equal(request(GET_ID, 0, 64), 21);
}

/* what is missing or on the wrong side. */
static void test_misshapen_requests(void **state)
{
	const struct segment header = { HEADER_AT, 16, false };
	const struct segment short_header = { HEADER_AT, 15, false };
	const struct segment data = { DATA_AT, 512, false };
	const struct segment status_ro = { STATUS_AT, 1, false };
	const struct segment status_wr = { STATUS_AT, 1, true };

	(void)state;
	put_header(IN, 0);
	uint64_t before = guest_hash(&t.guest, 0, HEADER_AT);
	assert_int_equal(
		submit((struct segment[]){ header, data, status_ro }, 3), 0);
	assert_int_equal(submit(&header, 1), 0);
	assert_int_equal(guest_hash(&t.guest, 0, HEADER_AT), before);
	assert_int_equal(status(), UNTOUCHED);

	assert_int_equal(
		submit((struct segment[]){ short_header, status_wr }, 2), 1);
	assert_int_equal(status(), IOERR);
	put_header(IN, 0);
	assert_int_equal(submit(&status_wr, 1), 1);
	assert_int_equal(status(), IOERR);
	/* a read whose data can only be read has room for the status alone */
	put_header(IN, 0);
	assert_int_equal(
		submit((struct segment[]){ header, data, status_wr }, 3), 1);
	assert_int_equal(status(), IOERR);
	assert_int_equal(t.blk.reads, 0);
}

/* what the ring refuses stops the device, and only that. */
static void test_broken_chains(void **state)
{
	static const struct {
		struct segment s;
		uint16_t flags;
	} bad[] = {
		{ { DATA_AT, 512, false }, DESC_WRITE }, /* before readable */
		{ { DATA_AT, 512, false }, DESC_INDIRECT },
		{ { DATA_AT, 512, false }, DESC_INDIRECT | DESC_NEXT },
		{ { DATA_AT, 0, false }, 0 },
		{ { DATA_AT, UINT32_MAX, false }, 0 },
		{ { GUEST_LOW_BYTES - 511, 512, false }, 0 },
		{ { GUEST_LOW_BYTES, 512, false }, 0 },
		{ { 0xd0000000, 512, false }, 0 },
		{ { GUEST_HIGH - 1, 512, false }, 0 },
		{ { GUEST_HIGH + GUEST_HIGH_BYTES - 511, 512, false }, 0 },
		{ { UINT64_MAX - 511, 512, false }, 0 },
		{ { UINT64_MAX, 512, false }, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		put_header(OUT, 0);
		ring_desc(&t.ring, 0, HEADER_AT, 16, DESC_NEXT, 1);
		ring_desc(&t.ring, 1, bad[i].s.at, bad[i].s.len,
			  (uint16_t)(bad[i].flags | DESC_NEXT), 2);
		ring_desc(&t.ring, 2, DATA_AT, 512, DESC_NEXT, 3);
		ring_desc(&t.ring, 3, STATUS_AT, 1, DESC_WRITE, 0);
		ring_offer(&t.ring, 0);
		uint64_t before = guest_hash(&t.guest, 0, 0);
		virtio_kick(&t.blk.dev, 0);
		assert_true(needs_reset());
		assert_int_equal(guest_hash(&t.guest, 0, 0), before);
		virtio_kick(&t.blk.dev, 0);
		assert_int_equal(guest_hash(&t.guest, 0, 0), before);

		(void)interrupts();
		bring_up();
		assert_int_equal(request(IN, 0, 512), 513);
		assert_int_equal(status(), OK);
	}
	assert_int_equal(t.blk.dev.needs_reset_count, ARRAY_LEN(bad));
	assert_int_equal(t.blk.writes, 0);
}

/* the backend fails, and each request still comes back. */
static void test_backend_fails(void **state)
{
	static const int errors[] = { EIO, ENOSPC, EAGAIN, EBADF };

	(void)state;
	for (unsigned int i = 0; i < 10000; i++) {
		backend_error = errors[i % ARRAY_LEN(errors)];
		assert_int_equal(request(i % 3 == 0 ? OUT : IN, 8, 512), 1);
		assert_int_equal(status(), IOERR);
		assert_int_equal(t.blk.dev.queues[0].in_flight, 0);
	}
	assert_int_equal(t.blk.reads, 0);
	assert_int_equal(blk_layer_bytes(&t.blk), 0);
	backend_error = 0;
	assert_int_equal(request(IN, 8, 512), 513);
	assert_int_equal(status(), OK);
}

/* A full ring of requests is served by one kick and one interrupt. */
static void test_full_ring(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		put_header(IN, 1);
		for (uint16_t i = 0; i < 85; i++) {
			const struct segment s[] = {
				{ HEADER_AT, 16, false },
				{ DATA_AT + 512u * i, 512, true },
				{ STATUS_AT + i, 1, true },
			};
			*guest_at(&t.guest, STATUS_AT + i, 1) = UNTOUCHED;
			offer(s, (uint16_t)(i * 3), 3);
		}
		virtio_kick(&t.blk.dev, 0);
		assert_false(needs_reset());
		assert_int_equal(ring_used_idx(&t.ring), 85 * (round + 1));
		assert_int_equal(interrupts(), 1);
		for (uint16_t i = 0; i < 85; i++) {
			assert_int_equal(*guest_at(&t.guest, STATUS_AT + i, 1),
					 OK);
			assert_memory_equal(
				guest_at(&t.guest, DATA_AT + 512u * i, 512),
				t.model + 512, 512);
		}
	}
}

/* a reset drops what was offered, and no byte moves after it. */
static void test_reset_drops_requests(void **state)
{
	const struct segment s[] = { { HEADER_AT, 16, false },
				     { DATA_AT, 512, true },
				     { STATUS_AT, 1, true } };

	(void)state;
	put_header(IN, 0);
	offer(s, 0, 3);
	reg_write(&t.blk.dev, R_STATUS, 0);
	uint64_t before = guest_hash(&t.guest, 0, 0);
	virtio_kick(&t.blk.dev, 0);
	assert_int_equal(guest_hash(&t.guest, 0, 0), before);
	assert_int_equal(interrupts(), 0);
	bring_up();
	assert_int_equal(request(IN, 0, 512), 513);
}

/* kicks without work cost no interrupt. */
static void test_spurious_kicks(void **state)
{
	(void)state;
	for (int i = 0; i < 100000; i++)
		virtio_kick(&t.blk.dev, 0);
	assert_int_equal(interrupts(), 0);
	assert_int_equal(request(IN, 0, 512), 513);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_configuration),        TEST(test_read_and_write),
		TEST(test_any_layout),           TEST(test_joined_descriptors),
		TEST(test_beyond_the_disk),      TEST(test_other_types),
		TEST(test_misshapen_requests),   TEST(test_broken_chains),
		TEST(test_backend_fails),        TEST(test_full_ring),
		TEST(test_reset_drops_requests), TEST(test_spurious_kicks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
