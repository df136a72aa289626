/* stop.h - SIGINT, SIGTERM and SIGHUP as something that can be waited for.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Commands that leave something behind when they die (a sandbox, a run) call
 * stop_watch once; then the signals no longer kill the process, and whoever
 * waits also waits for stop_fd(). A second signal while cleaning up ends the
 * cleaning up. One thread.
 */
#ifndef BRIG_CLI_STOP_H
#define BRIG_CLI_STOP_H

#include <stddef.h>

#include "cc.h"

/* Also ignores SIGPIPE. 0 or -errno. */
must_check int stop_watch(void);

/* Readable when a signal waits; -1 before stop_watch. Borrowed. */
int stop_fd(void);

/* Takes what waits. Returns how many signals came since stop_watch. */
unsigned int stop_count(void);

/* The first signal that came; 0: none. */
int stop_signal(void);

/* Writes all of it to a blocking descriptor, but gives up with -EINTR when a
 * signal comes while the reader does not read. 0 or -errno. */
must_check int stop_write(int fd, const void *bytes, size_t n);

#endif
