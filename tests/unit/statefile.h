/* statefile.h - makes a changed state file look whole again, for tests.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Written from the format alone (src/vmm/state/stream.h), one bit at a time.
 */
#ifndef BRIG_TESTS_STATEFILE_H
#define BRIG_TESTS_STATEFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t statefile_crc(const uint8_t *p, size_t n)
{
	uint32_t v = UINT32_MAX;

	for (size_t bit = 0; bit < n * 8; bit++) {
		uint32_t in = (uint32_t)p[bit / 8] >> bit % 8;

		v = ((v ^ in) & 1) != 0 ? v >> 1 ^ 0x82f63b78u : v >> 1;
	}
	return ~v;
}

/* Writes size and CRC of a file of `n` bytes, if there is room for them. */
static inline void statefile_seal(uint8_t *file, size_t n)
{
	uint64_t bytes = n;
	uint32_t crc;

	if (n < 24 + 4)
		return;
	memcpy(file + 16, &bytes, sizeof(bytes));
	crc = statefile_crc(file, n - 4);
	memcpy(file + n - 4, &crc, sizeof(crc));
}

/* The value of the `nth` field (from 0) of this name; NULL: there is none. */
static inline uint8_t *statefile_field(uint8_t *file, size_t n,
				       const char *name, unsigned int nth)
{
	size_t len = strlen(name);

	for (size_t at = 25; at + 1 + len < n; at++) {
		if (memchr("1248b", file[at - 1], 5) == NULL ||
		    file[at] != len || memcmp(file + at + 1, name, len) != 0)
			continue;
		if (nth-- == 0)
			return file + at + 1 + len +
			       (file[at - 1] == 'b' ? 4 : 0);
	}
	return NULL;
}

/* Sets a number and makes the file whole again; false: no such field. */
static inline bool statefile_set(uint8_t *file, size_t n, const char *name,
				 unsigned int nth, uint64_t v)
{
	uint8_t *p = statefile_field(file, n, name, nth);

	if (p == NULL)
		return false;
	memcpy(p, &v, (size_t)(*(p - strlen(name) - 2) - '0'));
	statefile_seal(file, n);
	return true;
}

#endif
