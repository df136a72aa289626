/* snapload.c - a snapshot on disk becomes a saved machine in memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * RAM and state are hashed while they are copied into memfds, so what was
 * verified is what is used, whatever happens to the files later. Disk layers
 * are used where they are: they are hashed once, and again if their file looks
 * touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "num.h"
#include "snapio.h"
#include "snapstore_priv.h"

/* Loaded snapshots that nobody runs from: each may hold as many descriptors
 * as it has layers. */
#define IDLE_MAX 16u

struct wanted {
	struct manifest_object is;
	struct object_stamp verified; /* before, then now */
	struct saved_file *file;      /* a reference */
	int fd; /* owned: state memfd, or disk layer; -1 */
};

struct load {
	struct op op;
	struct snap_load *request; /* borrowed until on_done */
	char id[SNAP_ID_BYTES];
	struct shape shape;
	char hostname_hint[NAME_BYTES];
	struct saved *ready; /* a reference: it was in memory */
	unsigned int state_count;
	unsigned int memory_count;
	unsigned int layer_count;
	struct wanted *wanted;        /* owned array, as in the manifest */
	struct saved_memory *base;    /* a reference; NULL: to be read */
	int base_fd;                  /* owned */
	int delta_fd;                 /* owned */
	char object[OBJECT_ID_BYTES]; /* -EBADMSG: which */
	const char *problem;          /* and why */
};

static struct load *load_of(struct op *op)
{
	return container_of(op, struct load, op);
}

static unsigned int load_count(const struct load *l)
{
	return l->state_count + l->memory_count + l->layer_count;
}

/* --- in the loop: what is wanted -------------------------------------------- */

static int want(struct load *l, const struct entry *e)
{
	unsigned int n = e->state_count + e->memory_count + e->layer_count;

	l->wanted = calloc(n + 1, sizeof(*l->wanted));
	if (l->wanted == NULL)
		return -ENOMEM;
	for (unsigned int i = 0; i < n; i++)
		l->wanted[i].fd = -1;
	l->state_count = e->state_count;
	l->memory_count = e->memory_count;
	l->layer_count = e->layer_count;
	for (unsigned int i = 0; i < n; i++) {
		struct object *o = e->objects[i];
		l->wanted[i].is = o->is;
		l->wanted[i].verified = o->verified;
		l->wanted[i].file = store_hold(o);
		if (l->wanted[i].file == NULL)
			return -ENOMEM;
	}
	if (e->memory_count > 0) {
		struct object *base = e->objects[e->state_count];
		if (base->memory != NULL)
			l->base = saved_memory_ref(base->memory);
	}
	return 0;
}

/* 1: it is in memory. */
static int load_begin(struct op *op)
{
	struct load *l = load_of(op);
	struct entry *e = store_find_entry(op->st, l->id);

	if (e == NULL)
		return -ENOENT;
	if (e->snap.status == SNAP_CREATING)
		return -EBUSY;
	if (e->snap.status == SNAP_ERROR)
		return e->error;
	if (e->loaded != NULL) {
		l->ready = saved_ref(e->loaded);
		e->used_ns = now_ns();
		return 1;
	}
	l->shape = e->snap.shape;
	memcpy(l->hostname_hint, e->hostname_hint, sizeof(l->hostname_hint));
	return want(l, e);
}

/* --- in the worker --------------------------------------------------------- */

#define HUGE_PAGE (2u << 20)

/* False where the kernel would fill in as many small pages instead. */
static bool may_be_huge(void)
{
	char text[128] = "";
	cleanup_fd int fd =
		open("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		     O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fd_read_all(fd, text, sizeof(text) - 1) < 0)
		return false;
	return strstr(text, "[advise]") != NULL ||
	       strstr(text, "[within_size]") != NULL;
}

static void populate_huge(int fd, uint8_t *p, uint64_t bytes)
{
	uint64_t at = 0;

	while (at + HUGE_PAGE <= bytes) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0)
			return;
		at = (uint64_t)data / HUGE_PAGE * HUGE_PAGE;
		if (at + HUGE_PAGE <= bytes)
			(void)madvise(p + at, HUGE_PAGE, MADV_POPULATE_WRITE);
		at += HUGE_PAGE;
	}
}

/* Where 2 MiB of `fd` have any data, lets one huge page hold them in `memfd`:
 * a guest that reads there then costs one fault and not many. Only a hint. */
