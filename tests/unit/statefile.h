/* statefile.h - makes a changed state file look whole again, for tests.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Written from the format alone (src/vmm/state/stream.h), one bit at a time.
 */
#ifndef BRIG_TESTS_STATEFILE_H
#define BRIG_TESTS_STATEFILE_H

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

#endif
