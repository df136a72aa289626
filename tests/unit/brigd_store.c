/* brigd_store.c - what brigd's database keeps, and who may come in.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/brigd/auth.h"
#include "src/brigd/image.h"
#include "src/brigd/store.h"

static char dir[64];
static char path[128];

static int set_up(void **state)
{
	struct store *s = NULL;

	(void)snprintf(dir, sizeof(dir), "/tmp/brigd_store.XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	(void)snprintf(path, sizeof(path), "%s/brig.db", dir);
	if (store_open(path, &s) < 0)
		return -1;
	*state = s;
	return 0;
}

static void drop(const char *suffix)
{
	char name[192];

	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	(void)unlink(name);
}

static int tear_down(void **state)
{
	store_close(*state);
	drop("");
	drop("-wal");
	drop("-shm");
	(void)rmdir(dir);
	return 0;
}

static void reopen(void **state)
{
	struct store *s = NULL;

	store_close(*state);
	assert_int_equal(store_open(path, &s), 0);
	*state = s;
}

static void test_keys(void **state)
{
	struct auth a = { .count = 0 };
	uint8_t hash[AUTH_HASH_BYTES];

	auth_hash("first-key-of-test", 17, hash);
	assert_int_equal(store_put_key(*state, STORE_TENANT, "n", hash), 0);
	auth_hash("second-key-of-test", 18, hash);
	assert_int_equal(store_put_key(*state, STORE_TENANT, "n", hash), 0);
	reopen(state);
	assert_int_equal(store_load_keys(*state, &a), 0);
	assert_int_equal(a.count, 1);
	assert_int_equal(auth_check(&a, "second-key-of-test"), STORE_TENANT);
	assert_int_equal(auth_check(&a, "first-key-of-test"), 0);
	assert_int_equal(auth_check(&a, ""), 0);
	assert_int_equal(auth_check(&a, "second-key-of-tes"), 0);
	assert_int_equal(auth_check(&a, "second-key-of-test "), 0);
	char big[1000];
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(auth_check(&a, big), 0);
}

static void test_hash(void **state)
{
	/* FIPS 180-4's own example */
	static const uint8_t want[4] = { 0xba, 0x78, 0x16, 0xbf };
	uint8_t hash[AUTH_HASH_BYTES];

	auth_hash("abc", 3, hash);
	assert_memory_equal(hash, want, sizeof(want));
}

static void test_auth_is_bounded(void **state)
{
	struct auth a = { .count = 0 };
	uint8_t hash[AUTH_HASH_BYTES] = { 0 };

	for (int i = 0; i < AUTH_KEYS_MAX; i++)
		assert_int_equal(auth_add(&a, hash, 1), 0);
	assert_int_equal(auth_add(&a, hash, 1), -ENOSPC);
}

static int count_row(void *arg, const struct store_sandbox *row)
{
	struct store_sandbox *last = arg;

	*last = *row;
	return 0;
}

static void test_sandboxes(void **state)
{
	struct store_sandbox row = {
		.id = "sb_1",
		.tenant = 1,
		.name = "'); DROP TABLE",
		.image = "default",
		.cpus = 4,
		.memory_mib = 512,
		.storage_gb = 10,
		.status = "creating",
		.created_ms = 12345,
		.ready_ms = -1,
	};
	struct store_sandbox got = { .tenant = 0 };
	struct store_change change = {
		.id = "sb_1",
		.status = "running",
		.reason = "",
		.ready_ms = 77,
		.origin = "clone",
		.template_name = "",
		.snapshot = "snap_1",
		.paused = "",
	};

	assert_int_equal(store_add_sandbox(*state, &row), 0);
	assert_true(store_add_sandbox(*state, &row) < 0); /* same id */
	assert_int_equal(store_change_sandbox(*state, &change), 0);
	reopen(state);
	assert_int_equal(store_each_sandbox(*state, count_row, &got), 0);
	assert_string_equal(got.name, row.name);
	assert_string_equal(got.status, "running");
	assert_int_equal(got.ready_ms, 77);
	assert_string_equal(got.origin, "clone");
	assert_string_equal(got.snapshot, "snap_1");
	assert_int_equal(got.created_ms, 12345);
	assert_int_equal(store_mark_restart(*state), 0);
	assert_int_equal(store_each_sandbox(*state, count_row, &got), 0);
	assert_string_equal(got.status, "stopped");
	assert_string_equal(got.reason, "daemon_restart");
	change.paused = "snap_2";
	assert_int_equal(store_change_sandbox(*state, &change), 0);
	assert_int_equal(store_mark_restart(*state), 0);
	assert_int_equal(store_each_sandbox(*state, count_row, &got), 0);
	assert_string_equal(got.status, "paused");
	assert_string_equal(got.paused, "snap_2");
	assert_int_equal(store_remove_sandbox(*state, "sb_1"), 0);
	got.tenant = 0;
	assert_int_equal(store_each_sandbox(*state, count_row, &got), 0);
	assert_int_equal(got.tenant, 0);
}

struct found {
	size_t count;
	int64_t first_ms;
	int64_t last_ms;
	size_t output_len;
};

static void on_run(void *arg, const struct store_run *row)
{
	struct found *f = arg;

	if (f->count++ == 0)
		f->first_ms = row->started_ms;
	f->last_ms = row->started_ms;
	f->output_len = row->output_len[0];
}

static struct store_run make_run(int64_t at)
{
	return (struct store_run){
		.id = "ex_1",
		.request_id = "req_1",
		.sandbox_id = at % 2 == 0 ? "sb_even" : "sb_odd",
		.source = "sync",
		.status = "completed",
		.command = "true",
		.cwd = "",
		.output = { "a\0b", "" },
		.output_len = { 3, 0 },
		.tenant = at < 5 ? 2 : 1,
		.started_ms = at,
	};
}

