/* manifest.c - texts of snapshots: what is written, what is refused.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/brigd/auth.h"
#include "src/brigd/id.h"
#include "src/brigd/limits.h"
#include "src/brigd/manifest.h"

#define TRAILER 65

static struct manifest *new_manifest(unsigned int memory, unsigned int layers)
{
	struct manifest *m = calloc(1, sizeof(*m));
	struct snap *s = &m->snap;

	id_make(s->id, "snap_");
	id_make(s->source_id, "sb_");
	(void)snprintf(s->name, sizeof(s->name),
		       "before the \"upgrade\" \xc3\xa9");
	(void)snprintf(s->source_name, sizeof(s->source_name), "calm-otter-27");
	(void)snprintf(m->hostname_hint, NAME_BYTES, "calm-otter-27");
	s->tenant = 1;
	s->kind = SNAP_MEMORY;
	s->quiesced = true;
	s->created_ms = 1790000000000;
	s->shape = (struct shape){ .vcpus = 2, .memory_mib = 512 };
	(void)snprintf(s->shape.image, IMAGE_NAME_BYTES, "default");
	memset(s->shape.image_hash, 0xa5, sizeof(s->shape.image_hash));
	s->shape.base_bytes = 300 << 20;
	s->shape.disk_bytes = 10ull << 30;
	m->state_count = 1;
	m->memory_count = memory;
	m->layer_count = layers;
	for (unsigned int i = 0; i < manifest_count(m); i++) {
		struct manifest_object *o = &m->objects[i];
		id_make(o->id, "obj_");
		o->bytes = i == 0 ? 5000 : (uint64_t)512 << 20;
		memset(o->sha256, (int)i, sizeof(o->sha256));
	}
	return m;
}

static char *text_of(const struct manifest *m, size_t *ret_len)
{
	struct buf b = BUF_INIT(MANIFEST_TEXT_MAX);

	assert_int_equal(manifest_encode(m, &b), 0);
	*ret_len = b.len;
	return b.data;
}

static int decode(const char *text, size_t n, const char **ret_problem)
{
	struct manifest *m = malloc(sizeof(*m));

	*ret_problem = NULL;
	int r = manifest_decode(text, n, NULL, m, ret_problem);
	if (r < 0)
		assert_non_null(*ret_problem);
	json_decref(m->snap.settings);
	free(m);
	return r;
}

/* The same text with a checksum that is right. */
static void sign(char *text, size_t n)
{
	uint8_t hash[AUTH_HASH_BYTES];

	auth_hash(text, n - TRAILER, hash);
	for (size_t i = 0; i < sizeof(hash); i++) {
		text[n - TRAILER + 2 * i] = "0123456789abcdef"[hash[i] >> 4];
		text[n - TRAILER + 2 * i + 1] =
			"0123456789abcdef"[hash[i] & 15];
	}
}

static json_t *some_env(void)
{
	return json_pack("{s:s, s:s}", "A", "1", "B\xc3\xa9", "= \"x\"");
}

/* Replaces `old` (once there) by `new`, signs, and decodes. */
static int with(const char *old, const char *new, const char **ret_problem)
{
	struct manifest *m = new_manifest(2, 2);
	json_t *env = some_env();
	json_t *settings = settings_new(env, 5, "warm it");
	size_t n = 0;
	m->snap.settings = settings;
	char *text = text_of(m, &n);
	char *at = strstr(text, old);
	size_t tail;

	assert_non_null(at);
	tail = n - (size_t)(at - text) - strlen(old);
	char *changed = malloc(n + strlen(new) + 1);
	memcpy(changed, text, (size_t)(at - text));
	memcpy(changed + (at - text), new, strlen(new));
	memcpy(changed + (at - text) + strlen(new), at + strlen(old), tail);
	n = n - strlen(old) + strlen(new);
	sign(changed, n);
	int r = decode(changed, n, ret_problem);
	json_decref(settings);
	json_decref(env);
	free(changed);
	free(text);
	free(m);
	return r;
}

