/* api_status.c - what a sandbox uses now and has used.
 * SPDX-License-Identifier: Apache-2.0
 *
 * CPU and history are the host's figures (cgroup), memory in use is the
 * guest's, because the host cannot tell what the guest's kernel could free.
 * If the agent does not answer in time, the host's figure is used for that
 * too. Where the host counts nothing (no cgroup v2), CPU is the guest's word.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "api.h"
#include "when.h"

#define MIB (1024.0 * 1024.0)

struct inquiry {
	struct agent agent;
	struct request *rq;
	struct sandbox *sb;
	int64_t from_ms;
	int64_t to_ms;
};

struct usage {
	double cpu_percent;
	double memory_bytes;
};

static double share(uint64_t part, uint64_t rest)
{
	double whole = (double)part + (double)rest;

	return whole > 0 ? 100 * (double)part / whole : 0;
}

static json_t *history_json(const struct inquiry *q)
{
	const struct sandbox *sb = q->sb;
	json_t *list = json_array();
	unsigned int n =
		sb->sample_count < SAMPLES_MAX ? sb->sample_count : SAMPLES_MAX;

	for (unsigned int i = sb->sample_count - n; i < sb->sample_count; i++) {
		const struct sandbox_sample *s = &sb->samples[i % SAMPLES_MAX];
		char at[WHEN_BYTES];
		if (s->at_ms < q->from_ms || s->at_ms > q->to_ms)
			continue;
		when_format(s->at_ms, at);
		(void)json_array_append_new(
			list, json_pack("{s:f, s:f, s:s}", "cpu_percent",
					s->cpu_percent, "memory_mb",
					(double)s->memory_bytes / MIB,
					"timestamp", at));
	}
	return list;
}

static void reply(struct inquiry *q, const struct usage *u)
{
	const struct sandbox *sb = q->sb;
	char now[WHEN_BYTES];
	double mb = u->memory_bytes / MIB;
	double percent = 100 * mb / sb->shape.memory_mib;

	when_format(when_now_ms(), now);
	http_reply_json(q->rq,
			json_pack("{s:s, s:s, s:s, s:{s:f, s:f, s:f}, s:o}",
				  "sandbox_name", sb->name, "timestamp", now,
				  "status", sandbox_status(sb), "current",
				  "cpu_percent", u->cpu_percent, "memory_mb",
				  mb, "memory_percent",
				  percent < 100 ? percent : 100, "history",
				  history_json(q)));
	free(q);
}

static void use_report(struct inquiry *q, const struct frame *f)
{
	struct guest_status s;
	struct usage u;
	uint64_t unused;

	frame_copy(f, &s, sizeof(s));
	if (sandbox_measure(q->sb, &u.cpu_percent, &unused) < 0)
		u.cpu_percent = share(s.cpu_busy_ns, s.cpu_idle_ns);
	u.memory_bytes = 0;
	if (s.memory_available_bytes < s.memory_total_bytes)
		u.memory_bytes = (double)(s.memory_total_bytes -
					  s.memory_available_bytes);
	if (u.memory_bytes > q->sb->shape.memory_mib * MIB)
		u.memory_bytes = q->sb->shape.memory_mib * MIB;
	agent_stop(&q->agent);
	reply(q, &u);
}

static void use_host(struct inquiry *q)
{
	struct usage u = { .cpu_percent = 0 };
	uint64_t bytes = 0;

	if (q->sb->state == SANDBOX_RUNNING &&
	    sandbox_measure(q->sb, &u.cpu_percent, &bytes) == 0)
		u.memory_bytes = (double)bytes;
	agent_stop(&q->agent);
	reply(q, &u);
}

static void on_frame(void *arg, const struct frame *f)
{
	if (f->type == GUEST_STATUS_REPLY)
		use_report(arg, f);
	else
		use_host(arg);
}

static void on_end(void *arg, int error)
{
	(void)error;
	use_host(arg);
}

static const struct agent_events events = {
	.on_frame = on_frame,
	.on_end = on_end,
};

static void on_abort(struct request *rq)
{
	struct inquiry *q = rq->job;

	agent_stop(&q->agent);
	free(q);
}

static int get_times(struct inquiry *q, struct fault *fault)
{
	const char *from = http_query(q->rq, "from");
	const char *to = http_query(q->rq, "to");

	q->from_ms = 0;
	q->to_ms = INT64_MAX;
	if (from != NULL && when_parse(from, &q->from_ms) < 0)
		return fault_set(fault, 422, "invalid_field",
				 "`from` is not an ISO 8601 time");
	if (to != NULL && when_parse(to, &q->to_ms) < 0)
		return fault_set(fault, 422, "invalid_field",
				 "`to` is not an ISO 8601 time");
	return 0;
}

void api_status(struct request *rq)
{
	struct fault fault;
	struct buf nothing = BUF_INIT(1);
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	struct inquiry *q = calloc(1, sizeof(*q));
	if (q == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	q->rq = rq;
	q->sb = sb;
	if (get_times(q, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		free(q);
		return;
	}
	q->agent.events = &events;
	q->agent.arg = q;
	if (agent_start(&q->agent, sb, GUEST_STATUS, &nothing, &fault) < 0) {
		use_host(q);
		return;
	}
	agent_set_deadline(&q->agent, AGENT_STATUS_TIMEOUT_S * NS_PER_S);
	rq->job = q;
	rq->on_abort = on_abort;
}
