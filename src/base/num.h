/* num.h - checked arithmetic, alignment, little-endian loads and stores.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Values that a guest, a client or a file chose go through the checked
 * helpers; they return false on overflow and then leave *ret alone.
 */
#ifndef BRIG_BASE_NUM_H
#define BRIG_BASE_NUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cc.h"

static inline must_check bool u64_add(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t sum;
	if (__builtin_add_overflow(a, b, &sum))
		return false;
	*ret = sum;
	return true;
}

static inline must_check bool u64_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t product;
	if (__builtin_mul_overflow(a, b, &product))
		return false;
	*ret = product;
	return true;
}

static inline uint64_t u64_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t u64_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* `to` is a power of two. Wraps at the top: check first where that matters. */
static inline uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

static inline bool is_aligned(uint64_t v, uint64_t to)
{
	return (v & (to - 1)) == 0;
}

static inline uint16_t load_le16(const void *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return v; /* x86-64 and arm64 are little-endian */
}

static inline uint32_t load_le32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t load_le64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

#endif
