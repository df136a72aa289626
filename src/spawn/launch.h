/* launch.h - the microVMs that run: start, watch, clean up.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A microVM has a slot; the slot is its uid lease, so no two that run share a
 * uid, and slots are given out in turn, so a uid rests before it comes back.
 *
 *   free --launch_start--> running --process ends--> cleaning --> free
 *
 * A start that fails after the process was made goes through cleaning too.
 * Cleaning reaps, kills what else is in the cgroup and removes it, again
 * after a pause while that is busy. A cgroup that will not go away keeps its
 * slot for ever.
 *
 * One thread, in the loop. Functions return 0 or -errno.
 */
#ifndef BRIG_SPAWN_LAUNCH_H
#define BRIG_SPAWN_LAUNCH_H

#include <stdint.h>

#include "cc.h"
#include "loop.h"
#include "wire/spawn.h"

/* A microVM that was started is gone; see SPAWN_EXITED. `error` is 0, or why
 * its cgroup could not be removed. */
typedef void launch_exited_fn(uint32_t handle, int error, int wait_status);

/* What all starts share; borrowed, open as long as the program runs. */
struct launch_shared {
	struct loop *loop;
	int vmm_fd;  /* the program brig-vmm */
	int null_fd; /* /dev/null */
	launch_exited_fn *on_exited;
};

void launch_init(const struct launch_shared *shared);

/* Checks everything brigd said, then starts brig-vmm in its jail. Waits until
 * it is executed, at most LAUNCH_DEADLINE_MS. Does not take the descriptors.
 * Fills handle and uid of the reply; ret_fds are those that go with it: the
 * pidfd, which stays ours, and the cgroup's, which the caller closes.
 * -EAGAIN: no free slot; else what request.h, cgroup.h or the step in the
 * child said. */
must_check int launch_start(const struct spawn_msg *m, const int *fds,
			    size_t nfds, struct spawn_msg *ret,
			    int ret_fds[SPAWN_STARTED_FDS]);

#define LAUNCH_DEADLINE_MS 5000

/* Kills all processes of a microVM; on_exited follows. -ESRCH: no such. */
must_check int launch_kill(uint32_t handle);

#endif
