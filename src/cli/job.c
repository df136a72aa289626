/* job.c - one command in a sandbox, from start to exit code.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base64.h"
#include "cmd.h"
#include "events.h"
#include "job.h"
#include "ref.h"
#include "stop.h"

#define STEP_MS 1000
#define INPUT_IDLE_MS 5000u
#define PATH_BYTES 256

/* Standard input goes out in requests that leave the run's input open; one
 * ends when nothing came for a while, so that no idle time-out of brigd cuts
 * it. The last, without a body, closes the input. */
enum input_state {
	INPUT_OFF,     /* no request: not begun, or nothing to read now */
	INPUT_SENDING, /* a request carries what comes */
	INPUT_CLOSING, /* the request that closes it is under way */
	INPUT_DONE,    /* closed, or not wanted */
};

struct running {
	const struct job *job;
	struct buf line;         /* the event that is not complete yet */
	char id[REF_ID_MAX + 1]; /* of the run; "": not started yet */
	char input_path[PATH_BYTES];
	struct api_call input; /* the request that carries stdin */
	enum input_state input_state;
	json_t *result;    /* the exit event */
	json_t *error;     /* the error object */
	struct buf out[2]; /* with as_json: stdout, stderr */
	bool out_cut[2];
	bool reader_gone; /* EPIPE on stdout or stderr */
	int failure;      /* why we broke off: -errno */
};

/* --- events ------------------------------------------------------------------- */

static int keep_output(struct running *r, size_t which, const struct buf *data)
{
	struct buf *out = &r->out[which];
	size_t room = out->max - out->len;

	if (data->len > room)
		r->out_cut[which] = true;
	return buf_add(out, data->data, data->len < room ? data->len : room);
}

static int on_output(struct running *r, const struct event *e)
{
	size_t which = e->kind == EVENT_STDERR;

	if (e->data.len == 0)
		return 0;
	if (r->job->as_json)
		return keep_output(r, which, &e->data);
	int ret = stop_write(which ? STDERR_FILENO : STDOUT_FILENO,
			     e->data.data, e->data.len);
	r->reader_gone = ret == -EPIPE;
	return ret;
}

static int on_started(struct running *r, const struct event *e)
{
	const char *id = json_string_value(json_object_get(e->json, "id"));

	if (id == NULL || !ref_is_id(id))
		return -EPROTO;
	(void)snprintf(r->id, sizeof(r->id), "%s", id);
	return 0;
}

static int on_event(struct running *r, const struct event *e)
{
	switch (e->kind) {
	case EVENT_STARTED:
		return on_started(r, e);
	case EVENT_STDOUT:
	case EVENT_STDERR:
		return on_output(r, e);
	case EVENT_EXIT:
		json_decref(r->result);
		r->result = json_incref(e->json);
		return 0;
	case EVENT_ERROR:
		json_decref(r->error);
		r->error = json_incref(json_object_get(e->json, "error"));
		return r->error != NULL ? 0 : -EPROTO;
	case EVENT_OTHER:
		return 0;
	}
	return -EPROTO;
}

static int on_line(void *ctx, const char *line, size_t n)
{
	struct running *r = ctx;
	struct event e;
	int ret = event_read(line, n, &e);

	if (ret < 0)
		return ret;
	ret = on_event(r, &e);
	event_free(&e);
	return ret;
}

static int on_bytes(void *ctx, const char *bytes, size_t n)
{
	struct running *r = ctx;
	int ret = lines_feed(&r->line, bytes, n, on_line, r);

	/* a line too long is the server's mistake, not a full disk here */
	r->failure = ret == -ENOSPC && r->line.len > EVENT_LINE_MAX / 2
			     ? -EPROTO
			     : ret;
	return r->failure;
}

/* --- the two requests ----------------------------------------------------------- */

static int input_send(struct api *a, struct running *r, bool last)
{
	(void)snprintf(r->input_path, sizeof(r->input_path),
		       "/v2/sandboxes/%s/runs/%s/stdin%s", r->job->sandbox,
		       r->id, last ? "" : "?eof=0");
	r->input = (struct api_call){
		.method = "POST",
		.path = r->input_path,
		.source_fd = last ? -1 : STDIN_FILENO,
		.source_size = -1,
		.source_idle_ms = INPUT_IDLE_MS,
	};
	r->input_state = last ? INPUT_CLOSING : INPUT_SENDING;
	return api_start(a, &r->input);
}

/* A run may end, or close its input, before all of it was sent: no reason to
 * complain. */
static bool input_refused(struct api_call *c)
{
	if (api_judge(c) == 0)
		return false;
	if (c->status != 404 && c->status != 422)
		complain("standard input: %s", c->message);
	return true;
}

static int input_step(struct api *a, struct running *r)
{
	struct api_call *c = &r->input;

	if (r->input_state == INPUT_OFF && r->id[0] != '\0' &&
	    api_can_read(STDIN_FILENO))
		return input_send(a, r, false);
	if (!c->done)
		return 0;
	bool refused = input_refused(c);
	bool ended = c->source_ended || c->source_errno != 0;
	api_end(c);
	c->done = false;
	if (ended && r->input_state == INPUT_SENDING)
		return input_send(a, r, true);
	if (refused || r->input_state == INPUT_CLOSING)
		r->input_state = INPUT_DONE;
	else
		r->input_state = INPUT_OFF;
	return 0;
}

