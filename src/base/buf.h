/* buf.h - a growable byte buffer that cannot exist without a maximum.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Zero the struct and set `max`, or use BUF_INIT. `data` is valid while
 * `len` > 0 and always NUL-terminated after buf_add*. The owner calls
 * buf_free. Functions return 0, -ENOMEM, or -ENOSPC at the maximum (then the
 * buffer is as before).
 */
#ifndef BRIG_BASE_BUF_H
#define BRIG_BASE_BUF_H

#include <stddef.h>

#include "cc.h"

struct buf {
	char *data;
	size_t len;
	size_t cap; /* private */
	size_t max; /* most bytes that `len` may reach */
};

#define BUF_INIT(maximum)                                          \
	{                                                          \
		.data = NULL, .len = 0, .cap = 0, .max = (maximum) \
	}

void buf_free(struct buf *b);

#define cleanup_buf __attribute__((cleanup(buf_free)))

must_check int buf_add(struct buf *b, const void *bytes, size_t n);
must_check int buf_add_str(struct buf *b, const char *s);
must_check printf_like(2, 3) int buf_addf(struct buf *b, const char *fmt, ...);

/* Makes room for `n` more bytes and returns where to put them; the caller
 * then raises `len`. NULL when there is no memory or no room below `max`. */
must_check void *buf_reserve(struct buf *b, size_t n);

/* Drops the first `n` bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);

#endif
