/* brigd_text.c - ids, names, times, UTF-8 and JSON text of brigd.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "src/brigd/fault.h"
#include "src/brigd/id.h"
#include "src/brigd/utf8.h"
#include "src/brigd/when.h"

static void test_ids(void **state)
{
	char a[BRIG_ID_BYTES];
	char b[BRIG_ID_BYTES];
	bool seen[256] = { false };

	for (int i = 0; i < 500; i++) {
		id_make(a, "sb_");
		id_make(b, "sb_");
		assert_int_equal(strlen(a), BRIG_ID_LEN);
		assert_memory_equal(a, "sb_", 3);
		assert_int_equal(strspn(a + 3, "abcdefghijklmnopqrstuvwxyz"
					       "0123456789"),
				 24);
		assert_string_not_equal(a, b);
		for (const char *p = a + 3; *p != '\0'; p++)
			seen[(unsigned char)*p] = true;
	}
	for (const char *p = "az09"; *p != '\0'; p++)
		assert_true(seen[(unsigned char)*p]);
	id_make(a, "req_");
	assert_int_equal(strlen(a), 28);
}

static void test_names(void **state)
{
	char name[NAME_BYTES];

	for (int i = 0; i < 200; i++) {
		id_make_name(name);
		assert_true(id_is_label(name));
	}
	static const char *const good[] = { "a", "0", "a-b", "x1" };
	static const char *const bad[] = { "",    "-",   "-a",  "a-",      "A",
					   "a.b", "a_b", "a b", "\xc3\xa4" };
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(id_is_label(good[i]));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(id_is_label(bad[i]));
	char text[80];
	memset(text, 'a', sizeof(text));
	text[63] = '\0';
	assert_true(id_is_label(text));
	text[63] = 'a';
	text[64] = '\0';
	assert_false(id_is_label(text));
}

static void check_time(const char *text, int64_t want)
{
	int64_t ms = -1;

	assert_int_equal(when_parse(text, &ms), 0);
	assert_int_equal(ms, want);
}

static void test_times(void **state)
{
	char text[WHEN_BYTES];

	when_format(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
	when_format(1709210096789, text);
	assert_string_equal(text, "2024-02-29T12:34:56.789Z");
	check_time("2024-02-29T12:34:56.789Z", 1709210096789);
	check_time("2024-02-29T12:34:56,7891234", 1709210096789);
	check_time("2024-02-29T14:34:56.789+02:00", 1709210096789);
	check_time("2024-02-29T14:34:56.789 0200", 1709210096789);
	check_time("2024-02-29T05:04:56.789-07:30", 1709210096789);
	check_time("2024-02-29 12:34", 1709210040000);
	check_time("1970-01-01", 0);
	check_time("2016-12-31T23:59:60Z", 1483228800000);

	static const char *const bad[] = {
		"",
		"now",
		"2024",
		"2024-13-01",
		"2024-00-01",
		"2024-01-00",
		"2023-02-29",
		"2024-04-31T00:00:00Z",
		"1969-12-31",
		"2024-01-01T",
		"2024-01-01T24:00:00Z",
		"2024-01-01T00:60:00Z",
		"2024-01-01T00:00:61Z",
		"2024-01-01T00:00:00.Z",
		"2024-01-01T00:00:00Zx",
		"2024-01-01T00:00:00+1",
		"2024-01-01T00:00:00+24:00",
		"2024-01-01x",
		"24-01-01",
		" 2024-01-01",
		"2024-1-1",
		"-024-01-01",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		int64_t ms = 5;
		assert_true(when_parse(bad[i], &ms) < 0);
		assert_int_equal(ms, 5);
	}
}

static void check_utf8(const char *in, size_t n, const char *want)
{
	struct buf b = BUF_INIT(65536);

	assert_int_equal(utf8_add(&b, (const uint8_t *)in, n), 0);
	assert_int_equal(b.len, strlen(want));
	assert_string_equal(b.data, want);
	assert_true(utf8_is_valid((const uint8_t *)b.data, b.len));
	assert_int_equal(utf8_is_valid((const uint8_t *)in, n),
			 n == b.len && memcmp(in, b.data, n) == 0);
	buf_free(&b);
}

#define BAD "\xef\xbf\xbd"

static void test_utf8(void **state)
{
	static const struct {
		const char *in;
		const char *want;
	} cases[] = {
		{ "a", "a" },
		{ "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
		  "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" },
		{ "\xff", BAD },
		{ "a\x80z", "a" BAD "z" },
		{ "\xc0\xaf", BAD BAD },                 /* overlong */
		{ "\xe0\x80\xaf", BAD BAD BAD },         /* overlong */
		{ "\xed\xa0\x80", BAD BAD BAD },         /* surrogate */
		{ "\xf4\x90\x80\x80", BAD BAD BAD BAD }, /* over 10FFFF */
		{ "\xf8\x88\x80\x80\x80", BAD BAD BAD BAD BAD },
		/* Unicode 15, table 3-11: maximal subparts */
		{ "\xe1\x80\xe2\xf0\x91\x92\xf1\xbf"
		  "A",
		  BAD BAD BAD BAD "A" },
		{ "\xe2\x82", BAD },
		{ "\xf0\x9f\x98", BAD },
		{ "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		check_utf8(cases[i].in, strlen(cases[i].in), cases[i].want);
}

