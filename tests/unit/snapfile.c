/* snapfile.c - snapshots as streams: out, in, damaged, hostile, slow.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <sys/socket.h>

#include "src/brigd/auth.h"
#include "tests/unit/snap.h"

#define HEADER 16
#define TRAILER 65
#define RECORD 16

struct exporting {
	struct snap_export e;
	bool done;
	int error;
};

static void on_exported(struct snap_export *e, int error)
{
	struct exporting *x = container_of(e, struct exporting, e);

	x->error = error;
	x->done = true;
}

struct importing {
	struct snap_import im;
	bool done;
	int error;
};

static void on_imported(struct snap_import *im, int error)
{
	struct importing *x = container_of(im, struct importing, im);

	x->error = error;
	x->done = true;
}

static int export_to(struct env *v, const char *id, int fd)
{
	struct exporting x = { .e = { .fd = fd, .on_done = on_exported } };

	assert_int_equal(snapstore_export(v->st, id, &x.e), 0);
	env_until(v, &x.done);
	return x.error;
}

static int import_from(struct env *v, int fd, char ret_id[SNAP_ID_BYTES])
{
	struct importing x = {
		.im = { .fd = fd, .tenant = 3, .on_done = on_imported },
	};

	assert_int_equal(snapstore_import(v->st, &x.im), 0);
	env_until(v, &x.done);
	memcpy(ret_id, x.im.id, SNAP_ID_BYTES);
	return x.error;
}

/* A stream in memory, to be changed. */
struct stream {
	uint8_t *bytes;
	size_t n;
};

static struct stream export_stream(struct env *v, const char *id)
{
	struct stream s;
	struct stat st;
	int fd = snapio_memory("stream", 0);

	assert_int_equal(export_to(v, id, fd), 0);
	assert_int_equal(fstat(fd, &st), 0);
	s.n = (size_t)st.st_size;
	s.bytes = malloc(s.n + 4096);
	assert_int_equal(pread(fd, s.bytes, s.n, 0), s.n);
	(void)close(fd);
	return s;
}

static int import_stream(struct env *v, const uint8_t *bytes, size_t n,
			 char ret_id[SNAP_ID_BYTES])
{
	int fd = snapio_memory("stream", 0);

	assert_int_equal(pwrite(fd, bytes, n, 0), n);
	int r = import_from(v, fd, ret_id);
	(void)close(fd);
	return r;
}

/* Two generations: a full image, a delta, two layers. */
static void make_two(struct env *v, char ret_id[SNAP_ID_BYTES])
{
	char first[SNAP_ID_BYTES];
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, first), 0);
	assert_int_equal(load(v, first, &s), 0);
	struct saved *next = resumed(v, s, 30, 31, 40);
	saved_unref(s);
	assert_int_equal(publish(v, next, SNAP_TEMPLATE, ret_id), 0);
	assert_int_equal(snapstore_delete(v->st, first), 0);
	env_expect_objects(v, 5);
}

static void check_two(const struct saved *s)
{
	assert_int_equal(get(s->base->fd, 1), 10);
	assert_int_equal(get(s->base->fd, 2), -1);
	assert_int_equal(get(s->base->fd, 5), 11);
	assert_int_equal(get(s->delta->fd, 30), 40);
	assert_int_equal(get(s->delta->fd, 31), -1);
	assert_int_equal(get(s->layers[0]->fd, 3), 10);
	assert_int_equal(get(s->layers[1]->fd, 9), 40);
	assert_int_equal(get(s->state->fd, 0), 40);
}

