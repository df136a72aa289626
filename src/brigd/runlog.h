/* runlog.h - the log of runs, written to the store off the hot path.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_RUNLOG_H
#define BRIGD_RUNLOG_H

#include "app.h"
#include "run.h"

struct runlog;

struct runlog *runlog_new(struct app *app);

/* Writes what waits, and frees. */
void runlog_free(struct runlog *log);

/* Queues a row about a run that is done. Never blocks, never fails: over
 * LOG_QUEUE_MAX rows, or without memory, the row is dropped and counted. */
void runlog_add(struct runlog *log, const struct run *run, int64_t tenant,
		const char *request_id, bool stream);

/* Writes what waits, so that a reader finds it. */
void runlog_flush(struct runlog *log);

#endif
