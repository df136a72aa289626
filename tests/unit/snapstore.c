/* snapstore.c - snapshots that are made, loaded, shared and deleted.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/snap.h"

static void check_booted(const struct saved *s, uint8_t fill)
{
	assert_int_equal(get(s->base->fd, 0), -1);
	assert_int_equal(get(s->base->fd, 1), fill);
	assert_int_equal(get(s->base->fd, 2), -1);
	assert_int_equal(get(s->base->fd, 5), fill + 1);
	assert_int_equal(get(s->base->fd, RAM_BYTES / SPARSE_BLOCK - 1),
			 fill + 2);
	assert_int_equal(get(s->layers[0]->fd, 3), fill);
	assert_int_equal(get(s->layers[0]->fd, 4), -1);
}

static void check_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	assert_true((seals & F_SEAL_WRITE) != 0);
	assert_true((seals & F_SEAL_SHRINK) != 0);
	assert_true((seals & F_SEAL_GROW) != 0);
}

static void test_round_trip(void **state)
{
	struct env *v = *state;
	struct shape shape = test_shape();
	char id[SNAP_ID_BYTES];
	struct stat st;
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	env_reopen(v);
	const struct snap *snap = snapstore_find(v->st, 1, id);
	assert_non_null(snap);
	assert_int_equal(snap->status, SNAP_READY);
	assert_int_equal(snap->kind, SNAP_MEMORY);
	assert_true(snap->quiesced);
	assert_true(snap->created_ms > 0);
	assert_string_equal(snap->name, "test");
	assert_true(shape_equal(&snap->shape, &shape));
	assert_int_equal(load(v, id, &s), 0);
	check_booted(s, 10);
	check_sealed(s->base->fd);
	check_sealed(s->state->fd);
	assert_null(s->delta);
	assert_int_equal(fstat(s->state->fd, &st), 0);
	assert_int_equal(st.st_size, STATE_BYTES);
	assert_int_equal(get(s->state->fd, 0), 10);
	assert_string_equal(s->hostname_hint, "box");
	assert_true(shape_equal(&s->shape, &shape));
	assert_int_equal(fcntl(s->layers[0]->fd, F_GETFL) & O_ACCMODE,
			 O_RDONLY);
	saved_unref(s);
}

static void test_tenants(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	unsigned int n = 0;

	assert_int_equal(publish(v, booted(v, 1), SNAP_MEMORY, id), 0);
	assert_null(snapstore_find(v->st, 2, id));
	assert_non_null(snapstore_find(v->st, 0, id));
	snapstore_each(v->st, 2, count_one, &n);
	assert_int_equal(n, 0);
	snapstore_each(v->st, 1, count_one, &n);
	assert_int_equal(n, 1);
}

static void test_unknown(void **state)
{
	struct env *v = *state;
	char id[BRIG_ID_BYTES];
	struct saved *s;

	id_make(id, "snap_");
	assert_int_equal(load(v, id, &s), -ENOENT);
	assert_int_equal(snapstore_delete(v->st, id), -ENOENT);
	assert_int_equal(load(v, "../../etc/passwd", &s), -ENOENT);
}

/* While it is made it is shown, and can be neither used nor deleted. */
static void test_creating(void **state)
{
	struct env *v = *state;
	struct saved *s = booted(v, 1);
	struct publishing p;
	struct loading l = { .load.on_done = on_loaded };

	draft(&p, s, SNAP_MEMORY, "slow");
	snapstore_publish(v->st, &p.draft);
	const struct snap *snap = snapstore_find(v->st, 1, p.draft.snap.id);
	assert_non_null(snap);
	assert_int_equal(snap->status, SNAP_CREATING);
	assert_int_equal(snapstore_delete(v->st, p.draft.snap.id), -EBUSY);
	/* Its load comes after it in the queue. */
	snapstore_load(v->st, p.draft.snap.id, &l.load);
	env_until(v, &l.done);
	assert_true(p.done);
	assert_int_equal(p.error, 0);
	assert_int_equal(l.error, 0);
	assert_int_equal(p.draft.snap.status, SNAP_READY);
	assert_true(p.draft.snap.own_bytes >= (uint64_t)7 * SPARSE_BLOCK);
	saved_unref(l.saved);
	saved_unref(s);
}

static void test_disk_only(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 4), SNAP_DISK, id), 0);
	env_expect_objects(v, 1);
	env_reopen(v);
	assert_int_equal(load(v, id, &s), 0);
	assert_null(s->state);
	assert_null(s->base);
	assert_int_equal(s->memory_count, 0);
	assert_int_equal(s->layer_count, 1);
	assert_int_equal(get(s->layers[0]->fd, 9), 4);
	saved_unref(s);
}