static void test_round_trip(void **state)
{
	struct manifest *m = new_manifest(3, 2);
	struct manifest *back = malloc(sizeof(*back));
	const char *problem = NULL;
	size_t n = 0;
	char *text = text_of(m, &n);

	(void)state;
	assert_int_equal(manifest_decode(text, n, m->snap.id, back, &problem),
			 0);
	assert_memory_equal(back, m, sizeof(*m));
	assert_int_equal(manifest_role(back, 0), OBJECT_STATE);
	assert_int_equal(manifest_role(back, 3), OBJECT_MEMORY);
	assert_int_equal(manifest_role(back, 4), OBJECT_LAYER);
	free(text);
	free(back);
	free(m);
}

static void test_settings(void **state)
{
	struct manifest *m = new_manifest(1, 1);
	struct manifest *back = malloc(sizeof(*back));
	json_t *env = some_env();
	const char *problem = NULL;
	size_t n = 0;

	(void)state;
	assert_null(settings_new(NULL, 0, NULL));
	assert_null(settings_env(NULL));
	assert_null(settings_warm(NULL));
	assert_int_equal(settings_cpus(NULL), 0);
	m->snap.settings = settings_new(env, 5, "warm it");
	char *text = text_of(m, &n);
	assert_int_equal(manifest_decode(text, n, NULL, back, &problem), 0);
	assert_true(json_equal(settings_env(back->snap.settings), env));
	assert_int_equal(settings_cpus(back->snap.settings), 5);
	assert_string_equal(settings_warm(back->snap.settings), "warm it");
	json_decref(back->snap.settings);
	json_decref(m->snap.settings);
	json_decref(env);
	free(text);
	free(back);
	free(m);
}

/* A text of `n` bytes that each take six in JSON. */
static char *long_text(size_t n)
{
	char *text = calloc(1, n + 1);

	memset(text, 1, n);
	return text;
}

static void test_largest(void **state)
{
	struct manifest *m = new_manifest(SAVED_MEMORY_MAX, BRIG_LAYERS_MAX);
	char *warm = long_text(WARM_COMMAND_BYTES - 1);
	json_t *env = json_object();
	const char *problem;
	size_t n = 0;

	(void)state;
	for (unsigned int i = 0; i < BRIG_ENV_MAX; i++) {
		char name[8];
		(void)snprintf(name, sizeof(name), "%u", i);
		json_object_set_new(env, name,
				    json_string("01234567890123456"));
	}
	m->snap.settings = settings_new(env, 8, warm);
	m->snap.shape.memory_mib = BRIG_MEMORY_MIB_MAX;
	m->snap.shape.disk_bytes = BRIG_DISK_BYTES_MAX;
	for (unsigned int i = 1; i < manifest_count(m); i++)
		m->objects[i].bytes = i <= SAVED_MEMORY_MAX
					      ? (uint64_t)BRIG_MEMORY_MIB_MAX
							<< 20
					      : BRIG_DISK_BYTES_MAX;
	char *text = text_of(m, &n);
	assert_int_equal(decode(text, n, &problem), 0);
	json_decref(m->snap.settings);
	json_decref(env);
	free(warm);
	free(text);
	free(m);
}

static void test_too_large_settings(void **state)
{
	char *warm = long_text(WARM_COMMAND_BYTES);
	char *value = long_text(SANDBOX_ENV_BYTES / 6);
	json_t *env = json_pack("{s:s}", "A", value);
	json_t *all[] = { settings_new(NULL, 0, warm),
			  settings_new(env, 0, NULL) };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		assert_false(settings_is_good(all[i], 1));
		json_decref(all[i]);
	}
	json_object_set_new(env, "A", json_string(value + 2));
	assert_true(settings_is_env(env));
	json_decref(env);
	free(value);
	free(warm);
}

