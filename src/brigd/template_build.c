/* template_build.c - boots a machine nobody sees, warms it and saves it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "template_build.h"

/* Time for an interpreter to come up, and for a command of the user's. */
#define WARM_TIMEOUT_MS 120000u
#define WARM_COMMAND_TIMEOUT_MS 1800000u

/* What makes the agent start its interpreters, and a shell once: what it reads
 * from the disk is then in memory. */
static const char *const warm_languages[] = { "python", "node", "bash" };

/* A machine whose programs still start up would do that again in every copy.
 * So it is saved when it takes no more of a CPU than this, or after a while. */
#define SETTLE_PERCENT 5.0
#define SETTLE_LOOK_NS (300 * NS_PER_MS)
#define SETTLE_LOOKS_MAX 100u

static void next_step(struct template_build *b);

static void maybe_free(struct template_build *b)
{
	if (b->sb == NULL && !b->saving)
		template_build_free(b);
}

void template_build_free(struct template_build *b)
{
	if (b == NULL)
		return;
	if (b->running)
		run_free(&b->run);
	if (b->sb != NULL)
		sandbox_unwait(&b->waiter);
	loop_timer_del(b->app->loop, &b->settle);
	free(b->warm);
	free(b);
}

/* Tells the owner; the machine is not needed any more in any case. */
static void done(struct template_build *b, const char *snapshot,
		 const struct fault *fault)
{
	void *arg = b->arg;

	b->arg = NULL;
	if (fault != NULL)
		log_warn("template=%s is not made: %s", b->name, fault->text);
	if (b->sb != NULL)
		sandbox_delete(b->sb);
	if (arg != NULL)
		b->on_done(arg, snapshot, fault);
	else if (snapshot != NULL &&
		 snapstore_delete(b->app->snapstore, snapshot) < 0)
		log_warn("snapshot=%s stays; going on", snapshot);
}

static void on_snapshot(struct snapshot *s, const struct fault *fault)
{
	struct template_build *b =
		container_of(s, struct template_build, snapshot);

	b->saving = false;
	done(b, fault == NULL ? s->draft.snap.id : NULL, fault);
	maybe_free(b);
}

static void save(struct template_build *b)
{
	struct snapshot_options options = {
		.name = b->name,
		.warm = b->warm,
		.kind = SNAP_TEMPLATE,
	};
	struct fault fault;

	b->snapshot.on_done = on_snapshot;
	b->saving = true;
	if (snapshot_start(&b->snapshot, b->sb, &options, &fault) < 0) {
		b->saving = false;
		done(b, NULL, &fault);
	}
}

static void settle(struct template_build *b)
{
	loop_timer_set(b->app->loop, &b->settle, SETTLE_LOOK_NS);
}

static void on_settle(struct loop_timer *timer)
{
	struct template_build *b =
		container_of(timer, struct template_build, settle);
	double percent = 100;
	uint64_t bytes;

	if (b->arg == NULL || b->sb == NULL || b->sb->state != SANDBOX_RUNNING)
		return;
	if (sandbox_measure(b->sb, &percent, &bytes) == 0 &&
	    percent > SETTLE_PERCENT && b->looks++ < SETTLE_LOOKS_MAX)
		settle(b);
	else
		save(b);
}

/* --- Warming -------------------------------------------------------------------------- */

static bool is_command(const struct template_build *b)
{
	return b->step >= ARRAY_LEN(warm_languages);
}

static void command_failed(struct template_build *b)
{
	const struct run_output *err = &b->run.output[RUN_STDERR];
	struct fault fault;

	(void)fault_set(&fault, 422, "warm_failed",
			"the command that warms the template ended with %d: "
			"%.*s",
			run_exit_code(&b->run), (int)err->kept.len,
			err->kept.len > 0 ? err->kept.data : "");
	done(b, NULL, &fault);
}

static void on_run_started(struct run *run)
{
	(void)run;
}

