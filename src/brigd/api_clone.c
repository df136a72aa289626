/* api_clone.c - copies of a running sandbox.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Part 2: saved into memory once, then as many are restored from that as were
 * asked for. Part 1 wants a snapshot to speak of: made first, then restored.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_snapshot.h"
#include "args_make.h"
#include "creation.h"

struct cloning {
	struct save save;         /* part 2 */
	struct snapshot snapshot; /* part 1 */
	struct request *rq;       /* NULL: the client is gone */
	struct app *app;
	json_t *env;           /* of the source */
	char name[NAME_BYTES]; /* "": generate */
	uint32_t cpus;
	uint32_t count;
	bool wait;
};

static void cloning_free(struct cloning *c)
{
	json_decref(c->env);
	free(c);
}

static void on_abort(struct request *rq)
{
	struct cloning *c = rq->job;

	c->rq = NULL;
}

static struct cloning *new_cloning(struct request *rq, const struct sandbox *sb,
				   const struct args_make *args)
{
	struct cloning *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return NULL;
	}
	c->rq = rq;
	c->app = api_app(rq);
	c->env = json_incref(sb->env);
	c->cpus = args->cpus != 0 ? args->cpus : sb->cpus;
	c->count = args->count != 0 ? args->count : 1;
	c->wait = args->wait_for_ready;
	if (args->name != NULL)
		(void)snprintf(c->name, sizeof(c->name), "%s", args->name);
	rq->job = c;
	rq->on_abort = on_abort;
	return c;
}

static void fill_spec(const struct cloning *c, struct sandbox_spec *ret)
{
	*ret = (struct sandbox_spec){
		.tenant = c->rq->tenant,
		.name = c->name[0] != '\0' ? c->name : NULL,
		.env = c->env,
		.cpus = c->cpus,
		.origin = ORIGIN_CLONE,
	};
}

/* --- Part 2 ------------------------------------------------------------------------------ */

static void on_saved(struct save *save, const struct fault *fault)
{
	struct cloning *c = container_of(save, struct cloning, save);
	struct request *rq = c->rq;
	struct sandbox_spec spec;
	struct creation *creation;

	if (rq != NULL && fault != NULL) {
		http_reply_fault(rq, fault, NULL);
	} else if (rq != NULL) {
		fill_spec(c, &spec);
		spec.from = save->saved;
		spec.shape = save->saved->shape;
		creation = creation_new(rq, CREATION_MANY, c->count, c->wait);
		if (creation != NULL)
			api_create_many(creation, rq, &spec, c->count);
	}
	saved_unref(save->saved);
	snapstore_sweep(c->app->snapstore);
	cloning_free(c);
}

void api_clone(struct request *rq)
{
	struct save_options options = { .live = true, .quick = true };
	struct args_make args;
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (args_parse_make(MAKE_CLONES, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	struct cloning *c = new_cloning(rq, sb, &args);
	args_make_free(&args);
	if (c == NULL)
		return;
	c->save.on_done = on_saved;
	if (save_start(&c->save, sb, &options, &fault) < 0) {
		cloning_free(c);
		api_reply_sandbox_fault(rq, &fault, sb);
	}
}

/* --- Part 1 ------------------------------------------------------------------------------ */

static void on_snapshot(struct snapshot *s, const struct fault *fault)
{
	struct cloning *c = container_of(s, struct cloning, snapshot);
	struct request *rq = c->rq;
	struct sandbox_spec spec;
	struct creation *creation;

	if (rq != NULL && fault != NULL) {
		http_reply_fault(rq, fault, NULL);
	} else if (rq != NULL) {
		fill_spec(c, &spec);
		spec.snapshot = s->draft.snap.id;
		spec.shape = s->draft.snap.shape;
		creation = creation_new(rq, CREATION_V1_CLONE, 1, c->wait);
		if (creation != NULL) {
			creation_set_snapshot(
				creation, api_snapshot_json_v1(&s->draft.snap));
			api_create_many(creation, rq, &spec, 1);
		}
	}
	cloning_free(c);
}

/* A copy is what its source is. */
static int check_like(const struct args_make *a, const struct sandbox *sb,
		      struct fault *fault)
{
	const struct shape *s = &sb->shape;

	if ((a->cpus != 0 && (a->cpus + 3) / 4 != s->vcpus) ||
	    (a->memory_mib != 0 && a->memory_mib != s->memory_mib) ||
	    (a->image != NULL && strcmp(a->image, s->image) != 0))
		return fault_set(fault, 422, "shape_differs",
				 "a clone has the image, the vCPUs (%u) and "
				 "the memory (%u MiB) of its source",
				 s->vcpus, s->memory_mib);
	return 0;
}

void api_clone_v1(struct request *rq)
{
	struct snapshot_options options = { .kind = SNAP_MEMORY };
	struct args_make args;
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (args_parse_make(MAKE_V1_CLONE, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	options.name = args.snapshot_name;
	if (check_like(&args, sb, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
	} else {
		struct cloning *c = new_cloning(rq, sb, &args);
		if (c != NULL) {
			c->snapshot.on_done = on_snapshot;
			if (snapshot_start(&c->snapshot, sb, &options, &fault) <
			    0) {
				cloning_free(c);
				api_reply_sandbox_fault(rq, &fault, sb);
			}
		}
	}
	args_make_free(&args);
}
