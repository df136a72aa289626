/* run.c - one command in a sandbox: from EXEC to its result.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "id.h"
#include "log.h"
#include "num.h"
#include "run.h"
#include "when.h"

#define EXIT_CODE_TIMEOUT 124
#define SIGNAL_KILL 9u
#define SIGNAL_MAX 127u

static const char *const reason_names[] = {
	[RUN_EXIT] = "exit", [RUN_SIGNAL] = "signal", [RUN_TIMEOUT] = "timeout",
	[RUN_OOM] = "oom",   [RUN_LOST] = "lost",     [RUN_REFUSED] = "lost",
};
static_assert(ARRAY_LEN(reason_names) == RUN_REASONS, "one name a reason");

/* Output bytes that all runs keep at this moment; see OUTPUT_TOTAL_MAX. */
static uint64_t kept_total;

const char *run_reason_name(enum run_reason reason)
{
	return reason_names[reason];
}

const char *run_v1_status(const struct run *run)
{
	if (run->reason == RUN_TIMEOUT)
		return "timeout";
	if (run->reason == RUN_LOST || run->reason == RUN_REFUSED)
		return "error";
	return "completed";
}

int run_exit_code(const struct run *run)
{
	switch (run->reason) {
	case RUN_EXIT:
		return (int)run->code;
	case RUN_SIGNAL:
	case RUN_OOM:
		return 128 + (int)run->code;
	case RUN_TIMEOUT:
		return EXIT_CODE_TIMEOUT;
	case RUN_LOST:
	case RUN_REFUSED:
	case RUN_REASONS:
		break;
	}
	return -1;
}

static void done(struct run *run, enum run_reason reason, uint32_t code)
{
	agent_stop(&run->agent);
	run->reason = reason;
	run->code = code;
	run->completed_ms = when_now_ms();
	run->wall_ns = now_ns() - run->created_ns;
	run->events->on_done(run);
}

static void fail(struct run *run, int error)
{
	agent_fault(run->agent.sb, error, &run->fault);
	if (error == -EHOSTDOWN) {
		(void)fault_set(&run->fault, run->fault.status, "lost",
				"the sandbox ended during the run: %s",
				run->agent.sb->reason[0] != '\0'
					? run->agent.sb->reason
					: "deleted");
		done(run, RUN_LOST, 0);
	} else if (error == -ETIMEDOUT && run->started) {
		done(run, RUN_TIMEOUT, 0);
	} else if (error != -EPROTO && run->started) {
		(void)fault_set(&run->fault, 503, "lost",
				"the connection to the run was lost");
		done(run, RUN_LOST, 0);
	} else {
		done(run, RUN_REFUSED, 0);
	}
}

/* --- stdin -------------------------------------------------------------------------------- */

static void pump_input(struct run *run)
{
	const struct args_run *a = &run->args;
	int r = 0;

	while (r == 0 && run->input_at < a->input_bytes &&
	       !guest_conn_full(run->agent.conn)) {
		size_t n = u64_min(a->input_bytes - run->input_at,
				   BRIG_FRAME_DATA_MAX);
		r = guest_conn_send(run->agent.conn, GUEST_STDIN,
				    a->input + run->input_at, n);
		run->input_at += n;
	}
	if (r < 0)
		log_warn("run=%s stdin is cut: no memory; going on", run->id);
	if (run->input_at == a->input_bytes && !a->stdin_open)
		run_close_stdin(run);
}

bool run_stdin_is_open(const struct run *run)
{
	return run->started && !run->stdin_closed && run->args.stdin_open &&
	       run->input_at == run->args.input_bytes;
}

bool run_stdin_is_full(const struct run *run)
{
	return guest_conn_full(run->agent.conn);
}

bool run_write_stdin(struct run *run, const void *bytes, size_t n)
{
	return run_stdin_is_open(run) &&
	       guest_conn_send_data(run->agent.conn, GUEST_STDIN, bytes, n) ==
		       0;
}

void run_close_stdin(struct run *run)
{
	if (run->stdin_closed || run->agent.conn == NULL)
		return;
	run->stdin_closed = true;
	if (guest_conn_send(run->agent.conn, GUEST_STDIN_EOF, NULL, 0) < 0)
		log_warn("run=%s stdin stays open; going on", run->id);
}

static void on_writable(void *arg)
{
	struct run *run = arg;

	if (run->started && run->input_at < run->args.input_bytes)
		pump_input(run);
	else if (run->events->on_stdin_room != NULL)
		run->events->on_stdin_room(run);
}

/* --- Frames from the agent ------------------------------------------------------------------ */

