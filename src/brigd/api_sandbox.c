/* api_sandbox.c - create, list, get, delete and console.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "args.h"
#include "auth.h"
#include "body.h"
#include "cgroup.h"
#include "console.h"
#include "log.h"
#include "removal.h"
#include "store.h"
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

/* `storage` is called `disk_size` in lists. */
static json_t *to_json(const struct sandbox *sb, const char *storage)
{
	return json_pack("{s:s, s:I, s:o, s:I, s:s, s:s, s:I, s:s, s:o}", "id",
			 sb->id, "cpu", (json_int_t)sb->cpus, "created_at",
			 created_at(sb), "memory", (json_int_t)sb->memory_mib,
			 "name", sb->name, "status", sandbox_status(sb),
			 storage, (json_int_t)sb->storage_gb, "image",
			 sb->image, "reason", reason_of(sb));
}

/* --- Create ------------------------------------------------------------------------------------ */

struct creation {
	struct sandbox_waiter waiter;
	struct request *rq;
	bool failed;
	char reason[24];
	struct buf console; /* its end, when the boot failed */
};

static void creation_free(struct creation *c)
{
	buf_free(&c->console);
	free(c);
}

static void on_create_abort(struct request *rq)
{
	struct creation *c = rq->job;

	sandbox_unwait(&c->waiter);
	creation_free(c);
}

/* Keep what tells why, then leave nothing behind. */
static void boot_failed(struct creation *c, struct sandbox *sb)
{
	struct store *store = sb->set->app->store;

	if (c->failed)
		return;
	c->failed = true;
	memcpy(c->reason, sb->reason, sizeof(c->reason));
	if (console_add_tail(sb->console, CONSOLE_TAIL_BYTES, &c->console) < 0)
		log_warn("sandbox=%s boot log is not shown: no memory", sb->id);
	if (store_drop_idempotent(store, sb->id) < 0)
		log_warn("sandbox=%s idempotency key stays; going on", sb->id);
	sandbox_delete(sb);
}

static void reply_boot_failed(struct creation *c)
{
	struct fault fault;
	const char *reason = c->reason[0] != '\0' ? c->reason : "deleted";
	json_t *details = json_pack("{s:s, s:s}", "reason", reason, "console",
				    c->console.len > 0 ? c->console.data : "");

	(void)fault_set(&fault, 500, "boot_failed",
			"the sandbox did not become ready: %s", reason);
	http_reply_fault(c->rq, &fault, details);
	creation_free(c);
}

static void on_create_change(struct sandbox_waiter *w, struct sandbox *sb,
			     bool gone)
{
	struct creation *c = container_of(w, struct creation, waiter);

	if (gone) {
		reply_boot_failed(c);
	} else if (sb->state == SANDBOX_RUNNING) {
		sandbox_unwait(w);
		http_reply_json(c->rq, to_json(sb, "storage"));
		creation_free(c);
	} else {
		boot_failed(c, sb);
	}
}

