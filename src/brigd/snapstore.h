/* snapstore.h - snapshots and templates on disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   DIR/objects/obj_...          immutable files: state, memory, disk layer
 *   DIR/snapshots/snap_....json  a manifest: what it is, which objects it is
 *                                made of, their sizes and SHA-256; its last
 *                                line is the SHA-256 of all before it
 *
 * A snapshot is there when its manifest is: objects are written, synced and
 * linked first, then the manifest under a temporary name, synced, renamed. So
 * a crash leaves a snapshot complete or absent; objects that no manifest names
 * and nobody uses are removed at start and when the last snapshot that names
 * them goes. Deleting a snapshot never hurts another: they share objects, not
 * each other.
 *
 * Memory and disk objects are sparse; their SHA-256 is over the number (u64
 * little-endian) and the bytes of each 4 KiB block that has data, in order:
 * what is a hole is part of what is hashed.
 *
 * Files are hostile: everything is verified before it is used. Event-loop
 * thread; what blocks runs in the worker and calls back. Errors are -errno:
 * -ENOENT no such snapshot, -EBADMSG damaged (logged: what and where),
 * -ENOTSUP made by another version, -ESTALE the base image changed, -ENOSPC,
 * -EIO.
 */
#ifndef BRIGD_SNAPSTORE_H
#define BRIGD_SNAPSTORE_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"
#include "saved.h"
#include "worker.h"

#define SNAP_ID_BYTES 32u /* "snap_" and 24 characters */

enum snap_kind {
	SNAP_MEMORY,   /* a whole machine */
	SNAP_DISK,     /* the disk alone: boots again */
	SNAP_TEMPLATE, /* a whole machine that new ones start from, by name */
};

enum snap_status {
	SNAP_CREATING,
	SNAP_READY,
	SNAP_ERROR, /* its files are damaged: `problem` says which */
};

struct snap {
	char id[SNAP_ID_BYTES];
	char name[NAME_BYTES];
	int64_t tenant;
	enum snap_kind kind;
	enum snap_status status;
	char problem[64];
	bool quiesced; /* consistency "application", else "crash" */
	int64_t created_ms;
	char parent[SNAP_ID_BYTES]; /* "": none; may be gone */
	char source_id[BRIG_ID_BYTES];
	char source_name[NAME_BYTES];
	struct shape shape;
	uint64_t own_bytes;    /* objects that no other snapshot names */
	uint64_t shared_bytes; /* the others */
};

struct snapstore;

/* Opens or makes DIR, reads the manifests, removes what a crash left. NULL
 * after logging. */
struct snapstore *snapstore_open(const char *dir, struct worker *worker);
void snapstore_close(struct snapstore *st);

/* Calls `each` for every snapshot of `tenant` (0: all), newest first. */
void snapstore_each(struct snapstore *st, int64_t tenant,
		    void (*each)(void *arg, const struct snap *snap),
		    void *arg);

/* Borrowed until the next call of anything here; NULL: no such. */
const struct snap *snapstore_find(struct snapstore *st, int64_t tenant,
				  const char *id);

/* --- making one ------------------------------------------------------------ */

/* A file without a name on the store's file system, read-write: for VMM_SAVE
 * to write into, or a new top layer. -errno: not to be had. */
must_check int snapstore_file(struct snapstore *st);

struct snap_draft {
	struct snap snap; /* id, sizes and status are filled in */

	/* The machine: state, layers (sealed, oldest first) and memory (full
	 * image, then deltas). Files without an object become objects, in
	 * place. `base` and `delta` are not looked at. With SNAP_DISK only the
	 * layers. Holds a reference until on_done. */
	struct saved *saved;

	/* 0: it is there, and snap is as snapstore_find() would say. */
	void (*on_done)(struct snap_draft *d, int error);
	struct worker_job job; /* private */
	int error;             /* private */
};

/* Publishes; the draft is the caller's and borrowed until on_done, which is
 * always called, from the loop. The id is set at once; snapstore_find() shows
 * it as SNAP_CREATING from now on. */
void snapstore_publish(struct snapstore *st, struct snap_draft *d);

/* --- using one ------------------------------------------------------------- */

struct snap_load {
	char id[SNAP_ID_BYTES];
	/* `saved` (a reference, the callee's) or NULL with -errno. */
	void (*on_done)(struct snap_load *l, int error, struct saved *saved);
	struct worker_job job; /* private, as the rest */
	struct snapstore *store;
	struct saved *saved;
	int error;
};

/* Verifies a snapshot and brings its RAM into sealed memfds: `base` from the
 * full image, shared by all saved machines with the same one, `delta` merged
 * from all deltas, newest first, so that a long chain costs no more than its
 * pages. What was loaded before and is still in memory is given out again, at
 * once but from the loop; snapstore_keep() bounds that. SNAP_DISK: layers
 * only. */
void snapstore_load(struct snapstore *st, const char *id, struct snap_load *l);

/* RAM of loaded snapshots that nobody runs from is kept up to so many bytes,
 * least recently used first to go. Templates are not counted. */
void snapstore_keep(struct snapstore *st, uint64_t bytes);

/* Merges: makes a memfd, sealed, of `newer` and of what only `older` has; for
 * a live clone of a machine that was itself restored with a delta. In the
 * worker; on_done gets the descriptor or -errno. */
struct snap_merge {
	int older_fd; /* borrowed until on_done */
	int newer_fd; /* borrowed; memfd that VMM_SAVE wrote */
	void (*on_done)(struct snap_merge *m, int fd_or_error);
	struct worker_job job; /* private */
	int result;            /* private */
};
void snapstore_merge(struct snapstore *st, struct snap_merge *m);

/* Removes it. Its objects go when nobody names or runs from them. 0 or
 * -errno. */
must_check int snapstore_delete(struct snapstore *st, const char *id);

/* A sandbox runs from `saved` (layers, memory): its objects stay. Call when
 * references are taken and dropped: objects of a saved machine are in use as
 * long as a struct saved from this store exists (saved_unref() of the last
 * reference makes snapstore_sweep() worth calling). */
void snapstore_sweep(struct snapstore *st);

#endif
