/* cgroup.h - reads what the kernel counted for a microVM's process.
 * SPDX-License-Identifier: Apache-2.0
 *
 * `dir` is the sandbox's cgroup v2 directory as brig-spawn gave it (O_PATH).
 * Figures of the host: a guest cannot forge them. 0 or -errno.
 */
#ifndef BRIGD_CGROUP_H
#define BRIGD_CGROUP_H

#include <stdint.h>

#include "cc.h"

must_check int cgroup_read_cpu(int dir, uint64_t *ret_usec);
must_check int cgroup_read_memory(int dir, uint64_t *ret_bytes);

#endif
