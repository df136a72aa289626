/* brigd_args.c - request bodies become checked values or a fault.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/brigd/args.h"
#include "src/brigd/args_make.h"
#include "wire/guest.h"

static unsigned int create_status(const char *text)
{
	struct args_create a;
	struct fault f = { .status = 200 };

	if (args_parse_create(text, strlen(text), &a, &f) == 0)
		args_free_create(&a);
	else
		assert_null(a.json);
	return f.status;
}

static unsigned int run_status(const char *text)
{
	struct args_run a;
	struct fault f = { .status = 200 };

	if (args_parse_run(text, strlen(text), &a, &f) == 0)
		args_free_run(&a);
	else
		assert_null(a.json);
	return f.status;
}

static unsigned int execute_status(const char *text)
{
	struct args_run a;
	struct fault f = { .status = 200 };

	if (args_parse_execute(text, strlen(text), false, &a, &f) == 0)
		args_free_run(&a);
	return f.status;
}

static void test_create_defaults(void **state)
{
	static const char *const empty[] = { "", " \r\n\t", "{}",
					     "{\"name\":null}" };

	for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
		struct args_create a;
		struct fault f;
		assert_int_equal(
			args_parse_create(empty[i], strlen(empty[i]), &a, &f),
			0);
		assert_null(a.name);
		assert_null(a.env);
		assert_string_equal(a.image, "default");
		assert_int_equal(a.cpus, 4);
		assert_int_equal(a.memory_mib, 512);
		assert_int_equal(a.storage_gb, 10);
		assert_true(a.wait_for_ready);
		args_free_create(&a);
	}
}

static void test_create_values(void **state)
{
	static const char text[] =
		"{\"name\":\"box\",\"image\":\"py3.11\",\"wait_for_ready\":"
		"false,\"env_vars\":{\"A\":\"1\"},\"resources\":{\"cpus\":32,"
		"\"memory\":128.0,\"storage\":256},\"extra\":[1]}";
	struct args_create a;
	struct fault f;

	assert_int_equal(args_parse_create(text, sizeof(text) - 1, &a, &f), 0);
	assert_string_equal(a.name, "box");
	assert_string_equal(a.image, "py3.11");
	assert_false(a.wait_for_ready);
	assert_int_equal(json_object_size(a.env), 1);
	assert_int_equal(a.cpus, 32);
	assert_int_equal(a.memory_mib, 128);
	assert_int_equal(a.storage_gb, 256);
	args_free_create(&a);
}

static void test_create_refused(void **state)
{
	static const char *const wrong[] = {
		"[]",
		"1",
		"\"x\"",
		"true",
		"{\"name\":\"A\"}",
		"{\"name\":1}",
		"{\"name\":\"a\\u0000\"}",
		"{\"image\":\"a/b\"}",
		"{\"image\":\".x\"}",
		"{\"image\":\"-x\"}",
		"{\"resources\":[]}",
		"{\"resources\":{\"cpus\":33}}",
		"{\"resources\":{\"cpus\":0.5}}",
		"{\"resources\":{\"cpus\":-1}}",
		"{\"resources\":{\"memory\":9223372036854775807}}",
		"{\"resources\":{\"memory\":9223372036854775808}}",
		"{\"resources\":{\"memory\":-9223372036854775808}}",
		"{\"resources\":{\"storage\":1e20}}",
		"{\"resources\":{\"storage\":1e999}}",
		"{\"resources\":{\"storage\":\"1\"}}",
		"{\"env_vars\":{\"\":\"\"}}",
		"{\"env_vars\":{\"a=\":\"\"}}",
		"{\"env_vars\":{\"a\":null}}",
		"{\"wait_for_ready\":0}",
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(create_status(wrong[i]), 422);
	static const char *const malformed[] = {
		"{", "nul", "{}x", "\x01", "{\"a\":1,\"a\":1}", "\"\xff\""
	};
	for (size_t i = 0; i < ARRAY_LEN(malformed); i++)
		assert_int_equal(create_status(malformed[i]), 400);
}

static void test_execute(void **state)
{
	static const char text[] = "{\"command\":\"ls\",\"timeout\":1.0005,"
				   "\"working_dir\":\"/x\",\"extra\":1}";
	struct args_run a;
	struct fault f;

	assert_int_equal(
		args_parse_execute(text, sizeof(text) - 1, false, &a, &f), 0);
	assert_string_equal(a.command, "ls");
	assert_string_equal(a.cwd, "/x");
	assert_int_equal(a.timeout_ms, 1001);
	assert_int_equal(a.output_limit, OUTPUT_LIMIT_DEFAULT);
	args_free_run(&a);
	assert_int_equal(execute_status("{\"command\":\"x\",\"api_timeout\":"
					"5}"),
			 200);
	assert_int_equal(execute_status("{}"), 422);
	assert_int_equal(execute_status("{\"command\":\"\"}"), 422);
	assert_int_equal(execute_status("{\"command\":\"x\",\"timeout\":0}"),
			 422);
	assert_int_equal(execute_status("{\"command\":\"x\",\"timeout\":-1}"),
			 422);
	assert_int_equal(execute_status("{\"command\":\"x\",\"timeout\":"
					"86401}"),
			 422);
	assert_int_equal(execute_status("{\"command\":\"x\",\"api_timeout\":"
					"\"5\"}"),
			 422);
}

static void test_run(void **state)
{
	assert_int_equal(run_status("{\"argv\":[\"a\",\"\"]}"), 200);
	assert_int_equal(run_status("{\"command\":\"a\",\"stdin\":\"\","
				    "\"output_limit\":0,\"stream\":true}"),
			 200);
	static const char *const wrong[] = {
		"{}",
		"{\"argv\":[]}",
		"{\"argv\":[\"\"]}",
		"{\"argv\":[\"a\",1]}",
		"{\"argv\":{}}",
		"{\"argv\":[\"a\"],\"command\":\"b\"}",
		"{\"command\":\"a\",\"timeout\":5}",
		"{\"command\":\"a\",\"output_limit\":1.5}",
		"{\"command\":\"a\",\"output_limit\":67108865}",
		"{\"command\":\"a\",\"user\":\"\\u0000\"}",
		"{\"command\":\"a\",\"stdin\":5}",
	};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(run_status(wrong[i]), 422);
}

/* The sandbox's own values come first and give way to the run's. */
static void test_encode(void **state)
{
	static const char text[] = "{\"argv\":[\"a\",\"b c\"],\"user\":\"u\","
				   "\"cwd\":\"/d\",\"env\":{\"X\":\"2\"},"
				   "\"timeout_s\":3,\"stdin\":\"hi\"}";
	static const char strings[] = "u\0/d\0a\0b c\0Y=1\0X=2";
	struct args_run a;
	struct fault f;
	struct guest_exec head;
	struct buf b = BUF_INIT(BRIG_FRAME_MAX);
	json_t *defaults = json_pack("{s:s, s:s}", "X", "1", "Y", "1");

	assert_int_equal(args_parse_run(text, sizeof(text) - 1, &a, &f), 0);
	assert_int_equal(args_encode_exec(&a, defaults, &b, &f), 0);
	assert_int_equal(b.len, sizeof(head) + sizeof(strings));
	memcpy(&head, b.data, sizeof(head));
	assert_int_equal(head.flags, GUEST_EXEC_STDIN);
	assert_int_equal(head.timeout_ms, 3000);
	assert_int_equal(head.argc, 2);
	assert_int_equal(head.envc, 2);
	assert_memory_equal(b.data + sizeof(head), strings, sizeof(strings));
	buf_free(&b);
	args_free_run(&a);
	json_decref(defaults);
}

