/* snapstore.h - snapshots and templates on disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   DIR/objects/obj_...          immutable files: state, memory, disk layer
 *   DIR/snapshots/snap_....json  a manifest: what it is, which objects it is
 *                                made of, their sizes and SHA-256; its last
 *                                line is the SHA-256 of all before it
 *
 * A snapshot is there when its manifest is. Files have no name while they are
 * written (O_TMPFILE); objects are synced, then linked, then their directory
 * is synced; the manifest comes last, in the same way. So a crash leaves a
 * snapshot complete or absent, and nothing to clean up but objects that no
 * manifest names: those are removed at start, and when the last snapshot that
 * names them goes and nobody uses them. Deleting a snapshot never hurts
 * another: they share objects, not each other.
 *
 * Memory and disk objects are sparse; their SHA-256 is over the number (u64
 * little-endian) and the bytes of each 4 KiB block that has data, in order:
 * what is a hole is part of what is hashed.
 *
 * Each snapshot of a machine that was itself restored adds a delta to those it
 * came from. When a new delta is at least half as large as the one before it,
 * publishing merges that one into it, and so on: each delta is then less than
 * half of the one below, so there are few, and together they are at most twice
 * the largest, however long the history is.
 *
 * Files are hostile: everything is verified before it is used. Event-loop
 * thread; what blocks runs in the worker and calls back. Errors are -errno:
 * -ENOENT no such snapshot, -EBADMSG damaged (logged: what and where),
 * -ENOTSUP made by another version, -EBUSY still being made, -EDQUOT
 * SNAPSHOTS_MAX, -ENOSPC, -EIO, -ENOMEM. Whether the base image is still the
 * same (shape.image_hash) is for the caller to see.
 */
#ifndef BRIGD_SNAPSTORE_H
#define BRIGD_SNAPSTORE_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"
#include "saved.h"
#include "settings.h"
#include "worker.h"

#define SNAP_ID_BYTES 32u /* "snap_" and 24 characters */

/* Snapshots of one host. */
#define SNAPSHOTS_MAX 10000u

/* State of the devices and vCPUs of one machine. */
#define SNAP_STATE_MAX (16u << 20)

/* Exports and imports at once: each is a thread. */
#define SNAP_TRANSFERS_MAX 4u

/* A transfer whose other side moves no byte for so long is given up. */
#define SNAP_TRANSFER_IDLE_S 60u

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
	char name[NAME_BYTES]; /* UTF-8 without control characters, not "" */
	int64_t tenant;        /* of a damaged manifest: STORE_TENANT */
	enum snap_kind kind;
	enum snap_status status;
	char problem[64];
	bool quiesced; /* consistency "application", else "crash" */
	int64_t created_ms;
	char parent[SNAP_ID_BYTES];    /* "": none; may be gone */
	char source_id[BRIG_ID_BYTES]; /* "": none */
	char source_name[NAME_BYTES];  /* as name, or "" */
	struct shape shape;
	json_t *settings;      /* NULL: none; a copy of the struct borrows it */
	uint64_t own_bytes;    /* on disk, of objects no other snapshot names */
	uint64_t shared_bytes; /* of the others */
};

struct snapstore;

/* Opens or makes DIR, reads the manifests, removes what a crash left. Refuses
 * a file system without O_TMPFILE or one that tells holes in units over 4 KiB.
 * NULL after logging. */
struct snapstore *snapstore_open(const char *dir, struct worker *worker);

/* Call worker_free() first. What is under way is dropped without on_done, and
 * so are transfers: their sockets are shut down. NULL is fine. */
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
 * to write into, or a new top layer. -errno: not to be had. When it is written
 * it goes through saved_freeze(). */
must_check int snapstore_file(struct snapstore *st);

/* 0, or -ENOSPC: `bytes` more would take the last sixteenth of the file system,
 * which is for the disks of the sandboxes that run. */
must_check int snapstore_check_room(const struct snapstore *st, uint64_t bytes);

struct snap_draft {
	/* id, status and sizes are filled in, and created_ms if it is 0. */
	struct snap snap;

	/* The machine: state, layers (sealed, oldest first) and memory (full
	 * image, then deltas). Files without an object become objects: in
	 * place if snapstore_file() made them, else copied. With SNAP_DISK
	 * only the layers. `base`, if there is one, holds what the full image
	 * holds: who loads that image later shares it. `delta` is not looked
	 * at. Deltas may have become fewer afterwards. on_done finds the
	 * reference still there: it is the caller's. */
	struct saved *saved;

