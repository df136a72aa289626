/* snappublish.c - a saved machine becomes a snapshot on disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 * In the worker, in this order, each step durable before the next: files that
 * are elsewhere are copied; deltas are merged where that pays; every new file
 * is hashed, made read-only, synced and linked; the directory is synced; the
 * manifest is written, synced and linked, and its directory synced. After an
 * error there is no manifest; what was linked goes with the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "id.h"
#include "log.h"
#include "snapio.h"
#include "snapstore_priv.h"
#include "when.h"

struct part {
	struct saved_file *file; /* borrowed from `saved` */
	int fd;                  /* borrowed from the file; new ones */
	int own_fd;              /* read-write: a copy, or opened again; -1 */
	bool is_new;
	bool is_linked;
	uint64_t disk_bytes;
	struct object_stamp stamp;
};

struct publish {
	struct op op;
	struct snap_draft *draft; /* borrowed until on_done */
	struct saved *saved;      /* a reference */
	char id[SNAP_ID_BYTES];   /* "": there is no entry */
	struct manifest m;
	struct part parts[MANIFEST_OBJECTS_MAX]; /* as m.objects */
};

static struct publish *publish_of(struct op *op)
{
	return container_of(op, struct publish, op);
}

/* --- in the loop: what it is made of --------------------------------------- */

static int add_part(struct publish *p, struct saved_file *f,
		    enum object_role role)
{
	unsigned int at = manifest_count(&p->m);
	struct manifest_object *is = &p->m.objects[at];
	struct object *o;

	p->parts[at] = (struct part){ .file = f, .fd = f->fd, .own_fd = -1 };
	if (f->object[0] == '\0') {
		p->parts[at].is_new = true;
		id_make(is->id, "obj_");
		return f->fd < 0 ? -EINVAL : 0;
	}
	o = store_find_object(p->op.st, f->object);
	if (o == NULL || o->role != role)
		return -EINVAL;
	if (o->problem != NULL)
		return -EBADMSG;
	*is = o->is;
	p->parts[at].disk_bytes = o->disk_bytes;
	return 0;
}

static int add_parts(struct publish *p)
{
	struct saved *s = p->saved;
	bool whole = p->m.snap.kind != SNAP_DISK;
	int r = 0;

	if (whole && s->state == NULL)
		return -EINVAL;
	if (whole) {
		r = add_part(p, s->state, OBJECT_STATE);
		p->m.state_count = 1;
	}
	for (unsigned int i = 0; whole && r == 0 && i < s->memory_count; i++) {
		r = add_part(p, s->memory[i], OBJECT_MEMORY);
		p->m.memory_count++;
	}
	for (unsigned int i = 0; r == 0 && i < s->layer_count; i++) {
		r = add_part(p, s->layers[i], OBJECT_LAYER);
		p->m.layer_count++;
	}
	return r;
}

static int publish_begin(struct op *op)
{
	struct publish *p = publish_of(op);

	if (p->id[0] == '\0')
		return -EDQUOT;
	p->m.snap = p->draft->snap;
	p->m.snap.shape = p->saved->shape;
	memcpy(p->m.hostname_hint, p->saved->hostname_hint,
	       sizeof(p->m.hostname_hint));
	return manifest_is_head(&p->m) ? add_parts(p) : -EINVAL;
}

/* --- in the worker --------------------------------------------------------- */

static int part_fd(const struct part *part)
{
	return part->own_fd >= 0 ? part->own_fd : part->fd;
}

static int copy_part(struct publish *p, struct part *part,
		     enum object_role role, uint64_t bytes)
{
	uint8_t hash[SPARSE_HASH];
	cleanup_fd int fd = snapio_create(p->op.st->objects_fd);

	if (fd < 0)
		return fd;
	int r = snapio_resize(fd, bytes);
	if (r == 0)
		r = object_read(role, part->fd, bytes, fd, NULL, hash);
	if (r == 0)
		part->own_fd = fd_take(&fd);
	return r;
}

static int note_size(struct part *part)
{
	struct stat info;

	if (fstat(part_fd(part), &info) < 0)
		return -errno;
	part->disk_bytes = (uint64_t)info.st_blocks * 512;
	return 0;
}

