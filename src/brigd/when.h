/* when.h - wall-clock times as the API writes and reads them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Inside brigd a wall-clock time is milliseconds since 1970 in UTC.
 */
#ifndef BRIGD_WHEN_H
#define BRIGD_WHEN_H

#include <stdint.h>

#include "cc.h"

/* "2026-01-31T12:34:56.789Z" and NUL, with room for years that are none. */
#define WHEN_BYTES 80

int64_t when_now_ms(void);

/* Writes ISO 8601 in UTC with milliseconds. */
void when_format(int64_t ms, char ret[WHEN_BYTES]);

/* Reads ISO 8601: a date, or a date, 'T' (or a blank), a time with optional
 * fraction, and optional 'Z' or offset (none: UTC). -EINVAL for all else. */
must_check int when_parse(const char *text, int64_t *ret_ms);

#endif
