/* sandbox.c - one sandbox from create to delete: its state.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "console.h"
#include "fd.h"
#include "log.h"
#include "sandbox.h"
#include "sandbox_vm.h"
#include "store.h"
#include "template.h"
#include "when.h"

static const char *const state_names[] = {
	[SANDBOX_CREATING] = "creating", [SANDBOX_RUNNING] = "running",
	[SANDBOX_PAUSED] = "paused",     [SANDBOX_STOPPED] = "stopped",
	[SANDBOX_FAILED] = "failed",
};
static_assert(ARRAY_LEN(state_names) == SANDBOX_STATES, "one name a state");

static const char *const origin_names[] = {
	[ORIGIN_BOOT] = "boot",
	[ORIGIN_TEMPLATE] = "template",
	[ORIGIN_SNAPSHOT] = "snapshot",
	[ORIGIN_CLONE] = "clone",
};
static_assert(ARRAY_LEN(origin_names) == SANDBOX_ORIGINS, "one name each");

/* moves[from][to] */
static const bool moves[SANDBOX_STATES][SANDBOX_STATES] = {
	[SANDBOX_CREATING] = { [SANDBOX_RUNNING] = true,
			       [SANDBOX_PAUSED] = true,
			       [SANDBOX_STOPPED] = true,
			       [SANDBOX_FAILED] = true },
	[SANDBOX_RUNNING] = { [SANDBOX_CREATING] = true,
			      [SANDBOX_PAUSED] = true,
			      [SANDBOX_STOPPED] = true,
			      [SANDBOX_FAILED] = true },
	[SANDBOX_PAUSED] = { [SANDBOX_CREATING] = true },
	[SANDBOX_STOPPED] = { [SANDBOX_CREATING] = true },
	[SANDBOX_FAILED] = { [SANDBOX_CREATING] = true },
};

const char *sandbox_status(const struct sandbox *sb)
{
	return state_names[sb->state];
}

const char *sandbox_origin_name(const struct sandbox *sb)
{
	return origin_names[sb->origin];
}

/* --- Waiters and operations ---------------------------------------------------- */

static void tell_waiters(struct sandbox *sb, bool gone)
{
	LIST_HEAD(, sandbox_waiter) round = LIST_HEAD_INITIALIZER(round);
	struct sandbox_waiter *w;

	/* A callback may take itself or another waiter out. */
	while ((w = LIST_FIRST(&sb->waiters)) != NULL) {
		LIST_REMOVE(w, link);
		LIST_INSERT_HEAD(&round, w, link);
	}
	while ((w = LIST_FIRST(&round)) != NULL) {
		LIST_REMOVE(w, link);
		if (!gone)
			LIST_INSERT_HEAD(&sb->waiters, w, link);
		w->on_change(w, sb, gone);
	}
}

void sandbox_wait(struct sandbox *sb, struct sandbox_waiter *w)
{
	LIST_INSERT_HEAD(&sb->waiters, w, link);
}

void sandbox_unwait(struct sandbox_waiter *w)
{
	LIST_REMOVE(w, link);
}

int sandbox_check_running(const struct sandbox *sb, struct fault *fault)
{
	if (sb->state == SANDBOX_RUNNING && !sb->deleting)
		return 0;
	return fault_set(fault, 422, "sandbox_not_running",
			 "the sandbox is %s%s%s", sandbox_status(sb),
			 sb->reason[0] != '\0' ? ": " : "", sb->reason);
}

int sandbox_op_begin(struct sandbox *sb, struct sandbox_op *op,
		     struct fault *fault)
{
	int r = sandbox_check_running(sb, fault);

	if (r < 0)
		return r;
	if (sb->op_count >= SANDBOX_OPS_MAX)
		return fault_set(fault, 429, "too_many_requests",
				 "%u runs and transfers go on in this sandbox",
				 sb->op_count);
	LIST_INSERT_HEAD(&sb->ops, op, link);
	sb->op_count++;
	return 0;
}