/* What cannot be written down is refused and leaves nothing. */
static void test_refused_drafts(void **state)
{
	struct env *v = *state;
	struct saved *s = booted(v, 1);
	struct publishing p;
	int short_ram = snapstore_file(v->st);

	draft(&p, s, SNAP_MEMORY, "a\nb");
	snapstore_publish(v->st, &p.draft);
	env_until(v, &p.done);
	assert_int_equal(p.error, -EINVAL);
	draft(&p, s, SNAP_MEMORY, "");
	snapstore_publish(v->st, &p.draft);
	env_until(v, &p.done);
	assert_int_equal(p.error, -EINVAL);

	put(short_ram, 0, 1);
	assert_int_equal(saved_add_memory(s, frozen(short_ram)), 0);
	draft(&p, s, SNAP_MEMORY, "short");
	snapstore_publish(v->st, &p.draft);
	env_until(v, &p.done);
	assert_int_equal(p.error, -EINVAL);
	saved_unref(s);

	assert_int_equal(env_snapshots(v), 0);
	env_expect_objects(v, 0);
	assert_int_equal(env_count(v, "snapshots"), 0);
}

static const char *fail_at;
static int fail_after; /* such steps that still work */

static int fail_step(const char *step)
{
	if (fail_at == NULL || strcmp(step, fail_at) != 0)
		return 0;
	return fail_after-- > 0 ? 0 : -ENOSPC;
}

/* A draft that failed may be tried again, even after its files had names. */
static void test_try_again(void **state)
{
	struct env *v = *state;
	struct saved *s = booted(v, 1);
	struct publishing p;
	struct saved *again;

	snapio_hook = fail_step;
	fail_at = "link";
	fail_after = 3; /* the manifest's */
	draft(&p, s, SNAP_MEMORY, "first");
	snapstore_publish(v->st, &p.draft);
	env_until(v, &p.done);
	assert_int_equal(p.error, -ENOSPC);
	assert_int_equal(env_count(v, "snapshots"), 0);
	assert_int_equal(env_snapshots(v), 0);
	fail_at = NULL;
	draft(&p, s, SNAP_MEMORY, "second");
	snapstore_publish(v->st, &p.draft);
	env_until(v, &p.done);
	assert_int_equal(p.error, 0);
	saved_unref(s);
	assert_int_equal(load(v, p.draft.snap.id, &again), 0);
	check_booted(again, 1);
	saved_unref(again);
}

/* --- sharing --------------------------------------------------------------- */

static void test_shared_objects(void **state)
{
	struct env *v = *state;
	char first[SNAP_ID_BYTES];
	char second[SNAP_ID_BYTES];
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, first), 0);
	env_expect_objects(v, 3);
	uint64_t alone = snapstore_find(v->st, 1, first)->own_bytes;
	assert_true(alone > 0);
	assert_int_equal(snapstore_find(v->st, 1, first)->shared_bytes, 0);

	assert_int_equal(load(v, first, &s), 0);
	struct saved *next = resumed(v, s, 5, 6, 77);
	saved_unref(s);
	assert_int_equal(publish(v, next, SNAP_MEMORY, second), 0);
	env_expect_objects(v, 6);
	uint64_t shared = snapstore_find(v->st, 1, second)->shared_bytes;
	assert_true(shared > 0);
	assert_int_equal(snapstore_find(v->st, 1, first)->shared_bytes, shared);
	assert_true(snapstore_find(v->st, 1, first)->own_bytes < alone);

	/* The first goes; what the second is made of stays. */
	assert_int_equal(snapstore_delete(v->st, first), 0);
	assert_null(snapstore_find(v->st, 1, first));
	env_expect_objects(v, 5);
	assert_int_equal(snapstore_find(v->st, 1, second)->shared_bytes, 0);
	env_reopen(v);
	assert_int_equal(load(v, second, &s), 0);
	check_booted(s, 10);
	assert_int_equal(get(s->delta->fd, 5), 77);
	assert_int_equal(get(s->delta->fd, 1), -1);
	assert_int_equal(s->layer_count, 2);
	assert_int_equal(get(s->layers[1]->fd, 3), 77);
	saved_unref(s);

	assert_int_equal(snapstore_delete(v->st, second), 0);
	env_expect_objects(v, 0);
	assert_int_equal(env_count(v, "snapshots"), 0);
}

/* Who runs from a snapshot keeps its objects, deleted or not, and can still
 * make snapshots of its own. */
