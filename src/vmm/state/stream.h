/* stream.h - saved state as a stream of named fields, in both directions.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One function for each object names its fields once, in order:
 *
 *   void rng_state(struct state_stream *s, struct rng *r)
 *   {
 *           state_begin(s, "rng", 1);
 *           state_u64(s, "tokens", &r->tokens, 0, RNG_BURST_BYTES);
 *           state_end(s);
 *   }
 *
 * Saving, it writes them; loading, it reads them and refuses a value outside
 * the bounds: so save, restore and validation cannot differ. The file says of
 * each field its kind, name and size, so that a person or another version can
 * read it without this program.
 *
 *   file     = header, section..., u8 'Z'; CRC-32C of all that comes before
 *              it in the last four bytes
 *   header   = "brigstat", u32 format version, u32 0, u64 bytes of the file
 *   section  = u8 'S', u8 length of name, name, u32 version of the section
 *              (what is inside), u8 'E'
 *   field    = u8 kind ('1' '2' '4' '8': number of so many bytes; 'b': bytes),
 *              u8 length of name, name, [u32 count for 'b'], value
 *   all numbers little-endian
 *
 * The first error sticks: later calls do nothing (loading, they leave the
 * target alone), and state_finish() tells. Errors: -EBADMSG the file is
 * damaged (size, CRC, end); -EPROTO it is of another shape (magic, a field of
 * another name or kind, a section missing); -ENOTSUP of another version;
 * -ERANGE a value is out of its bounds or state_fail() was called; -ENOSPC the
 * buffer is too small to save into; `where` then names section (the one that
 * began last) and field.
 *
 * One thread at a time, no allocation: the caller brings the buffer. Loading,
 * all bytes are hostile.
 */
#ifndef BRIG_VMM_STATE_STREAM_H
#define BRIG_VMM_STATE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cc.h"

#define STATE_FORMAT_VERSION 1u
#define STATE_NAME_MAX 31u

struct state_stream {
	bool loading;
	int error; /* 0 or the first -errno */
	char where[2 * STATE_NAME_MAX + 4];

	/* private */
	uint8_t *at;
	uint8_t *end;
	uint8_t *start;
	unsigned int depth;
	char section[STATE_NAME_MAX + 1];
};

/* Begins to save into `buf`. */
void state_save(struct state_stream *s, void *buf, size_t bytes);

/* Begins to load from `buf`: checks header, size and CRC of all `bytes` before
 * any field is looked at. `buf` is not changed and must stay. */
void state_load(struct state_stream *s, const void *buf, size_t bytes);

/* Ends it. Saving: writes the end, *ret_bytes is the size of the file. Loading:
 * fails unless all was read. 0 or the first error. ret_bytes may be NULL. */
must_check int state_finish(struct state_stream *s, size_t *ret_bytes);

/* A section with fields or sections in it. Names are string literals of at
 * most STATE_NAME_MAX characters. Returns nothing: check at the end. */
void state_begin(struct state_stream *s, const char *name, uint32_t version);
void state_end(struct state_stream *s);

/* One number, bounds included. Saving, a value out of bounds is our mistake:
 * ASSERT. */
void state_u8(struct state_stream *s, const char *name, uint8_t *v, uint8_t min,
	      uint8_t max);
void state_u16(struct state_stream *s, const char *name, uint16_t *v,
	       uint16_t min, uint16_t max);
void state_u32(struct state_stream *s, const char *name, uint32_t *v,
	       uint32_t min, uint32_t max);
void state_u64(struct state_stream *s, const char *name, uint64_t *v,
	       uint64_t min, uint64_t max);
void state_bool(struct state_stream *s, const char *name, bool *v);

/* Exactly `n` bytes; the caller validates what they mean. */
void state_bytes(struct state_stream *s, const char *name, void *v, size_t n);

/* The loaded values do not make sense together: -ERANGE, with `what` in
 * `where`. */
void state_fail(struct state_stream *s, const char *what);

/* True while no error happened. */
static inline bool state_ok(const struct state_stream *s)
{
	return s->error == 0;
}

#endif
