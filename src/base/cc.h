/* cc.h - all we ask of the compiler.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_BASE_CC_H
#define BRIG_BASE_CC_H

#include <stddef.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define must_check __attribute__((warn_unused_result))
#define noreturn_fn __attribute__((noreturn))
#define printf_like(f, a) __attribute__((format(printf, f, a)))
#define maybe_unused __attribute__((unused))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Our own bugs only: never on what a guest, a client or a file says. Always
 * compiled in; the expression must have no side effect. */
#define ASSERT(x)                                              \
	do {                                                   \
		if (unlikely(!(x)))                            \
			assert_failed(#x, __FILE__, __LINE__); \
	} while (0)

noreturn_fn void assert_failed(const char *what, const char *file, int line);

#endif
