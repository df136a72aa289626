/* gmem.c - tests of the one door to guest memory.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ring.h"

static struct guest guest;

static int set_up(void **state)
{
	guest_init(&guest);
	return 0;
}

static int tear_down(void **state)
{
	guest_fini(&guest);
	return 0;
}

static void copies_inside_a_region(void **state)
{
	static const uint64_t places[] = { 0, 7, GUEST_LOW_BYTES - 5,
					   GUEST_HIGH,
					   GUEST_HIGH + GUEST_HIGH_BYTES - 5 };

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		char got[6] = "......";
		struct iovec iov;

		assert_int_equal(
			gmem_write(&guest.mem, GPA(places[i]), "abcde", 5), 0);
		assert_memory_equal(guest_at(&guest, places[i], 5), "abcde", 5);
		assert_int_equal(gmem_read(&guest.mem, GPA(places[i]), got, 5),
				 0);
		assert_memory_equal(got, "abcde.", 6);
		assert_int_equal(
			gmem_iovec(&guest.mem, GPA(places[i]), 5, &iov), 0);
		assert_ptr_equal(iov.iov_base, guest_at(&guest, places[i], 5));
		assert_int_equal(iov.iov_len, 5);
	}
}

/* All accessors refuse [at, at + n), and nothing is touched. */
static void refuse(uint64_t at, size_t n)
{
	static uint8_t buf[64];
	struct iovec iov = { NULL, 0 };
	uint64_t before = guest_hash(&guest, 0, 0);

	memset(buf, 0xa5, sizeof(buf));
	assert_int_equal(gmem_read(&guest.mem, GPA(at), buf, n), -EFAULT);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0xa5);
	assert_int_equal(gmem_write(&guest.mem, GPA(at), buf, n), -EFAULT);
	assert_int_equal(gmem_iovec(&guest.mem, GPA(at), n, &iov), -EFAULT);
	assert_null(iov.iov_base);
	assert_true(guest_hash(&guest, 0, 0) == before);
}

static void a06_refuses_wraps_region_ends_and_the_hole(void **state)
{
	refuse(UINT64_MAX, 1); /* at + n is 2^64 */
	refuse(UINT64_MAX, 2);
	refuse(UINT64_MAX - 15, 32);
	refuse(16, SIZE_MAX); /* wraps to 15 */
	refuse(GUEST_HIGH + 1, SIZE_MAX);
	refuse(0, SIZE_MAX);
	refuse(GUEST_LOW_BYTES - 1, 2); /* one byte too far */
	refuse(GUEST_LOW_BYTES, 1);
	refuse(GUEST_HIGH - 1, 1);
	refuse(GUEST_HIGH - 1, 2); /* from the hole into memory */
	refuse(GUEST_HIGH + GUEST_HIGH_BYTES - 1, 2);
	refuse(GUEST_HIGH + GUEST_HIGH_BYTES, 1);
	refuse(0xd0000000, 4);                    /* the MMIO window */
	refuse(GUEST_LOW_BYTES - 1, GUEST_HIGH);  /* over the whole hole */
	refuse(GUEST_LOW_BYTES - 1, 0xffffffff);  /* len of a descriptor */
	refuse(0, GUEST_HIGH + GUEST_HIGH_BYTES); /* from end to end */
}

static void empty_ranges_still_check_the_address(void **state)
{
	char c = 'x';
	struct iovec iov;

	assert_int_equal(gmem_read(&guest.mem, GPA(0), &c, 0), 0);
	assert_int_equal(
		gmem_write(&guest.mem, GPA(GUEST_LOW_BYTES - 1), &c, 0), 0);
	assert_int_equal(c, 'x');
	refuse(GUEST_LOW_BYTES, 0);
	refuse(GUEST_HIGH - 1, 0);
	refuse(UINT64_MAX, 0);
	/* an empty iovec has no use, whatever the address */
	assert_int_equal(gmem_iovec(&guest.mem, GPA(0), 0, &iov), -EFAULT);
}

