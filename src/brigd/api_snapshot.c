/* api_snapshot.c - snapshots: make, list, get, restore, delete.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_snapshot.h"
#include "args.h"
#include "args_make.h"
#include "creation.h"
#include "when.h"

/* --- As JSON ------------------------------------------------------------------------ */

static const char *const kind_names[] = {
	[SNAP_MEMORY] = "memory",
	[SNAP_DISK] = "disk",
	[SNAP_TEMPLATE] = "template",
};

static const char *const status_names[] = {
	[SNAP_CREATING] = "creating",
	[SNAP_READY] = "ready",
	[SNAP_ERROR] = "error",
};

static const char *consistency(const struct snap *s)
{
	return s->quiesced ? "application" : "crash";
}

static json_t *created_at(const struct snap *s)
{
	char text[WHEN_BYTES];

	when_format(s->created_ms, text);
	return json_string(text);
}

static json_t *text_or_null(const char *text)
{
	return text[0] != '\0' ? json_string(text) : json_null();
}

json_t *api_snapshot_json_v1(const struct snap *s)
{
	return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:s}", "id", s->id,
			 "consistency", consistency(s), "created_at",
			 created_at(s), "name", s->name, "source_sandbox_id",
			 s->source_id, "source_sandbox_name", s->source_name,
			 "status", status_names[s->status]);
}

static json_t *to_json(const struct snap *s)
{
	return json_pack(
		"{s:s, s:s, s:s, s:o, s:s, s:s, s:o, s:s, s:s, s:s, s:I, s:I, "
		"s:I, s:o, s:I, s:I, s:n}",
		"id", s->id, "name", s->name, "status", status_names[s->status],
		"problem", text_or_null(s->problem), "kind",
		kind_names[s->kind], "consistency", consistency(s),
		"created_at", created_at(s), "source_sandbox_id", s->source_id,
		"source_sandbox_name", s->source_name, "image", s->shape.image,
		"vcpus", (json_int_t)s->shape.vcpus, "memory_mib",
		(json_int_t)s->shape.memory_mib, "disk_gib",
		(json_int_t)(s->shape.disk_bytes >> 30), "parent",
		text_or_null(s->parent), "own_bytes", (json_int_t)s->own_bytes,
		"shared_bytes", (json_int_t)s->shared_bytes, "pause_us");
}

/* --- Which ones are seen --------------------------------------------------------------- */

/* Templates have a list of their own; what holds a paused sandbox is a part of
 * that. */
static bool is_listed(const struct snap *s)
{
	return s->kind != SNAP_TEMPLATE && !snapshot_is_pause(s);
}

static const struct snap *snap_of(struct request *rq)
{
	const struct snap *s = snapstore_find(api_app(rq)->snapstore,
					      rq->tenant, rq->param[0]);

	if (s != NULL && is_listed(s))
		return s;
	http_reply_error(rq, 404, "not_found", "no such snapshot");
	return NULL;
}

/* --- Making one --------------------------------------------------------------------------- */

struct making {
	struct snapshot snapshot;
	struct request *rq; /* NULL: the client is gone */
	bool v1;
};

static void on_abort(struct request *rq)
{
	struct making *m = rq->job;

	m->rq = NULL;
}

static void on_made(struct snapshot *s, const struct fault *fault)
{
	struct making *m = container_of(s, struct making, snapshot);
	struct request *rq = m->rq;

	if (rq != NULL && fault != NULL) {
		http_reply_fault(rq, fault, NULL);
	} else if (rq != NULL && m->v1) {
		http_reply_json(rq, api_snapshot_json_v1(&s->draft.snap));
	} else if (rq != NULL) {
		json_t *v = to_json(&s->draft.snap);
		(void)json_object_set_new(
			v, "pause_us",
			json_integer((json_int_t)(s->save.pause_ns / 1000)));
		http_reply_json(rq, v);
	}
	free(m);
}

