/* loop.c - epoll and timers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "num.h"

#define EVENTS_PER_ROUND 64

uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int loop_init(struct loop *l)
{
	*l = (struct loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	return l->epoll_fd < 0 ? -errno : 0;
}

void loop_fini(struct loop *l)
{
	if (l->epoll_fd >= 0)
		(void)close(l->epoll_fd);
	l->epoll_fd = -1;
}

int loop_add(struct loop *l, struct loop_fd *source, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	ASSERT(source->on_event != NULL);
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	source->fd = fd;
	return 0;
}

int loop_mod(struct loop *l, struct loop_fd *source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) < 0)
		return -errno;
	return 0;
}

void loop_del(struct loop *l, struct loop_fd *source)
{
	if (source->fd < 0)
		return;
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	source->fd = -1;
	for (int i = 0; i < l->pending_count; i++) {
		if (l->pending[i].data.ptr == source)
			l->pending[i].data.ptr = NULL;
	}
}

void loop_timer_del(struct loop *l, struct loop_timer *t)
{
	if (!t->armed)
		return;
	for (struct loop_timer **p = &l->timers; *p != NULL; p = &(*p)->next) {
		if (*p == t) {
			*p = t->next;
			break;
		}
	}
	t->armed = false;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t after_ns)
{
	struct loop_timer **p = &l->timers;

	ASSERT(t->on_expire != NULL);
	loop_timer_del(l, t);
	t->deadline_ns = now_ns() + after_ns;
	while (*p != NULL && (*p)->deadline_ns <= t->deadline_ns)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
	t->armed = true;
}

/* Milliseconds to the first timer, rounded up; at most `timeout_ms`. */
static int wait_ms(const struct loop *l, int timeout_ms)
{
	if (l->timers == NULL)
		return timeout_ms;
	uint64_t now = now_ns();
	if (l->timers->deadline_ns <= now)
		return 0;
	uint64_t ms =
		(l->timers->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
	ms = u64_min(ms, INT_MAX);
	if (timeout_ms < 0)
		return (int)ms;
	return (int)u64_min(ms, (uint64_t)timeout_ms);
}

static void run_timers(struct loop *l)
{
	uint64_t now = now_ns();

	while (l->timers != NULL && l->timers->deadline_ns <= now) {
		struct loop_timer *t = l->timers;
		l->timers = t->next;
		t->armed = false;
		t->on_expire(t);
	}
}

int loop_once(struct loop *l, int timeout_ms)
{
	struct epoll_event events[EVENTS_PER_ROUND];
	int n = epoll_wait(l->epoll_fd, events, EVENTS_PER_ROUND,
			   wait_ms(l, timeout_ms));

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	l->pending = events;
	l->pending_count = n;
	for (int i = 0; i < n; i++) {
		struct loop_fd *source = events[i].data.ptr;
		if (source != NULL)
			source->on_event(source, events[i].events);
	}
	l->pending = NULL;
	l->pending_count = 0;
	run_timers(l);
	return 0;
}

int loop_run(struct loop *l)
{
	l->stopping = false;
	while (!l->stopping) {
		int r = loop_once(l, -1);
		if (r < 0)
			return r;
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stopping = true;
}
