/* save.h - a running sandbox becomes a struct saved, while it runs on.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   QUIESCE   the agent freezes all processes of users (and file systems)
 *   VMM_SAVE  the monitor copies itself; its reply is the end of the pause
 *   THAW      the processes of users go on
 *   VMM_SAVED the files are written, by the copy; not of a disk alone
 *   merge     of RAM, if the machine itself was restored with a delta
 *
 * One at a time for each sandbox. If a step fails, the sandbox runs on: what
 * was frozen is thawed, what was written is gone.
 */
#ifndef BRIGD_SAVE_H
#define BRIGD_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "fault.h"
#include "sandbox.h"
#include "snapstore.h"

struct save_options {
	bool live;  /* into memory, to be restored at once; else into files */
	bool disk;  /* no state and no memory: the layers of its disk */
	bool quick; /* do not sync and freeze file systems */
	bool pause; /* leave it standing: save_release() follows */
};

/* Embedded in its owner. */
struct save {
	/* Set before save_start(). `fault` NULL: `saved` is there, a reference
	 * that the owner takes. Called once, from the loop. `sb` may be gone,
	 * unless options.pause. */
	void (*on_done)(struct save *s, const struct fault *fault);
	void (*on_released)(struct save *s); /* after save_release() */

	/* The result. */
	struct saved *saved;
	bool quiesced; /* files too: consistency "application" */
	uint64_t pause_ns;

	/* Private. */
	struct sandbox *sb; /* NULL: gone, or not needed any more */
	struct app *app;
	struct save_options options;
	int step; /* enum save_step */
	bool thawing;
	bool failed;
	bool released;
	struct fault fault;
	struct agent agent;
	struct sandbox_op op;
	struct vmm_call call;
	struct loop_timer deadline;
	struct snap_merge merge;
	int state_fd;
	int memory_fd;
	int top_fd;
};

/* 0, then on_done is called; or -EINVAL after filling *fault. */
must_check int save_start(struct save *s, struct sandbox *sb,
			  const struct save_options *options,
			  struct fault *fault);

/* After on_done with options.pause: lets the guest go on, if it still is
 * there; on_released follows, perhaps at once. */
void save_release(struct save *s);

/* The same, but the sandbox will be ended: it is not woken. */
void save_forget(struct save *s);

/* VMM_SAVED came. */
void save_on_saved(struct save *s, uint32_t seq, int status,
		   const struct vmm_saved *saved);

#endif
