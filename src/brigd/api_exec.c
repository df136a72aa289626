/* api_exec.c - execute, execute_async and runs: events of a run as replies.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "api.h"
#include "exec_reply.h"
#include "log.h"
#include "num.h"
#include "run.h"
#include "runlog.h"
#include "utf8.h"

enum flavour {
	V1_SYNC,   /* execute */
	V1_STREAM, /* execute_async */
	V2_SYNC,   /* runs */
	V2_STREAM, /* runs with stream: true */
	V2_CODE,   /* code; becomes one of the two above */
};

struct job {
	struct run run;
	enum flavour flavour;
	struct sandbox *sb;     /* valid while the run goes on */
	struct request *rq;     /* NULL once answered or gone */
	struct request *writer; /* who writes stdin; NULL: nobody */
	bool done;              /* and its log row written */
	char request_id[BRIG_ID_BYTES];
	int64_t tenant;

	/* Streams: bytes that may be the beginning of a character. */
	uint8_t tail[RUN_STREAMS][UTF8_TAIL_MAX];
	size_t tail_len[RUN_STREAMS];
	uint64_t sent[RUN_STREAMS];

	/* V2: the host's counters before and after. */
	struct vmm_call stats_call;
	struct exec_host_usage host;
	LIST_ENTRY(job) link;
};

/* Runs of part 2, for POST .../stdin. */
static LIST_HEAD(, job) v2_jobs = LIST_HEAD_INITIALIZER(v2_jobs);

static bool is_v2(const struct job *job)
{
	return job->flavour == V2_SYNC || job->flavour == V2_STREAM;
}

static bool is_stream(const struct job *job)
{
	return job->flavour == V1_STREAM || job->flavour == V2_STREAM;
}

static void drop_writer(struct job *job)
{
	struct request *writer = job->writer;

	job->writer = NULL;
	if (writer != NULL)
		http_reply_error(writer, 422, "stdin_closed",
				 "the run has ended");
}

static void job_free(struct job *job)
{
	drop_writer(job);
	if (is_v2(job))
		LIST_REMOVE(job, link);
	if (job->sb != NULL)
		vmm_peer_cancel(sandbox_vmm(job->sb), &job->stats_call);
	run_free(&job->run);
	free(job);
}

/* The client is gone: closing the agent's connection kills the run. */
static void on_abort(struct request *rq)
{
	struct job *job = rq->job;

	job->rq = NULL;
	if (!job->done)
		log_debug("run=%s killed: its client is gone", job->run.id);
	job_free(job);
}

static void on_drain(struct request *rq)
{
	struct job *job = rq->job;

	run_pause(&job->run, false);
}

/* --- Streaming output ------------------------------------------------------------------------ */

static void push(struct job *job, int error)
{
	if (error < 0) {
		/* No memory: cut the stream, so that nobody takes it for
		 * whole. */
		log_error("run=%s stream: %s", job->run.id, strerror(-error));
		struct request *rq = job->rq;
		http_stream_end(rq, false);
		job->rq = NULL;
		if (!job->done)
			run_kill(&job->run);
		return;
	}
	http_stream_push(job->rq);
	if (http_stream_full(job->rq))
		run_pause(&job->run, true);
}

static void send_piece(struct job *job, enum run_stream which,
		       const uint8_t *bytes, size_t n)
{
	struct buf *to = http_stream_buf(job->rq);
	size_t before = to->len;
	int r;

	if (n == 0)
		return;
	if (job->flavour == V1_STREAM)
		r = exec_add_v1_output(to, which, bytes, n);
	else
		r = exec_add_v2_output(to, which, job->sent[which], bytes, n);
	if (r < 0)
		to->len = before;
	job->sent[which] += n;
	push(job, r);
}

static void on_output(struct run *run, enum run_stream which,
		      const uint8_t *bytes, size_t n)
{
	static uint8_t joined[BRIG_FRAME_DATA_MAX + UTF8_TAIL_MAX];
	struct job *job = container_of(run, struct job, run);
	size_t have = job->tail_len[which];
	uint64_t limit = run->args.output_limit;

	if (!is_stream(job) || job->rq == NULL)
		return;
	/* What is over the limit is counted, not sent. */
	n = (size_t)u64_min(n, limit - u64_min(limit, job->sent[which] + have));
	memcpy(joined, job->tail[which], have);
	memcpy(joined + have, bytes, n);
	n += have;
	size_t rest = utf8_tail(joined, n);
	memcpy(job->tail[which], joined + n - rest, rest);
	job->tail_len[which] = rest;
	send_piece(job, which, joined, n - rest);
}