static void test_delete_in_use(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	char next[SNAP_ID_BYTES];
	struct saved *s;
	struct saved *again;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	assert_int_equal(load(v, id, &s), 0);
	assert_int_equal(snapstore_delete(v->st, id), 0);
	env_expect_objects(v, 3);
	check_booted(s, 10);
	assert_int_equal(publish(v, resumed(v, s, 1, 2, 5), SNAP_MEMORY, next),
			 0);
	saved_unref(s);
	env_expect_objects(v, 5); /* the first state is gone */
	env_reopen(v);
	assert_int_equal(load(v, next, &again), 0);
	check_booted(again, 10);
	assert_int_equal(get(again->delta->fd, 1), 5);
	saved_unref(again);
	assert_int_equal(snapstore_delete(v->st, next), 0);
	env_expect_objects(v, 0);
}

/* A live clone: RAM and state in memfds, files that two machines share. */
static void test_clones_share(void **state)
{
	struct env *v = *state;
	struct shape shape = test_shape();
	struct saved *source = saved_new(&shape);
	int ram = ram_file(v, true);
	int st_fd = snapio_memory("state", 0);
	char ids[2][SNAP_ID_BYTES];
	struct saved *s[2];

	put(ram, 2, 20);
	put(ram, 3, 21);
	put(st_fd, 0, 9);
	source->state = frozen(st_fd);
	source->base = saved_memory_new(saved_freeze(ram));
	assert_int_equal(
		saved_add_memory(source, saved_file_new(dup(source->base->fd))),
		0);
	assert_int_equal(saved_add_layer(source, layer_file(v, 20)), 0);
	for (int i = 0; i < 2; i++) {
		struct saved *clone = resumed(v, source, 3, 4, (uint8_t)i);
		clone->base = saved_memory_ref(source->base);
		assert_int_equal(publish(v, clone, SNAP_MEMORY, ids[i]), 0);
	}
	/* Full image and first layer are there once. */
	env_expect_objects(v, 8);
	assert_true(source->layers[0]->object[0] != '\0');
	for (int i = 0; i < 2; i++) {
		assert_int_equal(load(v, ids[i], &s[i]), 0);
		assert_int_equal(get(s[i]->base->fd, 2), 20);
		assert_int_equal(get(s[i]->delta->fd, 3), i);
		/* And in memory no second time either. */
		assert_ptr_equal(s[i]->base, source->base);
	}
	saved_unref(source);
	saved_unref(s[0]);
	saved_unref(s[1]);
	env_reopen(v);
	assert_int_equal(load(v, ids[0], &s[0]), 0);
	assert_int_equal(load(v, ids[1], &s[1]), 0);
	assert_ptr_equal(s[0]->base, s[1]->base);
	assert_int_equal(get(s[0]->base->fd, 2), 20);
	saved_unref(s[0]);
	saved_unref(s[1]);
}

/* --- what stays in memory --------------------------------------------------- */

static void test_kept(void **state)
{
	struct env *v = *state;
	char ids[2][SNAP_ID_BYTES];
	struct saved *s;
	struct saved *again;
	struct saved_memory *base;

	assert_int_equal(publish(v, booted(v, 1), SNAP_MEMORY, ids[0]), 0);
	assert_int_equal(load(v, ids[0], &s), 0);
	assert_int_equal(
		publish(v, resumed(v, s, 8, 9, 2), SNAP_MEMORY, ids[1]), 0);
	assert_int_equal(load(v, ids[0], &again), 0);
	assert_ptr_equal(s, again);
	saved_unref(again);
	base = saved_memory_ref(s->base);
	saved_unref(s);
	assert_int_equal(load(v, ids[1], &s), 0);
	assert_ptr_equal(s->base, base);
	assert_int_equal(s->refs, 2);
	saved_memory_unref(base);
	saved_ref(s);

	/* In use: it stays. */
	snapstore_keep(v->st, 0);
	assert_int_equal(s->refs, 3);
	saved_unref(s);
	saved_unref(s);
	assert_int_equal(s->refs, 1);
	/* Of the store alone: it goes. */
	int fd = s->base->fd;
	assert_true(fcntl(fd, F_GETFD) >= 0);
	snapstore_sweep(v->st);
	assert_true(fcntl(fd, F_GETFD) < 0);
}

static void test_templates_stay(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 1), SNAP_TEMPLATE, id), 0);
	assert_int_equal(load(v, id, &s), 0);
	saved_unref(s);
	snapstore_keep(v->st, 0);
	assert_int_equal(s->refs, 1);
	assert_int_equal(snapstore_delete(v->st, id), 0);
	env_expect_objects(v, 0);
}

/* --- long histories --------------------------------------------------------- */

#define CHAIN 50
#define MODEL_BLOCKS 400