static void test_round_trip(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	char in[SNAP_ID_BYTES];
	struct saved *s;

	make_two(v, id);
	struct stream f = export_stream(v, id);
	assert_true(f.n < 64 << 10); /* holes are not carried */
	assert_int_equal(import_stream(v, f.bytes, f.n, in), 0);
	free(f.bytes);
	assert_string_not_equal(id, in);
	env_expect_objects(v, 10);
	const struct snap *snap = snapstore_find(v->st, 3, in);
	assert_non_null(snap);
	assert_null(snapstore_find(v->st, 1, in));
	assert_string_equal(snap->name, "test");
	assert_int_equal(snap->kind, SNAP_MEMORY); /* not a template */
	assert_int_equal(snap->shared_bytes, 0);
	assert_int_equal(load(v, in, &s), 0);
	check_two(s);
	saved_unref(s);
	/* They have nothing in common. */
	assert_int_equal(snapstore_delete(v->st, id), 0);
	env_reopen(v);
	assert_int_equal(load(v, in, &s), 0);
	check_two(s);
	saved_unref(s);
	assert_int_equal(snapstore_delete(v->st, in), 0);
	env_expect_objects(v, 0);
}

static void test_disk_only(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	char in[SNAP_ID_BYTES];
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 6), SNAP_DISK, id), 0);
	struct stream f = export_stream(v, id);
	assert_int_equal(import_stream(v, f.bytes, f.n, in), 0);
	free(f.bytes);
	assert_int_equal(snapstore_find(v->st, 3, in)->kind, SNAP_DISK);
	assert_int_equal(load(v, in, &s), 0);
	assert_int_equal(get(s->layers[0]->fd, 3), 6);
	saved_unref(s);
}

/* Through one socket from one to the other, at the same time. */
static void test_socket(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct exporting out = { .e.on_done = on_exported };
	struct importing in = {
		.im = { .tenant = 1, .on_done = on_imported },
	};
	int pair[2];
	struct saved *s;

	make_two(v, id);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	out.e.fd = pair[0];
	in.im.fd = pair[1];
	(void)snprintf(in.im.name, sizeof(in.im.name), "brought along");
	assert_int_equal(snapstore_import(v->st, &in.im), 0);
	assert_int_equal(snapstore_export(v->st, id, &out.e), 0);
	/* What is being sent stays until it is sent. */
	assert_int_equal(snapstore_delete(v->st, id), 0);
	env_until(v, &out.done);
	assert_int_equal(out.error, 0);
	(void)close(pair[0]);
	env_until(v, &in.done);
	assert_int_equal(in.error, 0);
	(void)close(pair[1]);
	env_expect_objects(v, 5);
	assert_string_equal(snapstore_find(v->st, 1, in.im.id)->name,
			    "brought along");
	assert_int_equal(load(v, in.im.id, &s), 0);
	check_two(s);
	saved_unref(s);
}

/* --- damaged ------------------------------------------------------------------ */

static void expect_refused(struct env *v, const struct stream *f, size_t n)
{
	char id[SNAP_ID_BYTES];
	int r = import_stream(v, f->bytes, n, id);

	assert_true(r == -EBADMSG || r == -ENOTSUP);
}

static void test_bits(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];

	assert_int_equal(publish(v, booted(v, 6), SNAP_MEMORY, id), 0);
	struct stream f = export_stream(v, id);
	srandom(2);
	/* All of the header, one bit of every byte up to the first objects,
	 * then here and there, and the end. */
	for (size_t i = 0; i < f.n; i++) {
		bool every = i < HEADER || i + 40 > f.n;
		if (i > 1200 && !every && random() % 40 != 0)
			continue;
		for (unsigned int bit = 0; bit < 8; bit++) {
			uint8_t mask = (uint8_t)(1u << bit);
			if (!every && bit != i % 8)
				continue;
			f.bytes[i] ^= mask;
			expect_refused(v, &f, f.n);
			f.bytes[i] ^= mask;
		}
	}
	assert_int_equal(env_snapshots(v), 1);
	env_expect_objects(v, 3);
	assert_int_equal(import_stream(v, f.bytes, f.n, id), 0);
	free(f.bytes);
}

static void test_lengths(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];

	assert_int_equal(publish(v, booted(v, 6), SNAP_MEMORY, id), 0);
	struct stream f = export_stream(v, id);
	for (size_t n = 0; n < f.n; n += n < 1500 ? 1 : 97)
		expect_refused(v, &f, n);
	expect_refused(v, &f, f.n - 1);
	f.bytes[f.n] = 0;
	expect_refused(v, &f, f.n + 1);
	assert_int_equal(env_snapshots(v), 1);
	env_expect_objects(v, 3);
	free(f.bytes);
}