/* A file of the machine's, of a size it may have, on the store's disk. */
static int prepare_part(struct publish *p, unsigned int at)
{
	struct part *part = &p->parts[at];
	enum object_role role = manifest_role(&p->m, at);
	struct stat info;

	if (fstat(part->fd, &info) < 0)
		return -errno;
	p->m.objects[at].bytes = (uint64_t)info.st_size;
	if (!manifest_is_size(&p->m, at))
		return -EINVAL;
	int r = 0;
	if (info.st_dev != p->op.st->device)
		r = copy_part(p, part, role, p->m.objects[at].bytes);
	return r < 0 ? r : note_size(part);
}

static void remove_part(struct publish *p, unsigned int at)
{
	unsigned int last = manifest_count(&p->m) - 1;
	unsigned int behind = last - at;

	fd_close(&p->parts[at].own_fd);
	memmove(&p->parts[at], &p->parts[at + 1], behind * sizeof(*p->parts));
	memmove(&p->m.objects[at], &p->m.objects[at + 1],
		behind * sizeof(*p->m.objects));
	p->parts[last] = (struct part){ .own_fd = -1 };
	p->m.memory_count--;
}

static int open_writable(struct part *part)
{
	char path[32];

	if (part->own_fd >= 0)
		return 0;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", part->fd);
	part->own_fd = open(path, O_RDWR | O_CLOEXEC);
	return part->own_fd < 0 ? -errno : 0;
}

/* Copies to `fd` what it does not have and delta `at` has. */
static int merge_from(struct publish *p, unsigned int at, int fd,
		      struct sparse_map *have)
{
	const struct part *from = &p->parts[at];
	const struct manifest_object *is = &p->m.objects[at];
	const char *problem = "has other content";
	uint8_t hash[SPARSE_HASH];
	struct stat info;

	if (from->is_new)
		return sparse_read(part_fd(from), is->bytes, fd, have, hash);
	cleanup_fd int source =
		object_open(p->op.st->objects_fd, is, &info, &problem);
	int r = source;
	if (r >= 0)
		r = sparse_read(source, is->bytes, fd, have, hash);
	if (r == 0 && memcmp(hash, is->sha256, sizeof(hash)) != 0)
		r = -EBADMSG;
	if (r == -EBADMSG)
		log_error("snapshot: not made, %s %s", is->id, problem);
	return r;
}

/* Merges the delta before `at` into the new one at `at`. */
static int merge_part(struct publish *p, unsigned int at)
{
	struct sparse_map have = { .bits = NULL };
	struct part *part = &p->parts[at];
	int r = open_writable(part);

	if (r == 0)
		r = sparse_map_init(&have, p->m.objects[at].bytes);
	if (r == 0)
		r = sparse_map_add(&have, part->own_fd);
	if (r == 0)
		r = merge_from(p, at - 1, part->own_fd, &have);
	sparse_map_fini(&have);
	if (r == 0)
		r = note_size(part);
	if (r == 0)
		remove_part(p, at - 1);
	return r;
}

/* Keeps each delta less than half of the one before it. */
static int merge_deltas(struct publish *p)
{
	unsigned int first = p->m.state_count + 1; /* after the full image */
	unsigned int at = first + 1;
	int r = 0;

	while (r == 0 && at < p->m.state_count + p->m.memory_count) {
		struct part *part = &p->parts[at];
		if (part->is_new && at > first &&
		    part[-1].disk_bytes <= 2 * part->disk_bytes) {
			r = merge_part(p, at);
			at--;
		} else {
			at++;
		}
	}
	return r;
}

static int store_part(struct publish *p, unsigned int at)
{
	struct part *part = &p->parts[at];
	struct manifest_object *is = &p->m.objects[at];
	int fd = part_fd(part);
	struct stat info;
	int r = object_read(manifest_role(&p->m, at), fd, is->bytes, -1, NULL,
			    is->sha256);

	if (r == 0)
		r = snapio_finish(fd);
	if (r == 0)
		r = snapio_link(fd, p->op.st->objects_fd, is->id);
	if (r < 0)
		return r;
	part->is_linked = true;
	if (fstat(fd, &info) < 0)
		return -errno;
	part->stamp = object_stamp(&info);
	return 0;
}

static int store_parts(struct publish *p)
{
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < manifest_count(&p->m); i++) {
		if (p->parts[i].is_new)
			r = prepare_part(p, i);
	}
	if (r == 0)
		r = merge_deltas(p);
	for (unsigned int i = 0; r == 0 && i < manifest_count(&p->m); i++) {
		if (p->parts[i].is_new)
			r = store_part(p, i);
	}
	return r < 0 ? r : snapio_sync(p->op.st->objects_fd);
}

