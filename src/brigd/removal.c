/* removal.c - deletes sandboxes and answers when they are cleaned up.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "removal.h"

/* brig-spawn removes a cgroup in milliseconds; this is for one that hangs. */
#define REMOVAL_TIMEOUT_S 30u

struct removal;

struct victim {
	struct sandbox_waiter waiter;
	struct removal *removal;
	bool gone;
	char id[BRIG_ID_BYTES];
};

struct removal {
	struct request *rq;
	struct loop *loop;
	struct loop_timer timer;
	bool all;
	char snapshot[NAME_BYTES]; /* "": none */
	size_t left;
	size_t count;
	struct victim victims[];
};

static void removal_free(struct removal *m)
{
	loop_timer_del(m->loop, &m->timer);
	for (size_t i = 0; i < m->count; i++) {
		if (!m->victims[i].gone)
			sandbox_unwait(&m->victims[i].waiter);
	}
	free(m);
}

static json_t *all_json(const struct removal *m)
{
	json_t *ids = json_array();
	json_t *errors = json_array();

	for (size_t i = 0; i < m->count; i++) {
		const struct victim *v = &m->victims[i];
		if (v->gone)
			(void)json_array_append_new(ids, json_string(v->id));
		else
			(void)json_array_append_new(
				errors,
				json_pack("{s:s, s:s}", "id", v->id, "error",
					  "still being cleaned up"));
	}
	json_t *reply = json_pack(
		"{s:I, s:o, s:s, s:I}", "deleted_count",
		(json_int_t)json_array_size(ids), "deleted_ids", ids, "message",
		m->left == 0 ? "All sandboxes deleted"
			     : "Some sandboxes are left",
		"storage_deleted_count", (json_int_t)json_array_size(ids));
	if (json_array_size(errors) > 0)
		(void)json_object_set(reply, "errors", errors);
	json_decref(errors);
	return reply;
}

static json_t *one_json(const struct removal *m)
{
	json_t *v =
		json_pack("{s:s, s:s, s:b}", "id", m->victims[0].id, "message",
			  "Sandbox deleted", "storage_deleted", 1);

	if (m->snapshot[0] != '\0') {
		(void)json_object_set_new(v, "snapshot_created", json_true());
		(void)json_object_set_new(v, "snapshot_name",
					  json_string(m->snapshot));
	}
	return v;
}

static void answer(struct removal *m)
{
	struct request *rq = m->rq;

	if (m->all)
		http_reply_json(rq, all_json(m));
	else if (m->left == 0)
		http_reply_json(rq, one_json(m));
	else
		http_reply_error(rq, 503, "cleanup_pending",
				 "the sandbox is still being cleaned up");
	removal_free(m);
}

static void on_change(struct sandbox_waiter *w, struct sandbox *sb, bool gone)
{
	struct victim *v = container_of(w, struct victim, waiter);
	struct removal *m = v->removal;

	(void)sb;
	if (!gone)
		return;
	v->gone = true;
	m->left--;
	if (m->left == 0)
		answer(m);
}

static void on_timer(struct loop_timer *timer)
{
	answer(container_of(timer, struct removal, timer));
}

static void on_abort(struct request *rq)
{
	removal_free(rq->job);
}

static bool is_meant(const struct sandbox *sb, const struct request *rq,
		     const struct sandbox *only)
{
	if (only != NULL)
		return sb == only;
	return sb->tenant == rq->tenant && !sb->deleting;
}

static void add_victim(struct removal *m, struct sandbox *sb)
{
	struct victim *v = &m->victims[m->count];

	m->count++;
	m->left++;
	v->removal = m;
	v->waiter.on_change = on_change;
	memcpy(v->id, sb->id, sizeof(v->id));
	sandbox_wait(sb, &v->waiter);
	sandbox_delete(sb); /* is gone later, never within this call */
}

void removal_start(struct request *rq, struct sandbox *only,
		   const char *snapshot)
{
	struct sandbox_set *set = api_app(rq)->sandboxes;
	struct sandbox *sb;
	size_t n = only != NULL ? 1 : set->count;
	struct removal *m = calloc(1, sizeof(*m) + n * sizeof(m->victims[0]));

	if (m == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	m->rq = rq;
	m->loop = api_app(rq)->loop;
	m->timer.on_expire = on_timer;
	m->all = only == NULL;
	if (snapshot != NULL)
		(void)snprintf(m->snapshot, sizeof(m->snapshot), "%s",
			       snapshot);
	rq->job = m;
	rq->on_abort = on_abort;
	loop_timer_set(m->loop, &m->timer, REMOVAL_TIMEOUT_S * NS_PER_S);
	TAILQ_FOREACH(sb, &set->list, link) {
		if (is_meant(sb, rq, only))
			add_victim(m, sb);
	}
	if (m->left == 0)
		answer(m);
}