static void prefer_huge_pages(int fd, int memfd, uint64_t bytes)
{
	uint8_t *p;

	if (!may_be_huge())
		return;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (p == MAP_FAILED)
		return;
	if (madvise(p, bytes, MADV_HUGEPAGE) == 0)
		populate_huge(fd, p, bytes);
	(void)munmap(p, bytes);
}

/* Reads one object to `out_fd`, all or what is not there; -EBADMSG if it is
 * not what the manifest says. The file stays open in *ret_fd if that is not
 * NULL. */
static int read_object(struct load *l, unsigned int at, enum object_role role,
		       int out_fd, struct sparse_map *have, int *ret_fd)
{
	struct wanted *w = &l->wanted[at];
	uint8_t hash[SPARSE_HASH];
	struct stat info;
	int r = 0;

	memcpy(l->object, w->is.id, sizeof(l->object));
	l->problem = "has other content";
	cleanup_fd int fd =
		object_open(l->op.st->objects_fd, &w->is, &info, &l->problem);
	if (fd < 0)
		return fd;
	if (role == OBJECT_MEMORY && have == NULL)
		prefer_huge_pages(fd, out_fd, w->is.bytes);
	if (role != OBJECT_LAYER || !object_is_stamped(&w->verified, &info))
		r = object_read(role, fd, w->is.bytes, out_fd, have, hash);
	else
		memcpy(hash, w->is.sha256, sizeof(hash));
	if (r < 0)
		return r;
	if (memcmp(hash, w->is.sha256, sizeof(hash)) != 0)
		return -EBADMSG;
	w->verified = object_stamp(&info);
	if (ret_fd != NULL)
		*ret_fd = fd_take(&fd);
	return 0;
}

static int load_state(struct load *l)
{
	cleanup_fd int fd = snapio_memory("brig-state", l->wanted[0].is.bytes);

	if (fd < 0)
		return fd;
	int r = read_object(l, 0, OBJECT_STATE, fd, NULL, NULL);
	if (r == 0)
		r = snapio_seal(fd);
	if (r == 0)
		l->wanted[0].fd = fd_take(&fd);
	return r;
}

static int load_base(struct load *l)
{
	unsigned int at = l->state_count;
	cleanup_fd int fd = snapio_memory("brig-base", l->wanted[at].is.bytes);

	if (fd < 0)
		return fd;
	int r = read_object(l, at, OBJECT_MEMORY, fd, NULL, NULL);
	if (r == 0)
		r = snapio_seal(fd);
	if (r == 0)
		l->base_fd = fd_take(&fd);
	return r;
}

/* All deltas become one: the newest says first what a page holds. */
static int load_deltas(struct load *l)
{
	unsigned int first = l->state_count + 1;
	unsigned int at = l->state_count + l->memory_count;
	uint64_t bytes = l->wanted[l->state_count].is.bytes;
	struct sparse_map have = { .bits = NULL };
	cleanup_fd int fd = snapio_memory("brig-delta", bytes);

	if (fd < 0)
		return fd;
	int r = sparse_map_init(&have, bytes);
	while (r == 0 && at-- > first)
		r = read_object(l, at, OBJECT_MEMORY, fd, &have, NULL);
	sparse_map_fini(&have);
	if (r == 0)
		r = snapio_seal(fd);
	if (r == 0)
		l->delta_fd = fd_take(&fd);
	return r;
}

static int load_layers(struct load *l)
{
	int r = 0;

	for (unsigned int i = l->state_count + l->memory_count;
	     r == 0 && i < load_count(l); i++)
		r = read_object(l, i, OBJECT_LAYER, -1, NULL, &l->wanted[i].fd);
	return r;
}

static int load_work(struct op *op)
{
	struct load *l = load_of(op);
	int r = 0;

	if (l->state_count > 0)
		r = load_state(l);
	if (r == 0 && l->memory_count > 0 && l->base == NULL)
		r = load_base(l);
	if (r == 0 && l->memory_count > 1)
		r = load_deltas(l);
	if (r == 0)
		r = load_layers(l);
	return r;
}

/* --- in the loop again ------------------------------------------------------ */

/* A file that has no descriptor yet, or one that is not a sealed copy, gets
 * what was verified. */
static void give_fd(struct wanted *w, bool replace)
{
	if (w->fd < 0 || (w->file->fd >= 0 && !replace))
		return;
	fd_close(&w->file->fd);
	w->file->fd = fd_take(&w->fd);
}

