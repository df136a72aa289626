/* api_logs.c - the log of runs.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "api.h"
#include "runlog.h"
#include "store.h"
#include "when.h"

#define HOUR_MS ((int64_t)3600 * 1000)

static void add_row(void *arg, const struct store_run *row)
{
	char at[WHEN_BYTES];

	when_format(row->started_ms, at);
	(void)json_array_append_new(
		arg,
		json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s%, "
			  "s:s%, s:b, s:b, s:s}",
			  "command", row->command, "execution_time_ms",
			  (json_int_t)row->duration_ms, "exit_code",
			  (json_int_t)row->exit_code, "request_id",
			  row->request_id, "sandbox_id", row->sandbox_id,
			  "source", row->source, "status", row->status,
			  "timestamp", at, "execution_id", row->id, "stdout",
			  row->output[0], row->output_len[0], "stderr",
			  row->output[1], row->output_len[1],
			  "stdout_truncated", row->truncated[0],
			  "stderr_truncated", row->truncated[1], "working_dir",
			  row->cwd));
}

static int get_query(const struct request *rq, struct store_query *q,
		     struct fault *fault)
{
	const char *from = http_query(rq, "from");
	const char *to = http_query(rq, "to");

	q->tenant = rq->tenant;
	q->sandbox_id = http_query(rq, "sandbox_id");
	q->to_ms = when_now_ms();
	if (to != NULL && when_parse(to, &q->to_ms) < 0)
		return fault_set(fault, 422, "invalid_field",
				 "`to` is not an ISO 8601 time");
	q->from_ms = q->to_ms - HOUR_MS;
	if (from != NULL && when_parse(from, &q->from_ms) < 0)
		return fault_set(fault, 422, "invalid_field",
				 "`from` is not an ISO 8601 time");
	return args_query_number(http_query(rq, "limit"), "limit",
				 LOG_LIMIT_MAX, LOG_LIMIT_DEFAULT, &q->limit,
				 fault);
}

void api_logs(struct request *rq)
{
	struct store_query q;
	struct fault fault;
	int64_t total = 0;

	if (get_query(rq, &q, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	runlog_flush(api_app(rq)->runlog);
	json_t *rows = json_array();
	if (store_find_runs(api_app(rq)->store, &q, add_row, rows, &total) <
	    0) {
		json_decref(rows);
		http_reply_error(rq, 503, "store_error",
				 "the database does not answer");
		return;
	}
	http_reply_json(rq, json_pack("{s:o, s:I}", "logs", rows, "total",
				      (json_int_t)total));
}