/* 0 when the stream ended by itself, else -errno. */
static int pump(struct api *a, struct running *r, struct api_call *main_call)
{
	unsigned int before = stop_count();
	int ret = api_start(a, main_call);

	if (!r->job->send_stdin)
		r->input_state = INPUT_DONE;
	while (ret == 0 && !main_call->done) {
		/* with nothing to send yet, stdin itself is waited for */
		bool idle = r->input_state == INPUT_OFF && r->id[0] != '\0';
		ret = api_step(a, idle ? STDIN_FILENO : -1, STEP_MS);
		if (ret == 0 && stop_count() != before)
			ret = -EINTR;
		if (ret == 0)
			ret = input_step(a, r);
	}
	api_end(&r->input);
	return ret;
}

/* --- how it ended ----------------------------------------------------------------- */

static void note_cut(const struct running *r, const char *which)
{
	char key[32];

	(void)snprintf(key, sizeof(key), "%s_truncated", which);
	if (!json_is_true(json_object_get(r->result, key)))
		return;
	(void)snprintf(key, sizeof(key), "%s_bytes", which);
	complain(
		"%s was cut: the command wrote %lld bytes", which,
		(long long)json_integer_value(json_object_get(r->result, key)));
}

static void note_result(const struct running *r)
{
	const char *reason =
		json_string_value(json_object_get(r->result, "reason"));
	const char *error =
		json_string_value(json_object_get(r->result, "error"));

	note_cut(r, "stdout");
	note_cut(r, "stderr");
	if (reason == NULL)
		return;
	if (strcmp(reason, "timeout") == 0)
		complain("the command took longer than allowed and was killed");
	if (strcmp(reason, "oom") == 0)
		complain("the guest ran out of memory and killed the command");
	if (strcmp(reason, "lost") == 0)
		complain("the sandbox ended before the command: %s",
			 error != NULL ? error : "`brig status` knows why");
}

static int put_output(json_t *object, const char *name, const struct buf *data,
		      bool cut)
{
	struct buf text cleanup_buf = BUF_INIT(2ul * JOB_KEEP_MAX);
	const char *bytes = data->len > 0 ? data->data : "";
	const char *encoding = "utf-8";
	char key[32];
	json_t *value = json_stringn(bytes, data->len); /* NULL: not UTF-8 */

	if (value == NULL) {
		encoding = "base64";
		if (base64_write(&text, bytes, data->len) < 0)
			return -ENOMEM;
		value = json_stringn(text.data, text.len);
	}
	if (json_object_set_new(object, name, value) < 0)
		return -ENOMEM;
	(void)snprintf(key, sizeof(key), "%s_encoding", name);
	if (json_object_set_new(object, key, json_string(encoding)) < 0)
		return -ENOMEM;
	(void)snprintf(key, sizeof(key), "%s_truncated", name);
	if (cut && json_object_set_new(object, key, json_true()) < 0)
		return -ENOMEM;
	return 0;
}

static int print_result(const struct running *r)
{
	if (json_object_del(r->result, "event") < 0 ||
	    put_output(r->result, "stdout", &r->out[0], r->out_cut[0]) < 0 ||
	    put_output(r->result, "stderr", &r->out[1], r->out_cut[1]) < 0)
		return -ENOMEM;
	return term_print_json(r->result);
}

static int finish_error(const json_t *error)
{
	const char *message =
		json_string_value(json_object_get(error, "message"));

	complain("%s", message != NULL ? message : "the run failed");
	return outcome_of_error(error);
}

static int finish(struct running *r, int ret, struct api_call *c)
{
	if (stop_signal() != 0 && r->result == NULL)
		return CMD_SIGNAL + stop_signal();
	if (r->reader_gone)
		return CMD_SIGNAL + SIGPIPE;
	if (ret == 0 && r->failure == 0)
		ret = api_judge(c);
	if (r->failure < 0) {
		complain("%s", r->failure == -EPROTO
				       ? "brigd sent events that make no sense"
				       : strerror(-r->failure));
		return CMD_FAILED;
	}
	if (r->error != NULL || c->error != NULL)
		return finish_error(r->error != NULL ? r->error : c->error);
	if (r->result == NULL && ret == 0)
		complain("brigd ended the stream before the command ended");
	else if (r->result == NULL)
		complain("%s", c->message[0] ? c->message : strerror(-ret));
	if (r->result == NULL)
		return CMD_FAILED;
	if (r->job->as_json && print_result(r) < 0)
		return CMD_FAILED;
	if (!r->job->as_json)
		note_result(r);
	return outcome_of_result(r->result);
}

int job_run(struct api *a, const struct job *job)
{
	char path[PATH_BYTES];
	struct running r = {
		.job = job,
		.line = BUF_INIT(EVENT_LINE_MAX),
		.out = { BUF_INIT(JOB_KEEP_MAX), BUF_INIT(JOB_KEEP_MAX) },
	};

	if (json_object_set_new(job->request, "stream", json_true()) < 0 ||
	    (!job->is_code &&
	     json_object_set_new(job->request, "stdin_open",
				 json_boolean(job->send_stdin)) < 0)) {
		complain("out of memory");
		return CMD_FAILED;
	}
	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s/%s", job->sandbox,
		       job->is_code ? "code" : "runs");
	struct api_call c = { .method = "POST",
			      .path = path,
			      .body = job->request,
			      .source_fd = -1,
			      .sink = on_bytes,
			      .sink_ctx = &r };
	int code = finish(&r, pump(a, &r, &c), &c);
	api_end(&c);
	json_decref(r.result);
	json_decref(r.error);
	buf_free(&r.line);
	buf_free(&r.out[0]);
	buf_free(&r.out[1]);
	return code;
}
