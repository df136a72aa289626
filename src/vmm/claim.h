/* claim.h - puts a guest into a shell: by a boot or from a saved machine.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Device thread. The descriptors are taken over, also on failure, and end at
 * -1 in the array. 0 or -errno. -EBUSY: the machine is in no state for this,
 * and goes on; after other failures it is good for nothing and the caller
 * stops it.
 */
#ifndef BRIG_VMM_CLAIM_H
#define BRIG_VMM_CLAIM_H

#include <stdbool.h>
#include <stddef.h>

#include "cc.h"
#include "wire/vmm.h"

struct machine;

/* VMM_BOOT: loads kernel and initrd and starts the vCPUs. -EPROTO: not the
 * descriptors of a boot; -EBUSY: no shell. */
must_check int claim_boot(struct machine *m, const struct vmm_boot *boot,
			  int *fds, size_t nfds);

/* VMM_RESTORE: everything in the state file is checked before KVM or a device
 * sees any of it; the errors for a bad file are state/stream.h's. VMM_RESET
 * is the same for a machine that runs, with `again` set. -EBUSY: no shell, or
 * no guest to reset, or a save is being written. */
must_check int claim_restore(struct machine *m, const struct vmm_restore *r,
			     int *fds, size_t nfds, bool again);

#endif