static void test_encode_too_long(void **state)
{
	struct args_run a = { .command = "x", .cwd = "", .user = "" };
	struct buf b = BUF_INIT(BRIG_FRAME_MAX);
	struct fault f = { .status = 200 };
	static char big[100000];
	json_t *env = json_object();

	memset(big, 'x', sizeof(big) - 1);
	json_object_set_new(env, "A", json_string(big));
	json_object_set_new(env, "B", json_string(big));
	a.env = env;
	assert_int_equal(args_encode_exec(&a, NULL, &b, &f), 0);
	buf_free(&b);
	json_object_set_new(env, "C", json_string(big));
	assert_true(args_encode_exec(&a, NULL, &b, &f) < 0);
	assert_int_equal(f.status, 422);
	buf_free(&b);

	json_t *many = json_object();
	for (int i = 0; i < 600; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "K%d", i);
		json_object_set_new(many, key, json_string(""));
	}
	json_object_clear(env);
	for (int i = 0; i < 600; i++) {
		char key[16];
		(void)snprintf(key, sizeof(key), "L%d", i);
		json_object_set_new(env, key, json_string(""));
	}
	assert_true(args_encode_exec(&a, many, &b, &f) < 0);
	buf_free(&b);
	json_decref(many);
	json_decref(env);
}

