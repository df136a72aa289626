/* standby.c - sandboxes that run already, for whoever asks next.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "limits.h"
#include "log.h"
#include "run.h"
#include "sandbox.h"
#include "standby.h"
#include "template.h"

/* What a user's first command will need is touched by these. A rehearsal ends
 * after the first: its pages are then copied for every sandbox, so there
 * should be few that only some need. */
static const struct {
	const char *language;
	const char *code;
} exercises[] = {
	{ "bash", "echo 1" },
	{ "python", "print(1)" },
	{ "python", "print(1)" },
};

#define WORKING_SET_BYTES (VMM_WORKING_SET_MAX * sizeof(struct vmm_pages))

struct standby {
	struct standby_set *set;
	struct sandbox *sb; /* NULL: this place is free */
	struct sandbox_waiter waiter;
	struct run run;
	bool running;      /* `run` goes on */
	unsigned int step; /* exercises that are done */

	/* Of the rehearsal. */
	struct vmm_call call;
	int pages_fd; /* what the VMM writes; -1: it was not asked */
};

struct standby_set {
	struct app *app;
	unsigned int count;
	struct loop_timer timer;
	uint64_t wanted_ns; /* when somebody last asked for one */
	struct standby places[STANDBY_MAX];
	struct standby rehearsal; /* ends after its exercises */
};

static void look_later(struct standby_set *set, uint64_t after_ns)
{
	loop_timer_set(set->app->loop, &set->timer, after_ns);
}

static bool is_ready(const struct standby *s)
{
	return s->sb != NULL && s->sb->state == SANDBOX_RUNNING &&
	       s->step == ARRAY_LEN(exercises);
}

/* --- Rehearsals ------------------------------------------------------------------- */

/* Takes over `fd`, which a VMM has written: no more of it than can be right
 * stays in memory. */
static void keep_pages(struct saved_memory *base, int fd)
{
	cleanup_fd int sealed = saved_freeze(fd);
	struct stat st;

	if (sealed >= 0 && base->working_set_fd < 0 &&
	    fstat(sealed, &st) == 0 &&
	    (uint64_t)st.st_size <= WORKING_SET_BYTES)
		base->working_set_fd = fd_take(&sealed);
}

static void on_pages(struct vmm_call *call, int status, int fd,
		     const struct vmm_msg *msg)
{
	struct standby *s = container_of(call, struct standby, call);

	(void)fd;
	(void)msg;
	if (s->sb == NULL) {
		fd_close(&s->pages_fd);
		return;
	}
	if (status == 0)
		keep_pages(s->sb->from->base, fd_take(&s->pages_fd));
	else
		log_info("standby=%s no working set: %s; going on", s->sb->id,
			 strerror(-status));
	fd_close(&s->pages_fd);
	sandbox_delete(s->sb);
}