static int add_files(struct load *l, struct saved *s)
{
	unsigned int memory_end = l->state_count + l->memory_count;
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < load_count(l); i++) {
		struct wanted *w = &l->wanted[i];
		give_fd(w, i < l->state_count);
		if (i < l->state_count)
			s->state = saved_file_ref(w->file);
		else if (i < memory_end)
			r = saved_add_memory(s, saved_file_ref(w->file));
		else
			r = saved_add_layer(s, saved_file_ref(w->file));
	}
	return r;
}

static int add_memory(struct load *l, struct saved *s)
{
	if (l->memory_count > 0 && l->base == NULL) {
		l->base = saved_memory_new(fd_take(&l->base_fd));
		if (l->base == NULL)
			return -ENOMEM;
	}
	if (l->base != NULL)
		s->base = saved_memory_ref(l->base);
	if (l->delta_fd >= 0) {
		s->delta = saved_memory_new(fd_take(&l->delta_fd));
		if (s->delta == NULL)
			return -ENOMEM;
	}
	return 0;
}

static struct saved *make_saved(struct load *l)
{
	struct saved *s = saved_new(&l->shape);

	if (s == NULL)
		return NULL;
	memcpy(s->hostname_hint, l->hostname_hint, sizeof(s->hostname_hint));
	if (add_memory(l, s) < 0 || add_files(l, s) < 0) {
		saved_unref(s);
		return NULL;
	}
	return s;
}

/* What was read is remembered: the hash of files, the RAM, the machine. */
static void remember(struct load *l, struct saved *s)
{
	struct entry *e = store_find_entry(l->op.st, l->id);

	for (unsigned int i = 0; i < load_count(l); i++) {
		struct object *o =
			store_find_object(l->op.st, l->wanted[i].is.id);
		if (o != NULL)
			o->verified = l->wanted[i].verified;
		if (o != NULL && i == l->state_count && o->memory == NULL &&
		    l->base != NULL)
			o->memory = saved_memory_ref(l->base);
	}
	if (e != NULL && s->base != NULL) {
		e->loaded = saved_ref(s);
		e->used_ns = now_ns();
	}
}

static void load_free(struct load *l)
{
	for (unsigned int i = 0; i < load_count(l); i++) {
		saved_file_unref(l->wanted[i].file);
		fd_close(&l->wanted[i].fd);
	}
	free(l->wanted);
	saved_memory_unref(l->base);
	saved_unref(l->ready);
	fd_close(&l->base_fd);
	fd_close(&l->delta_fd);
	free(l);
}

static void note_damage(struct load *l)
{
	struct entry *e = store_find_entry(l->op.st, l->id);

	if (e != NULL && e->snap.status == SNAP_READY && l->problem != NULL)
		store_set_problem(e, -EBADMSG, l->object, l->problem);
}

static void load_end(struct op *op, int result)
{
	struct load *l = load_of(op);
	struct snap_load *request = l->request;
	struct snapstore *st = op->st;
	struct saved *s = NULL;

	if (result == 1)
		s = saved_ref(l->ready);
	else if (result == 0)
		s = make_saved(l);
	if (result == 0 && s != NULL)
		remember(l, s);
	if (result == -EBADMSG)
		note_damage(l);
	else if (result < 0 && l->problem != NULL)
		log_warn("snapshot: not loaded id=%s object=%s error=%s", l->id,
			 l->object, strerror(-result));
	load_free(l);
	snapstore_sweep(st);
	if (s != NULL)
		result = 0;
	else if (result >= 0)
		result = -ENOMEM;
	request->on_done(request, result, s);
}

static void load_drop(struct op *op)
{
	load_free(load_of(op));
}

static void cached_done(struct worker_job *job)
{
	struct snap_load *l = container_of(job, struct snap_load, job);

	l->on_done(l, l->saved == NULL ? -ENOMEM : 0, l->saved);
}

