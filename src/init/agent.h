/* agent.h - the agent: accepts connections, serves one operation on each.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One thread. EXEC is served in the loop (run.h), files by child processes
 * (files.h), the rest at once. Reaps every process that ends, since it is
 * PID 1.
 */
#ifndef BRIG_INIT_AGENT_H
#define BRIG_INIT_AGENT_H

#include "cgroup.h"
#include "leftover.h"
#include "loop.h"
#include "quiesce.h"
#include "ready.h"
#include "reaper.h"
#include "run.h"
#include "warm.h"

/* All that a guest's vsock can have open. */
#define AGENT_CONNS_MAX BRIG_VSOCK_CONNS_MAX

struct conn;

struct agent_config {
	struct cgroup_tree *runs;
	struct cgroup_tree *hooks;
	int listen_fd;        /* a listening stream socket, taken over */
	int (*connect)(void); /* as in struct ready; NULL: no host */
	bool disk_grown;
};

struct agent {
	struct loop *loop;
	struct cgroup_tree *tree;
	struct run_host host;
	struct leftovers leftovers;
	struct leftovers hook_leftovers;
	struct reaper reaper;
	struct freezer freezer;
	struct warm warm;
	struct quiesce quiesce;
	struct ready ready;
	int listen_fd; /* owned */
	struct loop_fd listener;
	struct loop_timer listen_again; /* after accept had no resources */
	int signal_fd;                  /* owned */
	struct loop_fd signals;
	struct loop_timer reap_again;
	struct loop_timer idle; /* for work that nobody waits for */
	struct conn *conns[AGENT_CONNS_MAX];
	unsigned int conn_count;
};

/* Serves and connects to the host; blocks all signals of the process. `loop`
 * and the trees are borrowed. 0 or -errno. */
must_check int agent_init(struct agent *a, struct loop *loop,
			  const struct agent_config *config);

/* Kills all runs and frees everything. */
void agent_fini(struct agent *a);

#endif
