/* snapio.h - system calls that change files of the snapshot store.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each is a step at which a test can make it fail or end the process. All
 * return 0 or more, or -errno; any thread. Names come from the caller and were
 * checked by it.
 */
#ifndef BRIGD_SNAPIO_H
#define BRIGD_SNAPIO_H

#include <stddef.h>
#include <stdint.h>

#include "cc.h"

#ifdef BRIG_TEST
/* Before each step: 0 goes on, -errno makes the step fail with it. */
extern int (*snapio_hook)(const char *step);
/* What the step is about. */
struct snapio_step {
	int fd;           /* the file, or the directory that is synced; -1 */
	int dir_fd;       /* where a name comes or goes; -1 */
	const char *name; /* NULL: none */
};
extern struct snapio_step snapio_step;
#endif

/* A file without a name in directory `dir_fd`, read-write, mode 0600. */
must_check int snapio_create(int dir_fd);

/* A memfd of `bytes`, all holes, which may be sealed. */
must_check int snapio_memory(const char *name, uint64_t bytes);
must_check int snapio_seal(int memfd);

must_check int snapio_resize(int fd, uint64_t bytes);

/* All of it, at an offset. */
must_check int snapio_write(int fd, uint64_t at, const void *bytes, size_t n);

/* Makes it read-only for all, and durable. */
must_check int snapio_finish(int fd);

/* Makes what happened in a directory durable. */
must_check int snapio_sync(int dir_fd);

/* Gives the file a name. -EEXIST: the name is taken. */
must_check int snapio_link(int fd, int dir_fd, const char *name);
must_check int snapio_unlink(int dir_fd, const char *name);

/* Opens a regular file by its name in `dir_fd`, read-only. Nothing else, and
 * no symbolic link: -EBADMSG. */
must_check int snapio_open(int dir_fd, const char *name);

/* Opens or makes a directory of mode 0700. */
must_check int snapio_open_dir(int parent_fd, const char *name);

#endif
