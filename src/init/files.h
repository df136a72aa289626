/* files.h - READ, WRITE and STAT, each in a child process of its own.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A file system may block for as long as it likes (a slow disk, a FUSE mount
 * whose server hangs): that holds up one child and never the agent. The child
 * uses blocking I/O and one frame of memory.
 */
#ifndef BRIG_INIT_FILES_H
#define BRIG_INIT_FILES_H

#include <sys/types.h>

#include "stream.h"

/* Serves the READ, WRITE or STAT frame in `s`. The child owns a copy of the
 * stream; the caller closes its own. The pid, or -errno. */
must_check pid_t files_start(struct stream *s);

#endif
