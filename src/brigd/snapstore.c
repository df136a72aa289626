/* snapstore.c - snapshots and templates on disk: the tables.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All of the tables is rebuilt from the manifests at start. An object stays in
 * its table as long as a manifest names it or a saved machine uses it; then
 * its name goes to the reaper, which unlinks it in the worker, after the
 * removal of the manifests is durable.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fd.h"
#include "id.h"
#include "log.h"
#include "snapio.h"
#include "snapstore_priv.h"
#include "store.h"
#include "when.h"

/* The share of the file system that snapshots leave free. */
#define SPACE_SHARE 16u

#define SUFFIX ".json"

/* --- objects --------------------------------------------------------------- */

static struct object **bucket(struct snapstore *st, const char *id)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *id != '\0'; id++)
		h = (h ^ (uint8_t)*id) * 16777619u;
	return &st->objects[h % OBJECT_BUCKETS];
}

struct object *store_find_object(struct snapstore *st, const char *id)
{
	struct object *o = *bucket(st, id);

	while (o != NULL && strcmp(o->is.id, id) != 0)
		o = o->next;
	return o;
}

struct object_stamp object_stamp(const struct stat *st)
{
	return (struct object_stamp){
		.inode = st->st_ino,
		.bytes = st->st_size,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool object_is_stamped(const struct object_stamp *s, const struct stat *st)
{
	return s->inode == st->st_ino && s->bytes == st->st_size &&
	       same_time(&s->mtime, &st->st_mtim) &&
	       same_time(&s->ctime, &st->st_ctim);
}

int object_open(int objects_fd, const struct manifest_object *o,
		struct stat *ret_stat, const char **ret_problem)
{
	cleanup_fd int fd = snapio_open(objects_fd, o->id);

	if (fd == -ENOENT || fd == -EBADMSG) {
		*ret_problem = fd == -ENOENT ? "is missing" : "is not a file";
		fd = -1;
		return -EBADMSG;
	}
	if (fd < 0)
		return fd;
	if (fstat(fd, ret_stat) < 0)
		return -errno;
	if ((uint64_t)ret_stat->st_size != o->bytes) {
		*ret_problem = "has another size";
		return -EBADMSG;
	}
	return fd_take(&fd);
}

static int plain_read(int fd, uint64_t bytes, int out_fd,
		      uint8_t ret_hash[SPARSE_HASH])
{
	ASSERT(bytes <= SNAP_STATE_MAX);
	uint8_t *all = malloc(bytes);
	if (all == NULL)
		return -ENOMEM;
	ssize_t got = fd_pread_all(fd, all, bytes, 0);
	int r = got < 0 ? (int)got : (uint64_t)got != bytes ? -EBADMSG : 0;
	if (r == 0)
		auth_hash(all, bytes, ret_hash);
	if (r == 0 && out_fd >= 0)
		r = snapio_write(out_fd, 0, all, bytes);
	free(all);
	return r;
}

int object_read(enum object_role role, int fd, uint64_t bytes, int out_fd,
		struct sparse_map *have, uint8_t ret_hash[SPARSE_HASH])
{
	if (role == OBJECT_STATE)
		return plain_read(fd, bytes, out_fd, ret_hash);
	return sparse_read(fd, bytes, out_fd, have, ret_hash);
}

struct object *store_add_object(struct snapstore *st,
				const struct manifest_object *is,
				enum object_role role)
{
	struct object *o = calloc(1, sizeof(*o));
	struct object **at = bucket(st, is->id);
	struct stat info;

	if (o == NULL)
		return NULL;
	o->is = *is;
	o->role = role;
	cleanup_fd int fd = object_open(st->objects_fd, is, &info, &o->problem);
	if (fd >= 0)
		o->disk_bytes = (uint64_t)info.st_blocks * 512;
	else if (o->problem == NULL)
		o->problem = "cannot be opened";
	o->next = *at;
	*at = o;
	return o;
}

struct saved_file *store_hold(struct object *o)
{
	if (o->file == NULL) {
		o->file = saved_file_new(-1);
		if (o->file == NULL)
			return NULL;
		memcpy(o->file->object, o->is.id, sizeof(o->is.id));
	}
	return saved_file_ref(o->file);
}

/* --- removing objects ------------------------------------------------------ */

static void reap_work(struct worker_job *job)
{
	struct reap *reap = container_of(job, struct reap, job);

	/* The manifests that named them must not come back. */
	if (snapio_sync(reap->st->snapshots_fd) < 0)
		return;
	for (unsigned int i = 0; i < reap->now.count; i++) {
		int r = snapio_unlink(reap->st->objects_fd, reap->now.ids[i]);
		if (r < 0 && r != -ENOENT)
			log_warn(
				"snapshots: object stays until the next start id=%s error=%s",
				reap->now.ids[i], strerror(-r));
	}
}

static void reap_start(struct snapstore *st);

static void reap_done(struct worker_job *job)
{
	struct reap *reap = container_of(job, struct reap, job);

	reap->running = false;
	reap_start(reap->st);
}

static void reap_start(struct snapstore *st)
{
	struct reap *reap = &st->reap;
	struct name_list spare = reap->now;

	if (reap->running || reap->next.count == 0)
		return;
	reap->now = reap->next;
	reap->next = spare;
	reap->next.count = 0;
	reap->running = true;
	reap->job = (struct worker_job){
		.work = reap_work,
		.done = reap_done,
	};
	worker_add(st->worker, &reap->job);
}

/* Without memory for the name the file stays until the next start. */
static void reap_add(struct name_list *list, const char *id)
{
	if (list->count == list->size) {
		unsigned int size = list->size == 0 ? 64 : 2 * list->size;
		void *ids = realloc(list->ids, size * sizeof(*list->ids));
		if (ids == NULL)
			return;
		list->ids = ids;
		list->size = size;
	}
	memcpy(list->ids[list->count++], id, OBJECT_ID_BYTES);
}

/* Lets go of what only the store holds; true if the object is not needed any
 * more. */
static bool relax(struct object *o)
{
	if (o->memory != NULL && o->memory->refs == 1) {
		saved_memory_unref(o->memory);
		o->memory = NULL;
	}
	if (o->file != NULL && o->file->refs == 1) {
		saved_file_unref(o->file);
		o->file = NULL;
	}
	return o->names == 0 && o->memory == NULL && o->file == NULL;
}

static void sweep_bucket(struct snapstore *st, struct object **at)
{
	while (*at != NULL) {
		struct object *o = *at;
		if (!relax(o)) {
			at = &o->next;
			continue;
		}
		reap_add(&st->reap.next, o->is.id);
		*at = o->next;
		free(o);
	}
}

void snapstore_sweep(struct snapstore *st)
{
	store_trim(st);
	for (unsigned int i = 0; i < OBJECT_BUCKETS; i++)
		sweep_bucket(st, &st->objects[i]);
	reap_start(st);
}

/* --- entries --------------------------------------------------------------- */

struct entry *store_find_entry(struct snapstore *st, const char *id)
{
	struct entry *e;

	TAILQ_FOREACH(e, &st->entries, link) {
		if (strcmp(e->snap.id, id) == 0)
			return e;
	}
	return NULL;
}

static unsigned int entry_objects(const struct entry *e)
{
	if (e->objects == NULL)
		return 0;
	return e->state_count + e->memory_count + e->layer_count;
}

/* Newest first. */
static void insert_entry(struct snapstore *st, struct entry *e)
{
	struct entry *at;

	st->entry_count++;
	TAILQ_FOREACH(at, &st->entries, link) {
		if (at->snap.created_ms <= e->snap.created_ms) {
			TAILQ_INSERT_BEFORE(at, e, link);
			return;
		}
	}
	TAILQ_INSERT_TAIL(&st->entries, e, link);
}

struct entry *store_add_entry(struct snapstore *st, const struct snap *like)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return NULL;
	e->snap = *like;
	(void)json_incref(e->snap.settings);
	if (e->snap.id[0] == '\0')
		id_make(e->snap.id, "snap_");
	e->snap.status = SNAP_CREATING;
	e->snap.problem[0] = '\0';
	insert_entry(st, e);
	return e;
}

void store_remove_entry(struct snapstore *st, struct entry *e)
{
	for (unsigned int i = 0; i < entry_objects(e); i++)
		e->objects[i]->names--;
	saved_unref(e->loaded);
	json_decref(e->snap.settings);
	TAILQ_REMOVE(&st->entries, e, link);
	st->entry_count--;
	free(e->objects);
	free(e);
}

static bool same_object(const struct object *o,
			const struct manifest_object *is, enum object_role role)
{
	return o->role == role && o->is.bytes == is->bytes &&
	       memcmp(o->is.sha256, is->sha256, sizeof(is->sha256)) == 0;
}

int store_set_objects(struct snapstore *st, struct entry *e,
		      const struct manifest *m)
{
	unsigned int n = manifest_count(m);
	struct object **list = calloc(n + 1, sizeof(struct object *));
	int r = list == NULL ? -ENOMEM : 0;

	for (unsigned int i = 0; r == 0 && i < n; i++) {
		enum object_role role = manifest_role(m, i);
		list[i] = store_find_object(st, m->objects[i].id);
		if (list[i] == NULL)
			list[i] = store_add_object(st, &m->objects[i], role);
		if (list[i] == NULL)
			r = -ENOMEM;
		else if (!same_object(list[i], &m->objects[i], role))
			r = -EBADMSG;
	}
	if (r < 0) {
		free(list); /* objects without a name go with the next sweep */
		return r;
	}
	for (unsigned int i = 0; i < n; i++)
		list[i]->names++;
	e->objects = list;
	e->state_count = m->state_count;
	e->memory_count = m->memory_count;
	e->layer_count = m->layer_count;
	memcpy(e->hostname_hint, m->hostname_hint, sizeof(e->hostname_hint));
	return 0;
}

void store_set_problem(struct entry *e, int error, const char *object,
		       const char *problem)
{
	e->snap.status = SNAP_ERROR;
	e->error = error;
	(void)snprintf(e->snap.problem, sizeof(e->snap.problem), "%s%s%s",
		       object, object[0] != '\0' ? " " : "", problem);
	log_error("snapshot: %s id=%s", e->snap.problem, e->snap.id);
}

static void measure(struct entry *e)
{
	e->snap.own_bytes = 0;
	e->snap.shared_bytes = 0;
	for (unsigned int i = 0; i < entry_objects(e); i++) {
		const struct object *o = e->objects[i];
		if (o->names == 1)
			e->snap.own_bytes += o->disk_bytes;
		else
			e->snap.shared_bytes += o->disk_bytes;
	}
}

void snapstore_each(struct snapstore *st, int64_t tenant,
		    void (*each)(void *arg, const struct snap *snap), void *arg)
{
	struct entry *e;

	TAILQ_FOREACH(e, &st->entries, link) {
		if (tenant != 0 && e->snap.tenant != tenant)
			continue;
		measure(e);
		each(arg, &e->snap);
	}
}

const struct snap *snapstore_find(struct snapstore *st, int64_t tenant,
				  const char *id)
{
	struct entry *e = store_find_entry(st, id);

	if (e == NULL || (tenant != 0 && e->snap.tenant != tenant))
		return NULL;
	measure(e);
	return &e->snap;
}

int snapstore_file(struct snapstore *st)
{
	return snapio_create(st->objects_fd);
}

int snapstore_delete(struct snapstore *st, const char *id)
{
	struct entry *e = store_find_entry(st, id);

	if (e == NULL)
		return -ENOENT;
	if (e->snap.status == SNAP_CREATING)
		return -EBUSY;
	int r = manifest_remove(st->snapshots_fd, id);
	if (r < 0)
		return r;
	store_remove_entry(st, e);
	snapstore_sweep(st);
	return 0;
}

/* --- operations ------------------------------------------------------------ */

static void start_op(struct snapstore *st);

static void finish_op(struct op *op, int result)
{
	struct snapstore *st = op->st;

	TAILQ_REMOVE(&st->ops, op, link);
	op->end(op, result);
	st->op_active = false;
	start_op(st);
}

static void op_work(struct worker_job *job)
{
	struct op *op = container_of(job, struct op, job);

	op->result = op->work(op);
}

static void op_done(struct worker_job *job)
{
	struct op *op = container_of(job, struct op, job);

	finish_op(op, op->result);
}

static void op_begin(struct worker_job *job)
{
	struct op *op = container_of(job, struct op, job);
	int r = op->begin(op);

	if (r != 0) {
		finish_op(op, r);
		return;
	}
	op->job = (struct worker_job){ .work = op_work, .done = op_done };
	worker_add(op->st->worker, &op->job);
}

static void start_op(struct snapstore *st)
{
	struct op *op = TAILQ_FIRST(&st->ops);

	if (st->op_active || op == NULL)
		return;
	st->op_active = true;
	op->job = (struct worker_job){ .done = op_begin };
	worker_add(st->worker, &op->job);
}

void store_add_op(struct snapstore *st, struct op *op)
{
	op->st = st;
	TAILQ_INSERT_TAIL(&st->ops, op, link);
	start_op(st);
}

/* --- manifests ------------------------------------------------------------- */

static void name_of(const char *id, char ret[NAME_MAX])
{
	int n = snprintf(ret, NAME_MAX, "%s" SUFFIX, id);

	ASSERT(n > 0 && n < NAME_MAX);
}

int manifest_remove(int snapshots_fd, const char *id)
{
	char name[NAME_MAX];

	name_of(id, name);
	int r = snapio_unlink(snapshots_fd, name);
	if (r < 0 && r != -ENOENT) {
		log_error("snapshot: manifest not removed id=%s error=%s", id,
			  strerror(-r));
		return r;
	}
	return 0;
}

static int write_manifest(int fd, const struct manifest *m)
{
	struct buf text = BUF_INIT(MANIFEST_TEXT_MAX);
	int r = manifest_encode(m, &text);

	if (r == 0)
		r = snapio_write(fd, 0, text.data, text.len);
	buf_free(&text);
	return r < 0 ? r : snapio_finish(fd);
}

int manifest_publish(int snapshots_fd, const struct manifest *m)
{
	char name[NAME_MAX];
	cleanup_fd int fd = snapio_create(snapshots_fd);

	if (fd < 0)
		return fd;
	name_of(m->snap.id, name);
	int r = write_manifest(fd, m);
	if (r == 0)
		r = snapio_link(fd, snapshots_fd, name);
	if (r < 0)
		return r;
	r = snapio_sync(snapshots_fd);
	if (r < 0)
		(void)manifest_remove(snapshots_fd, m->snap.id);
	return r;
}

static int read_manifest(struct snapstore *st, const char *name, const char *id,
			 struct manifest *ret, const char **ret_problem)
{
	cleanup_fd int fd = snapio_open(st->snapshots_fd, name);
	char *text = malloc(MANIFEST_TEXT_MAX + 1);
	int r = -ENOMEM;

