/* api_template.c - templates: make, list, get, delete.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "args_make.h"
#include "template.h"
#include "when.h"

static json_t *to_json(const struct template *t)
{
	char created[WHEN_BYTES];
	const char *id = t->snapshot[0] != '\0' ? t->snapshot : NULL;

	when_format(t->created_ms, created);
	return json_pack("{s:s, s:s?, s:s, s:I, s:I, s:I, s:s?, s:s, s:b, s:I, "
			 "s:s}",
			 "name", t->name, "snapshot_id", id, "image",
			 t->shape.image, "vcpus", (json_int_t)t->shape.vcpus,
			 "memory_mib", (json_int_t)t->shape.memory_mib,
			 "disk_gib", (json_int_t)(t->shape.disk_bytes >> 30),
			 "warm", t->warm, "status", template_status_name(t),
			 "automatic", t->automatic, "resident_bytes",
			 (json_int_t)template_resident_bytes(t), "created_at",
			 created);
}

static struct template *template_of(struct request *rq)
{
	struct template *t =
		template_find(api_app(rq)->templates, rq->param[0]);

	if (t == NULL)
		http_reply_error(rq, 404, "template_not_found",
				 "there is no template `%s`", rq->param[0]);
	return t;
}

/* --- Making one -------------------------------------------------------------------------- */

struct making {
	struct template_request request;
	struct request *rq;
};

/* The template is made all the same. */
static void on_abort(struct request *rq)
{
	struct making *m = rq->job;

	m->request.t->request = NULL;
	free(m);
}

static void on_made(struct template_request *request, struct template *t,
		    const struct fault *fault)
{
	struct making *m = container_of(request, struct making, request);

	if (t != NULL)
		http_reply_json(m->rq, to_json(t));
	else
		http_reply_fault(m->rq, fault, NULL);
	free(m);
}

static void shape_of(const struct args_make *a, struct shape *ret)
{
	uint32_t disk = a->disk_gib != 0 ? a->disk_gib : STORAGE_GB_DEFAULT;

	*ret = (struct shape){
		.vcpus = a->vcpus != 0 ? a->vcpus : (CPUS_DEFAULT + 3) / 4,
		.memory_mib =
			a->memory_mib != 0 ? a->memory_mib : MEMORY_MIB_DEFAULT,
		.disk_bytes = (uint64_t)disk << 30,
	};
	(void)snprintf(ret->image, sizeof(ret->image), "%s",
		       a->image != NULL ? a->image : "default");
}

static void start(struct request *rq, const struct args_make *args)
{
	struct making *m = calloc(1, sizeof(*m));
	struct shape shape;
	struct fault fault;

	if (m == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	m->request.on_done = on_made;
	m->rq = rq;
	shape_of(args, &shape);
	rq->job = m;
	rq->on_abort = on_abort;
	if (template_make(api_app(rq)->templates, args->name, &shape,
			  args->warm, &m->request, &fault) < 0) {
		free(m);
		http_reply_fault(rq, &fault, NULL);
	}
}

void api_template_create(struct request *rq)
{
	struct args_make args;
	struct fault fault;

	if (args_parse_make(MAKE_TEMPLATE, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	if (args.name == NULL)
		http_reply_error(rq, 422, "missing_field", "`name` is missing");
	else
		start(rq, &args);
	args_make_free(&args);
}

/* --- The others -------------------------------------------------------------------------- */

void api_template_list(struct request *rq)
{
	const struct template *t;
	json_t *list = json_array();

	TAILQ_FOREACH(t, &api_app(rq)->templates->list, link)
		(void)json_array_append_new(list, to_json(t));
	http_reply_json(rq, json_pack("{s:o}", "templates", list));
}

void api_template_get(struct request *rq)
{
	const struct template *t = template_of(rq);

	if (t != NULL)
		http_reply_json(rq, to_json(t));
}

void api_template_delete(struct request *rq)
{
	struct fault fault;
	struct template *t = template_of(rq);

	if (t == NULL)
		return;
	if (template_delete(t, &fault) < 0)
		http_reply_fault(rq, &fault, NULL);
	else
		http_reply_json(rq,
				json_pack("{s:s, s:s}", "name", rq->param[0],
					  "message", "Template deleted"));
}
