/* quiesce.c - QUIESCE and THAW: everything of users stands still for a copy.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "quiesce.h"
#include "spawn.h"

#define PRE_SNAPSHOT "/etc/brig/pre-snapshot.d"

/* Deadlines of the states, and how often a state is looked at. */
#define WARMING_NS (10 * NS_PER_S)
#define FREEZING_NS (2 * NS_PER_S)
#define FILES_NS (30 * NS_PER_S)
#define LOST_NS NS_PER_S
#define LOOK_NS NS_PER_MS

static void go_on(struct quiesce *q);
static void lose(struct quiesce *q);

static void enter(struct quiesce *q, enum quiesce_state state, uint64_t within)
{
	q->state = state;
	q->deadline_ns = now_ns() + within;
	loop_timer_set(q->loop, &q->timer, within);
}

static void close_stream(struct quiesce *q)
{
	loop_del(q->loop, &q->socket);
	stream_fini(&q->stream);
}

/* The connection is closed and forgotten. */
static void leave(struct quiesce *q, enum quiesce_state state)
{
	q->state = state;
	close_stream(q);
	q->on_done(q->owner);
}

/* Sends the last frame; what does not fit into the socket is lost. */
static void say_goodbye(struct quiesce *q)
{
	int r = stream_flush(&q->stream);

	if (r == 0 && loop_mod(q->loop, &q->socket, EPOLLOUT) == 0)
		q->state = QUIESCE_LEAVING;
	else
		leave(q, QUIESCE_NONE);
}

/* Everything goes on as if it had never been asked to stop. */
static void give_up(struct quiesce *q, int error, const char *what)
{
	loop_timer_del(q->loop, &q->timer);
	int r = freezer_thaw(q->freezer, FREEZER_SOURCE);
	if (r < 0) {
		error = -r;
		what = "thaw";
	}
	if (q->gone) {
		q->state = QUIESCE_NONE;
		q->on_done(q->owner);
		return;
	}
	stream_put_error(&q->stream, GUEST_AT_SETUP, error, "%s", what);
	say_goodbye(q);
}

/* --- helpers that may block -------------------------------------------------*/

static int work(enum quiesce_state state)
{
	if (state == QUIESCE_SEALING)
		return freezer_freeze_files();
	sync();
	return 0;
}

/* A process of ours does the blocking call of `state`. */
static void start_helper(struct quiesce *q, enum quiesce_state state)
{
	pid_t pid = fork();

	if (pid == 0) {
		const int fds[] = { STDERR_FILENO };
		spawn_keep_only(fds, ARRAY_LEN(fds));
		_exit(-work(state));
	}
	if (pid < 0) {
		give_up(q, errno, "process that writes files out");
		return;
	}
	reaper_add(q->reaper, &q->helper, pid);
	enter(q, state, FILES_NS);
}

static void on_helper(struct child *c, int status)
{
	struct quiesce *q = container_of(c, struct quiesce, helper);
	int error = WIFEXITED(status) ? WEXITSTATUS(status) : ETIMEDOUT;

	/* Even if it was too late, or killed after it succeeded. */
	if (q->state == QUIESCE_SEALING)
		q->freezer->files_frozen = error == 0 || error == ETIMEDOUT;
	if (error != 0)
		give_up(q, error, "freeze of the root file system");
	else
		go_on(q);
}

static void on_hooks_done(struct hooks *h)
{
	go_on(container_of(h, struct quiesce, hooks));
}

/* --- steps ------------------------------------------------------------------*/

static void hold(struct quiesce *q)
{
	const struct guest_quiesced done = {
		.hooks_failed = q->hooks.failed,
		.warm = warm_count_ready(q->warm),
	};

	loop_timer_del(q->loop, &q->timer);
	q->state = QUIESCE_HELD;
	stream_put(&q->stream, GUEST_QUIESCED, &done, sizeof(done));
	if (loop_mod(q->loop, &q->socket, EPOLLIN | EPOLLOUT | EPOLLRDHUP) < 0)
		lose(q);
}

static void start_freezing(struct quiesce *q)
{
	int r = freezer_freeze(q->freezer);

	if (r < 0) {
		give_up(q, -r, "freeze of processes");
		return;
	}
	enter(q, QUIESCE_FREEZING, FREEZING_NS);
	loop_timer_set(q->loop, &q->timer, 0);
}

static void start_hooks(struct quiesce *q)
{
	static char *const no_more[] = { NULL };

	q->state = QUIESCE_HOOKS;
	if (!hooks_start(&q->hooks, PRE_SNAPSHOT, no_more))
		go_on(q);
}

/* A step is done. */
static void go_on(struct quiesce *q)
{
	bool files = (q->flags & GUEST_QUIESCE_FILES) != 0;

	loop_timer_del(q->loop, &q->timer);
	if (q->gone) {
		give_up(q, ECONNRESET, "");
		return;
	}
	switch (q->state) {
	case QUIESCE_WARMING:
		if (files)
			start_hooks(q);
		else
			start_freezing(q);
		return;
	case QUIESCE_HOOKS:
		start_helper(q, QUIESCE_SYNCING);
		return;
	case QUIESCE_SYNCING:
		start_freezing(q);
		return;
	case QUIESCE_FREEZING:
		if (files)
			start_helper(q, QUIESCE_SEALING);
		else
			hold(q);
		return;
	case QUIESCE_SEALING:
		hold(q);
		return;
	case QUIESCE_NONE:
	case QUIESCE_HELD:
	case QUIESCE_LEAVING:
	case QUIESCE_LOST:
		break;
	}
	ASSERT(false);
}

