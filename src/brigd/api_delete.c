/* api_delete.c - delete and delete-all of sandboxes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "args_make.h"
#include "removal.h"
#include "snapshot.h"

/* The snapshot that was asked for comes first; without it nothing goes. */
struct farewell {
	struct snapshot snapshot;
	struct request *rq; /* NULL: the client is gone */
	struct app *app;
	int64_t tenant;
	char sandbox_id[BRIG_ID_BYTES];
};

static void on_abort(struct request *rq)
{
	struct farewell *f = rq->job;

	f->rq = NULL;
}

static void on_snapshot(struct snapshot *s, const struct fault *fault)
{
	struct farewell *f = container_of(s, struct farewell, snapshot);
	struct sandbox *sb =
		sandbox_find(f->app->sandboxes, f->tenant, f->sandbox_id);

	if (f->rq == NULL) {
		/* Whoever asked does not know of the snapshot: the sandbox
		 * stays. */
	} else if (fault != NULL) {
		http_reply_fault(f->rq, fault, NULL);
	} else if (sb == NULL) {
		http_reply_error(f->rq, 404, "not_found", "no such sandbox");
	} else {
		removal_start(f->rq, sb, s->draft.snap.name);
	}
	free(f);
}

static void snapshot_first(struct request *rq, struct sandbox *sb,
			   const char *name)
{
	struct snapshot_options options = { .name = name };
	struct fault fault;
	struct farewell *f = calloc(1, sizeof(*f));

	if (f == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	f->snapshot.on_done = on_snapshot;
	f->rq = rq;
	f->app = api_app(rq);
	f->tenant = rq->tenant;
	memcpy(f->sandbox_id, sb->id, sizeof(f->sandbox_id));
	rq->job = f;
	rq->on_abort = on_abort;
	if (snapshot_start(&f->snapshot, sb, &options, &fault) < 0) {
		free(f);
		api_reply_sandbox_fault(rq, &fault, sb);
	}
}

void api_delete(struct request *rq)
{
	struct args_make args;
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (args_parse_make(MAKE_V1_DELETE, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	if (args.create_snapshot)
		snapshot_first(rq, sb, args.snapshot_name);
	else
		removal_start(rq, sb, NULL);
	args_make_free(&args);
}

void api_delete_all(struct request *rq)
{
	removal_start(rq, NULL, NULL);
}
