/* job.h - one command in a sandbox, from start to exit code.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory: the run is one POST whose reply is a stream of events. Output goes
 * to stdout and stderr as it comes; when nobody reads it there, nobody reads
 * the stream, and the guest waits. Standard input is a second request, open
 * as long as there is input. Ending the first request ends the run, so
 * whatever happens here, no process is left in the guest.
 */
#ifndef BRIG_CLI_JOB_H
#define BRIG_CLI_JOB_H

#include <jansson.h>
#include <stdbool.h>

#include "api.h"

/* Output that --json keeps of each stream; the rest is dropped and marked. */
#define JOB_KEEP_MAX (64u << 20)

struct job {
	const char *sandbox; /* id; borrowed */
	json_t *request;     /* body of the run without "stream"; borrowed */
	bool is_code;        /* the body is for an interpreter, not a program */
	bool send_stdin;     /* pass on our standard input; not with is_code */
	bool as_json;        /* print one object at the end, no output before */
};

/* Runs it and returns the exit code (enum cmd_exit); what went wrong is told
 * on stderr. stop_watch has been called. */
int job_run(struct api *a, const struct job *job);

#endif
