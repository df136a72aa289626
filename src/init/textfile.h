/* textfile.h - the kernel's one-line files, and other small ones.
 * SPDX-License-Identifier: Apache-2.0
 *
 * `dir` is a directory descriptor or AT_FDCWD. 0 or -errno.
 */
#ifndef BRIG_INIT_TEXTFILE_H
#define BRIG_INIT_TEXTFILE_H

#include <stddef.h>

#include "cc.h"

/* Writes to a file that exists, in one write(2). */
must_check int textfile_write(int dir, const char *path, const char *text);

/* Reads at most `size` - 1 bytes and ends them with NUL. */
must_check int textfile_read(int dir, const char *path, char *ret, size_t size);

#endif
