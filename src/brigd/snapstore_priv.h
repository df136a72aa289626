/* snapstore_priv.h - what the parts of the snapshot store share.
 * SPDX-License-Identifier: Apache-2.0
 *
 * snapstore.c holds the tables; snappublish.c and snapload.c are operations on
 * them, one at a time; snapfile.c carries snapshots in and out.
 */
#ifndef BRIGD_SNAPSTORE_PRIV_H
#define BRIGD_SNAPSTORE_PRIV_H

#include <sys/queue.h>
#include <sys/stat.h>

#include "manifest.h"
#include "snapstore.h"
#include "sparse.h"

#define OBJECT_BUCKETS 4096u

/* A file that looks the same was not written to. */
struct object_stamp {
	uint64_t inode; /* 0: none */
	int64_t bytes;
	struct timespec mtime;
	struct timespec ctime;
};

/* A file in DIR/objects that a manifest names, or did and somebody uses. */
struct object {
	struct object *next; /* in its bucket */
	struct manifest_object is;
	enum object_role role;
	uint64_t disk_bytes;          /* allocated */
	struct object_stamp verified; /* its hash was right then */
	const char *problem;          /* NULL, or why it cannot be used */
	unsigned int names;           /* manifests that name it */

	/* What saved machines share; NULL: nobody uses it. The store holds one
	 * reference to each, so one that is left alone has refs == 1. */
	struct saved_file *file;
	struct saved_memory *memory; /* of a full image */
};

struct entry {
	TAILQ_ENTRY(entry) link;
	struct snap snap;
	int error; /* of SNAP_ERROR */
	char hostname_hint[NAME_BYTES];
	unsigned int state_count; /* as in struct manifest */
	unsigned int memory_count;
	unsigned int layer_count;
	struct object **objects; /* owned array; NULL while it is being made */

	struct saved *loaded; /* NULL: not in memory */
	uint64_t used_ns;     /* when it was last given out */
};

TAILQ_HEAD(entry_list, entry);

/* Something that needs the tables, then the worker, then the tables again. One
 * at a time, in order; begin() and end() run in the loop, from the loop. */
struct op {
	TAILQ_ENTRY(op) link;
	struct worker_job job;
	struct snapstore *st;
	int (*begin)(struct op *op);            /* 0: work(); else: end() */
	int (*work)(struct op *op);             /* worker thread */
	void (*end)(struct op *op, int result); /* of begin or work; frees */
	void (*drop)(struct op *op);            /* frees, at close */
	int result;
};

TAILQ_HEAD(op_list, op);

/* Names of objects. */
struct name_list {
	unsigned int count;
	unsigned int size;
	char (*ids)[OBJECT_ID_BYTES]; /* owned */
};

/* Objects that go: the worker unlinks `now`, `next` waits for it. */
struct reap {
	struct worker_job job;
	struct snapstore *st;
	bool running;
	struct name_list now;
	struct name_list next;
};

struct transfer;

struct snapstore {
	struct worker *worker;
	int dir_fd;
	int objects_fd;
	int snapshots_fd;
	dev_t device;
	uint64_t keep_bytes;
	struct entry_list entries; /* newest first */
	unsigned int entry_count;
	struct object *objects[OBJECT_BUCKETS];
	struct op_list ops;
	bool op_active;
	bool unreadable; /* a manifest that names we do not know what */
	struct reap reap;
	struct transfer *transfers[SNAP_TRANSFERS_MAX];
};

/* --- tables ---------------------------------------------------------------- */

struct entry *store_find_entry(struct snapstore *st, const char *id);

/* A new one, SNAP_CREATING, with a new id unless it has one. NULL: no
 * memory. */
struct entry *store_add_entry(struct snapstore *st, const struct snap *like);
void store_remove_entry(struct snapstore *st, struct entry *e);

struct object *store_find_object(struct snapstore *st, const char *id);

/* A new one, which no manifest names yet; its file is looked at. NULL: no
 * memory. */
struct object *store_add_object(struct snapstore *st,
				const struct manifest_object *is,
				enum object_role role);

/* The object's file, with a reference for the caller; NULL: no memory. */
struct saved_file *store_hold(struct object *o);

/* Makes the entry name the objects of `m`, new ones included. 0, -ENOMEM, or
 * -EBADMSG when an object is not what another manifest says. On failure the
 * entry is as before. */
must_check int store_set_objects(struct snapstore *st, struct entry *e,
				 const struct manifest *m);

/* Notes and logs why a snapshot cannot be used; `object` may be "". */
void store_set_problem(struct entry *e, int error, const char *object,
		       const char *problem);

/* What a file looks like, and whether it looks as it did when its hash was
 * right. */
struct object_stamp object_stamp(const struct stat *st);
must_check bool object_is_stamped(const struct object_stamp *s,
				  const struct stat *st);

/* Drops the least recently used of what is kept in memory and too much. */
void store_trim(struct snapstore *st);

void store_add_op(struct snapstore *st, struct op *op);

/* --- shared by operations ---------------------------------------------------- */

/* Opens an object and checks type and size. -EBADMSG: *ret_problem. Any
 * thread. */
must_check int object_open(int objects_fd, const struct manifest_object *o,
			   struct stat *ret_stat, const char **ret_problem);

/* Writes and links the manifest, and syncs. On failure it is not there. Any
 * thread. */
must_check int manifest_publish(int snapshots_fd, const struct manifest *m);

/* Unlinks it; it may be gone already. Logs. Any thread. */
int manifest_remove(int snapshots_fd, const char *id);

/* As sparse_read(), of any role: the state is hashed as a plain file, and
 * `have` is for memory. Any thread. */
must_check int object_read(enum object_role role, int fd, uint64_t bytes,
			   int out_fd, struct sparse_map *have,
			   uint8_t ret_hash[SPARSE_HASH]);

/* Ends all transfers, at close. */
void transfers_close(struct snapstore *st);

#endif
