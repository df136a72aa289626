/* pool.c - shells that were started ahead, for whoever needs one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "id.h"
#include "limits.h"
#include "log.h"
#include "num.h"
#include "peer_spawn.h"
#include "pool.h"
#include "sandbox.h"

struct pool_kind {
	struct shell_kind kind;
	uint64_t used_ns; /* 0: free, unless it is the first: the default */
};

struct pool_shell {
	struct pool *pool;
	TAILQ_ENTRY(pool_shell) link;
	struct shell *shell;
	struct loop_timer deadline; /* until it is built */
};

struct pool {
	struct app *app;
	TAILQ_HEAD(, pool_shell) shells; /* oldest first */
	struct pool_kind kinds[POOL_KINDS];
	struct loop_timer timer;
	uint64_t pause_ns; /* after a failure, until the next attempt */
	bool stopped;
};

static void remove_shell(struct pool_shell *ps)
{
	loop_timer_del(ps->pool->app->loop, &ps->deadline);
	TAILQ_REMOVE(&ps->pool->shells, ps, link);
	free(ps);
}

static void tick_later(struct pool *p, uint64_t after_ns)
{
	if (!p->stopped && p->app->pool_size > 0)
		loop_timer_set(p->app->loop, &p->timer, after_ns);
}

static void back_off(struct pool *p)
{
	uint64_t next = 2 * p->pause_ns;

	p->pause_ns = u64_min(u64_max(next, POOL_BACKOFF_MIN_MS * NS_PER_MS),
			      POOL_BACKOFF_MAX_S * NS_PER_S);
	tick_later(p, p->pause_ns);
}

static void lose_shell(struct pool_shell *ps, const char *why)
{
	struct pool *p = ps->pool;

	log_warn("shell=%s of the pool %s; another comes later", ps->shell->id,
		 why);
	shell_drop(ps->shell);
	remove_shell(ps);
	back_off(p);
}

/* --- What shells of the pool say -------------------------------------------------- */

static void on_built(void *arg)
{
	struct pool_shell *ps = arg;

	loop_timer_del(ps->pool->app->loop, &ps->deadline);
	ps->pool->pause_ns = 0;
	tick_later(ps->pool, 0);
}

static void on_closed(void *arg)
{
	lose_shell(arg, "ended");
}

static void on_running(void *arg)
{
	lose_shell(arg, "runs without a guest");
}

static void on_accept(void *arg, uint32_t port, int *fd)
{
	(void)port;
	(void)fd;
	lose_shell(arg, "speaks out of turn");
}

static void on_saved(void *arg, uint32_t seq, int status,
		     const struct vmm_saved *saved)
{
	(void)seq;
	(void)status;
	(void)saved;
	lose_shell(arg, "speaks out of turn");
}

static void on_stopped(void *arg, int32_t reason)
{
	(void)reason;
	lose_shell(arg, "stopped");
}

static void on_gone(void *arg)
{
	(void)arg; /* never: who ends a shell of the pool drops it */
}

static const struct shell_events shell_events = {
	.on_built = on_built,
	.on_closed = on_closed,
	.on_suspect = on_closed,
	.on_running = on_running,
	.on_accept = on_accept,
	.on_saved = on_saved,
	.on_stopped = on_stopped,
	.on_gone = on_gone,
};

static void on_deadline(struct loop_timer *timer)
{
	lose_shell(container_of(timer, struct pool_shell, deadline),
		   "was not built in time");
}

/* --- Keeping it full ---------------------------------------------------------------- */

static bool is_wanted(const struct pool *p, const struct pool_kind *k)
{
	return k == &p->kinds[0] || k->used_ns != 0;
}

static int start_one(struct pool *p, const struct shell_kind *kind)
{
	char id[BRIG_ID_BYTES];
	struct pool_shell *ps = calloc(1, sizeof(*ps));

	if (ps == NULL)
		return -1;
	ps->pool = p;
	ps->deadline.on_expire = on_deadline;
	id_make(id, "sb_");
	if (shell_start(&p->app->shells, id, kind, &shell_events, ps,
			&ps->shell) < 0) {
		free(ps);
		return -1;
	}
	TAILQ_INSERT_TAIL(&p->shells, ps, link);
	loop_timer_set(p->app->loop, &ps->deadline,
		       POOL_BUILD_TIMEOUT_S * NS_PER_S);
	return 0;
}

static unsigned int count(const struct pool *p, const struct shell_kind *kind,
			  unsigned int *ret_unbuilt)
{
	const struct pool_shell *ps;
	unsigned int n = 0;

	*ret_unbuilt = 0;
	TAILQ_FOREACH(ps, &p->shells, link) {
		*ret_unbuilt += !ps->shell->built;
		n += shell_kind_equal(&ps->shell->kind, kind);
	}
	return n;
}

