/* console.h - the boot log that a brig-vmm leaves in shared memory.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_CONSOLE_H
#define BRIGD_CONSOLE_H

#include "buf.h"
#include "wire/vmm.h"

/* Makes the memfd (sealed in its size) and maps it read-only. The caller owns
 * *ret_fd and *ret_map; the map outlives the descriptor. 0 or -errno. */
must_check int console_make(int *ret_fd, struct vmm_console **ret_map);

/* Unmaps; NULL is fine. */
void console_free(struct vmm_console *map);

/* Appends the last `n` bytes (at most BRIG_CONSOLE_RING_BYTES) as valid UTF-8.
 * The writer is the VMM, perhaps at this moment, perhaps compromised: any
 * byte may come out, nothing else can happen. */
must_check int console_add_tail(const struct vmm_console *map, size_t n,
				struct buf *to);

#endif
