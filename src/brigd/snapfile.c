/* snapfile.c - one snapshot as one stream, out and in.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   file   = "brigsnap", u32 version, u32 length of the manifest, manifest,
 *            object..., "brigdone", end of file
 *   object = record..., end record; in the order of the manifest
 *   record = u64 offset, u64 length, so many bytes of data
 *   end    = u64 2^64-1, u64 0
 *   all numbers little-endian
 *
 * Records are in order and do not overlap; in memory and layers they are whole
 * blocks, and what is between them is a hole. What an object is, how large,
 * and its SHA-256 are in the manifest.
 *
 * Each transfer has a thread, because its other side may be slow. It touches
 * nothing of the store but its directories and what it brought along.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "id.h"
#include "log.h"
#include "num.h"
#include "snapio.h"
#include "snapstore_priv.h"
#include "when.h"

#define MAGIC "brigsnap"
#define DONE "brigdone"
#define FILE_VERSION 1u
#define END_OFFSET UINT64_MAX

/* An import looks at the free space after so many bytes. */
#define SPACE_STEP (16ull << 20)

struct header {
	char magic[8];
	uint32_t version;
	uint32_t manifest_bytes;
};
static_assert(sizeof(struct header) == 16, "file format");

struct record {
	uint64_t offset;
	uint64_t length;
};
static_assert(sizeof(struct record) == 16, "file format");

struct transfer {
	struct worker_job job;
	struct worker *worker;
	struct snapstore *st; /* worker thread: its directories only */
	struct snap_export *out;
	struct snap_import *in;
	int fd; /* borrowed */
	int error;
	struct manifest m;
	char origin[SNAP_ID_BYTES]; /* in: the id it had */
	const char *problem;        /* of -EBADMSG and -ENOTSUP; NULL: none */
	unsigned int linked;        /* in: objects that have a name */
	uint64_t unchecked;         /* in: bytes since the last look at space */

	struct saved_file *held[MANIFEST_OBJECTS_MAX];    /* out */
	struct object_stamp stamps[MANIFEST_OBJECTS_MAX]; /* in */
};

static struct transfer *transfer_of(struct worker_job *job)
{
	return container_of(job, struct transfer, job);
}

static int damaged(struct transfer *t, const char *problem)
{
	t->problem = problem;
	return -EBADMSG;
}

/* --- both ways (worker thread) ---------------------------------------------- */

/* A time-out of the socket is told as such. */
static int transfer_error(ssize_t r)
{
	return r == -EAGAIN ? -ETIMEDOUT : (int)r;
}

static int put(struct transfer *t, const void *bytes, size_t n)
{
	return transfer_error(fd_write_all(t->fd, bytes, n));
}

static int take(struct transfer *t, void *bytes, size_t n)
{
	ssize_t got = fd_read_all(t->fd, bytes, n);

	if (got < 0)
		return transfer_error(got);
	return (size_t)got == n ? 0 : damaged(t, "cut short");
}

static int add_hash(gnutls_hash_hd_t hash, enum object_role role, uint64_t at,
		    const uint8_t *data, size_t n)
{
	if (role == OBJECT_STATE)
		return gnutls_hash(hash, data, n) < 0 ? -EIO : 0;
	return sparse_hash_add(hash, at, data, n);
}

/* --- out -------------------------------------------------------------------- */

struct sending {
	struct transfer *t;
	enum object_role role;
	gnutls_hash_hd_t hash;
};

static int send_chunk(void *arg, uint64_t at, const uint8_t *data, size_t n)
{
	struct sending *s = arg;
	struct record record = { .offset = at, .length = n };
	int r = add_hash(s->hash, s->role, at, data, n);

	if (r == 0)
		r = put(s->t, &record, sizeof(record));
	return r < 0 ? r : put(s->t, data, n);
}

/* The state has no holes, and any length. */
static int send_plain(struct sending *s, int fd, uint64_t bytes)
{
	uint8_t *chunk = malloc(SPARSE_CHUNK);
	uint64_t at = 0;
	int r = chunk == NULL ? -ENOMEM : 0;

	while (r == 0 && at < bytes) {
		size_t n = u64_min(bytes - at, SPARSE_CHUNK);
		ssize_t got = fd_pread_all(fd, chunk, n, (off_t)at);
		if (got < 0)
			r = (int)got;
		else if ((size_t)got != n)
			r = damaged(s->t, "an object is cut short");
		else
			r = send_chunk(s, at, chunk, n);
		at += n;
	}
	free(chunk);
	return r;
}

