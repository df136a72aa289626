/* stream.c - the state stream: round trips, damage, and files made wrong.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/vmm/state/stream.h"
#include "statefile.h"

struct inner {
	uint8_t raw[5];
	bool flag;
};

struct thing {
	uint8_t a;
	uint16_t b;
	uint32_t c;
	uint64_t d;
	struct inner in;
};

static const struct thing sample = {
	.a = 200,
	.b = 0xbeef,
	.c = 0xdeadbeef,
	.d = 0x0123456789abcdef,
	.in = { { 1, 2, 3, 4, 5 }, true },
};

static uint8_t file[1024];

static void thing_state(struct state_stream *s, struct thing *t)
{
	state_begin(s, "thing", 3);
	state_u8(s, "a", &t->a, 100, 200);
	state_u16(s, "b", &t->b, 0, UINT16_MAX);
	state_begin(s, "inner", 1);
	state_bytes(s, "raw", t->in.raw, sizeof(t->in.raw));
	state_bool(s, "flag", &t->in.flag);
	state_end(s);
	state_u32(s, "c", &t->c, 0, UINT32_MAX);
	state_u64(s, "d", &t->d, 1, UINT64_MAX);
	state_end(s);
}

static size_t save(const struct thing *from)
{
	struct thing t = *from;
	struct state_stream s;
	size_t n = 0;

	state_save(&s, file, sizeof(file));
	thing_state(&s, &t);
	assert_int_equal(state_finish(&s, &n), 0);
	assert_memory_equal(&t, from, sizeof(t));
	return n;
}

static int load(const void *from, size_t n, struct thing *ret)
{
	struct state_stream s;
	size_t got = 0;
	int r;

	state_load(&s, from, n);
	thing_state(&s, ret);
	r = state_finish(&s, &got);
	assert_int_equal(r, s.error);
	assert_int_equal(state_ok(&s), r == 0);
	assert_true(r != 0 ? s.where[0] != '\0' : got == n);
	return r;
}

static void comes_back_as_it_was(void **state)
{
	struct thing t = { 0 };
	size_t n = save(&sample);

	assert_int_equal(load(file, n, &t), 0);
	assert_int_equal(t.a, sample.a);
	assert_int_equal(t.b, sample.b);
	assert_int_equal(t.c, sample.c);
	assert_int_equal(t.d, sample.d);
	assert_memory_equal(t.in.raw, sample.in.raw, 5);
	assert_true(t.in.flag);
}

/* Byte for byte what the header of stream.h says. */
static void has_the_format_of_the_contract(void **state)
{
	static const uint8_t want[] =
		"brigstat\x01\0\0\0\0\0\0\0\x3a\0\0\0\0\0\0\0"
		"S\x04"
		"some\x07\0\0\0"
		"4\x03num\x2a\0\0\0"
		"b\x01x\x02\0\0\0yz"
		"EZ";
	struct state_stream s;
	uint32_t num = 42;
	size_t n;

	state_save(&s, file, sizeof(file));
	state_begin(&s, "some", 7);
	state_u32(&s, "num", &num, 42, 42);
	state_bytes(&s, "x", (char[]){ 'y', 'z' }, 2);
	state_end(&s);
	assert_int_equal(state_finish(&s, &n), 0);
	assert_int_equal(n, sizeof(want) - 1 + 4);
	assert_memory_equal(file, want, sizeof(want) - 1);
	uint32_t crc = statefile_crc(file, n - 4);
	assert_memory_equal(file + n - 4, &crc, 4);
}

/* The check value that the standard gives (RFC 3720, B.4: 32 bytes of 0). */
static void the_tests_crc_is_crc32c(void **state)
{
	static const uint8_t zeros[32];

	assert_int_equal(statefile_crc(zeros, 32), 0x8a9136aau);
	assert_int_equal(statefile_crc((const uint8_t *)"123456789", 9),
			 0xe3069283u);
}

