/* question.h - what a benchmark asks of tests/guest/answer.c.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_TESTS_QUESTION_H
#define BRIG_TESTS_QUESTION_H

#include <stdint.h>

#define QUESTION_AT 0x200000u

struct question {
	uint32_t number; /* a new one: answer */
	uint32_t a;
	uint32_t b; /* the answer is a * b, its lower two bytes */
	uint32_t dirty_pages;
	uint32_t then_halt; /* not 0: leaves the processor to others */
};

/* Address of the i-th page that a guest writes to: runs of sixteen pages, so
 * that a delta is neither one run nor only single pages. */
static inline uint32_t question_page(uint32_t i)
{
	return 0x400000u + (i / 16 * 32 + i % 16) * 4096u;
}

#endif