	*ret_problem = "manifest: cannot be read";
	if (fd < 0)
		r = fd;
	else if (text != NULL)
		r = (int)fd_read_all(fd, text, MANIFEST_TEXT_MAX + 1);
	if (r >= 0)
		r = manifest_decode(text, (size_t)r, id, ret, ret_problem);
	free(text);
	return r;
}

/* --- opening --------------------------------------------------------------- */

static void check_objects(struct entry *e)
{
	for (unsigned int i = 0; i < entry_objects(e); i++) {
		const struct object *o = e->objects[i];
		if (o->problem != NULL) {
			store_set_problem(e, -EBADMSG, o->is.id, o->problem);
			return;
		}
	}
}

/* A snapshot whose manifest cannot be used is shown, so that somebody can
 * delete it. What it may name is not removed before the next start. */
static void load_damaged(struct snapstore *st, struct entry *e, const char *id,
			 const struct manifest *m)
{
	json_decref(e->snap.settings);
	memset(&e->snap, 0, sizeof(e->snap));
	(void)snprintf(e->snap.id, sizeof(e->snap.id), "%s", id);
	(void)snprintf(e->snap.name, sizeof(e->snap.name), "%s", id);
	e->snap.tenant = STORE_TENANT;
	st->unreadable = true;
	for (unsigned int i = 0; i < manifest_count(m); i++) {
		struct object *o = store_find_object(st, m->objects[i].id);
		if (o != NULL)
			o->names++;
	}
}

static int load_entry(struct snapstore *st, const char *id, const char *name)
{
	const char *problem = NULL;
	struct manifest *m = calloc(1, sizeof(*m));
	struct entry *e = calloc(1, sizeof(*e));

	if (m == NULL || e == NULL) {
		free(m);
		free(e);
		return -ENOMEM;
	}
	int r = read_manifest(st, name, id, m, &problem);
	if (r == 0) {
		e->snap = m->snap;
		e->snap.status = SNAP_READY;
		problem = "manifest: an object is not as in another one";
		r = store_set_objects(st, e, m);
	} else {
		m->state_count = m->memory_count = m->layer_count = 0;
	}
	if (r == 0) {
		check_objects(e);
	} else {
		load_damaged(st, e, id, m);
		store_set_problem(e, r, "", problem);
	}
	insert_entry(st, e);
	free(m);
	return 0;
}

/* Calls `each` with the names in a directory, as long as it returns 0. */
static int each_name(struct snapstore *st, int dir_fd,
		     int (*each)(struct snapstore *st, const char *name))
{
	struct dirent *d;
	int r = 0;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (dir == NULL) {
		r = -errno;
		fd_close(&fd);
		return r;
	}
	while (r == 0 && (d = readdir(dir)) != NULL) {
		if (d->d_name[0] != '.')
			r = each(st, d->d_name);
	}
	(void)closedir(dir);
	return r;
}

static int on_snapshot_name(struct snapstore *st, const char *name)
{
	char id[SNAP_ID_BYTES] = "";
	size_t n = strlen(name);
	size_t suffix = strlen(SUFFIX);

	if (n > suffix && n - suffix < sizeof(id))
		memcpy(id, name, n - suffix);
	if (!manifest_is_id(id, "snap_") || strcmp(name + n - suffix, SUFFIX)) {
		log_warn("snapshots: ignoring a file name=%s", name);
		return 0;
	}
	if (st->entry_count >= SNAPSHOTS_MAX) {
		log_warn("snapshots: ignoring what is over %u", SNAPSHOTS_MAX);
		st->unreadable = true;
		return 0;
	}
	return load_entry(st, id, name);
}

static int on_object_name(struct snapstore *st, const char *name)
{
	char id[OBJECT_ID_BYTES] = "";

	if (!manifest_is_id(name, "obj_")) {
		log_warn("snapshots: ignoring an object name=%s", name);
		return 0;
	}
	(void)snprintf(id, sizeof(id), "%s", name);
	if (store_find_object(st, id) == NULL)
		reap_add(&st->reap.next, id);
	return 0;
}

static int check_holes(struct snapstore *st)
{
	cleanup_fd int file = snapio_create(st->objects_fd);
	cleanup_fd int memory = snapio_memory("brig-check", 0);

	if (file < 0) {
		log_error("snapshots: no O_TMPFILE error=%s", strerror(-file));
		return file;
	}
	if (memory < 0)
		return memory;
	if (!sparse_check(file) || !sparse_check(memory)) {
		log_error(
			"snapshots: holes are told in units of more than 4 KiB where=%s",
			sparse_check(file) ? "memfd" : "file system");
		return -ENOTSUP;
	}
	return 0;
}

static int open_dirs(struct snapstore *st, const char *dir)
{
	struct stat info;

	st->dir_fd = snapio_open_dir(AT_FDCWD, dir);
	if (st->dir_fd < 0)
		return st->dir_fd;
	st->objects_fd = snapio_open_dir(st->dir_fd, "objects");
	if (st->objects_fd < 0)
		return st->objects_fd;
	st->snapshots_fd = snapio_open_dir(st->dir_fd, "snapshots");
	if (st->snapshots_fd < 0)
		return st->snapshots_fd;
	if (fstat(st->objects_fd, &info) < 0)
		return -errno;
	st->device = info.st_dev;
	return snapio_sync(st->dir_fd);
}

static int open_all(struct snapstore *st, const char *dir)
{
	int r = open_dirs(st, dir);

	if (r == 0)
		r = check_holes(st);
	if (r == 0)
		r = each_name(st, st->snapshots_fd, on_snapshot_name);
	if (r == 0 && st->unreadable)
		log_warn(
			"snapshots: unknown objects stay, as a manifest is not readable");
	else if (r == 0)
		r = each_name(st, st->objects_fd, on_object_name);
	return r;
}

struct snapstore *snapstore_open(const char *dir, struct worker *worker)
{
	struct snapstore *st = calloc(1, sizeof(*st));