static int send_object(struct transfer *t, unsigned int index)
{
	const struct manifest_object *is = &t->m.objects[index];
	struct record end = { .offset = END_OFFSET };
	struct sending s = { .t = t, .role = manifest_role(&t->m, index) };
	uint8_t hash[SPARSE_HASH];
	struct stat info;
	cleanup_fd int fd =
		object_open(t->st->objects_fd, is, &info, &t->problem);

	if (fd < 0)
		return fd;
	int r = sparse_hash_start(&s.hash);
	if (r < 0)
		return r;
	if (s.role == OBJECT_STATE)
		r = send_plain(&s, fd, is->bytes);
	else
		r = sparse_each(fd, is->bytes, send_chunk, &s);
	gnutls_hash_deinit(s.hash, hash);
	if (r == 0 && memcmp(hash, is->sha256, sizeof(hash)) != 0)
		r = damaged(t, "an object has other content");
	return r < 0 ? r : put(t, &end, sizeof(end));
}

static int send_head(struct transfer *t)
{
	struct header h = { .version = FILE_VERSION };
	struct buf text = BUF_INIT(MANIFEST_TEXT_MAX);
	int r = manifest_encode(&t->m, &text);

	memcpy(h.magic, MAGIC, sizeof(h.magic));
	h.manifest_bytes = (uint32_t)text.len;
	if (r == 0)
		r = put(t, &h, sizeof(h));
	if (r == 0)
		r = put(t, text.data, text.len);
	buf_free(&text);
	return r;
}

static void export_work(struct worker_job *job)
{
	struct transfer *t = transfer_of(job);
	int r = send_head(t);

	for (unsigned int i = 0; r == 0 && i < manifest_count(&t->m); i++)
		r = send_object(t, i);
	t->error = r < 0 ? r : put(t, DONE, strlen(DONE));
}

/* --- in --------------------------------------------------------------------- */

static int receive_head(struct transfer *t)
{
	struct header h;
	int r = take(t, &h, sizeof(h));

	if (r < 0)
		return r;
	if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0)
		return damaged(t, "not a snapshot");
	if (h.version != FILE_VERSION) {
		t->problem = h.version > FILE_VERSION
				     ? "file of a newer version of brig"
				     : "file of an older version of brig";
		return -ENOTSUP;
	}
	if (h.manifest_bytes == 0 || h.manifest_bytes > MANIFEST_TEXT_MAX)
		return damaged(t, "length of the manifest");
	char *text = malloc(h.manifest_bytes);
	if (text == NULL)
		return -ENOMEM;
	r = take(t, text, h.manifest_bytes);
	if (r == 0)
		r = manifest_decode(text, h.manifest_bytes, NULL, &t->m,
				    &t->problem);
	free(text);
	return r;
}

static int check_space(struct transfer *t, uint64_t n)
{
	t->unchecked += n;
	if (t->unchecked < SPACE_STEP)
		return 0;
	t->unchecked = 0;
	return snapstore_check_room(t->st, 0);
}

struct receiving {
	enum object_role role;
	uint64_t bytes; /* of the object */
	uint64_t end;   /* of what came */
	int fd;
	gnutls_hash_hd_t hash;
	uint8_t *chunk;
};

static bool is_record_good(const struct receiving *rv, const struct record *h)
{
	if (h->length == 0 || h->length > SPARSE_CHUNK || h->offset < rv->end ||
	    h->offset > rv->bytes || h->length > rv->bytes - h->offset)
		return false;
	if (rv->role == OBJECT_STATE)
		return h->offset == rv->end;
	return is_aligned(h->offset, SPARSE_BLOCK) &&
	       is_aligned(h->length, SPARSE_BLOCK);
}

/* 0: more to come; 1: the object is whole. */
static int receive_record(struct transfer *t, struct receiving *rv)
{
	struct record h;
	int r = take(t, &h, sizeof(h));

	if (r < 0)
		return r;
	if (h.offset == END_OFFSET && h.length == 0)
		return 1;
	if (!is_record_good(rv, &h))
		return damaged(t, "a record is out of place");
	rv->end = h.offset + h.length;
	r = take(t, rv->chunk, h.length);
	if (r == 0)
		r = add_hash(rv->hash, rv->role, h.offset, rv->chunk, h.length);
	if (r == 0)
		r = check_space(t, h.length);
	if (r == 0)
		r = snapio_write(rv->fd, h.offset, rv->chunk, h.length);
	return r;
}

