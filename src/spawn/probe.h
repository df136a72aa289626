/* probe.h - asks brig-vmm what kind of KVM this machine has.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_SPAWN_PROBE_H
#define BRIG_SPAWN_PROBE_H

#include <stdint.h>

#include "cc.h"
#include "wire/spawn.h"

/* Runs `brig-vmm --probe` and waits for it, at most PROBE_DEADLINE_MS; the
 * answer is kept for the next call. Fills kvm_kind and iterations_per_s of the
 * reply. 0 or -errno: -ETIMEDOUT; -EPROTO when it said something else than
 * wire/vmm.h promises. */
must_check int probe_run(int vmm_fd, int null_fd, struct spawn_msg *ret);

#define PROBE_DEADLINE_MS 2000

/* Reads the line that brig-vmm prints; exposed for its test. 0 or -EPROTO. */
must_check int probe_parse(const char *line, struct spawn_msg *ret);

#endif
