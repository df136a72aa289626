/* cgroup.h - one cgroup for each run, below one that leaves the agent air.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   ROOT/            the agent and the kernel's own threads
 *   ROOT/runs/       memory.max and pids.max: whatever users start, the agent
 *                    can still allocate and fork; one CPU share for all of it
 *   ROOT/runs/<n>/   one run: what to kill, what it used
 *   ROOT/hooks/<n>/  the same for hooks, which run while the runs are frozen
 *
 * One is made ahead, because making one takes milliseconds in an emulated
 * machine. One thread. Functions return 0 or -errno.
 */
#ifndef BRIG_INIT_CGROUP_H
#define BRIG_INIT_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cc.h"

struct cgroup_tree {
	int runs_fd; /* directory ROOT/NAME, owned for the process's life */
	uint64_t next_id;
	uint64_t spare_id; /* 0: none made ahead */
};

struct cgroup_usage {
	uint64_t user_ns;
	uint64_t system_ns;
	uint64_t memory_peak_bytes;
	uint64_t oom_kills;
};

/* Makes ROOT/NAME and its limits, from the memory that is available now. */
must_check int cgroup_init(struct cgroup_tree *t, const char *root,
			   const char *name);

/* A new cgroup; *ret_fd is its directory (owned by the caller). */
must_check int cgroup_take(struct cgroup_tree *t, uint64_t *ret_id,
			   int *ret_fd);

/* Makes one ahead, if there is none: call when there is nothing else to do.
 * A failure shows at the next cgroup_take. */
void cgroup_prepare(struct cgroup_tree *t);

/* SIGKILL to every process in it, those being forked included. */
void cgroup_kill(const struct cgroup_tree *t, uint64_t id);

/* The same for all runs. */
void cgroup_kill_all(const struct cgroup_tree *t);

/* Stops every process of all runs, or lets them go on. Stopping takes effect
 * later: cgroup_is_frozen. Frozen processes can be killed. */
must_check int cgroup_freeze(const struct cgroup_tree *t, bool frozen);
bool cgroup_is_frozen(const struct cgroup_tree *t);

/* Figures that cannot be read are 0. */
void cgroup_read_usage(const struct cgroup_tree *t, uint64_t id,
		       struct cgroup_usage *ret);

/* Tasks of all runs. */
uint32_t cgroup_count_tasks(const struct cgroup_tree *t);

/* Tasks of one run. */
uint32_t cgroup_count_run(const struct cgroup_tree *t, uint64_t id);

/* Moves a process, with all its threads, into a run. */
must_check int cgroup_move(const struct cgroup_tree *t, uint64_t id, pid_t pid);

/* The file that says when a run's last process has gone: EPOLLPRI tells that
 * it changed. A descriptor of the caller's, or -errno. */
must_check int cgroup_open_events(const struct cgroup_tree *t, uint64_t id);

/* True when that file says that no process is left. */
bool cgroup_is_empty(int events_fd);

/* 0, or -EBUSY while it has processes or children. */
must_check int cgroup_remove(struct cgroup_tree *t, uint64_t id);

#endif
