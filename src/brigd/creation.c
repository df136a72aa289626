/* creation.c - waits for new sandboxes and answers who asked for them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "console.h"
#include "creation.h"
#include "log.h"
#include "store.h"

struct member {
	struct sandbox_waiter waiter;
	struct creation *creation;
	struct sandbox *sb; /* NULL: not waited for any more */
	bool keep;
	bool failed;
	bool restored;
	char reason[24];
	struct buf console; /* its end, when it failed */
	json_t *json;       /* when it is ready */
};

struct creation {
	struct request *rq;
	enum creation_form form;
	bool wait;
	bool adding;
	json_t *snapshot;
	json_t *errors;
	struct fault fault; /* the last one added */
	size_t max;
	size_t count;
	size_t left;
	struct member members[];
};

static void creation_free(struct creation *c)
{
	for (size_t i = 0; i < c->count; i++) {
		struct member *m = &c->members[i];
		if (m->sb != NULL)
			sandbox_unwait(&m->waiter);
		buf_free(&m->console);
		json_decref(m->json);
	}
	json_decref(c->snapshot);
	json_decref(c->errors);
	free(c);
}

/* --- The reply --------------------------------------------------------------------- */

static const char *reason_of(const struct member *m)
{
	return m->reason[0] != '\0' ? m->reason : "deleted";
}

static void set_fault(const struct member *m, struct fault *ret)
{
	if (m->restored)
		(void)fault_set(ret, 500, "restore_failed",
				"the sandbox could not be restored: %s",
				reason_of(m));
	else
		(void)fault_set(ret, 500, "boot_failed",
				"the sandbox did not become ready: %s",
				reason_of(m));
}

static void reply_failed(struct creation *c, const struct member *m)
{
	struct fault fault;
	const char *text = m->console.len > 0 ? m->console.data : "";

	set_fault(m, &fault);
	http_reply_fault(c->rq, &fault,
			 json_pack("{s:s, s:s}", "reason", reason_of(m),
				   "console", text));
}

static json_t *fault_json(const struct fault *fault)
{
	return json_pack("{s:{s:s, s:s}}", "error", "code", fault->code,
			 "message", fault->text);
}

static void reply_many(struct creation *c)
{
	json_t *list = json_array();
	struct fault fault;

	for (size_t i = 0; i < c->count; i++) {
		const struct member *m = &c->members[i];
		if (m->json != NULL) {
			(void)json_array_append(list, m->json);
			continue;
		}
		set_fault(m, &fault);
		(void)json_array_append_new(c->errors, fault_json(&fault));
	}
	http_reply_json(c->rq, json_pack("{s:o, s:O}", "sandboxes", list,
					 "errors", c->errors));
}

static void reply_one(struct creation *c)
{
	const struct member *m = &c->members[0];

	if (c->count == 0)
		http_reply_fault(c->rq, &c->fault, NULL);
	else if (m->json == NULL)
		reply_failed(c, m);
	else if (c->form == CREATION_V1_CLONE)
		http_reply_json(c->rq,
				json_pack("{s:O, s:O}", "sandbox", m->json,
					  "snapshot", c->snapshot));
	else
		http_reply_json(c->rq, json_incref(m->json));
}

static void answer(struct creation *c)
{
	if (c->form == CREATION_MANY)
		reply_many(c);
	else
		reply_one(c);
	creation_free(c);
}

/* --- Waiting ------------------------------------------------------------------------ */

static json_t *to_json(const struct creation *c, const struct sandbox *sb)
{
	json_t *v;

	if (c->form == CREATION_ONE || c->form == CREATION_MANY)
		return api_sandbox_json(sb, NULL);
	v = api_sandbox_json_v1(sb, "storage");
	if (c->form == CREATION_V1_RESTORE && v != NULL) {
		(void)json_object_set_new(v, "storage_id", json_string(sb->id));
		(void)json_object_set_new(v, "storage_name",
					  json_string(sb->name));
	}
	return v;
}

static void member_done(struct member *m)
{
	struct creation *c = m->creation;

	m->sb = NULL;
	c->left--;
	if (c->left == 0 && !c->adding)
		answer(c);
}

/* Keep what tells why, then leave nothing behind. True: it stays. */
static bool member_failed(struct member *m, struct sandbox *sb)
{
	struct store *store = sb->set->app->store;

	if (m->failed)
		return false;
	m->failed = true;
	memcpy(m->reason, sb->reason, sizeof(m->reason));
	if (sb->console != NULL &&
	    console_add_tail(sb->console, CONSOLE_TAIL_BYTES, &m->console) < 0)
		log_warn("sandbox=%s boot log is not shown: no memory", sb->id);
	if (m->keep)
		return true;
	if (store_drop_idempotent(store, sb->id) < 0)
		log_warn("sandbox=%s idempotency key stays; going on", sb->id);
	sandbox_delete(sb);
	return false;
}

static void on_change(struct sandbox_waiter *w, struct sandbox *sb, bool gone)
{
	struct member *m = container_of(w, struct member, waiter);

	if (gone) {
		member_done(m);
	} else if (sb->state == SANDBOX_RUNNING) {
		sandbox_unwait(w);
		m->json = to_json(m->creation, sb);
		member_done(m);
	} else if (sb->state != SANDBOX_CREATING && member_failed(m, sb)) {
		sandbox_unwait(w);
		member_done(m);
	}
}

static void on_abort(struct request *rq)
{
	creation_free(rq->job);
}

struct creation *creation_new(struct request *rq, enum creation_form form,
			      size_t n, bool wait)
{
	struct creation *c = calloc(1, sizeof(*c) + n * sizeof(c->members[0]));

	if (c == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return NULL;
	}
	c->rq = rq;
	c->form = form;
	c->wait = wait;
	c->adding = true;
	c->errors = json_array();
	c->max = n;
	rq->job = c;
	rq->on_abort = on_abort;
	return c;
}

void creation_add(struct creation *c, struct sandbox *sb, bool keep)
{
	struct member *m = &c->members[c->count];

	ASSERT(c->count < c->max);
	c->count++;
	m->creation = c;
	m->keep = keep;
	m->restored = sb->origin != ORIGIN_BOOT || sb->from != NULL;
	m->console.max = 4 * CONSOLE_TAIL_BYTES + 4096;
	m->waiter.on_change = on_change;
	if (!c->wait && sb->state == SANDBOX_CREATING) {
		m->json = to_json(c, sb);
		return;
	}
	m->sb = sb;
	c->left++;
	sandbox_wait(sb, &m->waiter);
	if (sb->state != SANDBOX_CREATING)
		on_change(&m->waiter, sb, false);
}

void creation_add_fault(struct creation *c, const struct fault *fault)
{
	c->fault = *fault;
	(void)json_array_append_new(c->errors, fault_json(fault));
}

void creation_set_snapshot(struct creation *c, json_t *snapshot)
{
	c->snapshot = snapshot;
}

void creation_wait(struct creation *c)
{
	c->adding = false;
	if (c->left == 0)
		answer(c);
}
