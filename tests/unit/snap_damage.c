/* snap_damage.c - snapshots whose files were changed, lost or swapped.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/snap.h"

#define RANDOM_BITS 10000
#define FULL_LOADS 100

static int open_in(const struct env *v, const char *sub, const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s/%s", v->dir, sub, name);
	(void)chmod(path, 0600);
	return open(path, O_RDWR);
}

static int open_manifest(const struct env *v, const char *id)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%s.json", id);
	return open_in(v, "snapshots", name);
}

static void flip(int fd, uint64_t bit)
{
	uint8_t b = 0;

	assert_int_equal(pread(fd, &b, 1, (off_t)(bit / 8)), 1);
	b ^= (uint8_t)(1u << (bit % 8));
	assert_int_equal(pwrite(fd, &b, 1, (off_t)(bit / 8)), 1);
}

/* Opened again, the snapshot must be refused with this and say so. */
static void expect_refused(struct env *v, const char *id, int error,
			   const char *problem)
{
	struct saved *s;

	env_reopen(v);
	assert_int_equal(load(v, id, &s), error);
	const struct snap *snap = snapstore_find(v->st, 1, id);
	assert_non_null(snap);
	assert_int_equal(snap->status, SNAP_ERROR);
	if (strstr(snap->problem, problem) == NULL)
		fail_msg("problem is \"%s\"", snap->problem);
	assert_int_equal(load(v, id, &s), error);
}

static void expect_good(struct env *v, const char *id)
{
	struct saved *s;

	env_reopen(v);
	assert_int_equal(load(v, id, &s), 0);
	saved_unref(s);
}

/* A machine as small as possible, and the names of its objects. */
struct small {
	char id[SNAP_ID_BYTES];
	char state[OBJECT_ID_BYTES];
	char memory[OBJECT_ID_BYTES];
	char layer[OBJECT_ID_BYTES];
};

static void make_small(struct env *v, struct small *ret)
{
	struct saved *s = booted(v, 10);
	uint8_t bytes[100];
	int fd = snapstore_file(v->st);

	memset(bytes, 0x5a, sizeof(bytes));
	assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	saved_file_unref(s->state);
	s->state = frozen(fd);
	saved_ref(s);
	assert_int_equal(publish(v, s, SNAP_MEMORY, ret->id), 0);
	memcpy(ret->state, s->state->object, OBJECT_ID_BYTES);
	memcpy(ret->memory, s->memory[0]->object, OBJECT_ID_BYTES);
	memcpy(ret->layer, s->layers[0]->object, OBJECT_ID_BYTES);
	saved_unref(s);
}

static void test_state_every_bit(void **state)
{
	struct env *v = *state;
	struct small m;

	make_small(v, &m);
	for (uint64_t bit = 0; bit < 800; bit++) {
		int fd = open_in(v, "objects", m.state);
		flip(fd, bit);
		expect_refused(v, m.id, -EBADMSG, "has other content");
		flip(fd, bit);
		(void)close(fd);
	}
	expect_good(v, m.id);
}

/* Bits of blocks that have data, and data where there was a hole. */
static void test_memory_random_bits(void **state)
{
	static const uint64_t blocks[] = { 1, 5, RAM_BYTES / SPARSE_BLOCK - 1 };
	struct env *v = *state;
	uint8_t right[SPARSE_HASH];
	uint8_t wrong[SPARSE_HASH];
	struct small m;

	make_small(v, &m);
	srandom(1);
	int fd = open_in(v, "objects", m.memory);
	assert_int_equal(sparse_read(fd, RAM_BYTES, -1, NULL, right), 0);
	for (int i = 0; i < RANDOM_BITS; i++) {
		uint64_t bit = blocks[random() % 3] * SPARSE_BLOCK * 8 +
			       (uint64_t)random() % (SPARSE_BLOCK * 8);
		flip(fd, bit);
		assert_int_equal(sparse_read(fd, RAM_BYTES, -1, NULL, wrong),
				 0);
		assert_memory_not_equal(right, wrong, sizeof(right));
		if (i % (RANDOM_BITS / FULL_LOADS) == 0)
			expect_refused(v, m.id, -EBADMSG, "has other content");
		flip(fd, bit);
	}
	expect_good(v, m.id);
	put(fd, 7, 0); /* zeros are not a hole */
	expect_refused(v, m.id, -EBADMSG, "has other content");
	(void)close(fd);
}

static void test_layer_bit(void **state)
{
	struct env *v = *state;
	struct saved *s;
	struct small m;

	make_small(v, &m);
	int fd = open_in(v, "objects", m.layer);
	/* Also while it is believed to be verified. */
	assert_int_equal(load(v, m.id, &s), 0);
	saved_unref(s);
	snapstore_keep(v->st, 0);
	flip(fd, 3 * SPARSE_BLOCK * 8 + 5);
	assert_int_equal(load(v, m.id, &s), -EBADMSG);
	expect_refused(v, m.id, -EBADMSG, "has other content");
	flip(fd, 3 * SPARSE_BLOCK * 8 + 5);
	expect_good(v, m.id);
	assert_int_equal(fallocate(fd,
				   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   3 * SPARSE_BLOCK, SPARSE_BLOCK),
			 0);
	expect_refused(v, m.id, -EBADMSG, "has other content");
	(void)close(fd);
}