void sandbox_op_end(struct sandbox *sb, struct sandbox_op *op)
{
	LIST_REMOVE(op, link);
	sb->op_count--;
}

static void lose_ops(struct sandbox *sb)
{
	struct sandbox_op *op;

	while ((op = LIST_FIRST(&sb->ops)) != NULL)
		op->on_lost(op);
}

/* --- States ---------------------------------------------------------------------- */

static void move(struct sandbox *sb, enum sandbox_state to, const char *reason)
{
	struct store_change change;

	ASSERT(moves[sb->state][to]);
	sb->state = to;
	(void)snprintf(sb->reason, sizeof(sb->reason), "%s", reason);
	log_info("sandbox=%s status=%s reason=%s", sb->id, sandbox_status(sb),
		 reason[0] != '\0' ? reason : "-");
	if (sb->tenant == 0)
		return;
	change = (struct store_change){
		.id = sb->id,
		.status = sandbox_status(sb),
		.reason = sb->reason,
		.ready_ms = sb->ready_ms,
		.origin = sandbox_origin_name(sb),
		.template_name = sb->template_name,
		.snapshot = sb->snapshot,
		.paused = sb->paused,
	};
	int r = store_change_sandbox(sb->set->app->store, &change);
	/* Nothing else would know whose machine was saved. */
	if (r == 0 && to == SANDBOX_PAUSED)
		r = store_sync(sb->set->app->store);
	(void)r; /* logged there; the list in memory is what we serve from */
}

/* Whether what it was made from is any good. */
static void judge_template(const struct sandbox *sb, bool good)
{
	if (sb->origin == ORIGIN_TEMPLATE && sb->template_as_made)
		template_used(sb->set->app->templates, sb->template_name, good);
}

/* It was saved there while it was paused, and is not needed any more. */
static void drop_pause(struct sandbox *sb, const char *snapshot)
{
	if (snapshot[0] == '\0')
		return;
	/* Or a power cut would bring back the row, but not the snapshot. */
	int r = store_sync(sb->set->app->store);
	if (r == 0)
		r = snapstore_delete(sb->set->app->snapstore, snapshot);
	if (r < 0)
		log_warn("snapshot=%s of a pause stays: %s", snapshot,
			 strerror(-r));
}

void sandbox_set_ready(struct sandbox *sb)
{
	char paused[SNAP_ID_BYTES];

	sb->ready_ms = (int64_t)((now_ns() - sb->started_ns) / NS_PER_MS);
	memcpy(paused, sb->paused, sizeof(paused));
	sb->paused[0] = '\0';
	sandbox_start_end(sb);
	move(sb, SANDBOX_RUNNING, "");
	drop_pause(sb, paused);
	judge_template(sb, true);
	sandbox_start_next(sb->set);
	tell_waiters(sb, false);
}

void sandbox_set_creating(struct sandbox *sb)
{
	if (sb->state != SANDBOX_CREATING)
		move(sb, SANDBOX_CREATING, "");
	lose_ops(sb);
}

static bool is_over(const struct sandbox *sb)
{
	return sb->state == SANDBOX_STOPPED || sb->state == SANDBOX_FAILED ||
	       sb->state == SANDBOX_PAUSED;
}

void sandbox_set_ended(struct sandbox *sb, enum sandbox_state state,
		       const char *reason)
{
	if (is_over(sb))
		return;
	/* What could not be resumed is still saved. */
	if (sb->paused[0] != '\0')
		state = SANDBOX_PAUSED;
	if (sb->state == SANDBOX_CREATING && state == SANDBOX_FAILED)
		judge_template(sb, false);
	move(sb, state, reason);
	lose_ops(sb);
	sandbox_vm_stop(sb);
	sandbox_start_next(sb->set);
	tell_waiters(sb, false);
}