	/* 0: it is there, and snap is as snapstore_find() would say. Otherwise
	 * nothing is visible, and what was written goes when `saved` is not
	 * used any more (snapstore_sweep()). -EINVAL: names or ids that cannot
	 * be written down, or files of the wrong size. */
	void (*on_done)(struct snap_draft *d, int error);

	struct worker_job job; /* private */
};

/* Publishes; the draft is the caller's and borrowed until on_done, which is
 * always called, from the loop. The id is set at once; snapstore_find() shows
 * it as SNAP_CREATING from now on. */
void snapstore_publish(struct snapstore *st, struct snap_draft *d);

/* --- using one ------------------------------------------------------------- */

struct snap_load {
	/* `saved` (a reference, the callee's) or NULL with -errno. Always
	 * called, from the loop. */
	void (*on_done)(struct snap_load *l, int error, struct saved *saved);

	/* Private. */
	char id[SNAP_ID_BYTES];
	struct saved *saved;
	struct worker_job job;
};

/* Verifies a snapshot and brings its RAM into sealed memfds: `base` from the
 * full image, shared by all saved machines with the same one, `delta` merged
 * from all deltas, newest first, so that a long chain costs no more than its
 * pages. What was loaded before and is still in memory is given out again, at
 * once but from the loop; snapstore_keep() bounds that. SNAP_DISK: layers
 * only. `l` is borrowed until on_done. */
void snapstore_load(struct snapstore *st, const char *id, struct snap_load *l);

/* RAM of loaded snapshots that nobody runs from is kept up to so many bytes,
 * least recently used first to go. Templates are not counted and stay until
 * they are deleted. */
void snapstore_keep(struct snapstore *st, uint64_t bytes);

/* Merges: makes a memfd, sealed, of `newer` and of what only `older` has; for
 * a live clone of a machine that was itself restored with a delta. In the
 * worker; on_done gets the descriptor or -errno. */
struct snap_merge {
	int older_fd; /* borrowed until on_done */
	int newer_fd; /* borrowed; memfd that VMM_SAVE wrote */
	void (*on_done)(struct snap_merge *m, int fd_or_error);

	/* Private. */
	struct worker_job job;
	int result;
};
void snapstore_merge(struct snapstore *st, struct snap_merge *m);

/* Removes it. Its objects go when no snapshot names them and nobody runs from
 * them. 0 or -errno; -EBUSY while it is being made. */
must_check int snapstore_delete(struct snapstore *st, const char *id);

/* Frees what only the store itself still holds: call when the last reference
 * to a saved machine was dropped. Objects in use stay as long as a struct
 * saved names them. */
void snapstore_sweep(struct snapstore *st);

/* --- carrying one elsewhere ------------------------------------------------- */

/* One snapshot as one stream: manifest, then its objects with their holes, end
 * mark. Each transfer has a thread of its own, so it may block. `fd` is one end
 * of a stream socket (a file will do where nobody waits); it gets a time-out
 * of SNAP_TRANSFER_IDLE_S. -EMFILE: SNAP_TRANSFERS_MAX.
 *
 * The other side ends a transfer by shutting down or closing its end. */
struct snap_export {
	int fd; /* blocking; borrowed until on_done */
	void (*on_done)(struct snap_export *e, int error);
};

/* 0: on_done will be called, from the loop, when all is written or with
 * -errno. Otherwise -errno and it will not. What is written is verified on
 * the way: if an object turns out damaged the end mark is missing. */
must_check int snapstore_export(struct snapstore *st, const char *id,
				struct snap_export *e);

struct snap_import {
	int fd;                /* blocking; borrowed until on_done; hostile */
	int64_t tenant;        /* whose it will be */
	char name[NAME_BYTES]; /* "": the name it had */
	void (*on_done)(struct snap_import *im, int error);
	char id[SNAP_ID_BYTES]; /* ret: the new one, when error is 0 */
};

/* Reads a stream, verifies all of it and publishes it under a new id; a
 * template becomes a memory snapshot. Errors through on_done as of publish and
 * load (-EINVAL: `name`); -EBADMSG also for a stream that ends early or goes on after its end.
 * Gives up with -ENOSPC before it takes the last sixteenth of the file
 * system. */
must_check int snapstore_import(struct snapstore *st, struct snap_import *im);

#endif