/* --- hostile -------------------------------------------------------------------- */

static size_t first_record(const struct stream *f)
{
	uint32_t n = 0;

	memcpy(&n, f->bytes + 12, sizeof(n));
	return HEADER + n;
}

static void set_record(uint8_t *at, uint64_t offset, uint64_t length)
{
	memcpy(at, &offset, sizeof(offset));
	memcpy(at + 8, &length, sizeof(length));
}

static void test_records(void **state)
{
	static const uint64_t bad[][2] = {
		{ 0, 0 },
		{ 0, 4095 },
		{ 1, 4096 },
		{ 4096, 8192 + 262144 },
		{ 4096, UINT64_MAX },
		{ UINT64_MAX - 4095, 4096 },
		{ UINT64_MAX, 4096 },
		{ RAM_BYTES, 4096 },
		{ RAM_BYTES - 4096, 8192 },
		{ RAM_BYTES * 2, 4096 },
	};
	struct env *v = *state;
	char id[SNAP_ID_BYTES];

	assert_int_equal(publish(v, booted(v, 6), SNAP_MEMORY, id), 0);
	struct stream f = export_stream(v, id);
	/* Behind the state, which is one record, memory begins with block 1. */
	size_t at = first_record(&f) + RECORD + STATE_BYTES + RECORD;
	uint64_t was[2];
	memcpy(was, f.bytes + at, sizeof(was));
	assert_int_equal(was[0], 4096);
	assert_int_equal(was[1], 4096);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		set_record(f.bytes + at, bad[i][0], bad[i][1]);
		expect_refused(v, &f, f.n);
	}
	/* Its data at another place; the second record before the first. */
	set_record(f.bytes + at, 8192, 4096);
	expect_refused(v, &f, f.n);
	set_record(f.bytes + at, 40960, 4096);
	expect_refused(v, &f, f.n);
	set_record(f.bytes + at, was[0], was[1]);
	/* The state in two parts with a gap. */
	set_record(f.bytes + first_record(&f), 1, STATE_BYTES - 1);
	expect_refused(v, &f, f.n);
	env_expect_objects(v, 3);
	assert_int_equal(env_snapshots(v), 1);
	free(f.bytes);
}

static void test_versions(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	uint32_t version = 2;

	assert_int_equal(publish(v, booted(v, 6), SNAP_MEMORY, id), 0);
	struct stream f = export_stream(v, id);
	memcpy(f.bytes + 8, &version, sizeof(version));
	assert_int_equal(import_stream(v, f.bytes, f.n, id), -ENOTSUP);
	version = 0;
	memcpy(f.bytes + 8, &version, sizeof(version));
	assert_int_equal(import_stream(v, f.bytes, f.n, id), -ENOTSUP);
	version = 1;
	memcpy(f.bytes + 8, &version, sizeof(version));
	version = UINT32_MAX;
	memcpy(f.bytes + 12, &version, sizeof(version));
	assert_int_equal(import_stream(v, f.bytes, f.n, id), -EBADMSG);
	free(f.bytes);
}

/* An object that was damaged on disk is not passed on as a whole one. */
static void test_export_damaged(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	char path[256];
	struct saved *s = booted(v, 6);

	saved_ref(s);
	assert_int_equal(publish(v, s, SNAP_MEMORY, id), 0);
	(void)snprintf(path, sizeof(path), "%s/objects/%s", v->dir,
		       s->memory[0]->object);
	saved_unref(s);
	(void)chmod(path, 0600);
	int object = open(path, O_RDWR);
	put(object, 5, 99);
	(void)close(object);
	int fd = snapio_memory("stream", 0);
	assert_int_equal(export_to(v, id, fd), -EBADMSG);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(import_from(v, fd, id), -EBADMSG);
	(void)close(fd);
}

/* --- in the way -------------------------------------------------------------------- */

static int steps_left;

static int on_step(const char *step)
{
	(void)step;
	return steps_left-- > 0 ? 0 : -ENOSPC;
}