static void on_run_done(struct run *run)
{
	struct template_build *b =
		container_of(run, struct template_build, run);
	bool good = run_exit_code(run) == 0;

	if (!good && is_command(b))
		command_failed(b);
	else if (!good)
		log_info("template=%s %s cannot be warmed; going on", b->name,
			 warm_languages[b->step]);
	b->running = false;
	run_free(run);
	if (!good && b->arg == NULL)
		return;
	b->step++;
	next_step(b);
}

static const struct run_events run_events = {
	.on_started = on_run_started,
	.on_done = on_run_done,
};

static void warm(struct template_build *b)
{
	struct args_run args = {
		.json = json_object(),
		.cwd = "",
		.user = "",
		.timeout_ms = WARM_TIMEOUT_MS,
		.output_limit = 160,
	};
	struct fault fault;

	if (is_command(b)) {
		args.command = b->warm;
		args.timeout_ms = WARM_COMMAND_TIMEOUT_MS;
	} else {
		args.language = warm_languages[b->step];
		args.code = "";
	}
	b->running = true;
	if (run_start(&b->run, b->sb, &args, args.output_limit, &run_events,
		      &fault) < 0) {
		b->running = false;
		done(b, NULL, &fault);
	}
}

static void next_step(struct template_build *b)
{
	/* A run that was lost with its machine: on_change() says so. */
	if (b->arg == NULL || b->sb == NULL || b->sb->state != SANDBOX_RUNNING)
		return;
	if (b->step < ARRAY_LEN(warm_languages) + (b->warm != NULL))
		warm(b);
	else
		settle(b);
}

/* --- The machine ---------------------------------------------------------------------- */

static void on_change(struct sandbox_waiter *w, struct sandbox *sb, bool gone)
{
	struct template_build *b =
		container_of(w, struct template_build, waiter);
	struct fault fault;

	if (gone) {
		b->sb = NULL;
		maybe_free(b);
	} else if (sb->state == SANDBOX_RUNNING) {
		next_step(b);
	} else if (!sb->deleting) {
		(void)fault_set(&fault, 503, "boot_failed",
				"the machine did not last: %s", sb->reason);
		done(b, NULL, &fault);
	}
}

/* It may have failed before we could wait for it. */
static int check_started(struct template_build *b, struct fault *fault)
{
	if (b->sb->state == SANDBOX_CREATING)
		return 0;
	sandbox_delete(b->sb);
	return fault_set(fault, 503, "boot_failed",
			 "the machine does not start: %s", b->sb->reason);
}

struct template_build *
template_build_start(struct app *app, const char *name,
		     const struct shape *shape, const char *warm_command,
		     void (*on_done)(void *arg, const char *snapshot,
				     const struct fault *fault),
		     void *arg, struct fault *fault)
{
	struct sandbox_spec spec = {
		.name = "template",
		.cpus = 4 * shape->vcpus,
		.shape = *shape,
	};
	struct template_build *b = calloc(1, sizeof(*b));
	int r = -EINVAL;

	if (b == NULL) {
		(void)fault_set(fault, 500, "no_memory", "out of memory");
		return NULL;
	}
	b->app = app;
	b->on_done = on_done;
	b->arg = arg;
	b->waiter.on_change = on_change;
	b->settle.on_expire = on_settle;
	(void)snprintf(b->name, sizeof(b->name), "%s", name);
	if (warm_command != NULL)
		b->warm = strdup(warm_command);
	if (warm_command != NULL && b->warm == NULL)
		(void)fault_set(fault, 500, "no_memory", "out of memory");
	else
		r = sandbox_create(app->sandboxes, &spec, &b->sb, fault);
	if (r == 0) {
		sandbox_wait(b->sb, &b->waiter);
		r = check_started(b, fault);
	}
	if (r < 0) {
		template_build_free(b);
		return NULL;
	}
	return b;
}

void template_build_cancel(struct template_build *b)
{
	if (b == NULL)
		return;
	b->arg = NULL;
	if (b->sb != NULL)
		sandbox_delete(b->sb);
}
