/* utf8.c - guest output as UTF-8 and as the inside of a JSON string.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "utf8.h"

static const uint8_t replacement[] = { 0xef, 0xbf, 0xbd }; /* U+FFFD */

struct step {
	size_t len; /* bytes of this sequence or ill-formed part; >= 1 */
	bool valid;
	bool open; /* ill-formed only because the input ended */
};

/* Bytes that a lead byte asks for and the range of the second one (Unicode
 * 15, table 3-7); 0 if it is no lead byte. */
static size_t lead(uint8_t c, uint8_t *ret_min, uint8_t *ret_max)
{
	*ret_min = 0x80;
	*ret_max = 0xbf;
	if (c >= 0xc2 && c <= 0xdf)
		return 2;
	if (c >= 0xe0 && c <= 0xef) {
		if (c == 0xe0)
			*ret_min = 0xa0;
		if (c == 0xed)
			*ret_max = 0x9f;
		return 3;
	}
	if (c >= 0xf0 && c <= 0xf4) {
		if (c == 0xf0)
			*ret_min = 0x90;
		if (c == 0xf4)
			*ret_max = 0x8f;
		return 4;
	}
	return 0;
}

/* Looks at the sequence that starts at `p` (n >= 1). */
static struct step look(const uint8_t *p, size_t n)
{
	uint8_t min;
	uint8_t max;

	if (p[0] < 0x80)
		return (struct step){ .len = 1, .valid = true };
	size_t want = lead(p[0], &min, &max);
	if (want == 0)
		return (struct step){ .len = 1 };
	for (size_t i = 1; i < want; i++) {
		if (i == n)
			return (struct step){ .len = i, .open = true };
		if (p[i] < min || p[i] > max)
			return (struct step){ .len = i };
		min = 0x80;
		max = 0xbf;
	}
	return (struct step){ .len = want, .valid = true };
}

bool utf8_is_valid(const uint8_t *bytes, size_t n)
{
	for (size_t at = 0; at < n;) {
		struct step s = look(bytes + at, n - at);
		if (!s.valid)
			return false;
		at += s.len;
	}
	return true;
}

size_t utf8_tail(const uint8_t *bytes, size_t n)
{
	for (size_t back = 1; back <= UTF8_TAIL_MAX && back <= n; back++) {
		const uint8_t *p = bytes + n - back;
		if ((*p & 0xc0) == 0x80)
			continue; /* in the middle of a sequence */
		struct step s = look(p, back);
		return s.open && s.len == back ? back : 0;
	}
	return 0;
}

/* Writes one ASCII character for JSON; returns how many bytes. */
static size_t put_escaped(char *to, uint8_t c)
{
	static const char hex[] = "0123456789abcdef";
	static const char shorts[0x20] = {
		['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n',
		['\r'] = 'r', ['\t'] = 't',
	};

	if (c == '"' || c == '\\') {
		to[0] = '\\';
		to[1] = (char)c;
		return 2;
	}
	if (c < 0x20 && shorts[c] != 0) {
		to[0] = '\\';
		to[1] = shorts[c];
		return 2;
	}
	if (c < 0x20 || c == 0x7f) {
		to[0] = '\\';
		to[1] = 'u';
		to[2] = '0';
		to[3] = '0';
		to[4] = hex[c >> 4];
		to[5] = hex[c & 15];
		return 6;
	}
	to[0] = (char)c;
	return 1;
}

#define PIECE 4096u /* input bytes for which room is made at once */

static int add(struct buf *to, const uint8_t *bytes, size_t n, bool json)
{
	size_t before = to->len;

	for (size_t at = 0; at < n;) {
		size_t end = n - at < PIECE ? n : at + PIECE;
		/* A sequence may reach three bytes past `end`. */
		char *out = buf_reserve(to, 6 * (end - at) + 4);
		size_t len = 0;

		if (out == NULL) {
			to->len = before;
			return -ENOSPC;
		}
		while (at < end) {
			struct step s = look(bytes + at, n - at);
			if (json && s.len == 1 && s.valid) {
				len += put_escaped(out + len, bytes[at]);
			} else if (s.valid) {
				memcpy(out + len, bytes + at, s.len);
				len += s.len;
			} else {
				memcpy(out + len, replacement,
				       sizeof(replacement));
				len += sizeof(replacement);
			}
			at += s.len;
		}
		to->len += len;
		to->data[to->len] = '\0';
	}
	return 0;
}

int utf8_add_json(struct buf *to, const uint8_t *bytes, size_t n)
{
	return add(to, bytes, n, true);
}

int utf8_add(struct buf *to, const uint8_t *bytes, size_t n)
{
	return add(to, bytes, n, false);
}