void sandbox_set_paused(struct sandbox *sb, const char *snapshot)
{
	(void)snprintf(sb->paused, sizeof(sb->paused), "%s", snapshot);
	sandbox_set_ended(sb, SANDBOX_PAUSED, "");
}

/* --- The set ------------------------------------------------------------------------ */

static void release(struct sandbox *sb)
{
	struct loop *loop = sb->set->app->loop;

	sandbox_vm_free(sb);
	loop_timer_del(loop, &sb->reap);
	TAILQ_REMOVE(&sb->set->list, sb, link);
	if (sb->tenant != 0)
		sb->set->count--;
	json_decref(sb->env);
	free(sb);
}

static void forget(struct sandbox *sb)
{
	if (sb->tenant != 0) {
		int r = store_remove_sandbox(sb->set->app->store, sb->id);
		(void)r; /* logged there */
	}
	log_info("sandbox=%s deleted", sb->id);
	tell_waiters(sb, true);
	release(sb);
}

/* Runs from the loop only: nothing up the stack holds on to `sb`. */
static void on_reap(struct loop_timer *timer)
{
	struct sandbox *sb = container_of(timer, struct sandbox, reap);

	if (sb->deleting && sb->shell == NULL)
		forget(sb);
}

struct sandbox *sandbox_new(struct sandbox_set *set)
{
	struct sandbox *sb = calloc(1, sizeof(*sb));

	if (sb == NULL)
		return NULL;
	sb->set = set;
	sb->ready_ms = -1;
	sb->reap.on_expire = on_reap;
	sandbox_vm_init(sb);
	sandbox_start_init(sb);
	LIST_INIT(&sb->ops);
	LIST_INIT(&sb->waiters);
	TAILQ_INSERT_TAIL(&set->list, sb, link);
	return sb;
}

void sandbox_drop(struct sandbox *sb)
{
	release(sb);
}

void sandbox_delete(struct sandbox *sb)
{
	if (sb->deleting)
		return;
	sb->deleting = true;
	drop_pause(sb, sb->paused);
	sb->paused[0] = '\0';
	sandbox_set_ended(sb, SANDBOX_STOPPED, "");
	loop_timer_set(sb->set->app->loop, &sb->reap, 0);
}

struct sandbox *sandbox_find(struct sandbox_set *set, int64_t tenant,
			     const char *id)
{
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (strcmp(sb->id, id) == 0)
			return sb->tenant == tenant && !sb->deleting ? sb
								     : NULL;
	}
	return NULL;
}

static enum sandbox_state state_of(const char *name)
{
	if (strcmp(name, "paused") == 0)
		return SANDBOX_PAUSED;
	return strcmp(name, "failed") == 0 ? SANDBOX_FAILED : SANDBOX_STOPPED;
}

static enum sandbox_origin origin_of(const char *name)
{
	for (int i = 0; i < SANDBOX_ORIGINS; i++) {
		if (strcmp(name, origin_names[i]) == 0)
			return (enum sandbox_origin)i;
	}
	return ORIGIN_BOOT;
}

static int load(void *arg, const struct store_sandbox *row)
{
	struct sandbox_set *set = arg;
	struct sandbox *sb = sandbox_new(set);

	if (sb == NULL)
		return -ENOMEM;
	memcpy(sb->id, row->id, sizeof(sb->id));
	memcpy(sb->name, row->name, sizeof(sb->name));
	memcpy(sb->shape.image, row->image, sizeof(sb->shape.image));
	memcpy(sb->reason, row->reason, sizeof(sb->reason));
	memcpy(sb->template_name, row->template_name,
	       sizeof(sb->template_name));
	memcpy(sb->snapshot, row->snapshot, sizeof(sb->snapshot));
	memcpy(sb->paused, row->paused, sizeof(sb->paused));
	sb->tenant = row->tenant;
	set->count++;
	sb->cpus = row->cpus;
	sb->shape.vcpus = (row->cpus + 3) / 4;
	sb->shape.memory_mib = row->memory_mib;
	sb->shape.disk_bytes = (uint64_t)row->storage_gb << 30;
	sb->created_ms = row->created_ms;
	sb->ready_ms = row->ready_ms;
	sb->state = state_of(row->status);
	sb->origin = origin_of(row->origin);
	if (row->env != NULL)
		sb->env = json_loads(row->env, 0, NULL);
	return 0;
}