/* What the guest used for its exercises is what the next one will need. */
static void ask_for_pages(struct standby *s)
{
	struct vmm_msg msg = { .type = VMM_WORKING_SET };

	s->pages_fd =
		memfd_create("brig-pages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = s->pages_fd < 0 ? -errno : 0;
	if (r == 0)
		r = vmm_peer_send(sandbox_vmm(s->sb), &msg, &s->pages_fd, 1,
				  STANDBY_RUN_TIMEOUT_S, &s->call);
	if (r == 0)
		return;
	log_info("standby=%s no working set: %s; going on", s->sb->id,
		 strerror(-r));
	fd_close(&s->pages_fd);
	sandbox_delete(s->sb);
}

/* --- Exercises --------------------------------------------------------------------- */

static void exercise(struct standby *s);

static void on_run_started(struct run *run)
{
	(void)run;
}

static void on_run_done(struct run *run)
{
	struct standby *s = container_of(run, struct standby, run);
	bool good = run_exit_code(run) == 0;

	s->running = false;
	run_free(run);
	if (s->sb == NULL || s->sb->state != SANDBOX_RUNNING)
		return;
	if (!good)
		log_info("standby=%s cannot run %s; going on", s->sb->id,
			 exercises[s->step].language);
	s->step++;
	exercise(s);
}

static const struct run_events run_events = {
	.on_started = on_run_started,
	.on_done = on_run_done,
};

static void exercise(struct standby *s)
{
	struct args_run args = {
		.cwd = "",
		.user = "",
		.timeout_ms = STANDBY_RUN_TIMEOUT_S * 1000,
	};
	struct fault fault;

	if (s == &s->set->rehearsal && s->step == 1) {
		ask_for_pages(s);
		return;
	}
	if (s->step == ARRAY_LEN(exercises)) {
		look_later(s->set, 0);
		return;
	}
	args.json = json_object();
	args.language = exercises[s->step].language;
	args.code = exercises[s->step].code;
	s->running = true;
	if (run_start(&s->run, s->sb, &args, 0, &run_events, &fault) < 0) {
		s->running = false;
		sandbox_delete(s->sb);
	}
}

/* --- Coming and going --------------------------------------------------------------- */

static void on_change(struct sandbox_waiter *w, struct sandbox *sb, bool gone)
{
	struct standby *s = container_of(w, struct standby, waiter);

	if (gone)
		s->sb = NULL;
	else if (sb->state == SANDBOX_RUNNING)
		exercise(s);
	else if (!sb->deleting)
		sandbox_delete(sb);
	if (gone)
		look_later(s->set, STANDBY_LOOK_MS * NS_PER_MS);
}

static void start(struct standby *s, const struct template *t)
{
	bool rehearsal = s == &s->set->rehearsal;
	struct sandbox_spec spec = {
		.name = rehearsal ? "rehearsal" : "standby",
		.rehearsal = rehearsal,
		.cpus = CPUS_DEFAULT,
		.shape = t->shape,
		.origin = ORIGIN_TEMPLATE,
		.from = t->saved,
		.template_name = t->name,
	};
	struct fault fault;

	s->step = 0;
	if (sandbox_create(s->set->app->sandboxes, &spec, &s->sb, &fault) < 0) {
		s->sb = NULL;
		log_info("no %s: %s; later", spec.name, fault.text);
		look_later(s->set, STANDBY_RETRY_S * NS_PER_S);
		return;
	}
	sandbox_wait(s->sb, &s->waiter);
}

/* One at a time, and not while somebody waits for the machine: who asks for one
 * sandbox after the other would wait for standbys that come too late. */
static void on_timer(struct loop_timer *timer)
{
	struct standby_set *set =
		container_of(timer, struct standby_set, timer);
	const struct template *t = template_default(set->app->templates);

	const struct template *next = template_unrehearsed(set->app->templates);

	look_later(set, STANDBY_LOOK_MS * NS_PER_MS);
	for (unsigned int i = 0; i < set->count; i++) {
		struct standby *s = &set->places[i];
		if (is_ready(s) && (t == NULL || s->sb->from != t->saved))
			sandbox_delete(s->sb); /* of a template that is gone */
		if (s->sb != NULL && !is_ready(s))
			return;
	}
	if (set->rehearsal.sb != NULL ||
	    sandbox_set_starting(set->app->sandboxes) ||
	    now_ns() < set->wanted_ns + STANDBY_QUIET_MS * NS_PER_MS)
		return;
	if (next != NULL) {
		next->saved->base->rehearsed = true;
		start(&set->rehearsal, next);
		return;
	}
	if (t == NULL)
		return;
	for (unsigned int i = 0; i < set->count; i++) {
		if (set->places[i].sb == NULL) {
			start(&set->places[i], t);
			return;
		}
	}
}

struct sandbox *standby_take(struct standby_set *set,
			     const struct sandbox_spec *spec,
			     const struct shape *shape)
{
	const struct template *used = NULL;

	if (set == NULL || spec->tenant == 0 || !spec->may_use_template ||
	    spec->cpus != CPUS_DEFAULT)
		return NULL;
	set->wanted_ns = now_ns();
	for (unsigned int i = 0; i < set->count; i++) {
		struct standby *s = &set->places[i];
		struct sandbox *sb = s->sb;
		if (!is_ready(s) || !shape_equal(&sb->shape, shape))
			continue;
		sandbox_unwait(&s->waiter);
		s->sb = NULL;
		/* So that its template does not count as unused. */
		(void)template_for(set->app->templates, shape, &used);
		return sb;
	}
	return NULL;
}

unsigned int standby_ready(const struct standby_set *set)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < set->count; i++)
		n += is_ready(&set->places[i]);
	return n;
}

static void init(struct standby *s, struct standby_set *set)
{
	s->set = set;
	s->waiter.on_change = on_change;
	s->call.on_reply = on_pages;
	s->pages_fd = -1;
}

struct standby_set *standby_set_new(struct app *app, unsigned int count)
{
	struct standby_set *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->app = app;
	set->count = count;
	set->timer.on_expire = on_timer;
	for (unsigned int i = 0; i < STANDBY_MAX; i++)
		init(&set->places[i], set);
	init(&set->rehearsal, set);
	if (count > 0)
		look_later(set, STANDBY_LOOK_MS * NS_PER_MS);
	return set;
}

static void drop(struct standby *s)
{
	if (s->running)
		run_free(&s->run);
	if (s->sb != NULL) {
		vmm_peer_cancel(sandbox_vmm(s->sb), &s->call);
		sandbox_unwait(&s->waiter);
	}
	fd_close(&s->pages_fd);
}

void standby_set_free(struct standby_set *set)
{
	if (set == NULL)
		return;
	loop_timer_del(set->app->loop, &set->timer);
	for (unsigned int i = 0; i < STANDBY_MAX; i++)
		drop(&set->places[i]);
	drop(&set->rehearsal);
	free(set);
}
