/* api.h - the handlers that the route table names.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each answers its request, now or later; see http.h for the rules.
 */
#ifndef BRIGD_API_H
#define BRIGD_API_H

#include "http.h"
#include "sandbox.h"

/* api_create.c */
void api_create(struct request *rq);
void api_create_v2(struct request *rq);

/* The spec of a sandbox from a snapshot of the tenant; `a` may say no more
 * than what the snapshot is. */
struct args_make;
struct creation;
must_check int api_spec_of_snapshot(struct request *rq, const char *id,
				    const struct args_make *a,
				    struct sandbox_spec *spec,
				    struct fault *fault);

/* Makes `count` of them and answers through `c`. */
void api_create_many(struct creation *c, struct request *rq,
		     const struct sandbox_spec *spec, uint32_t count);

/* api_sandbox.c */
void api_list(struct request *rq);
void api_get(struct request *rq);
void api_console(struct request *rq);

/* api_delete.c */
void api_delete(struct request *rq);
void api_delete_all(struct request *rq);

/* api_state.c */
void api_pause(struct request *rq);
void api_resume(struct request *rq);
void api_reset(struct request *rq);
void api_rollback(struct request *rq);

/* api_clone.c */
void api_clone(struct request *rq);
void api_clone_v1(struct request *rq);

/* api_snapshot.c */
void api_snapshot(struct request *rq);
void api_snapshot_v1(struct request *rq);
void api_snapshot_list(struct request *rq);
void api_snapshot_list_v1(struct request *rq);
void api_snapshot_get(struct request *rq);
void api_snapshot_restore(struct request *rq);
void api_snapshot_delete(struct request *rq);
void api_snapshot_delete_all(struct request *rq);

/* api_move.c */
void api_snapshot_export(struct request *rq);
void api_snapshot_import_begin(struct request *rq);
void api_snapshot_import(struct request *rq);

/* api_template.c */
void api_template_create(struct request *rq);
void api_template_list(struct request *rq);
void api_template_get(struct request *rq);
void api_template_delete(struct request *rq);

/* api_status.c */
void api_status(struct request *rq);

/* api_exec.c */
void api_execute(struct request *rq);
void api_execute_async(struct request *rq);
void api_run(struct request *rq);
void api_code(struct request *rq);
void api_stdin_begin(struct request *rq);
void api_stdin(struct request *rq);

/* api_files.c */
void api_download(struct request *rq);
void api_upload_begin(struct request *rq);
void api_upload(struct request *rq);

/* api_logs.c */
void api_logs(struct request *rq);

/* api_system.c */
void api_health(struct request *rq);
void api_host(struct request *rq);

/* A sandbox as JSON, without or with what its VMM counted (NULL: not known).
 * `storage` is called `disk_size` in lists. */
json_t *api_sandbox_json(const struct sandbox *sb,
			 const struct vmm_stats *stats);
json_t *api_sandbox_json_v1(const struct sandbox *sb, const char *storage);

/* The sandbox that the path names; NULL after answering 404. */
struct sandbox *api_sandbox_of(struct request *rq);

/* Answers with a fault about a sandbox: adds status and reason to it. */
void api_reply_sandbox_fault(struct request *rq, const struct fault *fault,
			     const struct sandbox *sb);

/* Part 1's lists: `page` and `page_size` of the query. */
struct api_page {
	uint32_t number; /* from 1 */
	uint32_t size;
	uint64_t total; /* items that api_page_add() saw */
	json_t *data;   /* those of this page */
};

/* 0, or -EINVAL after answering. */
must_check int api_page_begin(struct request *rq, struct api_page *ret);

/* Counts one more item; true if it is to be appended to `data`. */
must_check bool api_page_takes(struct api_page *p);
void api_page_reply(struct request *rq, struct api_page *p);

static inline struct app *api_app(const struct request *rq)
{
	return http_app(rq->http);
}

#endif
