/* utf8.h - guest output as UTF-8 and as the inside of a JSON string.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The bytes are the guest's: any sequence at all. Each maximal ill-formed
 * part becomes one U+FFFD (Unicode 15, 3.9, "U+FFFD Substitution of Maximal
 * Subparts").
 */
#ifndef BRIGD_UTF8_H
#define BRIGD_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

/* Most bytes of an unfinished sequence at the end of a chunk. */
#define UTF8_TAIL_MAX 3

/* True if all of it is well-formed UTF-8. */
must_check bool utf8_is_valid(const uint8_t *bytes, size_t n);

/* The number of bytes (0..3) at the end that begin a sequence which the next
 * chunk may complete. */
must_check size_t utf8_tail(const uint8_t *bytes, size_t n);

/* Appends the bytes as the inside of a JSON string (no quotes), control
 * characters escaped, ill-formed parts replaced. At most six bytes come out
 * for one that goes in. 0, -ENOMEM or -ENOSPC (then `to` is as before). */
must_check int utf8_add_json(struct buf *to, const uint8_t *bytes, size_t n);

/* Appends the bytes with ill-formed parts replaced. */
must_check int utf8_add(struct buf *to, const uint8_t *bytes, size_t n);

#endif