/* Two tiny regions that touch each other, and every range around them. */
static void a06_every_small_range_equals_the_reference(void **state)
{
	static uint8_t low[6], high[5];
	struct guest tiny = {
		.mem = { .count = 2,
			 .regions = { { 3, sizeof(low), low },
				      { 9, sizeof(high), high } } },
	};

	for (uint64_t at = 0; at < 18; at++) {
		for (size_t n = 0; n < 18; n++) {
			uint8_t buf[18];
			int want = guest_has(&tiny, at, n) ? 0 : -EFAULT;

			assert_int_equal(gmem_read(&tiny.mem, GPA(at), buf, n),
					 want);
			assert_int_equal(gmem_write(&tiny.mem, GPA(at), buf, n),
					 want);
		}
	}
}

static void no_region_means_no_memory(void **state)
{
	struct gmem none = { .count = 0 };
	uint16_t v;

	assert_int_equal(gmem_read(&none, GPA(0), &v, sizeof(v)), -EFAULT);
	assert_int_equal(gmem_load_u16(&none, GPA(0), &v), -EFAULT);
}

static void ring_fields_are_aligned_and_inside(void **state)
{
	uint16_t v = 7;

	assert_int_equal(gmem_store_u16(&guest.mem, GPA(0x100), 0xbeef), 0);
	assert_int_equal(gmem_load_u16(&guest.mem, GPA(0x100), &v), 0);
	assert_int_equal(v, 0xbeef);
	assert_int_equal(*guest_at(&guest, 0x100, 1), 0xef);

	v = 7;
	assert_int_equal(gmem_load_u16(&guest.mem, GPA(0x101), &v), -EFAULT);
	assert_int_equal(gmem_store_u16(&guest.mem, GPA(0x101), 1), -EFAULT);
	assert_int_equal(gmem_load_u16(&guest.mem, GPA(GUEST_LOW_BYTES), &v),
			 -EFAULT);
	assert_int_equal(gmem_store_u16(&guest.mem, GPA(GUEST_LOW_BYTES), 1),
			 -EFAULT);
	assert_int_equal(gmem_load_u16(&guest.mem, GPA(UINT64_MAX - 1), &v),
			 -EFAULT);
	assert_int_equal(v, 7);
	assert_int_equal(
		gmem_store_u16(&guest.mem, GPA(GUEST_LOW_BYTES - 2), 1), 0);
}

static uint64_t last_read;
static size_t last_bytes;

static void remember(struct gmem *g, gpa_t at, size_t n)
{
	last_read = at.v;
	last_bytes = n;
	*g->regions[0].host = 0x77; /* still in time for this read */
}

static void a07_each_read_is_counted_and_can_be_changed(void **state)
{
	uint8_t byte = 0;
	uint16_t v;

	guest.mem.before_read = remember;
	assert_int_equal(gmem_read(&guest.mem, GPA(0), &byte, 1), 0);
	assert_int_equal(byte, 0x77);
	assert_int_equal(last_read, 0);
	assert_int_equal(last_bytes, 1);
	assert_int_equal(gmem_load_u16(&guest.mem, GPA(4), &v), 0);
	assert_int_equal(last_read, 4);
	assert_int_equal(last_bytes, 2);
	assert_int_equal(guest.mem.reads, 2);
	assert_int_equal(gmem_read(&guest.mem, GPA(GUEST_HIGH - 1), &byte, 1),
			 -EFAULT);
	assert_int_equal(gmem_write(&guest.mem, GPA(0), &byte, 1), 0);
	assert_int_equal(guest.mem.reads, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(copies_inside_a_region),
		TEST(a06_refuses_wraps_region_ends_and_the_hole),
		TEST(empty_ranges_still_check_the_address),
		TEST(a06_every_small_range_equals_the_reference),
		TEST(no_region_means_no_memory),
		TEST(ring_fields_are_aligned_and_inside),
		TEST(a07_each_read_is_counted_and_can_be_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