static void test_query_number(void **state)
{
	static const char *const bad[] = { "0",
					   "-1",
					   "1.5",
					   "x",
					   "1x",
					   "101",
					   " 1",
					   "+1",
					   ".0",
					   "1e1",
					   "99999999999999999999",
					   "1.0.0" };
	struct fault f;
	uint32_t n = 0;

	assert_int_equal(args_query_number(NULL, "n", 100, 7, &n, &f), 0);
	assert_int_equal(n, 7);
	assert_int_equal(args_query_number("12.000", "n", 100, 7, &n, &f), 0);
	assert_int_equal(n, 12);
	assert_int_equal(args_query_number("100", "n", 100, 7, &n, &f), 0);
	assert_int_equal(n, 100);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_true(args_query_number(bad[i], "n", 100, 7, &n, &f) < 0);
		assert_int_equal(f.status, 422);
		assert_int_equal(n, 100);
	}
}

static void test_path(void **state)
{
	struct fault f;
	static char text[BRIG_PATH_BYTES + 1];

	assert_int_equal(args_check_path("a", &f), 0);
	assert_true(args_check_path(NULL, &f) < 0);
	assert_true(args_check_path("", &f) < 0);
	memset(text, 'x', BRIG_PATH_BYTES - 1);
	assert_int_equal(args_check_path(text, &f), 0);
	text[BRIG_PATH_BYTES - 1] = 'x';
	assert_true(args_check_path(text, &f) < 0);
	assert_int_equal(f.status, 422);
}

static unsigned int make_status(enum args_make_kind kind, const char *text)
{
	struct args_make a;
	struct fault f = { .status = 200 };

	if (args_parse_make(kind, text, strlen(text), &a, &f) == 0)
		args_make_free(&a);
	else
		assert_null(a.json);
	return f.status;
}

static void test_make_values(void **state)
{
	static const char text[] =
		"{\"snapshot\":\"snap_1\",\"name\":\"a-1\",\"vcpus\":2,"
		"\"memory_mib\":256,\"disk_gib\":3,\"env\":{\"A\":\"b\"},"
		"\"count\":1000,\"wait_for_ready\":false}";
	struct args_make a;
	struct fault f;

	assert_int_equal(
		args_parse_make(MAKE_SANDBOX, text, strlen(text), &a, &f), 0);
	assert_string_equal(a.snapshot, "snap_1");
	assert_string_equal(a.name, "a-1");
	assert_int_equal(a.vcpus, 2);
	assert_int_equal(a.memory_mib, 256);
	assert_int_equal(a.disk_gib, 3);
	assert_int_equal(a.count, 1000);
	assert_non_null(a.env);
	assert_false(a.wait_for_ready);
	args_make_free(&a);
	assert_int_equal(args_parse_make(MAKE_V1_RESTORE, "", 0, &a, &f), 0);
	assert_null(a.name);
	assert_int_equal(a.cpus, 0);
	assert_true(a.wait_for_ready && a.memory && !a.quick);
	args_make_free(&a);
}