static int publish_work(struct op *op)
{
	struct publish *p = publish_of(op);
	int r = store_parts(p);

	return r < 0 ? r : manifest_publish(op->st->snapshots_fd, &p->m);
}

/* --- in the loop again ------------------------------------------------------ */

/* The machine's files are known by the names of their objects from now on:
 * also if there will be no snapshot, because a file that had a name and lost
 * it cannot get another (linkat(2)), and its machine may live on. */
static void name_files(struct publish *p)
{
	for (unsigned int i = 0; i < manifest_count(&p->m); i++) {
		struct part *part = &p->parts[i];
		struct object *o;
		if (!part->is_linked)
			continue;
		o = store_add_object(p->op.st, &p->m.objects[i],
				     manifest_role(&p->m, i));
		if (o == NULL)
			continue; /* the file goes at the next start */
		o->verified = part->stamp;
		o->file = saved_file_ref(part->file);
		memcpy(part->file->object, o->is.id, sizeof(o->is.id));
	}
}

/* RAM that is in memory already is not read again by those who load it. */
static void share_base(struct publish *p)
{
	struct object *o;

	if (p->m.memory_count == 0 || p->saved->base == NULL)
		return;
	o = store_find_object(p->op.st, p->m.objects[p->m.state_count].id);
	if (o->memory == NULL)
		o->memory = saved_memory_ref(p->saved->base);
}

/* Deltas that were merged into others are not the machine's any more. */
static void shorten_memory(struct publish *p)
{
	struct saved *s = p->saved;
	struct part *parts = &p->parts[p->m.state_count];
	unsigned int kept = 0;

	if (p->m.snap.kind == SNAP_DISK)
		return;
	for (unsigned int i = 0; i < s->memory_count; i++) {
		if (kept < p->m.memory_count &&
		    s->memory[i] == parts[kept].file)
			s->memory[kept++] = s->memory[i];
		else
			saved_file_unref(s->memory[i]);
	}
	s->memory_count = kept;
}

static int enter(struct publish *p, struct entry *e)
{
	int r = store_set_objects(p->op.st, e, &p->m);

	if (r < 0) {
		(void)manifest_remove(p->op.st->snapshots_fd, p->id);
		return r;
	}
	share_base(p);
	shorten_memory(p);
	e->snap = p->m.snap;
	e->snap.status = SNAP_READY;
	return 0;
}

static void publish_free(struct publish *p)
{
	for (unsigned int i = 0; i < MANIFEST_OBJECTS_MAX; i++) {
		if (p->parts[i].file != NULL)
			fd_close(&p->parts[i].own_fd);
	}
	saved_unref(p->saved);
	free(p);
}

static void publish_end(struct op *op, int result)
{
	struct publish *p = publish_of(op);
	struct snap_draft *d = p->draft;
	struct snapstore *st = op->st;
	struct entry *e = store_find_entry(st, p->id);

	name_files(p);
	if (result == 0)
		result = enter(p, e);
	if (result == 0)
		d->snap = *snapstore_find(st, 0, p->id);
	else if (e != NULL)
		store_remove_entry(st, e);
	if (result < 0)
		log_warn("snapshot: not made id=%s error=%s", p->id,
			 strerror(-result));
	publish_free(p);
	d->on_done(d, result);
}

static void publish_drop(struct op *op)
{
	publish_free(publish_of(op));
}

static void fail_done(struct worker_job *job)
{
	struct snap_draft *d = container_of(job, struct snap_draft, job);

	d->on_done(d, -ENOMEM);
}

void snapstore_publish(struct snapstore *st, struct snap_draft *d)
{
	struct publish *p = calloc(1, sizeof(*p));
	struct entry *e = NULL;

	if (p == NULL) {
		d->job = (struct worker_job){ .done = fail_done };
		worker_add(st->worker, &d->job);
		return;
	}
	if (d->snap.created_ms == 0)
		d->snap.created_ms = when_now_ms();
	d->snap.shape = d->saved->shape;
	d->snap.id[0] = '\0';
	if (st->entry_count < SNAPSHOTS_MAX)
		e = store_add_entry(st, &d->snap);
	if (e != NULL) {
		d->snap = e->snap;
		memcpy(p->id, e->snap.id, sizeof(p->id));
	}
	p->draft = d;
	p->saved = saved_ref(d->saved);
	p->op = (struct op){
		.begin = publish_begin,
		.work = publish_work,
		.end = publish_end,
		.drop = publish_drop,
	};
	store_add_op(st, &p->op);
}
