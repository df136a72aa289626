/* hooks.h - runs the programs of a directory of the guest, one by one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * In the order of their names, as root, each in a cgroup of its own and with
 * a time limit. What they leave running in the background lives on. The
 * event loop is never blocked. One thread.
 */
#ifndef BRIG_INIT_HOOKS_H
#define BRIG_INIT_HOOKS_H

#include "leftover.h"
#include "reaper.h"

/* As many of a directory are run; all others count as failed. */
#define HOOKS_MAX 32u
#define HOOKS_ENV_MAX 4u

struct hooks {
	struct loop *loop;
	struct reaper *reaper;
	struct cgroup_tree *tree;
	struct leftovers *leftovers;
	/* Called when the last one has ended, if hooks_start said so. */
	void (*on_done)(struct hooks *h);

	const char *directory;
	char *env[8];           /* ends with NULL; borrowed */
	char *names[HOOKS_MAX]; /* owned, sorted */
	unsigned int count;
	unsigned int next;
	uint32_t failed; /* of the last time */

	struct child child;
	uint64_t cgroup_id;
	struct loop_timer deadline;
	bool killed;
};

/* The pointers and on_done are set by the caller before. */
void hooks_init(struct hooks *h);

/* Starts the first, with the variables in `env` (ends with NULL, at most
 * HOOKS_ENV_MAX) besides the usual ones. `directory` and the variables are
 * borrowed until the end. False when there is nothing to run (then on_done is
 * not called). */
must_check bool hooks_start(struct hooks *h, const char *directory,
			    char *const *env);

/* Kills what runs and forgets the rest; on_done is not called. */
void hooks_stop(struct hooks *h);

#endif
