/* base64.c - bytes as text and back (RFC 4648, section 4).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdint.h>

#include "base64.h"

static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -EINVAL;
}

/* Four characters, of which the last `pad` are '='. */
static int read_group(struct buf *to, const char *text, size_t pad)
{
	uint32_t bits = 0;

	for (size_t i = 0; i < 4; i++) {
		int v = i < 4 - pad ? value_of(text[i]) : 0;
		if (v < 0)
			return v;
		bits = bits << 6 | (uint32_t)v;
	}
	/* bits that no byte carries must be zero, or two texts were equal */
	if ((pad == 1 && (bits & 0xff)) || (pad == 2 && (bits & 0xffff)))
		return -EINVAL;
	const char bytes[3] = { (char)(bits >> 16), (char)(bits >> 8),
				(char)bits };
	return buf_add(to, bytes, 3 - pad);
}

int base64_read(struct buf *to, const char *text, size_t n)
{
	int r = 0;

	if (n % 4 != 0)
		return -EINVAL;
	for (size_t i = 0; i < n && r == 0; i += 4) {
		size_t pad = 0;
		if (i + 4 == n && text[n - 1] == '=')
			pad = text[n - 2] == '=' ? 2 : 1;
		r = read_group(to, text + i, pad);
	}
	return r;
}

int base64_write(struct buf *to, const char *bytes, size_t n)
{
	const unsigned char *s = (const unsigned char *)bytes;
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i += 3) {
		size_t left = n - i;
		uint32_t bits = (uint32_t)s[i] << 16;
		if (left > 1)
			bits |= (uint32_t)s[i + 1] << 8;
		if (left > 2)
			bits |= s[i + 2];
		char text[4] = {
			alphabet[bits >> 18],
			alphabet[bits >> 12 & 63],
			alphabet[bits >> 6 & 63],
			alphabet[bits & 63],
		};
		if (left < 3)
			text[3] = '=';
		if (left < 2)
			text[2] = '=';
		r = buf_add(to, text, 4);
	}
	return r;
}