static void on_started(struct run *run, const struct frame *f)
{
	struct guest_started s;
	uint64_t ms = run->args.timeout_ms;

	frame_copy(f, &s, sizeof(s));
	run->pid = s.pid;
	run->started = true;
	/* The agent keeps the time-out; we only step in for a dead agent. */
	agent_set_deadline(&run->agent,
			   ms == 0 ? 0
				   : ms * NS_PER_MS + RUN_GRACE_S * NS_PER_S);
	if (run->args.stdin_open || run->args.input != NULL)
		pump_input(run);
	run->events->on_started(run);
}

static void keep(struct run *run, struct run_output *out, const uint8_t *bytes,
		 size_t n)
{
	uint64_t room = run->keep_max - out->kept.len;

	n = (size_t)u64_min(n, u64_min(room, OUTPUT_TOTAL_MAX - kept_total));
	if (n > 0 && buf_add(&out->kept, bytes, n) == 0)
		kept_total += n;
}

static void on_output(struct run *run, enum run_stream which,
		      const struct frame *f)
{
	struct run_output *out = &run->output[which];

	keep(run, out, f->payload, f->length);
	out->bytes += f->length;
	if (run->events->on_output != NULL)
		run->events->on_output(run, which, f->payload, f->length);
}

static void on_exit_frame(struct run *run, const struct frame *f)
{
	struct guest_exit e;

	frame_copy(f, &e, sizeof(e));
	run->usage = e;
	switch (e.reason) {
	case GUEST_EXITED:
		done(run, RUN_EXIT, (uint32_t)u64_min(e.code, 255));
		break;
	case GUEST_SIGNALED:
		done(run, RUN_SIGNAL, (uint32_t)u64_min(e.code, SIGNAL_MAX));
		break;
	case GUEST_TIMED_OUT:
		done(run, RUN_TIMEOUT, 0);
		break;
	case GUEST_OOM:
		done(run, RUN_OOM, SIGNAL_KILL);
		break;
	default:
		fail(run, -EPROTO);
	}
}

static void on_frame(void *arg, const struct frame *f)
{
	struct run *run = arg;

	if (f->type == GUEST_STARTED && !run->started) {
		on_started(run, f);
	} else if (f->type == GUEST_STDOUT && run->started) {
		on_output(run, RUN_STDOUT, f);
	} else if (f->type == GUEST_STDERR && run->started) {
		on_output(run, RUN_STDERR, f);
	} else if (f->type == GUEST_EXIT && run->started) {
		on_exit_frame(run, f);
	} else if (f->type == GUEST_ERROR) {
		agent_fault_of_frame(f, &run->fault);
		done(run, run->started ? RUN_LOST : RUN_REFUSED, 0);
	} else {
		fail(run, -EPROTO);
	}
}

static void on_end(void *arg, int error)
{
	fail(arg, error);
}

static const struct agent_events agent_events = {
	.on_frame = on_frame,
	.on_end = on_end,
	.on_writable = on_writable,
};

/* --- Life ------------------------------------------------------------------------------------- */

int run_start(struct run *run, struct sandbox *sb, struct args_run *args,
	      uint64_t keep_max, const struct run_events *events,
	      struct fault *fault)
{
	struct buf exec = BUF_INIT(BRIG_FRAME_MAX);

	*run = (struct run){
		.events = events,
		.args = *args,
		.keep_max = keep_max,
		.created_ms = when_now_ms(),
		.created_ns = now_ns(),
	};
	*args = (struct args_run){ .json = NULL };
	run->agent.events = &agent_events;
	run->agent.arg = run;
	id_make(run->id, "ex_");
	memcpy(run->sandbox_id, sb->id, sizeof(run->sandbox_id));
	for (int i = 0; i < RUN_STREAMS; i++)
		run->output[i].kept.max = keep_max > 0 ? (size_t)keep_max : 1;
	int r = args_encode_exec(&run->args, sb->env, &exec, fault);
	if (r == 0)
		r = agent_start(&run->agent, sb, GUEST_EXEC, &exec, fault);
	buf_free(&exec);
	if (r < 0)
		run_free(run);
	return r;
}

void run_free(struct run *run)
{
	agent_stop(&run->agent);
	for (int i = 0; i < RUN_STREAMS; i++) {
		kept_total -= run->output[i].kept.len;
		buf_free(&run->output[i].kept);
	}
	args_free_run(&run->args);
}

void run_kill(struct run *run)
{
	agent_set_deadline(&run->agent, 1);
}

void run_pause(struct run *run, bool paused)
{
	if (run->agent.conn != NULL)
		guest_conn_pause(run->agent.conn, paused);
}