static void test_runs(void **state)
{
	struct store_run rows[100];
	struct found f = { .count = 0 };
	struct store_query q = {
		.tenant = 1, .from_ms = 0, .to_ms = 1000, .limit = 10
	};
	int64_t total = 0;

	for (int i = 0; i < 100; i++)
		rows[i] = make_run(i);
	assert_int_equal(store_add_runs(*state, rows, 100), 0);
	assert_int_equal(store_find_runs(*state, &q, on_run, &f, &total), 0);
	assert_int_equal(total, 95); /* the others are another tenant's */
	assert_int_equal(f.count, 10);
	assert_int_equal(f.first_ms, 99); /* newest first */
	assert_int_equal(f.last_ms, 90);
	assert_int_equal(f.output_len, 3); /* NUL and all */
	q.sandbox_id = "sb_even";
	q.from_ms = 10;
	q.to_ms = 20;
	assert_int_equal(store_find_runs(*state, &q, on_run, &f, &total), 0);
	assert_int_equal(total, 6);
	q.sandbox_id = "' OR 1=1 --";
	assert_int_equal(store_find_runs(*state, &q, on_run, &f, &total), 0);
	assert_int_equal(total, 0);
}

static void test_runs_are_bounded(void **state)
{
	static struct store_run rows[1000];
	struct found f = { .count = 0 };
	struct store_query q = {
		.tenant = 1, .from_ms = 0, .to_ms = 1 << 30, .limit = 1000
	};
	int64_t total = 0;

	for (int round = 0; round < 12; round++) {
		for (int i = 0; i < 1000; i++)
			rows[i] = make_run(10 + round * 1000 + i);
		assert_int_equal(store_add_runs(*state, rows, 1000), 0);
	}
	assert_int_equal(store_find_runs(*state, &q, on_run, &f, &total), 0);
	assert_int_equal(total, LOG_ROWS_MAX);
	assert_int_equal(f.first_ms, 12009);
}

static void test_idempotency(void **state)
{
	const int64_t day = 86400 * 1000;
	uint8_t body[AUTH_HASH_BYTES] = { 1 };
	uint8_t got[AUTH_HASH_BYTES];
	char id[BRIG_ID_BYTES];

	assert_int_equal(store_get_idempotent(*state, 1, "k", 5, got, id),
			 -ENOENT);
	assert_int_equal(store_put_idempotent(*state, 1, "k", body, "sb_1", 5),
			 0);
	reopen(state);
	assert_int_equal(store_get_idempotent(*state, 1, "k", 6, got, id), 0);
	assert_memory_equal(got, body, sizeof(body));
	assert_string_equal(id, "sb_1");
	assert_int_equal(store_get_idempotent(*state, 2, "k", 6, got, id),
			 -ENOENT);
	assert_int_equal(store_get_idempotent(*state, 1, "k", 5 + day, got, id),
			 -ENOENT);
	assert_int_equal(store_drop_idempotent(*state, "sb_1"), 0);
	assert_int_equal(store_get_idempotent(*state, 1, "k", 6, got, id),
			 -ENOENT);
}

static void test_newer_database_is_refused(void **state)
{
	sqlite3 *db = NULL;
	struct store *s = NULL;

	store_close(*state);
	*state = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL),
		SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_true(store_open(path, &s) < 0);
	assert_null(s);
}

static void test_broken_database_is_refused(void **state)
{
	struct store *s = NULL;

	store_close(*state);
	*state = NULL;
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "not a database, not at all......", 32), 32);
	(void)close(fd);
	assert_true(store_open(path, &s) < 0);
}

static void test_key_file(void **state)
{
	char name[128];
	char first[API_KEY_BYTES];
	char again[API_KEY_BYTES];
	struct stat st;

	(void)snprintf(name, sizeof(name), "%s/key", dir);
	assert_int_equal(auth_read_key_file(name, first), 0);
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(auth_read_key_file(name, again), 0);
	assert_string_equal(first, again);
	assert_int_equal(chmod(name, 0640), 0);
	assert_int_equal(auth_read_key_file(name, again), -EACCES);
	assert_int_equal(chmod(name, 0600), 0);
	assert_int_equal(truncate(name, 5), 0);
	assert_int_equal(auth_read_key_file(name, again), -EINVAL);
	assert_int_equal(unlink(name), 0);
}

static void test_images(void **state)
{
	char name[128];
	uint64_t bytes = 0;

	(void)snprintf(name, sizeof(name), "%s/i.ext4", dir);
	assert_int_equal(image_open(dir, "i", &bytes), -ENOENT);
	int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(image_open(dir, "i", &bytes), -EINVAL); /* empty */
	assert_int_equal(ftruncate(fd, 4096), 0);
	(void)close(fd);
	fd = image_open(dir, "i", &bytes);
	assert_true(fd >= 0);
	assert_int_equal(bytes, 4096);
	assert_true(write(fd, "x", 1) < 0);
	(void)close(fd);
	json_t *names = image_list(dir);
	assert_int_equal(json_array_size(names), 1);
	assert_string_equal(json_string_value(json_array_get(names, 0)), "i");
	json_decref(names);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(mkfifo(name, 0600), 0);
	assert_int_equal(image_open(dir, "i", &bytes), -EINVAL);
	assert_int_equal(unlink(name), 0);
}

int main(void)
{
#define with_store(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		with_store(test_keys),
		with_store(test_hash),
		with_store(test_auth_is_bounded),
		with_store(test_sandboxes),
		with_store(test_runs),
		with_store(test_runs_are_bounded),
		with_store(test_idempotency),
		with_store(test_newer_database_is_refused),
		with_store(test_broken_database_is_refused),
		with_store(test_key_file),
		with_store(test_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
