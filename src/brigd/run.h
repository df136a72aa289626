/* run.h - one command in a sandbox: from EXEC to its result.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Knows nothing of HTTP: api_exec.c turns its events into replies.
 */
#ifndef BRIGD_RUN_H
#define BRIGD_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "agent.h"
#include "args.h"
#include "buf.h"
#include "sandbox.h"

enum run_reason {
	RUN_EXIT,    /* code: exit status 0..255 */
	RUN_SIGNAL,  /* code: signal 1..127 */
	RUN_TIMEOUT, /* killed at its time-out */
	RUN_OOM,     /* the guest's OOM killer took it */
	RUN_LOST,    /* the sandbox or the connection went away */
	RUN_REFUSED, /* never ran, or the agent is broken: see `fault` */
	RUN_REASONS,
};

enum run_stream {
	RUN_STDOUT,
	RUN_STDERR,
	RUN_STREAMS
};

struct run_output {
	struct buf kept; /* the first bytes, up to what run_start was told */
	uint64_t bytes;  /* all that came */
};

struct run;

struct run_events {
	void (*on_started)(struct run *run);
	/* Guest bytes as they come, already counted in output.bytes; valid
	 * during the call. May be NULL. */
	void (*on_output)(struct run *run, enum run_stream which,
			  const uint8_t *bytes, size_t n);
	void (*on_stdin_room)(struct run *run);
	/* The result is there; nothing goes on any more. The owner then calls
	 * run_free(). */
	void (*on_done)(struct run *run);
};

/* Embedded in its owner. */
struct run {
	char id[BRIG_ID_BYTES];
	char sandbox_id[BRIG_ID_BYTES];
	const struct run_events *events;
	struct args_run args; /* owned */
	struct agent agent;
	bool started; /* the process runs, or ran */
	bool stdin_closed;
	uint32_t pid;    /* in the guest */
	size_t input_at; /* bytes of args.input that are sent */
	struct run_output output[RUN_STREAMS];
	uint64_t keep_max; /* bytes of each stream to keep */
	int64_t created_ms;
	int64_t completed_ms;
	uint64_t created_ns;
	uint64_t wall_ns; /* host's measure */

	/* The result. */
	enum run_reason reason;
	uint32_t code;
	struct guest_exit usage; /* the guest's word; zero if it gave none */
	struct fault fault;      /* RUN_LOST, RUN_REFUSED: why */
};

/* Starts it in `sb`; takes over *args in any case. Keeps at most `keep_max`
 * bytes of each stream. 0, then on_done or run_free() ends it; or -EINVAL
 * after filling *fault (everything is freed). */
must_check int run_start(struct run *run, struct sandbox *sb,
			 struct args_run *args, uint64_t keep_max,
			 const struct run_events *events, struct fault *fault);

/* Frees what it holds; kills the run if it goes on. */
void run_free(struct run *run);

/* Ends a run that goes on, soon and from the event loop: on_done follows. For
 * owners that are in the middle of a callback. */
void run_kill(struct run *run);

/* Stops (or goes on) reading output. */
void run_pause(struct run *run, bool paused);

/* Sends bytes to stdin; false (nothing sent) if it is not open. */
must_check bool run_write_stdin(struct run *run, const void *bytes, size_t n);
void run_close_stdin(struct run *run);

/* True if POST .../stdin may write: started, open, and args.input sent. */
must_check bool run_stdin_is_open(const struct run *run);
must_check bool run_stdin_is_full(const struct run *run);

const char *run_reason_name(enum run_reason reason);

/* The same in part 1's words, of a run that is over: completed, timeout or
 * error. */
const char *run_v1_status(const struct run *run);

/* What a shell would report: 0..255; 128 + signal; 124 after a time-out; -1
 * if lost. */
int run_exit_code(const struct run *run);

#endif
