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
#include "when.h"

static const char *const state_names[] = {
	[SANDBOX_CREATING] = "creating",
	[SANDBOX_RUNNING] = "running",
	[SANDBOX_STOPPED] = "stopped",
	[SANDBOX_FAILED] = "failed",
};
static_assert(ARRAY_LEN(state_names) == SANDBOX_STATES, "one name a state");

/* moves[from][to] */
static const bool moves[SANDBOX_STATES][SANDBOX_STATES] = {
	[SANDBOX_CREATING] = { [SANDBOX_RUNNING] = true,
			       [SANDBOX_STOPPED] = true,
			       [SANDBOX_FAILED] = true },
	[SANDBOX_RUNNING] = { [SANDBOX_STOPPED] = true, [SANDBOX_FAILED] = true },
};

const char *sandbox_status(const struct sandbox *sb)
{
	return state_names[sb->state];
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
	ASSERT(moves[sb->state][to]);
	sb->state = to;
	(void)snprintf(sb->reason, sizeof(sb->reason), "%s", reason);
	log_info("sandbox=%s status=%s reason=%s", sb->id, sandbox_status(sb),
		 reason[0] != '\0' ? reason : "-");
	int r = store_set_status(sb->set->app->store, sb->id,
				 sandbox_status(sb), reason, sb->ready_ms);
	(void)r; /* logged there; the list in memory is what we serve from */
}

void sandbox_set_ready(struct sandbox *sb)
{
	sb->ready_ms = (int64_t)((now_ns() - sb->created_ns) / NS_PER_MS);
	move(sb, SANDBOX_RUNNING, "");
	sandbox_vm_boot_next(sb->set);
	tell_waiters(sb, false);
}

void sandbox_set_ended(struct sandbox *sb, enum sandbox_state state,
		       const char *reason)
{
	if (sb->state == SANDBOX_STOPPED || sb->state == SANDBOX_FAILED)
		return;
	move(sb, state, reason);
	lose_ops(sb);
	sandbox_vm_stop(sb);
	sandbox_vm_boot_next(sb->set);
	tell_waiters(sb, false);
}

/* --- The set ------------------------------------------------------------------------ */

static void release(struct sandbox *sb)
{
	struct loop *loop = sb->set->app->loop;

	loop_timer_del(loop, &sb->reap);
	sandbox_vm_free(sb);
	TAILQ_REMOVE(&sb->set->list, sb, link);
	sb->set->count--;
	json_decref(sb->env);
	free(sb);
}

static void forget(struct sandbox *sb)
{
	int r = store_remove_sandbox(sb->set->app->store, sb->id);

	(void)r; /* logged there */
	log_info("sandbox=%s deleted", sb->id);
	tell_waiters(sb, true);
	release(sb);
}

/* Runs from the loop only: nothing up the stack holds on to `sb`. */
static void on_reap(struct loop_timer *timer)
{
	struct sandbox *sb = container_of(timer, struct sandbox, reap);

	if (sb->process != PROCESS_NONE)
		sandbox_vm_kill(sb);
	else if (sb->deleting)
		forget(sb);
}

struct sandbox *sandbox_new(struct sandbox_set *set)
{
	struct sandbox *sb = calloc(1, sizeof(*sb));

	if (sb == NULL)
		return NULL;
	sb->set = set;
	sb->ready_ms = -1;
	sb->base_fd = -1;
	sb->pidfd = -1;
	sb->cgroup_fd = -1;
	sb->reap.on_expire = on_reap;
	sandbox_vm_init(sb);
	LIST_INIT(&sb->ops);
	LIST_INIT(&sb->waiters);
	TAILQ_INSERT_TAIL(&set->list, sb, link);
	set->count++;
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
	return strcmp(name, "failed") == 0 ? SANDBOX_FAILED : SANDBOX_STOPPED;
}

static int load(void *arg, const struct store_sandbox *row)
{
	struct sandbox *sb = sandbox_new(arg);

	if (sb == NULL)
		return -ENOMEM;
	memcpy(sb->id, row->id, sizeof(sb->id));
	memcpy(sb->name, row->name, sizeof(sb->name));
	memcpy(sb->image, row->image, sizeof(sb->image));
	memcpy(sb->reason, row->reason, sizeof(sb->reason));
	sb->tenant = row->tenant;
	sb->cpus = row->cpus;
	sb->vcpus = (row->cpus + 3) / 4;
	sb->memory_mib = row->memory_mib;
	sb->storage_gb = row->storage_gb;
	sb->disk_bytes = (uint64_t)row->storage_gb << 30;
	sb->created_ms = row->created_ms;
	sb->ready_ms = row->ready_ms;
	sb->state = state_of(row->status);
	return 0;
}

void sandbox_set_exited(void *arg, uint32_t handle, int32_t wait_status)
{
	struct sandbox_set *set = arg;
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->process == PROCESS_ALIVE && sb->handle == handle)
			break;
	}
	if (sb == NULL)
		return;
	log_info("sandbox=%s vmm exited wait_status=%d", sb->id, wait_status);
	sandbox_vm_gone(sb);
}

void sandbox_set_stop_all(struct sandbox_set *set)
{
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link)
		sandbox_set_ended(sb, SANDBOX_STOPPED, "daemon_restart");
}

bool sandbox_set_busy(const struct sandbox_set *set)
{
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->process != PROCESS_NONE)
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
	int r = cgroup_read_cpu(sb->cgroup_fd, &usec);

	if (r == 0)
		r = cgroup_read_memory(sb->cgroup_fd, &bytes);
	if (r < 0)
		return r;
	uint64_t since = sb->sample_ns != 0 ? sb->sample_ns : sb->created_ns;
	double elapsed = (double)(now - since) / 1000;
	double used = usec >= sb->sample_cpu_usec
			      ? (double)(usec - sb->sample_cpu_usec)
			      : 0;
	double percent = elapsed > 0 ? 100 * used / elapsed / sb->vcpus : 0;
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
	sandbox_vm_init_set(set);
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
	loop_timer_del(set->app->loop, &set->next_boot);
	struct sandbox *sb = TAILQ_FIRST(&set->list);
	while (sb != NULL) {
		struct sandbox *next = TAILQ_NEXT(sb, link);
		release(sb);
		sb = next;
	}
	free(set);
}
