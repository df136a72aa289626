/* rng.c - the entropy device: amounts, rate, faults.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The clock and getrandom are wrapped by the linker: time passes as the test
 * says, and random bytes can be made to fail.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "ring.h"
#include "src/vmm/dev/rng.h"

#define DATA_AT 0x3000u
#define DATA_BYTES 0xd000u
#define MS 1000000ull

static struct {
	struct guest guest;
	struct ring ring;
	struct rng rng;
	int irq_fd;
} t;

static uint64_t clock_ns;
static uint64_t random_calls;
static uint64_t random_bytes;
static int random_error; /* of the next call, then cleared */
static size_t random_most;

int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
ssize_t __wrap_getrandom(void *to, size_t n, unsigned int flags);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	assert_int_equal(id, CLOCK_MONOTONIC);
	ts->tv_sec = (time_t)(clock_ns / 1000000000u);
	ts->tv_nsec = (long)(clock_ns % 1000000000u);
	return 0;
}

ssize_t __wrap_getrandom(void *to, size_t n, unsigned int flags)
{
	assert_int_equal(flags, 0);
	random_calls++;
	if (random_error != 0) {
		errno = random_error;
		random_error = 0;
		return -1;
	}
	n = n < random_most ? n : random_most;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)to)[i] = (uint8_t)(random_bytes++ * 7 + 1);
	return (ssize_t)n;
}

static void bring_up(void)
{
	ring_init(&t.ring, &t.guest, 256, 0);
	assert_int_equal(reg_bring_up(&t.rng.dev, 0, &t.ring, 1), 15);
}

static int set_up(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	clock_ns = 5000 * MS;
	random_calls = 0;
	random_bytes = 0;
	random_error = 0;
	random_most = SIZE_MAX;
	guest_init(&t.guest);
	t.irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rng_init(&t.rng, &t.guest.mem, t.irq_fd);
	bring_up();
	return t.irq_fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	(void)close(t.irq_fd);
	guest_fini(&t.guest);
	return 0;
}

static bool needs_reset(void)
{
	return (reg_read(&t.rng.dev, R_STATUS) & 64) != 0;
}

/* Kicks after one chain was offered; it must come back. Its used length. */
static uint32_t kick(void)
{
	uint16_t before = ring_used_idx(&t.ring);
	uint32_t id;
	uint32_t len;

	virtio_kick(&t.rng.dev, 0);
	assert_false(needs_reset());
	assert_int_equal((uint16_t)(ring_used_idx(&t.ring) - before), 1);
	assert_int_equal(t.rng.dev.queues[0].in_flight, 0);
	ring_used(&t.ring, before, &id, &len);
	return len;
}

static uint32_t ask(uint32_t n)
{
	ring_desc(&t.ring, 0, DATA_AT, n, DESC_WRITE, 0);
	ring_offer(&t.ring, 0);
	return kick();
}

/* Asks for 64 KiB at once, by descriptors on top of each other. */
static uint32_t ask_overlapping(uint16_t descriptors)
{
	for (uint16_t i = 0; i < descriptors; i++)
		ring_desc(&t.ring, i, DATA_AT, DATA_BYTES,
			  (uint16_t)(DESC_WRITE |
				     (i + 1 < descriptors ? DESC_NEXT : 0)),
			  (uint16_t)(i + 1));
	ring_offer(&t.ring, 0);
	return kick();
}

static void test_fills_what_is_asked(void **state)
{
	(void)state;
	const uint32_t sizes[] = { 1, 8, 64, 4095, 4096, 4097, 20000 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		uint32_t n = sizes[i];
		memset(guest_at(&t.guest, DATA_AT, n + 1), 0, n + 1);
		random_bytes = 0;
		assert_int_equal(ask(n), n);
		for (uint32_t b = 0; b < n; b++)
			assert_int_equal(*guest_at(&t.guest, DATA_AT + b, 1),
					 (uint8_t)(b * 7 + 1));
		assert_int_equal(*guest_at(&t.guest, DATA_AT + n, 1), 0);
	}
	/* no random byte stays behind */
	for (size_t i = 0; i < sizeof(t.rng.bytes); i++)
		assert_int_equal(t.rng.bytes[i], 0);
}