static void test_sizes(void **state)
{
	struct env *v = *state;
	const char *objects[3];
	struct small m;

	make_small(v, &m);
	objects[0] = m.state;
	objects[1] = m.memory;
	objects[2] = m.layer;
	for (int i = 0; i < 3; i++) {
		struct stat st;
		uint8_t last = 0;
		int fd = open_in(v, "objects", objects[i]);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(pread(fd, &last, 1, st.st_size - 1), 1);
		assert_int_equal(ftruncate(fd, st.st_size - 1), 0);
		expect_refused(v, m.id, -EBADMSG, "has another size");
		assert_int_equal(ftruncate(fd, st.st_size + 4096), 0);
		expect_refused(v, m.id, -EBADMSG, "has another size");
		assert_int_equal(ftruncate(fd, st.st_size), 0);
		assert_int_equal(pwrite(fd, &last, 1, st.st_size - 1), 1);
		expect_good(v, m.id);
		(void)close(fd);
	}
}

static void rename_object(const struct env *v, const char *from, const char *to)
{
	char a[256];
	char b[256];

	(void)snprintf(a, sizeof(a), "%s/objects/%s", v->dir, from);
	(void)snprintf(b, sizeof(b), "%s/objects/%s", v->dir, to);
	assert_int_equal(rename(a, b), 0);
}

static void test_objects_swapped(void **state)
{
	struct env *v = *state;
	struct small m[2];
	char aside[OBJECT_ID_BYTES];

	make_small(v, &m[0]);
	int fd = snapstore_file(v->st);
	(void)close(fd);
	make_small(v, &m[1]);
	fd = open_in(v, "objects", m[1].state);
	flip(fd, 1); /* another state, whole in itself */
	(void)close(fd);
	id_make(aside, "obj_");
	rename_object(v, m[0].state, aside);
	rename_object(v, m[1].state, m[0].state);
	rename_object(v, aside, m[1].state);
	expect_refused(v, m[0].id, -EBADMSG, "has other content");
	/* The second has an equal one from the first now. */
	expect_good(v, m[1].id);
}

static void test_objects_gone(void **state)
{
	struct env *v = *state;
	struct small m;
	char path[256];

	make_small(v, &m);
	(void)snprintf(path, sizeof(path), "%s/objects/%s", v->dir, m.memory);
	assert_int_equal(unlink(path), 0);
	expect_refused(v, m.id, -EBADMSG, "is missing");
	assert_int_equal(symlink("/etc/passwd", path), 0);
	expect_refused(v, m.id, -EBADMSG, "is not a file");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_refused(v, m.id, -EBADMSG, "is not a file");
	/* It can be deleted all the same, and others are as they were. */
	make_small(v, &m);
	assert_int_equal(env_snapshots(v), 2);
}

static void rewrite_manifest(const struct env *v, const char *id,
			     const char *text, size_t n)
{
	int fd = open_manifest(v, id);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, text, n, 0), n);
	(void)close(fd);
}

static void test_manifests(void **state)
{
	struct env *v = *state;
	struct small m[2];
	char text[2][4096];
	size_t n[2];

	for (int i = 0; i < 2; i++) {
		make_small(v, &m[i]);
		int fd = open_manifest(v, m[i].id);
		n[i] = (size_t)pread(fd, text[i], sizeof(text[i]), 0);
		(void)close(fd);
	}
	rewrite_manifest(v, m[0].id, text[0], n[0] - 1);
	expect_refused(v, m[0].id, -EBADMSG, "cut short");
	rewrite_manifest(v, m[0].id, text[0], 0);
	expect_refused(v, m[0].id, -EBADMSG, "cut short");
	rewrite_manifest(v, m[0].id, text[1], n[1]);
	expect_refused(v, m[0].id, -EBADMSG, "of another snapshot");
	text[0][100] ^= 4;
	rewrite_manifest(v, m[0].id, text[0], n[0]);
	text[0][100] ^= 4;
	expect_refused(v, m[0].id, -EBADMSG, "checksum differs");
	/* What a damaged manifest may name is not removed. */
	assert_int_equal(env_count(v, "objects"), 6);
	expect_good(v, m[1].id);
	rewrite_manifest(v, m[0].id, text[0], n[0]);
	expect_good(v, m[0].id);

	/* Damaged, it can be deleted; its objects go at the next start. */
	rewrite_manifest(v, m[0].id, text[0], 10);
	env_reopen(v);
	assert_int_equal(snapstore_delete(v->st, m[0].id), 0);
	env_reopen(v);
	env_expect_objects(v, 3);
	expect_good(v, m[1].id);
}

static void test_strangers(void **state)
{
	static const char *const names[] = { "snap_x.json", "README",
					     "snap_..json" };
	struct env *v = *state;
	struct small m;
	char path[256];

	make_small(v, &m);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/snapshots/%s", v->dir,
			       names[i]);
		(void)close(open(path, O_CREAT | O_WRONLY, 0600));
	}
	(void)snprintf(path, sizeof(path), "%s/objects/notes", v->dir);
	(void)close(open(path, O_CREAT | O_WRONLY, 0600));
	expect_good(v, m.id);
	assert_int_equal(env_snapshots(v), 1);
	assert_int_equal(env_count(v, "objects"), 4);
	assert_int_equal(env_count(v, "snapshots"), 4);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, env_set_up, env_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_state_every_bit), TEST(test_memory_random_bits),
		TEST(test_layer_bit),       TEST(test_sizes),
		TEST(test_objects_swapped), TEST(test_objects_gone),
		TEST(test_manifests),       TEST(test_strangers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