static void every_flipped_bit_is_refused(void **state)
{
	size_t n = save(&sample);

	for (size_t bit = 0; bit < n * 8; bit++) {
		struct thing t = { 0 };
		const struct thing zero = { 0 };

		file[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(load(file, n, &t) < 0);
		assert_memory_equal(&t, &zero, sizeof(t));
		file[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void every_truncation_is_refused(void **state)
{
	size_t n = save(&sample);

	for (size_t short_n = 0; short_n < n; short_n++) {
		struct thing t = { 0 };

		assert_int_equal(load(file, short_n, &t), -EBADMSG);
		assert_int_equal(t.a, 0);
	}
	struct thing t = { 0 };
	assert_int_equal(load(file, n + 1, &t), -EBADMSG);
}

/* The same, but each shorter file has a size and a CRC of its own. */
static void every_resealed_truncation_is_refused(void **state)
{
	size_t n = save(&sample);

	for (size_t short_n = 0; short_n < n; short_n++) {
		uint8_t copy[1024];
		struct thing t = { 0 };

		memcpy(copy, file, short_n);
		statefile_seal(copy, short_n);
		assert_int_equal(load(copy, short_n, &t), -EBADMSG);
	}
}

static void bytes_after_the_end_are_refused(void **state)
{
	size_t n = save(&sample);
	struct thing t = { 0 };

	file[n - 4] = 'Z';
	statefile_seal(file, n + 1);
	assert_int_equal(load(file, n + 1, &t), -EBADMSG);
}

/* Changes one byte at `text` + `offset`, seals, and loads. */
static int load_changed(const char *text, size_t len, size_t offset, uint8_t v)
{
	struct thing t = { 0 };
	size_t n = save(&sample);
	uint8_t *p = memmem(file, n, text, len);

	assert_non_null(p);
	p[offset] = v;
	statefile_seal(file, n);
	return load(file, n, &t);
}

static void each_mistake_has_its_own_error(void **state)
{
	struct thing t = { 0 };
	size_t n;

	assert_int_equal(load_changed("inner", 5, 0, 'I'), -EPROTO);
	assert_int_equal(load_changed("1\1a", 3, 0, '2'), -EPROTO);
	assert_int_equal(load_changed("1\1a", 3, 1, 2), -EPROTO);
	assert_int_equal(load_changed("1\1a", 3, 2, 'b'), -EPROTO);
	assert_int_equal(load_changed("S\5thing", 7, 0, 'T'), -EPROTO);
	assert_int_equal(load_changed("raw\5", 4, 3, 4), -EPROTO);
	assert_int_equal(load_changed("E4\1c", 4, 0, 'F'), -EPROTO);
	assert_int_equal(load_changed("thing\3", 6, 5, 4), -ENOTSUP);
	assert_int_equal(load_changed("1\1a", 3, 3, 99), -ERANGE);
	assert_int_equal(load_changed("1\1a", 3, 3, 201), -ERANGE);
	assert_int_equal(load_changed("flag\1", 5, 4, 2), -ERANGE);
	assert_int_equal(load_changed("1\1a", 3, 3, 100), 0);
	n = save(&sample);
	file[n - 5] = 'Y';
	statefile_seal(file, n);
	assert_int_equal(load(file, n, &t), -EBADMSG);
	n = save(&sample);
	file[0] = 'B';
	statefile_seal(file, n);
	assert_int_equal(load(file, n, &t), -EPROTO);
	for (size_t at = 8; at < 16; at += 4) { /* version, zero */
		n = save(&sample);
		file[at]++;
		statefile_seal(file, n);
		assert_int_equal(load(file, n, &t), -ENOTSUP);
	}
}

static void the_first_error_sticks_and_is_named(void **state)
{
	struct state_stream s;
	struct thing t = { 0 };
	size_t n = save(&sample);
	uint8_t *p = memmem(file, n, "flag", 4);

	p[4] = 7;
	statefile_seal(file, n);
	state_load(&s, file, n);
	thing_state(&s, &t);
	state_fail(&s, "something else");
	assert_string_equal(s.where, "inner: flag");
	assert_int_equal(state_finish(&s, NULL), -ERANGE);
	assert_int_equal(t.a, sample.a); /* came before */
	assert_false(t.in.flag);
	assert_int_equal(t.c, 0); /* came after */
}

static void values_that_do_not_fit_together(void **state)
{
	struct state_stream s;
	struct thing t = { 0 };
	size_t n = save(&sample);

	state_load(&s, file, n);
	thing_state(&s, &t);
	state_fail(&s, "a long tale of what is wrong with these values here");
	assert_int_equal(state_finish(&s, &n), -ERANGE);
	assert_non_null(strstr(s.where, "a long tale"));
}

static void a_small_buffer_is_no_space(void **state)
{
	size_t n = save(&sample);

	for (size_t room = 0; room < n; room++) {
		uint8_t *small = test_malloc(room + 1);
		struct thing t = sample;
		struct state_stream s;

		state_save(&s, small, room);
		thing_state(&s, &t);
		assert_int_equal(state_finish(&s, NULL), -ENOSPC);
		test_free(small);
	}
}

static void a_large_file_passes(void **state)
{
	static uint8_t big[100000], copy[100000], room[100200];
	struct state_stream s;
	size_t n;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)random();
	for (size_t len = sizeof(big) - 9; len <= sizeof(big); len++) {
		state_save(&s, room, sizeof(room));
		state_bytes(&s, "big", big, len);
		assert_int_equal(state_finish(&s, &n), 0);
		uint32_t crc = statefile_crc(room, n - 4);
		assert_memory_equal(room + n - 4, &crc, 4);
		state_load(&s, room, n);
		state_bytes(&s, "big", copy, len);
		assert_int_equal(state_finish(&s, NULL), 0);
		assert_memory_equal(big, copy, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_back_as_it_was),
		cmocka_unit_test(has_the_format_of_the_contract),
		cmocka_unit_test(the_tests_crc_is_crc32c),
		cmocka_unit_test(every_flipped_bit_is_refused),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(every_resealed_truncation_is_refused),
		cmocka_unit_test(bytes_after_the_end_are_refused),
		cmocka_unit_test(each_mistake_has_its_own_error),
		cmocka_unit_test(the_first_error_sticks_and_is_named),
		cmocka_unit_test(values_that_do_not_fit_together),
		cmocka_unit_test(a_small_buffer_is_no_space),
		cmocka_unit_test(a_large_file_passes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
