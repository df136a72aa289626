/* stream.c - saved state as a stream of named fields, in both directions.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything passes take(), which hands out the next bytes of the file, to be
 * written or to be read, and knows where it ends. The size and the CRC of a
 * file are checked before its first field is looked at, so what the rest
 * refuses was made wrong, not damaged.
 */
#include <errno.h>
#include <string.h>
#include <sys/platform/x86.h>

#include "num.h"
#include "stream.h"

static const char magic[8] = { 'b', 'r', 'i', 'g', 's', 't', 'a', 't' };

/* Header: magic, version, zero, bytes of the file. */
#define HEADER_BYTES 24u
#define HEADER_VERSION 8u
#define HEADER_ZERO 12u
#define HEADER_SIZE 16u

#define CRC_BYTES 4u

enum mark {
	MARK_SECTION = 'S',
	MARK_SECTION_END = 'E',
	MARK_FILE_END = 'Z',
	MARK_BYTES = 'b',
};

/* Sections within each other. */
#define DEPTH_MAX 8u

/* --- CRC-32C (RFC 3720, B.4) ----------------------------------------------- */

#define CRC_POLYNOMIAL 0x82f63b78u /* reflected */

/* The processor's instruction: 100 KiB take some 12 us. A table would cost a
 * new process more than the sum of its one file. */
__attribute__((target("sse4.2"))) static uint32_t
crc_by_instruction(uint32_t v, const uint8_t *p, size_t n)
{
	uint64_t wide = v;

	for (; n >= sizeof(uint64_t); n -= sizeof(uint64_t)) {
		wide = __builtin_ia32_crc32di(wide, load_le64(p));
		p += sizeof(uint64_t);
	}
	for (; n > 0; n--)
		wide = __builtin_ia32_crc32qi((uint32_t)wide, *p++);
	return (uint32_t)wide;
}

static uint32_t crc_by_bits(uint32_t v, const uint8_t *p, size_t n)
{
	for (; n > 0; n--) {
		v ^= *p++;
		for (int i = 0; i < 8; i++)
			v = v >> 1 ^ ((v & 1) != 0 ? CRC_POLYNOMIAL : 0);
	}
	return v;
}

static uint32_t crc32c(const uint8_t *p, size_t n)
{
	if (CPU_FEATURE_ACTIVE(SSE4_2))
		return ~crc_by_instruction(UINT32_MAX, p, n);
	return ~crc_by_bits(UINT32_MAX, p, n);
}

/* --- the bytes ------------------------------------------------------------- */

/* The first error sticks. */
static void fail(struct state_stream *s, int error, const char *name)
{
	if (s->error != 0)
		return;
	s->error = error;
	(void)snprintf(s->where, sizeof(s->where), "%s: %.*s", s->section,
		       (int)STATE_NAME_MAX, name);
}

/* The next `n` bytes of the file, or NULL: it ends before. */
static uint8_t *take(struct state_stream *s, size_t n, const char *name)
{
	uint8_t *p = s->at;

	if (s->error != 0)
		return NULL;
	if (n > (size_t)(s->end - p)) {
		fail(s, s->loading ? -EBADMSG : -ENOSPC, name);
		return NULL;
	}
	s->at += n;
	return p;
}

/* A mark and a name, written or read and compared. */
static bool heading(struct state_stream *s, enum mark mark, const char *name)
{
	size_t n = strlen(name);

	ASSERT(n > 0 && n <= STATE_NAME_MAX);
	uint8_t *p = take(s, 2, name);
	if (p == NULL)
		return false;
	if (!s->loading) {
		p[0] = (uint8_t)mark;
		p[1] = (uint8_t)n;
		p = take(s, n, name);
		if (p != NULL)
			memcpy(p, name, n);
		return p != NULL;
	}
	if (p[0] != (uint8_t)mark || p[1] != n) {
		fail(s, -EPROTO, name);
		return false;
	}
	p = take(s, n, name);
	if (p == NULL)
		return false;
	if (memcmp(p, name, n) != 0)
		fail(s, -EPROTO, name);
	return state_ok(s);
}

/* `n` bytes as they are. */
static void value(struct state_stream *s, const char *name, void *v, size_t n)
{
	uint8_t *p = take(s, n, name);

	if (p != NULL && s->loading)
		memcpy(v, p, n);
	else if (p != NULL)
		memcpy(p, v, n);
}

/* --- fields ---------------------------------------------------------------- */

/* A number of `bytes` bytes; false, and nothing is loaded, if it failed. */
static bool number(struct state_stream *s, const char *name, unsigned int bytes,
		   uint64_t *v, uint64_t min, uint64_t max)
{
	uint64_t loaded = 0;

	ASSERT(min <= max);
	if (!state_ok(s) || !heading(s, (enum mark)('0' + bytes), name))
		return false;
	if (!s->loading) {
		ASSERT(*v >= min && *v <= max);
		value(s, name, v, bytes);
		return false;
	}
	value(s, name, &loaded, bytes);
	if (state_ok(s) && (loaded < min || loaded > max))
		fail(s, -ERANGE, name);
	if (!state_ok(s))
		return false;
	*v = loaded;
	return true;
}

void state_u8(struct state_stream *s, const char *name, uint8_t *v, uint8_t min,
	      uint8_t max)
{
	uint64_t n = *v;

	if (number(s, name, sizeof(*v), &n, min, max))
		*v = (uint8_t)n;
}

