/* fd.h - file descriptors: ownership, whole reads and writes, passing.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors start at -1 and are born close-on-exec. All functions return 0
 * or more on success and -errno on failure, and log nothing.
 */
#ifndef BRIG_BASE_FD_H
#define BRIG_BASE_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cc.h"

/* Most descriptors that one packet may carry: SCM_MAX_FD of Linux. */
#define FD_PASS_MAX 253

/* Closes *fd if it is open and sets it to -1. Keeps errno. */
void fd_close(int *fd);

#define cleanup_fd __attribute__((cleanup(fd_close)))

/* Gives up ownership: returns *fd and sets it to -1. */
static inline must_check int fd_take(int *fd)
{
	int v = *fd;
	*fd = -1;
	return v;
}

/* Reads until `n` bytes or end of file; the number read, or -errno. Blocking
 * descriptors only. */
must_check ssize_t fd_read_all(int fd, void *buf, size_t n);

/* The same at an offset. */
must_check ssize_t fd_pread_all(int fd, void *buf, size_t n, off_t at);

/* Writes all of it; 0 or -errno. Blocking descriptors only. */
must_check int fd_write_all(int fd, const void *buf, size_t n);

must_check int fd_set_nonblock(int fd);

/* Sends one packet with `nfds` descriptors (borrowed). MSG_NOSIGNAL. */
must_check int fd_send_packet(int sock, const void *buf, size_t n,
			      const int *fds, size_t nfds);

/* Receives one packet of at most `n` bytes. Returns its length, 0 at end of
 * stream, -EMSGSIZE when the packet or its descriptors did not fit (then none
 * is kept). Descriptors are close-on-exec and belong to the caller; *ret_nfds
 * is at most `max_fds` (<= FD_PASS_MAX). The peer is not trusted. */
must_check ssize_t fd_recv_packet(int sock, void *buf, size_t n, int *ret_fds,
				  size_t max_fds, size_t *ret_nfds);

#endif
