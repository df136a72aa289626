/* runlog.c - the log of runs, written to the store off the hot path.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"
#include "loop.h"
#include "num.h"
#include "runlog.h"
#include "store.h"
#include "utf8.h"

/* Rows gather for this long: one transaction for a burst of runs. */
#define FLUSH_AFTER_MS 50u

/* Each byte may become a replacement character. */
#define TEXT_MAX ((size_t)4 * LOG_OUTPUT_BYTES)

struct row {
	char id[BRIG_ID_BYTES];
	char request_id[BRIG_ID_BYTES];
	char sandbox_id[BRIG_ID_BYTES];
	struct buf command;
	struct buf cwd;
	struct buf output[RUN_STREAMS];
	struct store_run run;
};

struct runlog {
	struct app *app;
	struct loop_timer timer;
	size_t count;
	unsigned int dropped;
	struct row *rows[LOG_QUEUE_MAX];
};

static void row_free(struct row *row)
{
	buf_free(&row->command);
	buf_free(&row->cwd);
	buf_free(&row->output[0]);
	buf_free(&row->output[1]);
	free(row);
}

static int add_cut(struct buf *to, const char *text, size_t max)
{
	return utf8_add(to, (const uint8_t *)text, u64_min(strlen(text), max));
}

static int add_command(struct buf *to, const struct args_run *a)
{
	size_t i;
	json_t *value;
	int r = 0;

	if (a->language != NULL)
		return add_cut(to, a->code, LOG_COMMAND_BYTES);
	if (a->argv == NULL)
		return add_cut(to, a->command, LOG_COMMAND_BYTES);
	json_array_foreach(a->argv, i, value) {
		size_t room =
			LOG_COMMAND_BYTES - u64_min(to->len, LOG_COMMAND_BYTES);
		if (i > 0 && r == 0)
			r = buf_add_str(to, " ");
		if (r == 0)
			r = add_cut(to, json_string_value(value), room);
	}
	return r;
}

static int fill_texts(struct row *row, const struct run *run)
{
	int r = add_command(&row->command, &run->args);

	if (r == 0)
		r = add_cut(&row->cwd, run->args.cwd, LOG_COMMAND_BYTES);
	for (int i = 0; i < RUN_STREAMS && r == 0; i++) {
		const struct run_output *out = &run->output[i];
		size_t n = u64_min(out->kept.len, LOG_OUTPUT_BYTES);
		if (n > 0)
			r = utf8_add(&row->output[i],
				     (const uint8_t *)out->kept.data, n);
		row->run.truncated[i] = out->bytes > n;
	}
	return r;
}

static const char *text_of(const struct buf *b)
{
	return b->len > 0 ? b->data : "";
}

static struct row *row_new(const struct run *run)
{
	struct row *row = calloc(1, sizeof(*row));

	if (row == NULL)
		return NULL;
	row->command.max = TEXT_MAX + BRIG_ARGV_MAX;
	row->cwd.max = TEXT_MAX;
	row->output[0].max = 2 * TEXT_MAX;
	row->output[1].max = 2 * TEXT_MAX;
	if (fill_texts(row, run) < 0) {
		row_free(row);
		return NULL;
	}
	return row;
}

static void on_timer(struct loop_timer *timer)
{
	runlog_flush(container_of(timer, struct runlog, timer));
}

struct runlog *runlog_new(struct app *app)
{
	struct runlog *log = calloc(1, sizeof(*log));

	if (log == NULL)
		return NULL;
	log->app = app;
	log->timer.on_expire = on_timer;
	return log;
}

void runlog_free(struct runlog *log)
{
	if (log == NULL)
		return;
	runlog_flush(log);
	free(log);
}

void runlog_add(struct runlog *log, const struct run *run, int64_t tenant,
		const char *request_id, bool stream)
{
	struct row *row = log->count < LOG_QUEUE_MAX ? row_new(run) : NULL;

	if (row == NULL) {
		log->dropped++;
		return;
	}
	memcpy(row->id, run->id, sizeof(row->id));
	memcpy(row->sandbox_id, run->sandbox_id, sizeof(row->sandbox_id));
	memcpy(row->request_id, request_id, sizeof(row->request_id));
	row->run.id = row->id;
	row->run.request_id = row->request_id;
	row->run.sandbox_id = row->sandbox_id;
	row->run.source = stream ? "stream" : "sync";
	row->run.status = run_v1_status(run);
	row->run.command = text_of(&row->command);
	row->run.cwd = text_of(&row->cwd);
	for (int i = 0; i < RUN_STREAMS; i++) {
		row->run.output[i] = text_of(&row->output[i]);
		row->run.output_len[i] = row->output[i].len;
	}
	row->run.tenant = tenant;
	row->run.exit_code = run_exit_code(run);
	row->run.duration_ms = (int64_t)(run->wall_ns / NS_PER_MS);
	row->run.started_ms = run->created_ms;
	log->rows[log->count++] = row;
	if (!log->timer.armed)
		loop_timer_set(log->app->loop, &log->timer,
			       FLUSH_AFTER_MS * NS_PER_MS);
}

void runlog_flush(struct runlog *log)
{
	struct store_run runs[64];
	size_t at = 0;

	loop_timer_del(log->app->loop, &log->timer);
	while (at < log->count) {
		size_t n = u64_min(log->count - at, ARRAY_LEN(runs));
		for (size_t i = 0; i < n; i++)
			runs[i] = log->rows[at + i]->run;
		if (store_add_runs(log->app->store, runs, n) < 0)
			log->dropped += (unsigned int)n;
		at += n;
	}
	for (size_t i = 0; i < log->count; i++)
		row_free(log->rows[i]);
	log->count = 0;
	if (log->dropped > 0)
		log_warn("log: %u runs are missing; going on", log->dropped);
	log->dropped = 0;
}