void state_u16(struct state_stream *s, const char *name, uint16_t *v,
	       uint16_t min, uint16_t max)
{
	uint64_t n = *v;

	if (number(s, name, sizeof(*v), &n, min, max))
		*v = (uint16_t)n;
}

void state_u32(struct state_stream *s, const char *name, uint32_t *v,
	       uint32_t min, uint32_t max)
{
	uint64_t n = *v;

	if (number(s, name, sizeof(*v), &n, min, max))
		*v = (uint32_t)n;
}

void state_u64(struct state_stream *s, const char *name, uint64_t *v,
	       uint64_t min, uint64_t max)
{
	uint64_t n = *v;

	if (number(s, name, sizeof(*v), &n, min, max))
		*v = n;
}

void state_bool(struct state_stream *s, const char *name, bool *v)
{
	uint64_t n = *v ? 1 : 0;

	if (number(s, name, 1, &n, 0, 1))
		*v = n != 0;
}

void state_bytes(struct state_stream *s, const char *name, void *v, size_t n)
{
	uint32_t count = (uint32_t)n;

	ASSERT(n <= UINT32_MAX);
	if (!state_ok(s) || !heading(s, MARK_BYTES, name))
		return;
	value(s, name, &count, sizeof(count));
	if (state_ok(s) && count != n)
		fail(s, -EPROTO, name);
	value(s, name, v, n);
}

/* --- sections -------------------------------------------------------------- */

void state_begin(struct state_stream *s, const char *name, uint32_t version)
{
	uint32_t v = version;

	if (!state_ok(s) || !heading(s, MARK_SECTION, name))
		return;
	(void)snprintf(s->section, sizeof(s->section), "%s", name);
	value(s, "version", &v, sizeof(v));
	if (state_ok(s) && v != version)
		fail(s, -ENOTSUP, "version");
	ASSERT(s->depth < DEPTH_MAX);
	s->depth++;
}

/* One more byte, the mark; anything else there is `error`. */
static void mark_end(struct state_stream *s, enum mark mark, int error,
		     const char *name)
{
	uint8_t v = (uint8_t)mark;

	value(s, name, &v, sizeof(v));
	if (state_ok(s) && v != (uint8_t)mark)
		fail(s, error, name);
}

void state_end(struct state_stream *s)
{
	if (!state_ok(s))
		return;
	ASSERT(s->depth > 0);
	s->depth--;
	mark_end(s, MARK_SECTION_END, -EPROTO, "end");
}

void state_fail(struct state_stream *s, const char *what)
{
	fail(s, -ERANGE, what);
}

/* --- the file -------------------------------------------------------------- */

static void start(struct state_stream *s, bool loading, void *buf, size_t bytes)
{
	*s = (struct state_stream){
		.loading = loading,
		.start = buf,
		.at = buf,
		.end = (uint8_t *)buf + bytes,
		.section = "file",
	};
	if (bytes < HEADER_BYTES + 1 + CRC_BYTES) {
		fail(s, loading ? -EBADMSG : -ENOSPC, "header");
		return;
	}
	s->end -= CRC_BYTES;
	s->at += HEADER_BYTES;
}

void state_save(struct state_stream *s, void *buf, size_t bytes)
{
	start(s, false, buf, bytes);
}

void state_load(struct state_stream *s, const void *buf, size_t bytes)
{
	const uint8_t *p = buf;

	/* take() gives out pointers that loading only reads through */
	start(s, true, (void *)(uintptr_t)buf, bytes);
	if (!state_ok(s))
		return;
	if (memcmp(p, magic, sizeof(magic)) != 0)
		fail(s, -EPROTO, "magic");
	else if (load_le32(p + HEADER_VERSION) != STATE_FORMAT_VERSION ||
		 load_le32(p + HEADER_ZERO) != 0)
		fail(s, -ENOTSUP, "format version");
	else if (load_le64(p + HEADER_SIZE) != bytes)
		fail(s, -EBADMSG, "size");
	else if (load_le32(s->end) != crc32c(p, bytes - CRC_BYTES))
		fail(s, -EBADMSG, "crc");
}

/* Header and CRC, now that the size is known. */
static void seal(struct state_stream *s)
{
	uint64_t bytes = (uint64_t)(s->at - s->start) + CRC_BYTES;
	uint32_t words[2] = { STATE_FORMAT_VERSION, 0 };
	uint32_t crc;

	memcpy(s->start, magic, sizeof(magic));
	memcpy(s->start + HEADER_VERSION, words, sizeof(words));
	memcpy(s->start + HEADER_SIZE, &bytes, sizeof(bytes));
	crc = crc32c(s->start, (size_t)(s->at - s->start));
	memcpy(s->at, &crc, sizeof(crc)); /* start() kept room */
}

int state_finish(struct state_stream *s, size_t *ret_bytes)
{
	mark_end(s, MARK_FILE_END, -EBADMSG, "end of file");
	if (!state_ok(s))
		return s->error;
	ASSERT(s->depth == 0);
	if (!s->loading)
		seal(s);
	else if (s->at != s->end)
		fail(s, -EBADMSG, "end of file");
	if (state_ok(s) && ret_bytes != NULL)
		*ret_bytes = (size_t)(s->at - s->start) + CRC_BYTES;
	return s->error;
}
