/* manifest.h - what a snapshot is made of, as text with a checksum.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One JSON object, laid out in exactly one way (sorted keys, one blank for
 * each level), a newline, SHA-256 of all of that in hex, a newline. In every
 * version the last line is that; `format` says which version the rest is.
 * Whoever may write files may compute checksums: all values are checked as if
 * there were none.
 */
#ifndef BRIGD_MANIFEST_H
#define BRIGD_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "cc.h"
#include "snapstore.h"
#include "sparse.h"

#define MANIFEST_FORMAT 1

/* The text of one: each object takes about 160 bytes, a byte of a command up
 * to six. */
#define MANIFEST_TEXT_MAX (256u << 10)

#define MANIFEST_OBJECTS_MAX (1 + SAVED_MEMORY_MAX + BRIG_LAYERS_MAX)

enum object_role {
	OBJECT_STATE,
	OBJECT_MEMORY,
	OBJECT_LAYER
};

struct manifest_object {
	char id[OBJECT_ID_BYTES];
	uint64_t bytes; /* size of the file, holes included */
	uint8_t sha256[SPARSE_HASH];
};

struct manifest {
	struct snap snap; /* status, problem and sizes are not in the text */
	char hostname_hint[NAME_BYTES];

	/* State (0 or 1), then memory (full image, deltas), then layers. No id
	 * is there twice. */
	unsigned int state_count;
	unsigned int memory_count;
	unsigned int layer_count;
	struct manifest_object objects[MANIFEST_OBJECTS_MAX];
};

static inline unsigned int manifest_count(const struct manifest *m)
{
	return m->state_count + m->memory_count + m->layer_count;
}

enum object_role manifest_role(const struct manifest *m, unsigned int index);

/* True if the object at `index` has a size that its role and shape allow. */
must_check bool manifest_is_size(const struct manifest *m, unsigned int index);

/* True if all but the objects can be written down. */
must_check bool manifest_is_head(const struct manifest *m);

/* Writes the text. -EINVAL: decoding would refuse it. */
must_check int manifest_encode(const struct manifest *m, struct buf *ret);

/* Reads a text of `n` hostile bytes into *ret, which is only valid when 0 is
 * returned; snap.settings is the caller's reference then, and NULL otherwise.
 * `id`: the snapshot that it must be of (the name of its file); NULL: of any.
 * -EBADMSG, -ENOTSUP (whole, but of another format) or -ENOMEM; then
 * *ret_problem says what is wrong with it. */
must_check int manifest_decode(const char *text, size_t n, const char *id,
			       struct manifest *ret, const char **ret_problem);

/* True if `id` is `prefix` and 24 characters of [a-z0-9]: safe as a name of a
 * file. */
must_check bool manifest_is_id(const char *id, const char *prefix);

#endif