/* A copy in which an interpreter is not ready works, only slower. */
static void look_at_warming(struct quiesce *q)
{
	if (warm_is_settled(q->warm) || now_ns() >= q->deadline_ns)
		go_on(q);
	else
		loop_timer_set(q->loop, &q->timer, LOOK_NS);
}

static void look_at_freezing(struct quiesce *q)
{
	if (freezer_is_done(q->freezer))
		go_on(q);
	else if (now_ns() >= q->deadline_ns)
		give_up(q, ETIMEDOUT, "freeze of processes");
	else
		loop_timer_set(q->loop, &q->timer, LOOK_NS);
}

/* A copy has a new ready connection, or none. */
static void look_at_lost(struct quiesce *q)
{
	q->state = QUIESCE_NONE;
	if (!ready_is_same(q->ready, q->ready_epoch))
		return;
	int r = freezer_thaw(q->freezer, FREEZER_SOURCE);
	(void)r; /* the next QUIESCE or CONFIGURE tells */
}

static void on_timer(struct loop_timer *timer)
{
	struct quiesce *q = container_of(timer, struct quiesce, timer);

	if (q->state == QUIESCE_WARMING)
		look_at_warming(q);
	else if (q->state == QUIESCE_FREEZING)
		look_at_freezing(q);
	else if (q->state == QUIESCE_LOST)
		look_at_lost(q);
	else
		(void)kill(q->helper.pid, SIGKILL); /* then on_helper */
}

/* --- the connection ---------------------------------------------------------*/

static void lose(struct quiesce *q)
{
	if (q->state == QUIESCE_LEAVING) {
		leave(q, QUIESCE_NONE);
	} else if (q->state != QUIESCE_HELD) {
		/* The step at hand is waited for, then give_up. */
		q->gone = true;
		close_stream(q);
	} else {
		enter(q, QUIESCE_LOST, LOST_NS);
		leave(q, QUIESCE_LOST);
	}
}

/* The only frame that the phase lets through. */
static void take_thaw(struct quiesce *q)
{
	int r = freezer_thaw(q->freezer, FREEZER_SOURCE);

	if (r < 0)
		stream_put_error(&q->stream, GUEST_AT_SETUP, -r, "thaw");
	else
		stream_put(&q->stream, GUEST_THAWED, NULL, 0);
	say_goodbye(q);
}

static void on_socket(struct loop_fd *source, uint32_t events)
{
	struct quiesce *q = container_of(source, struct quiesce, socket);
	uint32_t bad = EPOLLERR | EPOLLHUP | EPOLLRDHUP;
	int r = (events & bad) && q->state != QUIESCE_HELD
			? -ECONNRESET
			: stream_flush(&q->stream);

	if (r == 1 && q->state == QUIESCE_LEAVING) {
		leave(q, QUIESCE_NONE);
		return;
	}
	if (r == 1 && q->state == QUIESCE_HELD) {
		r = loop_mod(q->loop, &q->socket, EPOLLIN | EPOLLRDHUP);
		if (r == 0)
			r = stream_read(&q->stream, FRAMES_QUIESCE);
		if (r == 1)
			take_thaw(q);
	}
	if (r < 0)
		lose(q);
}

void quiesce_init(struct quiesce *q)
{
	q->state = QUIESCE_NONE;
	q->stream = (struct stream){ .fd = -1 };
	q->socket = (struct loop_fd){ .fd = -1, .on_event = on_socket };
	q->helper = (struct child){ .on_exit = on_helper };
	q->timer = (struct loop_timer){ .on_expire = on_timer };
	hooks_init(&q->hooks);
	q->hooks.on_done = on_hooks_done;
}

void quiesce_fini(struct quiesce *q)
{
	hooks_stop(&q->hooks);
	reaper_del(q->reaper, &q->helper);
	loop_timer_del(q->loop, &q->timer);
	close_stream(q);
}

int quiesce_start(struct quiesce *q, struct stream *s, void *owner)
{
	struct guest_quiesce want;

	memcpy(&want, s->in, sizeof(want));
	if ((want.flags & ~(uint32_t)GUEST_QUIESCE_FILES) != 0 ||
	    want.zero != 0)
		return -EINVAL;
	if ((q->state != QUIESCE_NONE && q->state != QUIESCE_LOST) ||
	    q->freezer->frozen)
		return -EBUSY;
	int r = loop_add(q->loop, &q->socket, s->fd, EPOLLRDHUP);
	if (r < 0)
		return r;
	q->stream = *s;
	*s = (struct stream){ .fd = -1 };
	stream_next(&q->stream);
	q->owner = owner;
	q->flags = want.flags;
	q->gone = false;
	q->ready_epoch = q->ready->epoch;
	q->hooks.failed = 0;
	warm_hurry(q->warm);
	enter(q, QUIESCE_WARMING, WARMING_NS);
	loop_timer_set(q->loop, &q->timer, 0);
	return 0;
}
