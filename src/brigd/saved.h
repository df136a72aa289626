/* saved.h - a saved machine: all that a VMM_RESTORE needs, in memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Made by a live clone (memory and state in memfds, no file), or loaded from
 * the snapshot store. Counted references; the last one closes everything.
 * Whoever runs from a saved machine holds a reference, so that its own
 * snapshots can name the same files. Files and RAM are counted by themselves:
 * a machine that goes on from another shares them, it does not copy them.
 * Event-loop thread only; the worker may use a descriptor whose file somebody
 * holds for it.
 */
#ifndef BRIGD_SAVED_H
#define BRIGD_SAVED_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"
#include "limits.h"
#include "wire/limits.h"

#define OBJECT_ID_BYTES 32u /* "obj_" and 24 characters; "": not a file */

/* Files of RAM of one saved machine: the full image and deltas. Publishing
 * merges deltas, so that there are about twenty at most; see snapstore.h. */
#define SAVED_MEMORY_MAX 60u

/* What cannot change when a machine goes on: machines of one shape fit the
 * same shells. */
struct shape {
	char image[IMAGE_NAME_BYTES];
	uint8_t image_hash[32]; /* of size and first MiB: the same base? */
	uint64_t base_bytes;
	uint32_t vcpus;
	uint32_t memory_mib;
	uint64_t disk_bytes;
};

/* An immutable file of the snapshot store, or a descriptor without a name. */
struct saved_file {
	unsigned int refs;
	int fd; /* owned, nobody writes through it; -1: known by name only */
	char object[OBJECT_ID_BYTES]; /* set by the store when it has it */
};

/* RAM that several saved machines share. */
struct saved_memory {
	unsigned int refs;
	int fd; /* sealed memfd, owned */

	/* The pages that a machine with this RAM needs first, as a sealed file
	 * of struct vmm_pages, owned; -1: not known. */
	int working_set_fd;
	bool rehearsed; /* it was tried to find out */
};

struct saved {
	unsigned int refs;
	struct shape shape;
	char hostname_hint[NAME_BYTES]; /* of the source; "": none */
	struct saved_file *state;       /* NULL: the disk alone */

	struct saved_memory *base;  /* all of RAM; NULL: the disk alone */
	struct saved_memory *delta; /* NULL: none */

	/* Where RAM lies on disk, full image first, then deltas, oldest first;
	 * a live clone's own delta is a file without an object. */
	unsigned int memory_count;
	struct saved_file *memory[SAVED_MEMORY_MAX];

	unsigned int layer_count; /* sealed disk layers, oldest first */
	struct saved_file *layers[BRIG_LAYERS_MAX];
};

/* An empty one with one reference, or NULL. */
struct saved *saved_new(const struct shape *shape);
struct saved *saved_ref(struct saved *s);
void saved_unref(struct saved *s); /* NULL is fine */

/* Append a file and take over one reference to it, also on failure: -E2BIG.
 * `f` may be NULL (saved_file_new() failed): -ENOMEM. */
must_check int saved_add_memory(struct saved *s, struct saved_file *f);
must_check int saved_add_layer(struct saved *s, struct saved_file *f);

/* Takes over `fd`; NULL: no memory (fd is closed). */
struct saved_file *saved_file_new(int fd);
struct saved_file *saved_file_ref(struct saved_file *f);
void saved_file_unref(struct saved_file *f); /* NULL is fine */

/* Takes over `fd`; NULL: no memory (fd is closed). */
struct saved_memory *saved_memory_new(int fd);
struct saved_memory *saved_memory_ref(struct saved_memory *m);
void saved_memory_unref(struct saved_memory *m); /* NULL is fine */

/* Bytes of the host's memory that it takes. */
uint64_t saved_memory_bytes(const struct saved_memory *m);

/* For what VMM_SAVE wrote: takes over `fd`, also on failure, and returns a
 * descriptor of the same file that nobody can write through: a memfd is sealed
 * (SHRINK, GROW, WRITE), another file is opened again, read-only. -EBUSY: a
 * memfd is still mapped writable somewhere. */
must_check int saved_freeze(int fd);

must_check bool shape_equal(const struct shape *a, const struct shape *b);

#endif
