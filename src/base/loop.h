/* loop.h - epoll and timers; the only event loop of brigd, brig-spawn and
 * brig-init.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One thread. A struct loop_fd or loop_timer is embedded in its owner's
 * struct and borrowed by the loop from add to del; a callback may delete any
 * source, its own included, and free the owner: sources that were deleted in
 * a round are not called any more in it. Functions return 0 or -errno.
 */
#ifndef BRIG_BASE_LOOP_H
#define BRIG_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "cc.h"
#include "clock.h"

struct loop_fd {
	int fd; /* borrowed; -1 while not in a loop */
	void (*on_event)(struct loop_fd *source, uint32_t events);
};

struct loop_timer {
	void (*on_expire)(struct loop_timer *timer);
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; private */
	struct loop_timer *next;
	bool armed; /* read only */
};

struct loop {
	int epoll_fd;
	bool stopping;
	struct loop_timer *timers; /* sorted, soonest first */
	struct epoll_event *pending;
	int pending_count;
};

must_check int loop_init(struct loop *l);
void loop_fini(struct loop *l);

/* Watches `fd` for `events` (EPOLL*). source->on_event must be set. */
must_check int loop_add(struct loop *l, struct loop_fd *source, int fd,
			uint32_t events);
must_check int loop_mod(struct loop *l, struct loop_fd *source,
			uint32_t events);

/* Stops watching; harmless when the source is not in the loop. Call before
 * the descriptor is closed. */
void loop_del(struct loop *l, struct loop_fd *source);

/* (Re)arms: on_expire is called once, `after_ns` from now. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t after_ns);
void loop_timer_del(struct loop *l, struct loop_timer *t);

/* Runs until loop_stop; 0, or -errno when epoll itself failed. */
must_check int loop_run(struct loop *l);

/* One round: waits at most `timeout_ms` (-1: until something happens). */
must_check int loop_once(struct loop *l, int timeout_ms);
void loop_stop(struct loop *l);

uint64_t now_ns(void); /* CLOCK_MONOTONIC */

#define NS_PER_MS 1000000ull

#endif
