/* snap.h - a snapshot store in a directory of its own, for tests.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Machines are small: 128 MiB of RAM, of which a few blocks have data.
 */
#ifndef TESTS_UNIT_SNAP_H
#define TESTS_UNIT_SNAP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/fd.h"
#include "src/brigd/id.h"
#include "src/brigd/snapio.h"
#include "src/brigd/snapstore.h"
#include "src/brigd/sparse.h"

#define RAM_MIB 128u
#define RAM_BYTES ((uint64_t)RAM_MIB << 20)
#define DISK_BYTES (64ull << 20)
#define STATE_BYTES 5000u

struct env {
	char dir[64];
	struct loop loop;
	struct worker *worker;
	struct snapstore *st;
};

static maybe_unused void env_open(struct env *v)
{
	assert_int_equal(loop_init(&v->loop), 0);
	v->worker = worker_new(&v->loop);
	assert_non_null(v->worker);
	v->st = snapstore_open(v->dir, v->worker);
	assert_non_null(v->st);
	snapstore_keep(v->st, UINT64_MAX);
}

static maybe_unused void env_close(struct env *v)
{
	worker_free(v->worker);
	snapstore_close(v->st);
	loop_fini(&v->loop);
}

static maybe_unused void env_reopen(struct env *v)
{
	env_close(v);
	env_open(v);
}

static maybe_unused struct env *env_new(void)
{
	struct env *v = calloc(1, sizeof(*v));

	(void)snprintf(v->dir, sizeof(v->dir), "/tmp/brig_snap.XXXXXX");
	assert_non_null(mkdtemp(v->dir));
	env_open(v);
	return v;
}

/* Names in a subdirectory. */
static maybe_unused unsigned int env_count(const struct env *v, const char *sub)
{
	char path[128];
	unsigned int n = 0;
	struct dirent *d;

	(void)snprintf(path, sizeof(path), "%s/%s", v->dir, sub);
	DIR *dir = opendir(path);
	assert_non_null(dir);
	while ((d = readdir(dir)) != NULL)
		n += d->d_name[0] != '.';
	(void)closedir(dir);
	return n;
}

static maybe_unused void env_remove(struct env *v)
{
	static const char *const subs[] = { "objects", "snapshots" };
	char path[512];
	struct dirent *d;

	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", v->dir, subs[i]);
		DIR *dir = opendir(path);
		while (dir != NULL && (d = readdir(dir)) != NULL)
			(void)unlinkat(dirfd(dir), d->d_name, 0);
		if (dir != NULL)
			(void)closedir(dir);
		(void)rmdir(path);
	}
	(void)rmdir(v->dir);
	free(v);
}

static maybe_unused void env_free(struct env *v)
{
	env_close(v);
	env_remove(v);
}

/* Runs the loop until *flag. */
static maybe_unused void env_until(struct env *v, const bool *flag)
{
	for (int i = 0; i < 10000 && !*flag; i++)
		assert_int_equal(loop_once(&v->loop, 100), 0);
	assert_true(*flag);
}

/* Sweeps; there must be `n` objects, as soon as the reaper is done. */
static maybe_unused void env_expect_objects(struct env *v, unsigned int n)
{
	snapstore_sweep(v->st);
	for (int i = 0; i < 200 && env_count(v, "objects") != n; i++)
		assert_int_equal(loop_once(&v->loop, 10), 0);
	assert_int_equal(env_count(v, "objects"), n);
}

static maybe_unused void count_one(void *arg, const struct snap *snap)
{
	unsigned int *n = arg;

	(void)snap;
	(*n)++;
}

static maybe_unused unsigned int env_snapshots(struct env *v)
{
	unsigned int n = 0;

	snapstore_each(v->st, 0, count_one, &n);
	return n;
}

/* --- machines -------------------------------------------------------------- */

static maybe_unused void put(int fd, uint64_t block, uint8_t value)
{
	uint8_t bytes[SPARSE_BLOCK];

	memset(bytes, value, sizeof(bytes));
	assert_int_equal(
		pwrite(fd, bytes, sizeof(bytes), (off_t)(block * SPARSE_BLOCK)),
		sizeof(bytes));
}

/* The value of a block, or -1 for a hole. */
static maybe_unused int get(int fd, uint64_t block)
{
	uint8_t b = 0;
	off_t at = (off_t)(block * SPARSE_BLOCK);

	if (lseek(fd, at, SEEK_DATA) != at)
		return -1;
	assert_int_equal(pread(fd, &b, 1, at), 1);
	return b;
}

static maybe_unused int ram_file(struct env *v, bool in_memory)
{
	int fd = in_memory ? snapio_memory("test", RAM_BYTES)
			   : snapstore_file(v->st);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)RAM_BYTES), 0);
	return fd;
}

static maybe_unused struct saved_file *frozen(int fd)
{
	fd = saved_freeze(fd);
	assert_true(fd >= 0);
	struct saved_file *f = saved_file_new(fd);
	assert_non_null(f);
	return f;
}