static void forget_kind(struct pool *p, struct pool_kind *k)
{
	struct pool_shell *ps = TAILQ_FIRST(&p->shells);

	k->used_ns = 0;
	while (ps != NULL) {
		struct pool_shell *next = TAILQ_NEXT(ps, link);
		if (shell_kind_equal(&ps->shell->kind, &k->kind)) {
			shell_drop(ps->shell);
			remove_shell(ps);
		}
		ps = next;
	}
}

static void forget_old_kinds(struct pool *p)
{
	uint64_t now = now_ns();

	for (size_t i = 1; i < POOL_KINDS; i++) {
		struct pool_kind *k = &p->kinds[i];
		if (k->used_ns != 0 &&
		    now - k->used_ns > POOL_KIND_TTL_S * NS_PER_S)
			forget_kind(p, k);
	}
}

/* Starts at most a few at a time, one while somebody else needs the machine.
 * False: it is as full as it shall be. */
static bool fill(struct pool *p, struct pool_kind *k)
{
	unsigned int at_once =
		sandbox_set_starting(p->app->sandboxes) ? 1 : POOL_STARTS_MAX;
	unsigned int unbuilt = 0;

	while (count(p, &k->kind, &unbuilt) < p->app->pool_size) {
		if (unbuilt >= at_once)
			return true; /* on_built() goes on */
		if (p->app->shells.count >= BRIG_SANDBOXES_MAX)
			return false;
		if (start_one(p, &k->kind) < 0) {
			back_off(p);
			return true;
		}
	}
	return false;
}

static void on_timer(struct loop_timer *timer)
{
	struct pool *p = container_of(timer, struct pool, timer);
	uint64_t per_s;

	tick_later(p, POOL_TICK_S * NS_PER_S);
	/* Before the probe's answer nothing is known. */
	if (spawn_peer_kvm(p->app->spawn, &per_s) != SPAWN_KVM_HARDWARE)
		return;
	forget_old_kinds(p);
	for (size_t i = 0; i < POOL_KINDS; i++) {
		if (is_wanted(p, &p->kinds[i]) && fill(p, &p->kinds[i]))
			break;
	}
}

/* --- Taking --------------------------------------------------------------------------- */

static void note_kind(struct pool *p, const struct shell_kind *kind)
{
	struct pool_kind *oldest = &p->kinds[1];

	for (size_t i = 0; i < POOL_KINDS; i++) {
		struct pool_kind *k = &p->kinds[i];
		if (is_wanted(p, k) && shell_kind_equal(&k->kind, kind)) {
			k->used_ns = now_ns();
			return;
		}
		if (i > 0 && k->used_ns < oldest->used_ns)
			oldest = k;
	}
	if (oldest->used_ns != 0)
		forget_kind(p, oldest);
	*oldest = (struct pool_kind){ .kind = *kind, .used_ns = now_ns() };
}

struct shell *pool_take(struct pool *p, const struct shell_kind *kind)
{
	struct pool_shell *ps;
	struct pool_shell *best = NULL;

	if (p == NULL || p->app->pool_size == 0 || p->stopped)
		return NULL;
	note_kind(p, kind);
	/* Taking one after the other must not put it off for ever. */
	if (p->pause_ns == 0 &&
	    p->timer.deadline_ns > now_ns() + POOL_REFILL_MS * NS_PER_MS)
		tick_later(p, POOL_REFILL_MS * NS_PER_MS);
	TAILQ_FOREACH(ps, &p->shells, link) {
		if (!shell_kind_equal(&ps->shell->kind, kind))
			continue;
		if (best == NULL || (ps->shell->built && !best->shell->built))
			best = ps;
	}
	if (best == NULL)
		return NULL;
	struct shell *shell = best->shell;
	remove_shell(best);
	return shell;
}

unsigned int pool_ready(const struct pool *p)
{
	const struct pool_shell *ps;
	unsigned int n = 0;

	TAILQ_FOREACH(ps, &p->shells, link)
		n += ps->shell->built;
	return n;
}

struct pool *pool_new(struct app *app)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->app = app;
	p->timer.on_expire = on_timer;
	p->kinds[0].kind = (struct shell_kind){
		.vcpus = (CPUS_DEFAULT + 3) / 4,
		.memory_mib = MEMORY_MIB_DEFAULT,
		.cpu_quota_percent = CPUS_DEFAULT * 25,
		.disk_bytes = (uint64_t)STORAGE_GB_DEFAULT << 30,
	};
	TAILQ_INIT(&p->shells);
	tick_later(p, POOL_REFILL_MS * NS_PER_MS);
	return p;
}

void pool_stop(struct pool *p)
{
	struct pool_shell *ps;

	p->stopped = true;
	loop_timer_del(p->app->loop, &p->timer);
	while ((ps = TAILQ_FIRST(&p->shells)) != NULL) {
		shell_drop(ps->shell);
		remove_shell(ps);
	}
}

void pool_free(struct pool *p)
{
	if (p == NULL)
		return;
	pool_stop(p);
	free(p);
}