static int receive_records(struct transfer *t, struct receiving *rv,
			   uint8_t ret_hash[SPARSE_HASH])
{
	int r = sparse_hash_start(&rv->hash);

	if (r < 0)
		return r;
	rv->chunk = malloc(SPARSE_CHUNK);
	if (rv->chunk == NULL)
		r = -ENOMEM;
	while (r == 0)
		r = receive_record(t, rv);
	free(rv->chunk);
	gnutls_hash_deinit(rv->hash, ret_hash);
	return r < 0 ? r : 0;
}

static int store_object(struct transfer *t, unsigned int index, int fd)
{
	struct stat info;
	int r = snapio_finish(fd);

	if (r == 0)
		r = snapio_link(fd, t->st->objects_fd, t->m.objects[index].id);
	if (r < 0)
		return r;
	t->linked = index + 1;
	if (fstat(fd, &info) < 0)
		return -errno;
	t->stamps[index] = object_stamp(&info);
	return 0;
}

static int receive_object(struct transfer *t, unsigned int index)
{
	struct manifest_object *is = &t->m.objects[index];
	uint8_t hash[SPARSE_HASH];
	cleanup_fd int fd = snapio_create(t->st->objects_fd);
	struct receiving rv = {
		.role = manifest_role(&t->m, index),
		.bytes = is->bytes,
		.fd = fd,
	};

	if (fd < 0)
		return fd;
	int r = snapio_resize(fd, is->bytes);
	if (r == 0)
		r = receive_records(t, &rv, hash);
	if (r < 0)
		return r;
	if (memcmp(hash, is->sha256, sizeof(hash)) != 0)
		return damaged(t, "an object has other content");
	return store_object(t, index, fd);
}

static int receive_end(struct transfer *t)
{
	char mark[sizeof(DONE) - 1];
	char more;
	int r = take(t, mark, sizeof(mark));

	if (r < 0)
		return r;
	if (memcmp(mark, DONE, sizeof(mark)) != 0)
		return damaged(t, "no end mark");
	ssize_t got = fd_read_all(t->fd, &more, 1);
	if (got < 0)
		return transfer_error(got);
	return got == 0 ? 0 : damaged(t, "something behind its end");
}

/* Whatever it was elsewhere, here it is this tenant's, and new. A template
 * would serve others than who brought it. */
static void adopt(struct transfer *t)
{
	struct snap *s = &t->m.snap;

	memcpy(t->origin, s->id, sizeof(t->origin));
	id_make(s->id, "snap_");
	s->tenant = t->in->tenant;
	s->parent[0] = '\0';
	s->created_ms = when_now_ms();
	if (s->kind == SNAP_TEMPLATE)
		s->kind = SNAP_MEMORY;
	if (t->in->name[0] != '\0')
		memcpy(s->name, t->in->name, sizeof(s->name));
	for (unsigned int i = 0; i < manifest_count(&t->m); i++)
		id_make(t->m.objects[i].id, "obj_");
}

static int receive_all(struct transfer *t)
{
	int r = receive_head(t);

	if (r < 0)
		return r;
	adopt(t);
	if (!manifest_is_head(&t->m))
		return -EINVAL;    /* the name that the caller wants */
	t->unchecked = SPACE_STEP; /* look before the first byte */
	for (unsigned int i = 0; r == 0 && i < manifest_count(&t->m); i++)
		r = receive_object(t, i);
	if (r == 0)
		r = receive_end(t);
	if (r == 0)
		r = snapio_sync(t->st->objects_fd);
	return r < 0 ? r : manifest_publish(t->st->snapshots_fd, &t->m);
}

static void import_work(struct worker_job *job)
{
	struct transfer *t = transfer_of(job);

	t->error = receive_all(t);
	for (unsigned int i = 0; t->error < 0 && i < t->linked; i++) {
		if (snapio_unlink(t->st->objects_fd, t->m.objects[i].id) < 0)
			log_warn(
				"snapshot: object stays until the next start id=%s",
				t->m.objects[i].id);
	}
}

/* --- in the loop -------------------------------------------------------------- */

static int enter(struct transfer *t)
{
	struct snapstore *st = t->st;
	struct entry *e = NULL;
	int r = -EDQUOT;

	if (st->entry_count < SNAPSHOTS_MAX) {
		e = store_add_entry(st, &t->m.snap);
		r = e == NULL ? -ENOMEM : store_set_objects(st, e, &t->m);
	}
	if (r < 0) {
		if (e != NULL)
			store_remove_entry(st, e);
		(void)manifest_remove(st->snapshots_fd, t->m.snap.id);
		return r; /* objects go at the next start */
	}
	e->snap.status = SNAP_READY;
	for (unsigned int i = 0; i < manifest_count(&t->m); i++)
		e->objects[i]->verified = t->stamps[i];
	return 0;
}