void snapstore_load(struct snapstore *st, const char *id, struct snap_load *l)
{
	struct entry *e = store_find_entry(st, id);
	struct load *op = NULL;

	l->saved = NULL;
	l->job = (struct worker_job){ .done = cached_done };
	if (e != NULL && e->loaded != NULL) {
		l->saved = saved_ref(e->loaded);
		e->used_ns = now_ns();
		worker_add(st->worker, &l->job);
		return;
	}
	op = calloc(1, sizeof(*op));
	if (op == NULL) {
		worker_add(st->worker, &l->job);
		return;
	}
	op->request = l;
	op->base_fd = -1;
	op->delta_fd = -1;
	if (e != NULL)
		memcpy(op->id, e->snap.id, sizeof(op->id));
	op->op = (struct op){
		.begin = load_begin,
		.work = load_work,
		.end = load_end,
		.drop = load_drop,
	};
	store_add_op(st, &op->op);
}

/* --- what stays in memory --------------------------------------------------- */

static bool is_idle(const struct entry *e)
{
	return e->loaded != NULL && e->loaded->refs == 1 &&
	       e->snap.kind != SNAP_TEMPLATE;
}

static unsigned int idle_count(struct snapstore *st)
{
	struct entry *e;
	unsigned int n = 0;

	TAILQ_FOREACH(e, &st->entries, link) {
		if (is_idle(e))
			n++;
	}
	return n;
}

/* How many idle snapshots have this RAM as their base. */
static unsigned int idle_users(struct snapstore *st,
			       const struct saved_memory *m)
{
	struct entry *e;
	unsigned int n = 0;

	TAILQ_FOREACH(e, &st->entries, link) {
		if (is_idle(e) && e->loaded->base == m)
			n++;
	}
	return n;
}

static uint64_t idle_bytes(struct snapstore *st)
{
	struct entry *e;
	uint64_t sum = 0;

	TAILQ_FOREACH(e, &st->entries, link) {
		if (!is_idle(e))
			continue;
		const struct saved *s = e->loaded;
		unsigned int users = idle_users(st, s->base);
		/* The store holds one, each idle one another; each brings its
		 * part, so that the sum has it once. */
		if (s->base->refs == users + 1)
			sum += saved_memory_bytes(s->base) / users;
		if (s->delta != NULL && s->delta->refs == 1)
			sum += saved_memory_bytes(s->delta);
	}
	return sum;
}

static struct entry *least_used(struct snapstore *st)
{
	struct entry *e;
	struct entry *oldest = NULL;

	TAILQ_FOREACH(e, &st->entries, link) {
		if (is_idle(e) &&
		    (oldest == NULL || e->used_ns < oldest->used_ns))
			oldest = e;
	}
	return oldest;
}

void store_trim(struct snapstore *st)
{
	struct entry *e;

	while ((idle_count(st) > IDLE_MAX || idle_bytes(st) > st->keep_bytes) &&
	       (e = least_used(st)) != NULL) {
		saved_unref(e->loaded);
		e->loaded = NULL;
	}
}

void snapstore_keep(struct snapstore *st, uint64_t bytes)
{
	st->keep_bytes = bytes;
	snapstore_sweep(st);
}

/* --- merging two deltas ----------------------------------------------------- */

static int merge_both(const struct snap_merge *m)
{
	struct sparse_map have = { .bits = NULL };
	uint8_t hash[SPARSE_HASH];
	struct stat info;

	if (fstat(m->newer_fd, &info) < 0)
		return -errno;
	uint64_t bytes = (uint64_t)info.st_size;
	if (!is_aligned(bytes, SPARSE_BLOCK) ||
	    bytes > (uint64_t)BRIG_MEMORY_MIB_MAX << 20)
		return -EINVAL;
	cleanup_fd int fd = snapio_memory("brig-delta", bytes);
	if (fd < 0)
		return fd;
	int r = sparse_map_init(&have, bytes);
	if (r == 0)
		r = sparse_read(m->newer_fd, bytes, fd, &have, hash);
	if (r == 0)
		r = sparse_read(m->older_fd, bytes, fd, &have, hash);
	sparse_map_fini(&have);
	if (r == 0)
		r = snapio_seal(fd);
	return r < 0 ? r : fd_take(&fd);
}

static void merge_work(struct worker_job *job)
{
	struct snap_merge *m = container_of(job, struct snap_merge, job);

	m->result = merge_both(m);
}

static void merge_done(struct worker_job *job)
{
	struct snap_merge *m = container_of(job, struct snap_merge, job);

	m->on_done(m, m->result);
}

void snapstore_merge(struct snapstore *st, struct snap_merge *m)
{
	m->job = (struct worker_job){ .work = merge_work, .done = merge_done };
	worker_add(st->worker, &m->job);
}
