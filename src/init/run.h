/* run.h - one EXEC: from the request to its EXIT.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Output goes pipe -> one frame -> socket, and no pipe is read while that
 * frame waits: a slow reader slows the program and nothing else. Input goes
 * one frame -> pipe, and the socket is not read while that frame waits.
 * One thread. Owns its stream, its process, its cgroup.
 */
#ifndef BRIG_INIT_RUN_H
#define BRIG_INIT_RUN_H

#include "freezer.h"
#include "leftover.h"
#include "loop.h"
#include "reaper.h"
#include "stream.h"
#include "warm.h"

struct run;

/* What a run needs of the agent. */
struct run_host {
	struct loop *loop;
	struct cgroup_tree *tree;
	struct leftovers *leftovers;
	struct reaper *reaper;
	struct freezer *freezer;
	struct warm *warm;
	/* Called once, last thing: `run` has been freed, `owner` is told. */
	void (*on_done)(void *owner);
};

/* Starts what the EXEC frame in `s` asks for and takes `s` over in any case:
 * a failure is reported to the other side, and then on_done is called, but
 * never from within run_start. NULL when there is no memory (then `s` was
 * closed and on_done is not called). */
must_check struct run *run_start(const struct run_host *host, struct stream *s,
				 void *owner);

/* Kills and frees it, and does not call on_done. */
void run_abort(struct run *r);

#endif