static void make(struct request *rq, enum args_make_kind kind)
{
	struct args_make args;
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (args_parse_make(kind, rq->body.data, rq->body.len, &args, &fault) <
	    0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	struct snapshot_options options = {
		.name = args.name,
		.kind = args.memory ? SNAP_MEMORY : SNAP_DISK,
		.quick = args.quick,
	};
	struct making *m = calloc(1, sizeof(*m));
	if (m == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
	} else {
		m->snapshot.on_done = on_made;
		m->rq = rq;
		m->v1 = kind == MAKE_V1_SNAPSHOT;
		rq->job = m;
		rq->on_abort = on_abort;
		if (snapshot_start(&m->snapshot, sb, &options, &fault) < 0) {
			free(m);
			api_reply_sandbox_fault(rq, &fault, sb);
		}
	}
	args_make_free(&args);
}

void api_snapshot_v1(struct request *rq)
{
	make(rq, MAKE_V1_SNAPSHOT);
}

void api_snapshot(struct request *rq)
{
	make(rq, MAKE_SNAPSHOT);
}

/* --- Lists -------------------------------------------------------------------------------- */

static json_t *size_text(const struct snap *s)
{
	char text[32];
	double mib = (double)(s->own_bytes + s->shared_bytes) / (1024 * 1024);

	(void)snprintf(text, sizeof(text), "%.1f MiB", mib);
	return json_string(text);
}

static void add_v1(void *arg, const struct snap *s)
{
	struct api_page *page = arg;

	if (!is_listed(s) || !api_page_takes(page))
		return;
	json_t *parents = json_array();
	if (s->parent[0] != '\0')
		(void)json_array_append_new(parents, json_string(s->parent));
	(void)json_array_append_new(
		page->data,
		json_pack("{s:s, s:o, s:s, s:s, s:o, s:o}", "id", s->id,
			  "created_at", created_at(s), "name", s->name,
			  "status", status_names[s->status], "depends_on",
			  parents, "size", size_text(s)));
}

void api_snapshot_list_v1(struct request *rq)
{
	struct api_page page;

	if (api_page_begin(rq, &page) < 0)
		return;
	snapstore_each(api_app(rq)->snapstore, rq->tenant, add_v1, &page);
	api_page_reply(rq, &page);
}

static void add_v2(void *arg, const struct snap *s)
{
	if (is_listed(s))
		(void)json_array_append_new(arg, to_json(s));
}

void api_snapshot_list(struct request *rq)
{
	json_t *list = json_array();

	snapstore_each(api_app(rq)->snapstore, rq->tenant, add_v2, list);
	http_reply_json(rq, json_pack("{s:o}", "snapshots", list));
}

void api_snapshot_get(struct request *rq)
{
	const struct snap *s = snap_of(rq);

	if (s != NULL)
		http_reply_json(rq, to_json(s));
}

void api_snapshot_reply(struct request *rq, const char *id)
{
	const struct snap *s =
		snapstore_find(api_app(rq)->snapstore, rq->tenant, id);

	if (s == NULL)
		http_reply_error(rq, 404, "not_found", "no such snapshot");
	else
		http_reply_json(rq, to_json(s));
}

/* --- Deleting ------------------------------------------------------------------------------ */

void api_snapshot_delete(struct request *rq)
{
	const struct snap *s = snap_of(rq);
	char name[NAME_BYTES];
	struct fault fault;

	if (s == NULL)
		return;
	memcpy(name, s->name, sizeof(name));
	int r = snapstore_delete(api_app(rq)->snapstore, rq->param[0]);
	if (r < 0) {
		snapshot_fault(r, &fault);
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	/* What others share of it stays, so nothing has to be put off. */
	http_reply_json(rq, json_pack("{s:s, s:b, s:s, s:s}", "id",
				      rq->param[0], "deferred", 0, "message",
				      "Snapshot deleted", "name", name));
}

static void add_id(void *arg, const struct snap *s)
{
	if (is_listed(s))
		(void)json_array_append_new(arg, json_string(s->id));
}

void api_snapshot_delete_all(struct request *rq)
{
	struct snapstore *store = api_app(rq)->snapstore;
	json_t *all = json_array();
	json_t *gone = json_array();
	json_t *errors = json_array();
	json_t *id;
	size_t i;

	snapstore_each(store, rq->tenant, add_id, all);
	json_array_foreach(all, i, id) {
		struct fault fault;
		int r = snapstore_delete(store, json_string_value(id));
		if (r == 0) {
			(void)json_array_append(gone, id);
			continue;
		}
		snapshot_fault(r, &fault);
		(void)json_array_append_new(
			errors,
			json_pack("{s:O, s:s}", "id", id, "error", fault.text));
	}
	json_t *reply = json_pack("{s:I, s:O, s:s}", "deleted_count",
				  (json_int_t)json_array_size(gone),
				  "deleted_ids", gone, "message",
				  json_array_size(errors) == 0
					  ? "All snapshots deleted"
					  : "Some snapshots are left");
	if (json_array_size(errors) > 0)
		(void)json_object_set(reply, "errors", errors);
	json_decref(all);
	json_decref(gone);
	json_decref(errors);
	http_reply_json(rq, reply);
}

/* --- Restoring (part 1; part 2 has POST /v2/sandboxes) ----------------------------------- */

void api_snapshot_restore(struct request *rq)
{
	struct args_make args;
	struct fault fault;
	struct sandbox_spec spec = { .tenant = rq->tenant };

	if (args_parse_make(MAKE_V1_RESTORE, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	args.vcpus = (args.cpus + 3) / 4;
	spec.name = args.name;
	if (api_spec_of_snapshot(rq, rq->param[0], &args, &spec, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
	} else {
		struct creation *c = creation_new(rq, CREATION_V1_RESTORE, 1,
						  args.wait_for_ready);
		if (args.cpus != 0)
			spec.cpus = args.cpus;
		if (spec.cpus == 0)
			spec.cpus = 4 * spec.shape.vcpus;
		if (c != NULL)
			api_create_many(c, rq, &spec, 1);
	}
	args_make_free(&args);
}