/* Each generation changes one block of its own, one that all change and, now
 * and then, many. */
static void test_chain(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	uint8_t model[MODEL_BLOCKS] = { 0 };
	struct saved *s = booted(v, 1);

	for (unsigned int g = 1; g <= CHAIN; g++) {
		unsigned int many = g % 10 == 0 ? 100 : 2;
		unsigned int at = 10 + (g * 37) % (MODEL_BLOCKS - 120);
		assert_int_equal(publish(v, s, SNAP_MEMORY, id), 0);
		assert_int_equal(load(v, id, &s), 0);
		assert_true(s->memory_count <= 10);
		struct saved *next = resumed(v, s, at, at + many, (uint8_t)g);
		memset(model + at, (int)g, many);
		saved_unref(s);
		s = next;
	}
	assert_int_equal(publish(v, s, SNAP_MEMORY, id), 0);
	env_reopen(v);
	assert_int_equal(load(v, id, &s), 0);
	assert_int_equal(s->layer_count, CHAIN + 1);
	for (unsigned int b = 10; b < MODEL_BLOCKS; b++)
		assert_int_equal(get(s->delta->fd, b),
				 model[b] == 0 ? -1 : model[b]);
	saved_unref(s);
}

/* All of a history can be deleted but its end, and that works. */
static void test_chain_deleted(void **state)
{
	struct env *v = *state;
	char ids[8][SNAP_ID_BYTES];
	struct saved *s = booted(v, 1);

	for (unsigned int g = 0; g < 8; g++) {
		assert_int_equal(publish(v, s, SNAP_MEMORY, ids[g]), 0);
		assert_int_equal(load(v, ids[g], &s), 0);
		struct saved *next =
			resumed(v, s, 20 + g, 21 + g, (uint8_t)(g + 1));
		saved_unref(s);
		s = next;
	}
	saved_unref(s);
	for (unsigned int g = 0; g < 7; g++)
		assert_int_equal(snapstore_delete(v->st, ids[g]), 0);
	env_reopen(v);
	assert_int_equal(load(v, ids[7], &s), 0);
	for (unsigned int g = 0; g < 7; g++)
		assert_int_equal(get(s->delta->fd, 20 + g), g + 1);
	unsigned int objects = 1 + s->memory_count + s->layer_count;
	saved_unref(s);
	env_expect_objects(v, objects);
	assert_int_equal(snapstore_delete(v->st, ids[7]), 0);
	env_expect_objects(v, 0);
}

/* --- merging, freezing ------------------------------------------------------ */

struct merging {
	struct snap_merge merge;
	bool done;
	int result;
};

static void on_merged(struct snap_merge *m, int fd_or_error)
{
	struct merging *p = container_of(m, struct merging, merge);

	p->result = fd_or_error;
	p->done = true;
}

static void test_merge(void **state)
{
	struct env *v = *state;
	int older = ram_file(v, true);
	int newer = ram_file(v, true);
	struct merging p = { .merge.on_done = on_merged };

	put(older, 1, 1);
	put(older, 2, 1);
	put(newer, 2, 2);
	put(newer, 4, 2);
	p.merge.older_fd = older;
	p.merge.newer_fd = newer;
	snapstore_merge(v->st, &p.merge);
	env_until(v, &p.done);
	assert_true(p.result >= 0);
	check_sealed(p.result);
	assert_int_equal(get(p.result, 0), -1);
	assert_int_equal(get(p.result, 1), 1);
	assert_int_equal(get(p.result, 2), 2);
	assert_int_equal(get(p.result, 3), -1);
	assert_int_equal(get(p.result, 4), 2);
	(void)close(p.result);
	(void)close(older);
	(void)close(newer);
}

static void test_freeze(void **state)
{
	struct env *v = *state;
	int fd = saved_freeze(snapstore_file(v->st));

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), -1);
	(void)close(fd);
	fd = ram_file(v, true);
	void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(saved_freeze(dup(fd)), -EBUSY);
	(void)munmap(m, 4096);
	fd = saved_freeze(fd);
	assert_true(fd >= 0);
	check_sealed(fd);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	(void)close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, env_set_up, env_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip),    TEST(test_tenants),
		TEST(test_unknown),       TEST(test_creating),
		TEST(test_disk_only),     TEST(test_refused_drafts),
		TEST(test_try_again),     TEST(test_shared_objects),
		TEST(test_delete_in_use), TEST(test_clones_share),
		TEST(test_kept),          TEST(test_templates_stay),
		TEST(test_chain),         TEST(test_chain_deleted),
		TEST(test_merge),         TEST(test_freeze),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