static void test_every_bit(void **state)
{
	struct manifest *m = new_manifest(1, 1);
	const char *problem;
	size_t n = 0;
	char *text = text_of(m, &n);

	(void)state;
	for (size_t bit = 0; bit < 8 * n; bit++) {
		text[bit / 8] ^= (char)(1u << (bit % 8));
		assert_int_equal(decode(text, n, &problem), -EBADMSG);
		text[bit / 8] ^= (char)(1u << (bit % 8));
	}
	assert_int_equal(decode(text, n, &problem), 0);
	free(text);
	free(m);
}

static void test_every_length(void **state)
{
	struct manifest *m = new_manifest(1, 1);
	const char *problem;
	size_t n = 0;
	char *text = text_of(m, &n);
	char *longer = calloc(1, n + 100);

	(void)state;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(decode(text, i, &problem), -EBADMSG);
	memcpy(longer, text, n);
	for (size_t i = n + 1; i < n + 100; i++)
		assert_int_equal(decode(longer, i, &problem), -EBADMSG);
	free(longer);
	free(text);
	free(m);
}

/* Different damage is told apart. */
static void test_problems(void **state)
{
	struct manifest *m = new_manifest(1, 1);
	struct manifest *back = malloc(sizeof(*back));
	char other[BRIG_ID_BYTES];
	const char *problem;
	size_t n = 0;
	char *text = text_of(m, &n);

	(void)state;
	assert_int_equal(decode(text, n - 10, &problem), -EBADMSG);
	assert_string_equal(problem, "manifest: cut short");
	text[10] ^= 1;
	assert_int_equal(decode(text, n, &problem), -EBADMSG);
	assert_string_equal(problem, "manifest: checksum differs");
	text[10] ^= 1;
	id_make(other, "snap_");
	assert_int_equal(manifest_decode(text, n, other, back, &problem),
			 -EBADMSG);
	assert_string_equal(problem, "manifest: of another snapshot");
	free(text);
	free(back);
	free(m);

	assert_int_equal(with("\"format\": 1,", "\"format\": 2,", &problem),
			 -ENOTSUP);
	assert_string_equal(problem, "made by a newer version of brig");
	assert_int_equal(with("\"format\": 1,", "\"format\": 0,", &problem),
			 -ENOTSUP);
	assert_string_equal(problem, "made by an older version of brig");
	assert_int_equal(with("\"format\": 1,", "\"format\": \"1\",", &problem),
			 -EBADMSG);
	assert_string_equal(problem, "manifest: no format");
}