static maybe_unused struct shape test_shape(void)
{
	struct shape s = { .vcpus = 1, .memory_mib = RAM_MIB };

	(void)snprintf(s.image, sizeof(s.image), "default");
	s.disk_bytes = DISK_BYTES;
	s.base_bytes = 1000;
	s.image_hash[3] = 7;
	return s;
}

static maybe_unused struct saved_file *state_file(struct env *v, uint8_t fill)
{
	uint8_t bytes[STATE_BYTES];
	int fd = snapstore_file(v->st);

	memset(bytes, fill, sizeof(bytes));
	assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	return frozen(fd);
}

static maybe_unused struct saved_file *layer_file(struct env *v, uint8_t fill)
{
	int fd = snapstore_file(v->st);

	put(fd, 3, fill);
	put(fd, 9, fill);
	return frozen(fd);
}

/* A machine that was booted: full image with blocks 1, 5 and the last. */
static maybe_unused struct saved *booted(struct env *v, uint8_t fill)
{
	struct shape shape = test_shape();
	struct saved *s = saved_new(&shape);
	int ram = ram_file(v, false);

	put(ram, 1, fill);
	put(ram, 5, (uint8_t)(fill + 1));
	put(ram, RAM_BYTES / SPARSE_BLOCK - 1, (uint8_t)(fill + 2));
	(void)snprintf(s->hostname_hint, sizeof(s->hostname_hint), "box");
	s->state = state_file(v, fill);
	assert_int_equal(saved_add_memory(s, frozen(ram)), 0);
	assert_int_equal(saved_add_layer(s, layer_file(v, fill)), 0);
	return s;
}

/* A machine that goes on from `from`: its blocks first..end-1 changed. */
static maybe_unused struct saved *resumed(struct env *v, struct saved *from,
					  uint64_t first, uint64_t end,
					  uint8_t fill)
{
	struct saved *s = saved_new(&from->shape);
	int ram = ram_file(v, false);

	for (uint64_t b = first; b < end; b++)
		put(ram, b, fill);
	s->state = state_file(v, fill);
	for (unsigned int i = 0; i < from->memory_count; i++)
		assert_int_equal(
			saved_add_memory(s, saved_file_ref(from->memory[i])),
			0);
	for (unsigned int i = 0; i < from->layer_count; i++)
		assert_int_equal(
			saved_add_layer(s, saved_file_ref(from->layers[i])), 0);
	assert_int_equal(saved_add_memory(s, frozen(ram)), 0);
	assert_int_equal(saved_add_layer(s, layer_file(v, fill)), 0);
	return s;
}

/* --- calls that end in the loop ---------------------------------------------- */

struct publishing {
	struct snap_draft draft;
	bool done;
	int error;
};

static maybe_unused void on_published(struct snap_draft *d, int error)
{
	struct publishing *p = container_of(d, struct publishing, draft);

	p->error = error;
	p->done = true;
}

static maybe_unused void draft(struct publishing *p, struct saved *s,
			       enum snap_kind kind, const char *name)
{
	*p = (struct publishing){ .draft = { .saved = s,
					     .on_done = on_published } };
	p->draft.snap.kind = kind;
	p->draft.snap.tenant = 1;
	p->draft.snap.quiesced = true;
	(void)snprintf(p->draft.snap.name, NAME_BYTES, "%s", name);
	id_make(p->draft.snap.source_id, "sb_");
}

/* Publishes and drops the reference; 0 or -errno. */
static maybe_unused int publish(struct env *v, struct saved *s,
				enum snap_kind kind, char ret_id[SNAP_ID_BYTES])
{
	struct publishing p;

	draft(&p, s, kind, "test");
	snapstore_publish(v->st, &p.draft);
	env_until(v, &p.done);
	memcpy(ret_id, p.draft.snap.id, SNAP_ID_BYTES);
	saved_unref(s);
	return p.error;
}

struct loading {
	struct snap_load load;
	bool done;
	int error;
	struct saved *saved;
};

static maybe_unused void on_loaded(struct snap_load *l, int error,
				   struct saved *saved)
{
	struct loading *p = container_of(l, struct loading, load);

	p->error = error;
	p->saved = saved;
	p->done = true;
}

static maybe_unused int load(struct env *v, const char *id, struct saved **ret)
{
	struct loading p = { .load.on_done = on_loaded };

	snapstore_load(v->st, id, &p.load);
	env_until(v, &p.done);
	assert_true((p.saved != NULL) == (p.error == 0));
	*ret = p.saved;
	return p.error;
}

/* For cmocka: a store for each test, and nothing that it hooked stays. */
static inline int env_set_up(void **state)
{
	snapio_hook = NULL;
	*state = env_new();
	return 0;
}

static inline int env_tear_down(void **state)
{
	snapio_hook = NULL;
	env_free(*state);
	return 0;
}

#endif
