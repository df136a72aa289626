/* when.h - points in time, as the API writes them and as people read them.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_CLI_WHEN_H
#define BRIG_CLI_WHEN_H

#include <stddef.h>
#include <stdint.h>

#include "cc.h"

#define WHEN_ISO_BYTES 32
#define WHEN_AGE_BYTES 32

/* Milliseconds since 1970 in UTC. */
int64_t when_now_ms(void);

/* "2025-01-31T12:00:00.250Z". 0 or -EINVAL. */
must_check int when_read(const char *iso, int64_t *ret_ms);

/* The same the other way; an empty string for what no calendar has. */
void when_write(int64_t ms, char ret[static WHEN_ISO_BYTES]);

/* "12 s", "3 min", "5 h", "9 d": how long something lasts or is ago. */
void when_age(int64_t ms, char ret[static WHEN_AGE_BYTES]);

#endif
