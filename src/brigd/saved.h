/* saved.h - a saved machine: all that a VMM_RESTORE needs, in memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Made by a live clone (memory and state in memfds, no file), or loaded from
 * the snapshot store. Counted references; the last one closes everything.
 * Whoever runs from a saved machine holds a reference, so that its own
 * snapshots can name the same files. Event-loop thread only.
 */
#ifndef BRIGD_SAVED_H
#define BRIGD_SAVED_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"
#include "limits.h"
#include "wire/limits.h"

#define OBJECT_ID_BYTES 32u /* "obj_" and 24 characters; "": not a file */

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
	int fd; /* owned; -1: none */
	char object[OBJECT_ID_BYTES];
};

/* RAM that several saved machines share: counted by itself. */
struct saved_memory {
	unsigned int refs;
	int fd; /* sealed memfd, owned */
};

struct saved {
	unsigned int refs;
	struct shape shape;
	char hostname_hint[NAME_BYTES]; /* of the source */
	struct saved_file state;

	struct saved_memory *base;  /* all of RAM */
	struct saved_memory *delta; /* NULL: none */

	/* Where RAM lies on disk, full image first, then deltas, oldest first;
	 * a live clone's own delta is a file without an object. */
	unsigned int memory_count;
	struct saved_file *memory;

	unsigned int layer_count; /* sealed disk layers, oldest first */
	struct saved_file layers[BRIG_LAYERS_MAX];
};

/* An empty one with one reference, or NULL. */
struct saved *saved_new(const struct shape *shape);
struct saved *saved_ref(struct saved *s);
void saved_unref(struct saved *s); /* NULL is fine */

/* Takes over `fd`; NULL: no memory (fd is closed). */
struct saved_memory *saved_memory_new(int fd);
struct saved_memory *saved_memory_ref(struct saved_memory *m);
void saved_memory_unref(struct saved_memory *m); /* NULL is fine */

must_check bool shape_equal(const struct shape *a, const struct shape *b);

#endif