static void on_started(struct run *run)
{
	struct job *job = container_of(run, struct job, run);

	if (!is_stream(job) || job->rq == NULL)
		return;
	job->rq->on_drain = on_drain;
	http_stream_start(job->rq, "application/x-ndjson");
	if (job->flavour == V2_STREAM)
		push(job, exec_add_started(http_stream_buf(job->rq), run));
}

static void end_stream(struct job *job)
{
	struct request *rq = job->rq;
	int r;

	for (int i = 0; i < RUN_STREAMS && job->rq != NULL; i++)
		send_piece(job, (enum run_stream)i, job->tail[i],
			   job->tail_len[i]);
	if (job->rq == NULL)
		return;
	struct buf *to = http_stream_buf(rq);
	if (job->flavour == V1_STREAM)
		r = exec_add_v1_end(to, &job->run);
	else
		r = exec_add_v2_end(to, &job->run, &job->host, rq->id);
	job->rq = NULL;
	http_stream_end(rq, r == 0);
}

/* --- The result ------------------------------------------------------------------------------ */

static void reply_result(struct job *job)
{
	struct request *rq = job->rq;
	struct buf text = BUF_INIT(EXEC_REPLY_MAX);
	int r;

	job->rq = NULL;
	if (job->flavour == V1_SYNC)
		r = exec_add_v1_result(&text, &job->run);
	else
		r = exec_add_v2_result(&text, &job->run, &job->host);
	if (r < 0) {
		buf_free(&text);
		http_reply_error(rq, 500, "no_memory",
				 "out of memory for the output");
		return;
	}
	http_reply_buf(rq, "application/json", &text);
}

static void answer(struct job *job)
{
	struct request *rq = job->rq;

	if (rq == NULL) {
		/* the stream was cut */
	} else if (job->run.reason == RUN_REFUSED && !rq->streaming) {
		job->rq = NULL;
		api_reply_sandbox_fault(rq, &job->run.fault, job->sb);
	} else if (is_stream(job) && !rq->streaming) {
		/* Lost before it began: a stream of one line. */
		http_stream_start(rq, "application/x-ndjson");
		end_stream(job);
	} else if (is_stream(job)) {
		end_stream(job);
	} else {
		reply_result(job);
	}
	runlog_add(job->sb->set->app->runlog, &job->run, job->tenant,
		   job->request_id, is_stream(job));
	job_free(job);
}

static void on_stats_after(struct vmm_call *call, int status, int fd,
			   const struct vmm_msg *msg)
{
	struct job *job = container_of(call, struct job, stats_call);

	(void)fd;
	job->host.known = job->host.known && status == 0;
	if (status == 0)
		job->host.after = msg->u.stats;
	answer(job);
}

static void on_stats_before(struct vmm_call *call, int status, int fd,
			    const struct vmm_msg *msg)
{
	struct job *job = container_of(call, struct job, stats_call);

	(void)fd;
	job->host.known = status == 0;
	if (status == 0)
		job->host.before = msg->u.stats;
}

static void on_done(struct run *run)
{
	struct job *job = container_of(run, struct job, run);

	job->done = true;
	drop_writer(job);
	if (!is_v2(job) || job->rq == NULL) {
		answer(job);
		return;
	}
	exec_read_cpu(job->sb, &job->host.cpu_after_usec);
	vmm_peer_cancel(sandbox_vmm(job->sb), &job->stats_call);
	job->stats_call.on_reply = on_stats_after;
	if (job->sb->state != SANDBOX_RUNNING || !job->host.known ||
	    vmm_peer_stats(sandbox_vmm(job->sb), &job->stats_call) < 0) {
		job->host.known = false;
		answer(job);
	}
}

static void on_stdin_room(struct run *run)
{
	struct job *job = container_of(run, struct job, run);

	if (job->writer != NULL)
		http_body_block(job->writer, false);
}

static const struct run_events run_events = {
	.on_started = on_started,
	.on_output = on_output,
	.on_stdin_room = on_stdin_room,
	.on_done = on_done,
};

/* --- Requests -------------------------------------------------------------------------------- */