/* the sum of the descriptors is more than RAM. */
static void test_most_of_one_request(void **state)
{
	(void)state;
	assert_int_equal(ask_overlapping(10), RNG_REQUEST_BYTES_MAX);
	assert_int_equal(random_bytes, RNG_REQUEST_BYTES_MAX);
}

static void test_bucket_runs_empty_and_fills(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < RNG_BURST_BYTES / RNG_REQUEST_BYTES_MAX; i++)
		assert_int_equal(ask_overlapping(2), RNG_REQUEST_BYTES_MAX);
	assert_int_equal(ask(4096), 1);
	assert_int_equal(ask(4096), 1);
	clock_ns += 1 * MS; /* pays 1048 bytes and a half */
	assert_int_equal(ask(4096), 1048);
	clock_ns += 1 * MS;
	assert_int_equal(ask(4096), 1049);
	clock_ns += 3600ull * 1000 * MS;
	for (uint32_t i = 0; i < RNG_BURST_BYTES / RNG_REQUEST_BYTES_MAX; i++)
		assert_int_equal(ask_overlapping(2), RNG_REQUEST_BYTES_MAX);
	assert_int_equal(ask(4096), 1);
}

/* in the long run the rate is what it should be. */
static void test_long_run(void **state)
{
	uint64_t start = clock_ns;
	uint64_t most;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		clock_ns += 100000 + (uint64_t)random() % 1000000;
		(void)ask(4096);
	}
	most = RNG_BURST_BYTES +
	       (clock_ns - start) / 1000 * RNG_BYTES_PER_S / 1000000;
	assert_true(random_bytes <= most + 100000);
	assert_true(random_bytes >= most / 100 * 98 - RNG_BURST_BYTES);
}

/* requests as fast as they come cost a byte each. */
static void test_storm(void **state)
{
	(void)state;
	for (int i = 0; i < 100000; i++)
		(void)ask(4096);
	assert_true(random_bytes <= RNG_BURST_BYTES + 100000);
}

static void test_clock_goes_back(void **state)
{
	(void)state;
	t.rng.tokens = 0;
	clock_ns = 0;
	assert_int_equal(ask(100), 1);
	clock_ns = UINT64_MAX / 2;
	assert_int_equal(ask(100), 100);
	assert_int_equal(t.rng.tokens, RNG_BURST_BYTES - 100);
}

static void test_getrandom_is_interrupted(void **state)
{
	(void)state;
	random_error = EINTR;
	assert_int_equal(ask(5000), 5000);
	random_most = 100;
	assert_int_equal(ask(5000), 5000);
}

/* without random bytes the chain comes back empty. */
static void test_getrandom_fails(void **state)
{
	(void)state;
	for (int i = 0; i < 10000; i++) {
		random_error = EIO;
		assert_int_equal(ask(64), 0);
	}
	clock_ns += 1000 * MS;
	assert_int_equal(ask(64), 64);
}

static void test_nothing_to_write_to(void **state)
{
	(void)state;
	uint64_t before = guest_hash(&t.guest, 0, DATA_AT);
	ring_desc(&t.ring, 0, DATA_AT, 512, 0, 0);
	ring_offer(&t.ring, 0);
	assert_int_equal(kick(), 0);
	assert_int_equal(guest_hash(&t.guest, 0, DATA_AT), before);
	assert_int_equal(random_calls, 0);
}

static void test_broken_ring(void **state)
{
	(void)state;
	ring_desc(&t.ring, 0, 0xd0000000, 512, DESC_WRITE, 0);
	ring_offer(&t.ring, 0);
	uint64_t before = guest_hash(&t.guest, 0, 0);
	virtio_kick(&t.rng.dev, 0);
	assert_true(needs_reset());
	assert_int_equal(guest_hash(&t.guest, 0, 0), before);
	assert_int_equal(random_calls, 0);
	bring_up();
	assert_int_equal(ask(64), 64);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fills_what_is_asked),
		TEST(test_most_of_one_request),
		TEST(test_bucket_runs_empty_and_fills),
		TEST(test_long_run),
		TEST(test_storm),
		TEST(test_clock_goes_back),
		TEST(test_getrandom_is_interrupted),
		TEST(test_getrandom_fails),
		TEST(test_nothing_to_write_to),
		TEST(test_broken_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