static void test_utf8_tail(void **state)
{
	static const struct {
		const char *in;
		size_t tail;
	} cases[] = {
		{ "", 0 },
		{ "a", 0 },
		{ "\xc3", 1 },
		{ "a\xe2\x82", 2 },
		{ "\xf0\x9f\x98", 3 },
		{ "\xf0\x9f\x98\x80", 0 },
		{ "\xe2\x82\xac", 0 },
		{ "\x82", 0 },
		{ "\xff", 0 },
		{ "\xed\xa0", 0 },
		{ "\xc0", 0 },
		{ "\xe2\x28", 0 },
		{ "\x80\x80\x80\x80", 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(utf8_tail((const uint8_t *)cases[i].in,
					   strlen(cases[i].in)),
				 cases[i].tail);
}

/* Cut anywhere, with the tail carried over, the result is the same. */
static void test_utf8_in_pieces(void **state)
{
	static const char text[] = "a\xc3\xa4\xff\xe2\x82\xac\xf0\x9f\x98\x80"
				   "\xe2\x82"
				   "b\xf0\x9f";
	const size_t n = sizeof(text) - 1;
	struct buf whole = BUF_INIT(4096);

	assert_int_equal(utf8_add(&whole, (const uint8_t *)text, n), 0);
	for (size_t cut = 0; cut <= n; cut++) {
		struct buf parts = BUF_INIT(4096);
		size_t tail = utf8_tail((const uint8_t *)text, cut);
		const uint8_t *rest = (const uint8_t *)text + cut - tail;
		assert_int_equal(
			utf8_add(&parts, (const uint8_t *)text, cut - tail), 0);
		assert_int_equal(utf8_add(&parts, rest, n - (cut - tail)), 0);
		assert_int_equal(parts.len, whole.len);
		assert_memory_equal(parts.data, whole.data, whole.len);
		buf_free(&parts);
	}
	buf_free(&whole);
}

static void test_json(void **state)
{
	uint8_t bytes[3 * 256];
	struct buf b = BUF_INIT(65536);

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i < 512 ? i / 2 : i);
	assert_int_equal(buf_add_str(&b, "\""), 0);
	assert_int_equal(utf8_add_json(&b, bytes, sizeof(bytes)), 0);
	assert_int_equal(buf_add_str(&b, "\""), 0);
	json_t *v = json_loadb(b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL,
			       NULL);
	assert_non_null(v);
	struct buf plain = BUF_INIT(65536);
	assert_int_equal(utf8_add(&plain, bytes, sizeof(bytes)), 0);
	assert_int_equal(json_string_length(v), plain.len);
	assert_memory_equal(json_string_value(v), plain.data, plain.len);
	json_decref(v);
	buf_free(&plain);
	buf_free(&b);
}

/* At its maximum a buffer is as it was before. */
static void test_json_full(void **state)
{
	struct buf b = BUF_INIT(100000);
	static uint8_t many[50000];

	assert_int_equal(buf_add_str(&b, "before"), 0);
	assert_true(utf8_add_json(&b, many, sizeof(many)) < 0);
	assert_int_equal(b.len, 6);
	assert_int_equal(utf8_add_json(&b, many, 10), 0);
	assert_int_equal(b.len, 66);
	buf_free(&b);
}

static void test_fault(void **state)
{
	struct fault f;
	char many[1000];

	memset(many, 'x', sizeof(many) - 1);
	many[sizeof(many) - 1] = '\0';
	assert_true(fault_set(&f, 422, "code", "%s", many) < 0);
	assert_int_equal(f.status, 422);
	assert_string_equal(f.code, "code");
	assert_int_equal(strlen(f.text), FAULT_TEXT_BYTES - 1);
	assert_true(fault_set(NULL, 422, "code", "x") < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_utf8_tail),
		cmocka_unit_test(test_utf8_in_pieces),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_json_full),
		cmocka_unit_test(test_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