static uint64_t keep_max(const struct args_run *args)
{
	return args->stream ? LOG_OUTPUT_BYTES : args->output_limit;
}

static void start(struct request *rq, struct sandbox *sb, struct args_run *args,
		  enum flavour flavour)
{
	struct fault fault;
	struct job *job = calloc(1, sizeof(*job));

	if (job == NULL) {
		args_free_run(args);
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	job->flavour = flavour;
	job->sb = sb;
	job->rq = rq;
	job->tenant = rq->tenant;
	memcpy(job->request_id, rq->id, sizeof(job->request_id));
	job->stats_call.on_reply = on_stats_before;
	if (is_v2(job) && sb->state == SANDBOX_RUNNING &&
	    vmm_peer_stats(sandbox_vmm(sb), &job->stats_call) == 0)
		exec_read_cpu(sb, &job->host.cpu_before_usec);
	int r = run_start(&job->run, sb, args, keep_max(args), &run_events,
			  &fault);
	if (r < 0) {
		vmm_peer_cancel(sandbox_vmm(sb), &job->stats_call);
		free(job);
		api_reply_sandbox_fault(rq, &fault, sb);
		return;
	}
	if (is_v2(job))
		LIST_INSERT_HEAD(&v2_jobs, job, link);
	rq->job = job;
	rq->on_abort = on_abort;
}

static void execute(struct request *rq, enum flavour flavour)
{
	struct args_run args;
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);
	int r;

	if (sb == NULL)
		return;
	if (flavour == V2_SYNC)
		r = args_parse_run(rq->body.data, rq->body.len, &args, &fault);
	else if (flavour == V2_CODE)
		r = args_parse_code(rq->body.data, rq->body.len, &args, &fault);
	else
		r = args_parse_execute(rq->body.data, rq->body.len,
				       flavour == V1_STREAM, &args, &fault);
	if (r < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	if (flavour == V2_SYNC || flavour == V2_CODE)
		flavour = args.stream ? V2_STREAM : V2_SYNC;
	start(rq, sb, &args, flavour);
}

void api_execute(struct request *rq)
{
	execute(rq, V1_SYNC);
}

void api_execute_async(struct request *rq)
{
	execute(rq, V1_STREAM);
}

void api_run(struct request *rq)
{
	execute(rq, V2_SYNC);
}

void api_code(struct request *rq)
{
	execute(rq, V2_CODE);
}

/* --- stdin ------------------------------------------------------------------------------------- */

static void on_writer_abort(struct request *rq)
{
	struct job *job = rq->job;

	job->writer = NULL;
}

static void on_stdin_body(struct request *rq, const char *bytes, size_t n)
{
	struct job *job = rq->job;

	if (!run_write_stdin(&job->run, bytes, n)) {
		job->writer = NULL;
		http_reply_error(rq, 503, "agent_error",
				 "stdin cannot be written");
		return;
	}
	if (run_stdin_is_full(&job->run))
		http_body_block(rq, true);
}

static struct job *find_run(const struct sandbox *sb, const char *id)
{
	struct job *job;

	LIST_FOREACH(job, &v2_jobs, link) {
		if (job->sb == sb && strcmp(job->run.id, id) == 0 && !job->done)
			return job;
	}
	return NULL;
}

void api_stdin_begin(struct request *rq)
{
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	struct job *job = find_run(sb, rq->param[1]);
	if (job == NULL) {
		http_reply_error(rq, 404, "not_found", "no such run goes on");
	} else if (job->writer != NULL ||
		   (job->run.args.stdin_open && !job->run.stdin_closed &&
		    !run_stdin_is_open(&job->run))) {
		http_reply_error(rq, 409, "stdin_busy",
				 "stdin is being written already");
	} else if (!run_stdin_is_open(&job->run)) {
		http_reply_error(rq, 422, "stdin_closed",
				 "stdin of this run is not open");
	} else {
		job->writer = rq;
		rq->job = job;
		rq->on_abort = on_writer_abort;
		rq->on_body = on_stdin_body;
	}
}

void api_stdin(struct request *rq)
{
	struct job *job = rq->job;
	const char *eof = http_query(rq, "eof");

	job->writer = NULL;
	if (eof == NULL || strcmp(eof, "0") != 0)
		run_close_stdin(&job->run);
	http_reply_empty(rq);
}
