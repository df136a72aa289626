/* cgroup.h - one cgroup v2 directory for each microVM.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   <cgroup2 mount>/brig/            controllers memory, pids, cpu for below
 *                       daemon/      brig-spawn, where it was in the way
 *                       sb_.../      one brig-vmm
 *
 * Ids passed in have been checked by request_check_id(). Functions return 0
 * or -errno. One thread.
 */
#ifndef BRIG_SPAWN_CGROUP_H
#define BRIG_SPAWN_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"

struct cgroup_limits {
	uint32_t memory_mib;        /* of the guest; the overhead is added */
	uint32_t cpu_quota_percent; /* of one CPU; 0: none */
};

/* Finds the mount, makes `name` in it, turns the controllers on, and kills
 * and removes what a previous run left there. With `unlimited`, controllers
 * that the kernel does not have are done without. Logs the reason of a
 * failure. */
must_check int cgroup_init(const char *name, bool unlimited);

/* Makes the cgroup of `id` with its limits. *ret_fd is an O_PATH descriptor
 * of the directory, for the caller to close. -EEXIST: the id is in use. */
must_check int cgroup_make(const char *id, const struct cgroup_limits *limits,
			   int *ret_fd);

/* Kills every process in the cgroup. */
must_check int cgroup_kill(const char *id);

/* Removes the cgroup; -EBUSY as long as a process is still dying in it. 0
 * also when there is none. */
must_check int cgroup_remove(const char *id);

#endif