	if (st == NULL)
		return NULL;
	st->worker = worker;
	st->dir_fd = -1;
	st->objects_fd = -1;
	st->snapshots_fd = -1;
	st->reap.st = st;
	TAILQ_INIT(&st->entries);
	TAILQ_INIT(&st->ops);
	int r = open_all(st, dir);
	if (r < 0) {
		log_error("snapshots: not opened dir=%s error=%s", dir,
			  strerror(-r));
		snapstore_close(st);
		return NULL;
	}
	if (st->reap.next.count > 0)
		log_info(
			"snapshots: removing what no manifest names objects=%u",
			st->reap.next.count);
	snapstore_sweep(st);
	return st;
}

int snapstore_check_room(const struct snapstore *st, uint64_t bytes)
{
	struct statvfs v;

	if (fstatvfs(st->objects_fd, &v) < 0)
		return -errno;
	uint64_t left = (uint64_t)v.f_bavail * v.f_frsize;
	uint64_t keep = (uint64_t)v.f_blocks / SPACE_SHARE * v.f_frsize;
	return left < keep || left - keep < bytes ? -ENOSPC : 0;
}

static void free_objects(struct snapstore *st)
{
	for (unsigned int i = 0; i < OBJECT_BUCKETS; i++) {
		while (st->objects[i] != NULL) {
			struct object *o = st->objects[i];
			st->objects[i] = o->next;
			saved_file_unref(o->file);
			saved_memory_unref(o->memory);
			free(o);
		}
	}
}

void snapstore_close(struct snapstore *st)
{
	struct op *op;
	struct entry *e;

	if (st == NULL)
		return;
	transfers_close(st);
	while ((op = TAILQ_FIRST(&st->ops)) != NULL) {
		TAILQ_REMOVE(&st->ops, op, link);
		op->drop(op);
	}
	while ((e = TAILQ_FIRST(&st->entries)) != NULL) {
		/* The analyzer does not see that the list moves on.
		 * NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		store_remove_entry(st, e);
	}
	free_objects(st);
	free(st->reap.now.ids);
	free(st->reap.next.ids);
	fd_close(&st->dir_fd);
	fd_close(&st->objects_fd);
	fd_close(&st->snapshots_fd);
	free(st);
}
