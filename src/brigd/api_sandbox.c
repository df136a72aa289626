/* api_sandbox.c - list, get and console; sandboxes as JSON.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "args.h"
#include "cgroup.h"
#include "console.h"
#include "log.h"
#include "when.h"

/* --- What all handlers share ------------------------------------------------------------------- */

struct sandbox *api_sandbox_of(struct request *rq)
{
	struct sandbox *sb =
		sandbox_find(api_app(rq)->sandboxes, rq->tenant, rq->param[0]);

	if (sb == NULL)
		http_reply_error(rq, 404, "not_found", "no such sandbox");
	return sb;
}

static json_t *reason_of(const struct sandbox *sb)
{
	return sb->reason[0] != '\0' ? json_string(sb->reason) : json_null();
}

void api_reply_sandbox_fault(struct request *rq, const struct fault *fault,
			     const struct sandbox *sb)
{
	json_t *details = NULL;

	if (strcmp(fault->code, "sandbox_not_running") == 0)
		details = json_pack("{s:s, s:o}", "status", sandbox_status(sb),
				    "reason", reason_of(sb));
	http_reply_fault(rq, fault, details);
}

static json_t *created_at(const struct sandbox *sb)
{
	char text[WHEN_BYTES];

	when_format(sb->created_ms, text);
	return json_string(text);
}

json_t *api_sandbox_json_v1(const struct sandbox *sb, const char *storage)
{
	return json_pack("{s:s, s:I, s:o, s:I, s:s, s:s, s:I, s:s, s:o}", "id",
			 sb->id, "cpu", (json_int_t)sb->cpus, "created_at",
			 created_at(sb), "memory",
			 (json_int_t)sb->shape.memory_mib, "name", sb->name,
			 "status", sandbox_status(sb), storage,
			 (json_int_t)sandbox_disk_gib(sb), "image",
			 sb->shape.image, "reason", reason_of(sb));
}

/* --- Pages ------------------------------------------------------------------------------------- */

int api_page_begin(struct request *rq, struct api_page *ret)
{
	struct fault fault;

	*ret = (struct api_page){ .number = 1 };
	if (args_query_number(http_query(rq, "page"), "page", PAGE_NUMBER_MAX,
			      1, &ret->number, &fault) < 0 ||
	    args_query_number(http_query(rq, "page_size"), "page_size",
			      PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT, &ret->size,
			      &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return -EINVAL;
	}
	ASSERT(ret->number > 0 && ret->size > 0);
	ret->data = json_array();
	return 0;
}

bool api_page_takes(struct api_page *p)
{
	return p->total++ / p->size == p->number - 1;
}

void api_page_reply(struct request *rq, struct api_page *p)
{
	http_reply_json(
		rq,
		json_pack("{s:o, s:{s:I, s:I, s:I, s:I}}", "data", p->data,
			  "pagination", "page", (json_int_t)p->number,
			  "page_size", (json_int_t)p->size, "total_items",
			  (json_int_t)p->total, "total_pages",
			  (json_int_t)((p->total + p->size - 1) / p->size)));
}

/* --- List and get ------------------------------------------------------------------------------ */

static bool is_visible(const struct sandbox *sb, const struct request *rq)
{
	return sb->tenant == rq->tenant && !sb->deleting;
}

void api_list(struct request *rq)
{
	struct sandbox_set *set = api_app(rq)->sandboxes;
	struct sandbox *sb;
	struct api_page page;

	if (api_page_begin(rq, &page) < 0)
		return;
	TAILQ_FOREACH_REVERSE(sb, &set->list, sandbox_list, link) {
		if (is_visible(sb, rq) && api_page_takes(&page))
			(void)json_array_append_new(
				page.data,
				api_sandbox_json_v1(sb, "disk_size"));
	}
	api_page_reply(rq, &page);
}

struct inspection {
	struct vmm_call call;
	struct sandbox *sb;
	struct request *rq;
};

static json_t *stats_json(const struct sandbox *sb,
			  const struct vmm_stats *stats)
{
	uint64_t cpu = 0;
	uint64_t memory = 0;
	json_t *v = json_object();

	if (stats != NULL)
		(void)json_object_update_new(
			v,
			json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
				  "s:I}",
				  "disk_read_bytes",
				  (json_int_t)stats->blk_read_bytes,
				  "disk_write_bytes",
				  (json_int_t)stats->blk_write_bytes,
				  "disk_reads", (json_int_t)stats->blk_reads,
				  "disk_writes", (json_int_t)stats->blk_writes,
				  "vsock_rx_bytes",
				  (json_int_t)stats->vsock_rx_bytes,
				  "vsock_tx_bytes",
				  (json_int_t)stats->vsock_tx_bytes,
				  "needs_reset", (json_int_t)stats->needs_reset,
				  "console_dropped_bytes",
				  (json_int_t)stats->console_dropped,
				  "layer_bytes",
				  (json_int_t)stats->layer_bytes));
	if (cgroup_read_cpu(sandbox_cgroup(sb), &cpu) == 0)
		(void)json_object_set_new(v, "cpu_usec",
					  json_integer((json_int_t)cpu));
	if (cgroup_read_memory(sandbox_cgroup(sb), &memory) == 0)
		(void)json_object_set_new(v, "memory_bytes",
					  json_integer((json_int_t)memory));
	return v;
}