void sandbox_set_stop_all(struct sandbox_set *set)
{
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link)
		sandbox_set_ended(sb, SANDBOX_STOPPED, "daemon_restart");
}

bool sandbox_set_starting(const struct sandbox_set *set)
{
	const struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->state == SANDBOX_CREATING)
			return true;
	}
	return false;
}

/* --- Measuring ------------------------------------------------------------------------ */

int sandbox_measure(struct sandbox *sb, double *ret_percent,
		    uint64_t *ret_bytes)
{
	uint64_t usec = 0;
	uint64_t bytes = 0;
	uint64_t now = now_ns();
	int r = cgroup_read_cpu(sandbox_cgroup(sb), &usec);

	if (r == 0)
		r = cgroup_read_memory(sandbox_cgroup(sb), &bytes);
	if (r < 0)
		return r;
	uint64_t since = sb->sample_ns != 0 ? sb->sample_ns : sb->started_ns;
	double elapsed = (double)(now - since) / 1000;
	double used = usec >= sb->sample_cpu_usec
			      ? (double)(usec - sb->sample_cpu_usec)
			      : 0;
	double percent =
		elapsed > 0 ? 100 * used / elapsed / sb->shape.vcpus : 0;
	*ret_percent = percent < 100 ? percent : 100;
	*ret_bytes = bytes;
	sb->sample_cpu_usec = usec;
	sb->sample_ns = now;
	return 0;
}

static void take_sample(struct sandbox *sb)
{
	struct sandbox_sample *s = &sb->samples[sb->sample_count % SAMPLES_MAX];
	double percent = 0;
	uint64_t bytes = 0;

	if (sandbox_measure(sb, &percent, &bytes) < 0)
		return; /* no cgroup v2 controllers: no history */
	*s = (struct sandbox_sample){ .at_ms = when_now_ms(),
				      .cpu_percent = percent,
				      .memory_bytes = bytes };
	sb->sample_count++;
}

static void on_sample(struct loop_timer *timer)
{
	struct sandbox_set *set =
		container_of(timer, struct sandbox_set, sampler);
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->state == SANDBOX_RUNNING)
			take_sample(sb);
	}
	loop_timer_set(set->app->loop, timer, SAMPLE_INTERVAL_S * NS_PER_S);
}

struct sandbox_set *sandbox_set_new(struct app *app,
				    unsigned int boot_timeout_s)
{
	struct sandbox_set *set = calloc(1, sizeof(*set));

	if (set == NULL) {
		log_error("out of memory");
		return NULL;
	}
	set->app = app;
	set->boot_timeout_s = boot_timeout_s;
	sandbox_start_init_set(set);
	set->sampler.on_expire = on_sample;
	TAILQ_INIT(&set->list);
	int r = store_mark_restart(app->store);
	if (r == 0)
		r = store_each_sandbox(app->store, load, set);
	if (r < 0) {
		log_error("loading sandboxes: %s", strerror(-r));
		sandbox_set_free(set);
		return NULL;
	}
	loop_timer_set(app->loop, &set->sampler, SAMPLE_INTERVAL_S * NS_PER_S);
	return set;
}

void sandbox_set_free(struct sandbox_set *set)
{
	if (set == NULL)
		return;
	loop_timer_del(set->app->loop, &set->sampler);
	loop_timer_del(set->app->loop, &set->next_start);
	struct sandbox *sb = TAILQ_FIRST(&set->list);
	while (sb != NULL) {
		struct sandbox *next = TAILQ_NEXT(sb, link);
		release(sb);
		sb = next;
	}
	free(set);
}