static void answer_create(struct request *rq, struct sandbox *sb, bool wait)
{
	if (sb->state != SANDBOX_CREATING || !wait) {
		http_reply_json(rq, to_json(sb, "storage"));
		return;
	}
	struct creation *c = calloc(1, sizeof(*c));
	if (c == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	c->rq = rq;
	c->console.max = 4 * CONSOLE_TAIL_BYTES + 4096;
	c->waiter.on_change = on_create_change;
	sandbox_wait(sb, &c->waiter);
	rq->job = c;
	rq->on_abort = on_create_abort;
}

/* 1: the key made *ret before; 0: it is new (or there is none); -EINVAL after
 * filling *fault. */
static int look_up_key(const struct request *rq, const char *key,
		       const uint8_t hash[AUTH_HASH_BYTES],
		       struct sandbox **ret, struct fault *fault)
{
	uint8_t before[AUTH_HASH_BYTES];
	char id[BRIG_ID_BYTES];

	if (key == NULL)
		return 0;
	if (key[0] == '\0' || strlen(key) >= IDEMPOTENCY_KEY_BYTES)
		return fault_set(fault, 422, "invalid_field",
				 "Idempotency-Key must have 1 to %u bytes",
				 IDEMPOTENCY_KEY_BYTES - 1);
	int r = store_get_idempotent(api_app(rq)->store, rq->tenant, key,
				     when_now_ms(), before, id);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return fault_set(fault, 503, "store_error",
				 "the database does not answer");
	if (memcmp(before, hash, AUTH_HASH_BYTES) != 0)
		return fault_set(fault, 409, "idempotency_conflict",
				 "this Idempotency-Key was used with another "
				 "body");
	*ret = sandbox_find(api_app(rq)->sandboxes, rq->tenant, id);
	if (*ret == NULL)
		return fault_set(fault, 422, "idempotency_key_used",
				 "the sandbox that this Idempotency-Key made "
				 "is deleted");
	return 1;
}

static int create(struct request *rq, const struct args_create *args,
		  struct sandbox **ret, struct fault *fault)
{
	uint8_t hash[AUTH_HASH_BYTES];
	const char *key = http_header(rq, "Idempotency-Key");

	auth_hash(rq->body.len > 0 ? rq->body.data : "", rq->body.len, hash);
	int r = look_up_key(rq, key, hash, ret, fault);
	if (r != 0)
		return r;
	r = sandbox_create(api_app(rq)->sandboxes, args, rq->tenant, ret,
			   fault);
	if (r < 0 || key == NULL)
		return r;
	r = store_put_idempotent(api_app(rq)->store, rq->tenant, key, hash,
				 (*ret)->id, when_now_ms());
	if (r == 0)
		return 0;
	sandbox_delete(*ret); /* a retry would make a second one */
	return fault_set(fault, 503, "store_error",
			 "the database does not answer");
}

void api_create(struct request *rq)
{
	struct args_create args;
	struct fault fault;
	struct sandbox *sb = NULL;
	int r = args_parse_create(rq->body.data, rq->body.len, &args, &fault);

	if (r < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	r = create(rq, &args, &sb, &fault);
	ASSERT(r < 0 || sb != NULL);
	if (r < 0)
		http_reply_fault(rq, &fault, NULL);
	else
		answer_create(rq, sb, args.wait_for_ready);
	args_free_create(&args);
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
	struct fault fault;
	uint32_t page = 0;
	uint32_t size = 0;
	uint64_t total = 0;
	json_t *data;

	if (args_query_number(http_query(rq, "page"), "page", 1000000, 1, &page,
			      &fault) < 0 ||
	    args_query_number(http_query(rq, "page_size"), "page_size",
			      PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT, &size,
			      &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	ASSERT(page > 0 && size > 0);
	uint64_t first = (uint64_t)(page - 1) * size;
	data = json_array();
	TAILQ_FOREACH_REVERSE(sb, &set->list, sandbox_list, link) {
		if (!is_visible(sb, rq))
			continue;
		if (total >= first && total < first + size)
			(void)json_array_append_new(data,
						    to_json(sb, "disk_size"));
		total++;
	}
	http_reply_json(rq,
			json_pack("{s:o, s:{s:I, s:I, s:I, s:I}}", "data", data,
				  "pagination", "page", (json_int_t)page,
				  "page_size", (json_int_t)size, "total_items",
				  (json_int_t)total, "total_pages",
				  (json_int_t)((total + size - 1) / size)));
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
	if (cgroup_read_cpu(sb->cgroup_fd, &cpu) == 0)
		(void)json_object_set_new(v, "cpu_usec",
					  json_integer((json_int_t)cpu));
	if (cgroup_read_memory(sb->cgroup_fd, &memory) == 0)
		(void)json_object_set_new(v, "memory_bytes",
					  json_integer((json_int_t)memory));
	return v;
}

static void reply_inspection(struct request *rq, const struct sandbox *sb,
			     const struct vmm_stats *stats)
{
	json_t *ready =
		sb->ready_ms >= 0 ? json_integer(sb->ready_ms) : json_null();

	http_reply_json(
		rq,
		json_pack("{s:s, s:s, s:s, s:o, s:s, s:I, s:I, s:I, s:o, s:o, "
			  "s:o}",
			  "id", sb->id, "name", sb->name, "status",
			  sandbox_status(sb), "reason", reason_of(sb), "image",
			  sb->image, "vcpus", (json_int_t)sb->vcpus,
			  "memory_mib", (json_int_t)sb->memory_mib,
			  "disk_bytes", (json_int_t)sb->disk_bytes,
			  "created_at", created_at(sb), "ready_ms", ready,
			  "stats", stats_json(sb, stats)));
}

static void on_inspected(struct vmm_call *call, int status, int fd,
			 const struct vmm_stats *stats)
{
	struct inspection *i = container_of(call, struct inspection, call);

	(void)fd;
	reply_inspection(i->rq, i->sb, status == 0 ? stats : NULL);
	free(i);
}

static void on_inspect_abort(struct request *rq)
{
	struct inspection *i = rq->job;

	vmm_peer_cancel(i->sb->vmm, &i->call);
	free(i);
}

void api_get(struct request *rq)
{
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	struct inspection *i = calloc(1, sizeof(*i));
	if (i != NULL && sb->vmm != NULL) {
		i->call.on_reply = on_inspected;
		i->sb = sb;
		i->rq = rq;
		if (vmm_peer_stats(sb->vmm, &i->call) == 0) {
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

/* --- Delete ------------------------------------------------------------------------------------ */

/* The fields of the body ask for snapshots, which do not exist yet: accepted
 * and ignored, as the published format has it for unknown fields. */
void api_delete(struct request *rq)
{
	struct fault fault;
	json_t *json = NULL;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (body_parse(rq->body.data, rq->body.len, &json, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	json_decref(json);
	removal_start(rq, sb);
}

void api_delete_all(struct request *rq)
{
	removal_start(rq, NULL);
}
