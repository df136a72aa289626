/* clock.h - the kernel's clocks as one number.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_BASE_CLOCK_H
#define BRIG_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000ull

/* Nanoseconds of CLOCK_MONOTONIC, CLOCK_REALTIME or another one that every
 * Linux has; it cannot fail. */
static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

#endif