/* Signed by whoever wrote it, and still not believed. */
static void test_hostile_values(void **state)
{
	static const char *const changes[][2] = {
		{ "\"vcpus\": 2", "\"vcpus\": 0" },
		{ "\"vcpus\": 2", "\"vcpus\": 9" },
		{ "\"vcpus\": 2", "\"vcpus\": 4294967298" },
		{ "\"vcpus\": 2", "\"vcpus\": -2" },
		{ "\"vcpus\": 2", "\"vcpus\": 2.0" },
		{ "\"vcpus\": 2", "\"vcpus\": true" },
		{ "\"vcpus\": 2", "\"vcpus\": 2,\"vcpus\": 2" },
		{ "\"vcpus\": 2", "\"vcpus\":  2" },
		{ "\"vcpus\": 2", "\"vcpu\": 2" },
		{ "\"memory_mib\": 512", "\"memory_mib\": 1024" },
		{ "\"memory_mib\": 512", "\"memory_mib\": 127" },
		{ "\"disk_bytes\": 10737418240",
		  "\"disk_bytes\": 10737418241" },
		{ "\"disk_bytes\": 10737418240",
		  "\"disk_bytes\": 10737418240000000" },
		{ "\"base_bytes\": 314572800", "\"base_bytes\": 0" },
		{ "\"base_bytes\": 314572800", "\"base_bytes\": 10737418241" },
		{ "\"bytes\": 5000", "\"bytes\": 0" },
		{ "\"bytes\": 5000", "\"bytes\": 16777217" },
		{ "\"bytes\": 536870912", "\"bytes\": 536870911" },
		{ "\"bytes\": 536870912", "\"bytes\": -1" },
		{ "\"image\": \"default\"", "\"image\": \"../default\"" },
		{ "\"image\": \"default\"", "\"image\": \".hidden\"" },
		{ "\"image\": \"default\"", "\"image\": \"\"" },
		{ "\"image\": \"default\"", "\"image\": \"a\\u0000b\"" },
		{ "\"object\": \"obj_", "\"object\": \"obj/" },
		{ "\"object\": \"obj_", "\"object\": \"obj_x" },
		{ "\"kind\": \"memory\"", "\"kind\": \"disk\"" },
		{ "\"kind\": \"memory\"", "\"kind\": \"other\"" },
		{ "\"consistency\": \"application\"", "\"consistency\": \"\"" },
		{ "\"hostname\": \"calm-otter-27\"", "\"hostname\": \"a b\"" },
		{ "\"parent\": \"\"", "\"parent\": \"snap_x\"" },
		{ "\"parent\": \"\"", "\"parent\": \"../../../x\"" },
		{ "\"source_name\": \"calm", "\"source_name\": \"\\ncalm" },
		{ "\"tenant\": 1", "\"tenant\": -1" },
		{ "\"tenant\": 1", "\"tenant\": 1,\n \"zebra\": 1" },
		{ "a5a5", "a5A5" },
		{ "a5a5", "a5g5" },
		{ "a5a5", "a5a5a5" },
		{ "\"layers\": [", "\"layers\": {" },
		{ "\"cpus\": 5", "\"cpus\": 0" },
		{ "\"cpus\": 5", "\"cpus\": 9" },
		{ "\"cpus\": 5", "\"cpus\": 4" },
		{ "\"cpus\": 5", "\"cpus\": 9223372036854775807" },
		{ "\"cpus\": 5", "\"cpus\": \"5\"" },
		{ "\"cpus\": 5", "\"cpus\": 5,\n  \"disk\": 1" },
		{ "\"A\": \"1\"", "\"A\": 1" },
		{ "\"A\": \"1\"", "\"A=\": \"1\"" },
		{ "\"A\": \"1\"", "\"\": \"1\"" },
		{ "\"A\": \"1\"", "\"A\": \"\\u0000\"" },
		{ "\"warm it\"", "\"\"" },
		{ "\"warm it\"", "[]" },
		{ "\"settings\": {", "\"settings\": [" },
		{ "{\n", "[\n" },
	};
	const char *problem;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		if (with(changes[i][0], changes[i][1], &problem) != -EBADMSG)
			fail_msg("accepted: %s", changes[i][1]);
	}
	/* The same way, one that is fine. */
	assert_int_equal(with("\"cpus\": 5", "\"cpus\": 8", &problem), 0);
}

static void test_not_encoded(void **state)
{
	struct manifest *m = new_manifest(1, 2);
	struct buf b = BUF_INIT(MANIFEST_TEXT_MAX);

	(void)state;
	memcpy(m->objects[3].id, m->objects[2].id, OBJECT_ID_BYTES);
	assert_int_equal(manifest_encode(m, &b), -EINVAL);
	id_make(m->objects[3].id, "obj_");
	m->objects[2].bytes = 4095;
	assert_int_equal(manifest_encode(m, &b), -EINVAL);
	m->objects[2].bytes = 0;
	assert_int_equal(manifest_encode(m, &b), 0);
	(void)snprintf(m->snap.name, NAME_BYTES, "\xff");
	assert_int_equal(manifest_encode(m, &b), -EINVAL);
	buf_free(&b);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_too_large_settings),
		cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_hostile_values),
		cmocka_unit_test(test_not_encoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
