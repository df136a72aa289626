/* jail.h - what a child of brig-spawn does between clone and exec.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Called in the child only, which has a copy of brig-spawn's memory and one
 * thread. It never returns: brig-vmm runs, or the step that failed goes to
 * the parent through `report_fd` as one struct jail_failure. At exec the
 * pipe closes without a byte.
 */
#ifndef BRIG_SPAWN_JAIL_H
#define BRIG_SPAWN_JAIL_H

#include <stdint.h>
#include <sys/types.h>

#include "cc.h"
#include "wire/vmm.h"

struct jail_failure {
	int32_t error; /* errno */
	char step[28]; /* for the log; NUL-terminated */
};

struct jail {
	int report_fd;       /* write end of a pipe */
	int vmm_fd;          /* the program */
	int null_fd;         /* /dev/null */
	int fds[VMM_FD_END]; /* from VMM_FD_CONFIG on: what goes there; the
	                        child makes VMM_FD_PROC itself */
	uid_t uid;           /* and gid */
	uint64_t file_bytes; /* largest file it may write */
};

/* Leaves everything behind and becomes brig-vmm. The child was cloned into
 * its cgroup and into new mount, IPC, UTS, PID and network namespaces. */
noreturn_fn void jail_run_vmm(const struct jail *j);

/* Becomes `brig-vmm --probe`, its output on `out_fd`. Keeps uid 0, which
 * opens /dev/kvm, and no capability. */
noreturn_fn void jail_run_probe(int vmm_fd, int null_fd, int out_fd);

#endif
