/* request.h - what brig-spawn lets brigd ask for.
 * SPDX-License-Identifier: Apache-2.0
 *
 * brigd may be compromised: a request is a struct of its choice with
 * descriptors of its choice. What passes here is a sandbox of legal size whose
 * name is one harmless path component and whose files are of the right kind
 * and opened no wider than they need to be. Nothing here changes any state.
 * All return 0, or -errno that goes back to brigd: -EINVAL a malformed
 * request, -ERANGE a number over its limit, -EBADF a wrong descriptor.
 */
#ifndef BRIG_SPAWN_REQUEST_H
#define BRIG_SPAWN_REQUEST_H

#include <stddef.h>

#include "cc.h"
#include "wire/spawn.h"

/* Order of the descriptors of SPAWN_START. */
enum request_fd {
	REQUEST_FD_CONTROL,
	REQUEST_FD_KERNEL,
	REQUEST_FD_INITRD,
	REQUEST_FD_BASE,
	REQUEST_FD_LAYER,
	REQUEST_FD_CONSOLE,
};

/* A sandbox id: exactly "sb_" and 24 of [a-z0-9], NULs up to `size`. */
must_check int request_check_id(const char *id, size_t size);

/* Every field of SPAWN_START, and the number of descriptors. */
must_check int request_check_start(const struct spawn_msg *m, size_t nfds);

/* The SPAWN_START_FDS descriptors of a request that passed the above. */
must_check int request_check_files(const struct spawn_msg *m, const int *fds);

#endif
