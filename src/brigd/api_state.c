/* api_state.c - pause, resume, reset and rollback: a sandbox keeps its id.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "args_make.h"
#include "creation.h"
#include "log.h"
#include "snapshot.h"
#include "template.h"

/* The body must be empty or {}; NULL after answering. */
static struct sandbox *sandbox_of(struct request *rq)
{
	struct args_make args;
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return NULL;
	if (args_parse_make(MAKE_NOTHING, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return NULL;
	}
	args_make_free(&args);
	return sb;
}

/* The sandbox begins again: answers when it runs. */
static void wait_for(struct request *rq, struct sandbox *sb)
{
	struct creation *c = creation_new(rq, CREATION_ONE, 1, true);

	if (c == NULL)
		return;
	creation_add(c, sb, true);
	creation_wait(c);
}

/* --- Pause ------------------------------------------------------------------------------- */

struct pausing {
	struct snapshot snapshot;
	struct request *rq; /* NULL: the client is gone */
	struct app *app;
};

static void on_pause_abort(struct request *rq)
{
	struct pausing *p = rq->job;

	p->rq = NULL;
}

static void end_pause(struct pausing *p)
{
	struct snapshot *s = &p->snapshot;
	struct sandbox *sb = s->save.sb;
	const char *id = s->draft.snap.id;

	if (sb != NULL) {
		save_forget(&s->save);
		sandbox_set_paused(sb, id);
		if (p->rq != NULL)
			http_reply_json(p->rq, api_sandbox_json(sb, NULL));
		return;
	}
	if (snapstore_delete(p->app->snapstore, id) < 0)
		log_warn("snapshot=%s of a pause stays; going on", id);
	if (p->rq != NULL)
		http_reply_error(p->rq, 422, "sandbox_not_running",
				 "the sandbox ended while it was paused");
}

static void on_paused(struct snapshot *s, const struct fault *fault)
{
	struct pausing *p = container_of(s, struct pausing, snapshot);

	if (fault == NULL)
		end_pause(p);
	else if (p->rq != NULL)
		http_reply_fault(p->rq, fault, NULL);
	free(p);
}

void api_pause(struct request *rq)
{
	char name[NAME_BYTES];
	struct snapshot_options options = { .name = name, .pause = true };
	struct fault fault;
	struct sandbox *sb = sandbox_of(rq);

	if (sb == NULL)
		return;
	if (sb->state == SANDBOX_PAUSED) {
		http_reply_json(rq, api_sandbox_json(sb, NULL));
		return;
	}
	struct pausing *p = calloc(1, sizeof(*p));
	if (p == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	snapshot_name_pause(sb->id, name);
	p->snapshot.on_done = on_paused;
	p->rq = rq;
	p->app = api_app(rq);
	rq->job = p;
	rq->on_abort = on_pause_abort;
	if (snapshot_start(&p->snapshot, sb, &options, &fault) < 0) {
		free(p);
		api_reply_sandbox_fault(rq, &fault, sb);
	}
}

/* --- What has to be loaded first -------------------------------------------------------- */

enum again {
	AGAIN_RESUME,
	AGAIN_ROLLBACK,
	AGAIN_RESET,
};

struct again_job {
	struct snap_load load;
	struct app *app;
	struct request *rq; /* NULL: the client is gone */
	enum again what;
	int64_t tenant;
	char sandbox_id[BRIG_ID_BYTES];
	char snapshot[SNAP_ID_BYTES];
};

static void on_again_abort(struct request *rq)
{
	struct again_job *j = rq->job;

	j->rq = NULL;
}

static int check_same(const struct sandbox *sb, const struct saved *saved,
		      struct fault *fault)
{
	if (saved->state == NULL)
		return fault_set(fault, 422, "snapshot_without_memory",
				 "a snapshot of the disk alone makes new "
				 "sandboxes only");
	if (strcmp(saved->shape.image, sb->shape.image) != 0 ||
	    saved->shape.vcpus != sb->shape.vcpus ||
	    saved->shape.memory_mib != sb->shape.memory_mib ||
	    saved->shape.disk_bytes != sb->shape.disk_bytes)
		return fault_set(fault, 422, "shape_differs",
				 "the snapshot is of a machine of another "
				 "shape");
	return 0;
}

static int begin_again(struct again_job *j, struct sandbox *sb,
		       struct saved *saved, struct fault *fault)
{
	if (sb->state == SANDBOX_CREATING || sb->save != NULL)
		return fault_set(fault, 409, "busy",
				 "something else goes on with the sandbox");
	if (j->what == AGAIN_RESUME && sb->state != SANDBOX_PAUSED)
		return fault_set(fault, 422, "sandbox_not_paused",
				 "the sandbox is %s", sandbox_status(sb));
	if (check_same(sb, saved, fault) < 0)
		return -EINVAL;
	if (j->what == AGAIN_RESUME)
		return sandbox_restart(sb, saved, sb->origin, NULL, fault);
	if (j->what == AGAIN_ROLLBACK)
		return sandbox_restart(sb, saved, ORIGIN_SNAPSHOT, j->snapshot,
				       fault);
	int r = sandbox_restart(sb, saved, ORIGIN_TEMPLATE, NULL, fault);
	if (r == 0)
		sb->template_as_made = true;
	return r;
}

static void on_loaded(struct snap_load *l, int error, struct saved *saved)
{
	struct again_job *j = container_of(l, struct again_job, load);
	struct sandbox *sb =
		sandbox_find(j->app->sandboxes, j->tenant, j->sandbox_id);
	struct fault fault;
	int r = -EINVAL;

	if (sb == NULL)
		(void)fault_set(&fault, 404, "not_found", "no such sandbox");
	else if (error < 0)
		snapshot_fault(error, &fault);
	else
		r = begin_again(j, sb, saved, &fault);
	if (j->rq != NULL && r < 0)
		http_reply_fault(j->rq, &fault, NULL);
	else if (j->rq != NULL)
		wait_for(j->rq, sb);
	saved_unref(saved);
	free(j);
}

static void load_and_begin(struct request *rq, const struct sandbox *sb,
			   enum again what, const char *snapshot)
{
	struct again_job *j = calloc(1, sizeof(*j));

	if (j == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	j->load.on_done = on_loaded;
	j->app = api_app(rq);
	j->rq = rq;
	j->what = what;
	j->tenant = rq->tenant;
	memcpy(j->sandbox_id, sb->id, sizeof(j->sandbox_id));
	(void)snprintf(j->snapshot, sizeof(j->snapshot), "%s", snapshot);
	rq->job = j;
	rq->on_abort = on_again_abort;
	snapstore_load(j->app->snapstore, j->snapshot, &j->load);
}

/* --- Resume, rollback, reset ------------------------------------------------------------- */

void api_resume(struct request *rq)
{
	struct sandbox *sb = sandbox_of(rq);

	if (sb == NULL)
		return;
	if (sb->state == SANDBOX_RUNNING)
		http_reply_json(rq, api_sandbox_json(sb, NULL));
	else if (sb->state == SANDBOX_CREATING)
		http_reply_error(rq, 409, "busy",
				 "the sandbox is starting already");
	else if (sb->state != SANDBOX_PAUSED)
		http_reply_error(rq, 422, "sandbox_not_paused",
				 "the sandbox is %s", sandbox_status(sb));
	else
		load_and_begin(rq, sb, AGAIN_RESUME, sb->paused);
}

void api_rollback(struct request *rq)
{
	struct args_make args;
	struct sandbox_spec unused = { .tenant = rq->tenant };
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (args_parse_make(MAKE_ROLLBACK, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	if (args.snapshot == NULL)
		http_reply_error(rq, 422, "missing_field",
				 "`snapshot` is missing");
	else if (api_spec_of_snapshot(rq, args.snapshot, &args, &unused,
				      &fault) < 0)
		http_reply_fault(rq, &fault, NULL);
	else if (sb->state == SANDBOX_CREATING)
		http_reply_error(rq, 409, "busy",
				 "the sandbox is starting already");
	else
		load_and_begin(rq, sb, AGAIN_ROLLBACK, args.snapshot);
	args_make_free(&args);
}

static void reset_in_place(struct request *rq, struct sandbox *sb)
{
	struct fault fault;

	if (sandbox_reset(sb, &fault) < 0)
		http_reply_fault(rq, &fault, NULL);
	else
		wait_for(rq, sb);
}

void api_reset(struct request *rq)
{
	const struct template *t = NULL;
	struct sandbox *sb = sandbox_of(rq);

	if (sb == NULL)
		return;
	if (sb->template_name[0] != '\0')
		t = template_find(api_app(rq)->templates, sb->template_name);
	if (sb->state == SANDBOX_CREATING || sb->save != NULL)
		http_reply_error(rq, 409, "busy",
				 "something else goes on with the sandbox");
	else if (sb->state == SANDBOX_RUNNING && sb->template_as_made)
		reset_in_place(rq, sb);
	else if (t == NULL || t->snapshot[0] == '\0')
		http_reply_error(rq, 422, "no_template",
				 "the sandbox was not made from a template "
				 "that is still there");
	else
		load_and_begin(rq, sb, AGAIN_RESET, t->snapshot);
}