static void transfer_free(struct transfer *t)
{
	for (unsigned int i = 0; i < SNAP_TRANSFERS_MAX; i++) {
		if (t->st->transfers[i] == t)
			t->st->transfers[i] = NULL;
	}
	worker_free(t->worker);
	for (unsigned int i = 0; i < MANIFEST_OBJECTS_MAX; i++)
		saved_file_unref(t->held[i]);
	json_decref(t->m.snap.settings);
	free(t);
}

static void log_end(const struct transfer *t)
{
	const char *what = t->out != NULL ? "export" : "import";

	if (t->error < 0)
		log_warn("snapshot: %s failed id=%s error=%s problem=\"%s\"",
			 what, t->m.snap.id, strerror(-t->error),
			 t->problem == NULL ? "" : t->problem);
	else if (t->out == NULL)
		log_info("snapshot: import done id=%s was=%s", t->m.snap.id,
			 t->origin);
}

static void export_done(struct worker_job *job)
{
	struct transfer *t = transfer_of(job);
	struct snapstore *st = t->st;
	struct snap_export *out = t->out;
	int r = t->error;

	log_end(t);
	transfer_free(t);
	snapstore_sweep(st);
	out->on_done(out, r);
}

static void import_done(struct worker_job *job)
{
	struct transfer *t = transfer_of(job);
	struct snap_import *in = t->in;

	if (t->error == 0)
		t->error = enter(t);
	log_end(t);
	int r = t->error;
	if (r == 0)
		memcpy(in->id, t->m.snap.id, sizeof(in->id));
	transfer_free(t);
	in->on_done(in, r);
}

/* A thread of its own and a place in the list. */
static int transfer_new(struct snapstore *st, int fd, struct transfer **ret)
{
	struct timeval limit = { .tv_sec = SNAP_TRANSFER_IDLE_S };
	struct transfer **place = st->transfers;

	while (place < st->transfers + SNAP_TRANSFERS_MAX && *place != NULL)
		place++;
	if (place == st->transfers + SNAP_TRANSFERS_MAX)
		return -EMFILE;
	struct transfer *t = calloc(1, sizeof(*t));
	if (t == NULL)
		return -ENOMEM;
	t->st = st;
	t->fd = fd;
	t->worker = worker_new(worker_loop(st->worker));
	if (t->worker == NULL) {
		free(t);
		return -ENOMEM;
	}
	/* Anything but a socket has no time-out. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	*place = t;
	*ret = t;
	return 0;
}

static int describe(struct transfer *t, const struct entry *e)
{
	struct manifest *m = &t->m;

	m->snap = e->snap;
	(void)json_incref(m->snap.settings);
	memcpy(m->hostname_hint, e->hostname_hint, sizeof(m->hostname_hint));
	m->state_count = e->state_count;
	m->memory_count = e->memory_count;
	m->layer_count = e->layer_count;
	for (unsigned int i = 0; i < manifest_count(m); i++) {
		m->objects[i] = e->objects[i]->is;
		t->held[i] = store_hold(e->objects[i]);
		if (t->held[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

int snapstore_export(struct snapstore *st, const char *id,
		     struct snap_export *e)
{
	struct entry *entry = store_find_entry(st, id);
	struct transfer *t = NULL;

	if (entry == NULL)
		return -ENOENT;
	if (entry->snap.status != SNAP_READY)
		return entry->snap.status == SNAP_ERROR ? entry->error : -EBUSY;
	int r = transfer_new(st, e->fd, &t);
	if (r < 0)
		return r;
	r = describe(t, entry);
	if (r < 0) {
		transfer_free(t);
		return r;
	}
	t->out = e;
	t->job = (struct worker_job){
		.work = export_work,
		.done = export_done,
	};
	worker_add(t->worker, &t->job);
	return 0;
}

int snapstore_import(struct snapstore *st, struct snap_import *im)
{
	struct transfer *t = NULL;
	int r = transfer_new(st, im->fd, &t);

	if (r < 0)
		return r;
	t->in = im;
	t->job = (struct worker_job){
		.work = import_work,
		.done = import_done,
	};
	worker_add(t->worker, &t->job);
	return 0;
}

void transfers_close(struct snapstore *st)
{
	for (unsigned int i = 0; i < SNAP_TRANSFERS_MAX; i++) {
		if (st->transfers[i] == NULL)
			continue;
		(void)shutdown(st->transfers[i]->fd, SHUT_RDWR);
		transfer_free(st->transfers[i]);
	}
}
