/* request.h - what brig-spawn lets brigd ask for.
 * SPDX-License-Identifier: Apache-2.0
 *
 * brigd may be compromised: a request is a struct of its choice with a
 * descriptor of its choice. What passes here is a sandbox of legal size whose
 * name is one harmless path component and whose descriptor is a socket.
 * Nothing here changes any state.
 * All return 0, or -errno that goes back to brigd: -EINVAL a malformed
 * request, -ERANGE a number over its limit, -EBADF a wrong descriptor.
 */
#ifndef BRIG_SPAWN_REQUEST_H
#define BRIG_SPAWN_REQUEST_H

#include <stddef.h>

#include "cc.h"
#include "wire/spawn.h"

/* A sandbox id: exactly "sb_" and 24 of [a-z0-9], NULs up to `size`. */
must_check int request_check_id(const char *id, size_t size);

/* Every field of SPAWN_START, and the number of descriptors. */
must_check int request_check_start(const struct spawn_msg *m, size_t nfds);

/* Its descriptor: a SOCK_SEQPACKET unix socket. */
must_check int request_check_control(int fd);

#endif