static void test_make_refused(void **state)
{
	static const char *const strange[] = {
		"{\"name\":\"A\"}",
		"{\"name\":\"auto-1\"}",
		"{\"name\":\"pause-1\"}",
		"{\"name\":1}",
		"[]",
	};

	for (int k = 0; k < MAKE_KINDS; k++) {
		bool v1 = k >= MAKE_V1_SNAPSHOT;
		assert_int_equal(
			make_status((enum args_make_kind)k, "{\"strange\":1}"),
			v1 ? 200 : 422);
		assert_int_equal(make_status((enum args_make_kind)k, "{"), 400);
		assert_int_equal(make_status((enum args_make_kind)k, "{}"),
				 200);
	}
	for (size_t i = 0; i < ARRAY_LEN(strange); i++) {
		assert_int_equal(make_status(MAKE_SNAPSHOT, strange[i]), 422);
		assert_int_equal(make_status(MAKE_V1_SNAPSHOT, strange[i]),
				 422);
		assert_int_equal(make_status(MAKE_TEMPLATE, strange[i]), 422);
	}
	assert_int_equal(make_status(MAKE_CLONES, "{\"count\":1001}"), 422);
	assert_int_equal(make_status(MAKE_CLONES, "{\"count\":0}"), 422);
	assert_int_equal(make_status(MAKE_SANDBOX, "{\"image\":\"../x\"}"),
			 422);
}

/* Part 1 writes `storage` as a string there. */
static void test_make_storage(void **state)
{
	static const struct {
		const char *text;
		uint32_t gib; /* 0: refused */
	} cases[] = {
		{ "{\"resources\":{\"storage\":\"10\"}}", 10 },
		{ "{\"resources\":{\"storage\":10}}", 10 },
		{ "{\"resources\":{\"storage\":\"10.0\"}}", 10 },
		{ "{\"resources\":{\"storage\":\"257\"}}", 0 },
		{ "{\"resources\":{\"storage\":\"x\"}}", 0 },
		{ "{\"resources\":{\"storage\":[]}}", 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct args_make a;
		struct fault f;
		int r = args_parse_make(MAKE_V1_RESTORE, cases[i].text,
					strlen(cases[i].text), &a, &f);
		assert_int_equal(r == 0, cases[i].gib != 0);
		if (r < 0)
			continue;
		assert_int_equal(a.disk_gib, cases[i].gib);
		args_make_free(&a);
	}
}

static void test_code(void **state)
{
	static const char text[] =
		"{\"language\":\"python\",\"code\":\"print(1)\\n\"}";
	struct buf b = BUF_INIT(BRIG_FRAME_MAX);
	struct guest_exec head;
	struct args_run a;
	struct fault f;

	assert_int_equal(args_parse_code(text, strlen(text), &a, &f), 0);
	assert_int_equal(args_encode_exec(&a, NULL, &b, &f), 0);
	memcpy(&head, b.data, sizeof(head));
	assert_int_equal(head.flags, GUEST_EXEC_CODE);
	assert_int_equal(head.argc, 2);
	/* user, cwd, language, code */
	assert_memory_equal(b.data + sizeof(head), "\0\0python\0print(1)\n",
			    19);
	buf_free(&b);
	args_free_run(&a);
	assert_true(args_parse_code("{\"code\":\"\"}", 11, &a, &f) < 0);
	assert_int_equal(f.status, 422);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_defaults),
		cmocka_unit_test(test_create_values),
		cmocka_unit_test(test_create_refused),
		cmocka_unit_test(test_execute),
		cmocka_unit_test(test_run),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_encode_too_long),
		cmocka_unit_test(test_query_number),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_make_values),
		cmocka_unit_test(test_make_refused),
		cmocka_unit_test(test_make_storage),
		cmocka_unit_test(test_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
