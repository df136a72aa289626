/* worker.h - one thread for what blocks: hashing, copying, fsync.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A job's work() runs in the worker thread, with nothing of brigd's state but
 * what the job owns; done() then runs in the event loop. Jobs run in order.
 * Functions: event-loop thread, but for worker_is_stopping().
 */
#ifndef BRIGD_WORKER_H
#define BRIGD_WORKER_H

#include <stdbool.h>

#include "cc.h"
#include "loop.h"

struct worker;

/* Embedded in its owner, borrowed until done(). */
struct worker_job {
	/* Worker thread. NULL: there is only done(), which is then called from
	 * the loop without waiting for other jobs. */
	void (*work)(struct worker_job *job);
	void (*done)(struct worker_job *job); /* event loop */
	struct worker_job *next;              /* private */
};

/* NULL after logging. */
struct worker *worker_new(struct loop *loop);
void worker_add(struct worker *w, struct worker_job *job);
struct loop *worker_loop(struct worker *w);

/* Worker thread, in work(): true once worker_free() waits for it. A long job
 * then gives up. Always false in other threads. */
must_check bool worker_is_stopping(void);

/* Waits for the running job. Jobs whose done() was not called yet are dropped.
 * May be called from a done(). NULL is fine. */
void worker_free(struct worker *w);

#endif