static json_t *text_or_null(const char *text)
{
	return text[0] != '\0' ? json_string(text) : json_null();
}

/* Of a template it is the template's own affair. */
static json_t *snapshot_of(const struct sandbox *sb)
{
	return sb->origin == ORIGIN_SNAPSHOT ? text_or_null(sb->snapshot)
					     : json_null();
}

json_t *api_sandbox_json(const struct sandbox *sb,
			 const struct vmm_stats *stats)
{
	json_t *ready =
		sb->ready_ms >= 0 ? json_integer(sb->ready_ms) : json_null();

	return json_pack(
		"{s:s, s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:o, s:o, s:s, s:o, "
		"s:o, s:o, s:o}",
		"id", sb->id, "name", sb->name, "status", sandbox_status(sb),
		"reason", reason_of(sb), "image", sb->shape.image, "vcpus",
		(json_int_t)sb->shape.vcpus, "memory_mib",
		(json_int_t)sb->shape.memory_mib, "disk_bytes",
		(json_int_t)sb->shape.disk_bytes, "created_at", created_at(sb),
		"ready_ms", ready, "origin", sandbox_origin_name(sb),
		"template", text_or_null(sb->template_name), "snapshot",
		snapshot_of(sb), "receipt", receipt_json(&sb->receipt), "stats",
		stats_json(sb, stats));
}

static void reply_inspection(struct request *rq, const struct sandbox *sb,
			     const struct vmm_stats *stats)
{
	http_reply_json(rq, api_sandbox_json(sb, stats));
}

static void on_inspected(struct vmm_call *call, int status, int fd,
			 const struct vmm_msg *msg)
{
	struct inspection *i = container_of(call, struct inspection, call);

	(void)fd;
	reply_inspection(i->rq, i->sb, status == 0 ? &msg->u.stats : NULL);
	free(i);
}

static void on_inspect_abort(struct request *rq)
{
	struct inspection *i = rq->job;

	vmm_peer_cancel(sandbox_vmm(i->sb), &i->call);
	free(i);
}

void api_get(struct request *rq)
{
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	struct inspection *i = calloc(1, sizeof(*i));
	if (i != NULL) {
		i->call.on_reply = on_inspected;
		i->sb = sb;
		i->rq = rq;
		if (vmm_peer_stats(sandbox_vmm(sb), &i->call) == 0) {
			rq->job = i;
			rq->on_abort = on_inspect_abort;
			return;
		}
	}
	free(i);
	reply_inspection(rq, sb, NULL);
}

void api_console(struct request *rq)
{
	struct sandbox *sb = api_sandbox_of(rq);
	struct buf text = BUF_INIT(4 * BRIG_CONSOLE_RING_BYTES + 65536);
	int r = 0;

	if (sb == NULL)
		return;
	if (sb->console != NULL)
		r = console_add_tail(sb->console, BRIG_CONSOLE_RING_BYTES,
				     &text);
	if (r < 0)
		http_reply_error(rq, 500, "no_memory", "out of memory");
	else
		http_reply_buf(rq, "text/plain; charset=utf-8", &text);
	buf_free(&text);
}