static void test_disk_full(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	int r = -1;
	int n = 0;

	assert_int_equal(publish(v, booted(v, 6), SNAP_MEMORY, id), 0);
	struct stream f = export_stream(v, id);
	int fd = snapio_memory("stream", 0);
	assert_int_equal(pwrite(fd, f.bytes, f.n, 0), f.n);
	free(f.bytes);
	for (; n < 200; n++) {
		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		steps_left = n;
		snapio_hook = on_step;
		r = import_from(v, fd, id);
		snapio_hook = NULL;
		if (r == 0)
			break;
		assert_int_equal(r, -ENOSPC);
		assert_int_equal(env_snapshots(v), 1);
		env_reopen(v); /* unlinking failed as well */
		if (env_snapshots(v) == 1)
			env_expect_objects(v, 3);
	}
	assert_in_range(n, 15, 199);
	(void)close(fd);
}

static void test_too_many(void **state)
{
	struct env *v = *state;
	struct exporting x[SNAP_TRANSFERS_MAX + 1];
	int pairs[SNAP_TRANSFERS_MAX + 1][2];
	char id[SNAP_ID_BYTES];
	struct saved *s = booted(v, 6);
	int ram = snapstore_file(v->st);

	/* Enough that no socket takes it all. */
	for (uint64_t b = 0; b < 500; b++)
		put(ram, b, 1);
	assert_int_equal(ftruncate(ram, (off_t)RAM_BYTES), 0);
	assert_int_equal(saved_add_memory(s, frozen(ram)), 0);
	assert_int_equal(publish(v, s, SNAP_MEMORY, id), 0);
	for (size_t i = 0; i <= SNAP_TRANSFERS_MAX; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, pairs[i]),
				 0);
		x[i] = (struct exporting){
			.e = { .fd = pairs[i][0], .on_done = on_exported },
		};
		assert_int_equal(snapstore_export(v->st, id, &x[i].e),
				 i < SNAP_TRANSFERS_MAX ? 0 : -EMFILE);
	}
	/* They wait for their readers; the store does not wait for them. */
	struct saved *again;
	assert_int_equal(load(v, id, &again), 0);
	saved_unref(again);
	/* A reader that goes away. */
	(void)close(pairs[0][1]);
	env_until(v, &x[0].done);
	assert_int_equal(x[0].error, -EPIPE);
	assert_int_equal(snapstore_export(v->st, id, &x[4].e), 0);
	/* The others are ended with the store. */
	env_reopen(v);
	for (size_t i = 1; i <= SNAP_TRANSFERS_MAX; i++) {
		assert_false(x[i].done);
		(void)close(pairs[i][1]);
	}
	for (size_t i = 0; i <= SNAP_TRANSFERS_MAX; i++)
		(void)close(pairs[i][0]);
}

static void test_bad_name(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct importing x = {
		.im = { .tenant = 1, .name = "a\tb", .on_done = on_imported },
	};

	assert_int_equal(publish(v, booted(v, 6), SNAP_MEMORY, id), 0);
	x.im.fd = snapio_memory("stream", 0);
	assert_int_equal(export_to(v, id, x.im.fd), 0);
	assert_int_equal(lseek(x.im.fd, 0, SEEK_SET), 0);
	assert_int_equal(snapstore_import(v->st, &x.im), 0);
	env_until(v, &x.done);
	assert_int_equal(x.error, -EINVAL);
	env_expect_objects(v, 3);
	(void)close(x.im.fd);
}

static void test_not_there(void **state)
{
	struct env *v = *state;
	struct exporting x = { .e = { .fd = -1 } };

	assert_int_equal(snapstore_export(v->st, "snap_x", &x.e), -ENOENT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, env_set_up, env_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip), TEST(test_disk_only),
		TEST(test_socket),     TEST(test_bits),
		TEST(test_lengths),    TEST(test_records),
		TEST(test_versions),   TEST(test_export_damaged),
		TEST(test_disk_full),  TEST(test_too_many),
		TEST(test_not_there),  TEST(test_bad_name),
	};

	(void)signal(SIGPIPE, SIG_IGN); /* as brigd does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
