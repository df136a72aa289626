/* reaper.h - who waits for the end of which process.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The agent reaps every process that ends, since it is PID 1; this finds the
 * one that cares. A struct child is embedded in its owner's struct. One
 * thread.
 */
#ifndef BRIG_INIT_REAPER_H
#define BRIG_INIT_REAPER_H

#include <sys/types.h>

#include "cc.h"

struct child {
	pid_t pid; /* 0: none, or reaped */
	/* Called once, after `pid` was set to 0; may free the owner. */
	void (*on_exit)(struct child *c, int status);
	struct child *next;
};

struct reaper {
	struct child *first;
};

/* Waits for `pid`, which is a child of the agent or will be once its parent
 * has gone. on_exit must be set. */
void reaper_add(struct reaper *r, struct child *c, pid_t pid);

/* Waits no more; harmless when it does not. */
void reaper_del(struct reaper *r, struct child *c);

/* `pid` was reaped with this waitpid status. */
void reaper_exited(struct reaper *r, pid_t pid, int status);

#endif
