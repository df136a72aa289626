/* base64.h - bytes as text and back (RFC 4648, section 4).
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_CLI_BASE64_H
#define BRIG_CLI_BASE64_H

#include "buf.h"

/* Both append to `to`; 0, -ENOMEM or -ENOSPC. Reading is strict: padding is
 * needed, anything outside the alphabet is -EINVAL (then `to` may have
 * gained bytes). */
must_check int base64_read(struct buf *to, const char *text, size_t n);
must_check int base64_write(struct buf *to, const char *bytes, size_t n);

#endif
