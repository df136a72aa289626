/* leftover.c - what outlives its run: background processes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <unistd.h>

#include "fd.h"
#include "leftover.h"

/* Runs whose background processes may go on writing. */
#define PIPES_MAX 64u
#define SCRATCH_BYTES 8192
/* Most that is thrown away before others get their turn. */
#define READS_PER_EVENT 8

struct leftover {
	struct leftovers *all;
	unsigned int slot;
	uint64_t id;   /* of the cgroup: the higher, the younger */
	int events_fd; /* the cgroup's */
	int out[2];
	struct loop_fd events;
	struct loop_fd sources[2];
};

static void close_pipe(struct leftover *l, int i)
{
	loop_del(l->all->loop, &l->sources[i]);
	fd_close(&l->out[i]);
}

static void forget(struct leftover *l)
{
	close_pipe(l, 0);
	close_pipe(l, 1);
	loop_del(l->all->loop, &l->events);
	fd_close(&l->events_fd);
	l->all->slots[l->slot] = NULL;
	free(l);
}

static void on_cgroup(struct loop_fd *source, uint32_t events)
{
	struct leftover *l = container_of(source, struct leftover, events);

	(void)events;
	if (!cgroup_is_empty(l->events_fd))
		return;
	/* A cgroup with children that a program made stays; it is the
	 * guest's own. */
	int r = cgroup_remove(l->all->tree, l->id);
	(void)r;
	forget(l);
}

static void discard(struct leftover *l, int i)
{
	char scratch[SCRATCH_BYTES];

	for (int n = 0; n < READS_PER_EVENT; n++) {
		ssize_t got = read(l->out[i], scratch, sizeof(scratch));
		if (got > 0)
			continue;
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		close_pipe(l, i);
		return;
	}
}

static void on_stdout(struct loop_fd *source, uint32_t events)
{
	(void)events;
	discard(container_of(source, struct leftover, sources[0]), 0);
}

static void on_stderr(struct loop_fd *source, uint32_t events)
{
	(void)events;
	discard(container_of(source, struct leftover, sources[1]), 1);
}

static bool has_pipes(const struct leftover *l)
{
	return l->out[0] >= 0 || l->out[1] >= 0;
}

/* When too many have pipes, the oldest of them loses its own. */
static void limit_pipes(struct leftovers *all)
{
	struct leftover *oldest = NULL;
	unsigned int count = 0;

	for (unsigned int i = 0; i < LEFTOVERS_MAX; i++) {
		struct leftover *l = all->slots[i];
		if (l == NULL || !has_pipes(l))
			continue;
		count++;
		if (oldest == NULL || l->id < oldest->id)
			oldest = l;
	}
	if (count > PIPES_MAX) {
		close_pipe(oldest, 0);
		close_pipe(oldest, 1);
	}
}

static void watch(struct leftover *l)
{
	struct loop *loop = l->all->loop;

	for (int i = 0; i < 2; i++) {
		if (l->out[i] < 0)
			continue;
		if (loop_add(loop, &l->sources[i], l->out[i], EPOLLIN) < 0)
			fd_close(&l->out[i]);
	}
	limit_pipes(l->all);
	/* Looked at once now: the first read arms the notification. */
	if (loop_add(loop, &l->events, l->events_fd, EPOLLPRI) < 0)
		forget(l);
	else
		on_cgroup(&l->events, 0);
}

/* A free slot, if need be that of the oldest. */
static unsigned int find_slot(struct leftovers *all)
{
	unsigned int oldest = 0;

	for (unsigned int i = 0; i < LEFTOVERS_MAX; i++) {
		if (all->slots[i] == NULL)
			return i;
		if (all->slots[i]->id < all->slots[oldest]->id)
			oldest = i;
	}
	forget(all->slots[oldest]);
	return oldest;
}

static struct leftover *make(struct leftovers *all, uint64_t id, int events_fd)
{
	struct leftover *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->all = all;
	l->slot = find_slot(all);
	l->id = id;
	l->events_fd = events_fd;
	l->events = (struct loop_fd){ .fd = -1, .on_event = on_cgroup };
	l->sources[0] = (struct loop_fd){ .fd = -1, .on_event = on_stdout };
	l->sources[1] = (struct loop_fd){ .fd = -1, .on_event = on_stderr };
	all->slots[l->slot] = l;
	return l;
}

void leftover_add(struct leftovers *all, uint64_t id, int out[2])
{
	struct leftover *l = NULL;
	int events_fd = -1;

	if (cgroup_remove(all->tree, id) < 0)
		events_fd = cgroup_open_events(all->tree, id);
	if (events_fd >= 0)
		l = make(all, id, events_fd);
	if (l == NULL) {
		fd_close(&events_fd);
		fd_close(&out[0]);
		fd_close(&out[1]);
		return;
	}
	l->out[0] = fd_take(&out[0]);
	l->out[1] = fd_take(&out[1]);
	watch(l);
}

void leftover_fini(struct leftovers *all)
{
	for (unsigned int i = 0; i < LEFTOVERS_MAX; i++) {
		if (all->slots[i] != NULL)
			forget(all->slots[i]);
	}
}
