/* warm.h - interpreters that are started before there is code to run.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * For each language that was used there is one process that has its pipes and
 * its cgroup and waits for a job on its channel. It runs one job and ends as
 * any other run does; then the next is made. A Python process is forked by
 * another one that has imported what most programs import (warm.py); Node is
 * started anew each time (warm.js).
 *
 *   COLD       nothing; with the timer armed, a start is due
 *   STARTING   waits for the process to tell its pid
 *   READY      can be taken
 *
 * A process that dies while it waits is replaced. Starts that fail are not
 * tried again until somebody wants the language. Whoever takes a process must
 * be ready to start a plain interpreter when it does not answer: the guest's
 * root can do with these processes what he likes. One thread.
 */
#ifndef BRIG_INIT_WARM_H
#define BRIG_INIT_WARM_H

#include "accounts.h"
#include "frames.h"
#include "leftover.h"
#include "loop.h"
#include "reaper.h"

enum warm_language {
	WARM_PYTHON,
	WARM_NODE,
	WARM_LANGUAGES,
};

enum warm_state {
	WARM_COLD,
	WARM_STARTING,
	WARM_READY,
};

/* Who takes it owns the descriptors, the cgroup and the process. */
struct warm_process {
	pid_t pid;
	uint64_t cgroup_id;
	struct cgroup_usage before; /* what it has used so far */
	/* Non-blocking ends of the agent. */
	int in;
	int out[2];
	int channel; /* see warm_send_job */
};

struct warm_slot;

/* Somebody who waits; embedded in its owner's struct. */
struct warm_waiter {
	struct warm_slot *slot; /* NULL: does not wait */
	/* NULL: there will be none. */
	void (*on_ready)(struct warm_waiter *w, struct warm_process *p);
};

struct warm;

struct warm_slot {
	struct warm *all;
	enum warm_language language;
	enum warm_state state;
	struct loop_timer timer; /* COLD: start; STARTING: deadline */
	struct warm_waiter *waiter;
	bool proven; /* the last start succeeded */

	/* Python's: what forks, or 0 and -1. */
	struct child zygote;
	uint64_t zygote_cgroup;
	int control;

	struct child main;
	struct warm_process process;
	struct loop_fd source; /* its channel */
};

struct warm {
	struct loop *loop;
	struct cgroup_tree *tree;
	struct reaper *reaper;
	struct leftovers *leftovers;
	struct warm_slot slots[WARM_LANGUAGES];
};

enum warm_answer {
	WARM_NONE,  /* start a plain one */
	WARM_TAKEN, /* *ret is the caller's */
	WARM_WAIT,  /* on_ready will be called */
};

/* The pointers are set before. */
void warm_init(struct warm *w);

/* Kills all. */
void warm_fini(struct warm *w);

/* A process for one job. With `patient` a first start is waited for, too. */
must_check enum warm_answer warm_take(struct warm *w,
				      enum warm_language language, bool patient,
				      struct warm_waiter *waiter,
				      struct warm_process *ret);

/* Waits no more; harmless when it does not wait. */
void warm_cancel(struct warm_waiter *waiter);

/* Starts what is due without further delay: nobody else needs the CPU. */
void warm_hurry(struct warm *w);

/* True while no start is due or under way. */
bool warm_is_settled(const struct warm *w);

/* How many are ready; tasks that wait. */
uint32_t warm_count_ready(const struct warm *w);
uint32_t warm_count_tasks(const struct warm *w);

/* False when the request asks for what a process that runs already cannot
 * do: variables that its interpreter reads when it starts, another user. */
must_check bool warm_fits(enum warm_language language,
			  const struct exec_request *req,
			  const struct account *who);

/* Sends code (argv[1]) and surroundings. Afterwards the process answers with
 * WARM_RUNNING right before the code begins, or with a struct spawn_failure;
 * neither: it died, and the code has not begun. 0 or -errno. */
#define WARM_RUNNING 'r'
must_check int warm_send_job(int channel, const struct exec_request *req,
			     const struct account *who);

#endif
