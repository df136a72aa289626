/* script.h - takes a fuzzer's bytes apart; past the end everything is 0.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_TESTS_SCRIPT_H
#define BRIG_TESTS_SCRIPT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct script {
	const uint8_t *at;
	size_t left;
};

static inline void script_take(struct script *s, void *to, size_t n)
{
	size_t have = n < s->left ? n : s->left;

	memset(to, 0, n);
	if (have == 0)
		return;
	memcpy(to, s->at, have);
	s->at += have;
	s->left -= have;
}

static inline uint8_t script_u8(struct script *s)
{
	uint8_t v;

	script_take(s, &v, sizeof(v));
	return v;
}

static inline uint16_t script_u16(struct script *s)
{
	uint16_t v;

	script_take(s, &v, sizeof(v));
	return v;
}

static inline uint32_t script_u32(struct script *s)
{
	uint32_t v;

	script_take(s, &v, sizeof(v));
	return v;
}

static inline uint64_t script_u64(struct script *s)
{
	uint64_t v;

	script_take(s, &v, sizeof(v));
	return v;
}

#endif
