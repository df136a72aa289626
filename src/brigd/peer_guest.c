/* peer_guest.c - one connection to the agent in a guest (wire/guest.h).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "buf.h"
#include "fd.h"
#include "limits.h"
#include "peer_guest.h"

static_assert(GUEST_IN_BYTES >=
		      sizeof(struct guest_frame) + BRIG_FRAME_DATA_MAX,
	      "the largest frame fits the input");
static_assert(GUEST_OUT_MAX_BYTES >= GUEST_OUT_HIGH_BYTES + BRIG_FRAME_MAX +
					     sizeof(struct guest_frame),
	      "an EXEC fits on top of a full output");

struct guest_conn {
	struct loop *loop;
	int fd;
	struct loop_fd source;
	struct loop_timer again; /* frames wait in `in` after a pause */
	const struct guest_events *events;
	void *arg;
	uint32_t watching;
	size_t in_len;
	size_t out_at; /* bytes of `out` that are sent */
	struct buf out;
	bool paused;
	bool busy; /* in a callback: do not free */
	bool closed;
	uint8_t in[GUEST_IN_BYTES];
};

static void watch(struct guest_conn *c)
{
	uint32_t events = 0;

	if (c->source.fd < 0)
		return;
	if (!c->paused)
		events |= EPOLLIN;
	if (c->out.len > c->out_at)
		events |= EPOLLOUT;
	if (events == c->watching)
		return;
	c->watching = events;
	/* MOD of a descriptor that is in the set fails only for want of
	 * memory; the connection's deadline then ends it. */
	int r = loop_mod(c->loop, &c->source, events);
	(void)r;
}

static void end(struct guest_conn *c, int error)
{
	if (c->source.fd < 0)
		return; /* said already */
	loop_del(c->loop, &c->source);
	loop_timer_del(c->loop, &c->again);
	if (!c->closed)
		c->events->on_closed(c->arg, error);
}

/* Gives out the whole frames in `in`; false after a wrong one. */
static bool give_frames(struct guest_conn *c)
{
	size_t at = 0;
	int r = 0;

	while (!c->paused && !c->closed) {
		struct frame f;
		r = frame_take(c->in + at, c->in_len - at, &f);
		if (r <= 0)
			break;
		at += (size_t)r;
		c->events->on_frame(c->arg, &f);
	}
	c->in_len -= at;
	if (at > 0)
		memmove(c->in, c->in + at, c->in_len);
	return r >= 0;
}

static void read_some(struct guest_conn *c)
{
	/* What waited during a pause comes before what is new. */
	if (!give_frames(c)) {
		end(c, -EPROTO);
		return;
	}
	if (c->paused || c->closed)
		return;
	ssize_t n = recv(c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len,
			 MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end(c, n == 0 ? 0 : -errno);
		return;
	}
	c->in_len += (size_t)n;
	if (!give_frames(c))
		end(c, -EPROTO);
}

static void write_some(struct guest_conn *c)
{
	bool was_full = guest_conn_full(c);

	if (c->out.len == c->out_at)
		return;
	ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* A peer that closed may have said why before: that is read first,
	 * the end of the stream follows by itself. */
	c->out_at = n < 0 ? c->out.len : c->out_at + (size_t)n;
	if (c->out_at == c->out.len) {
		c->out_at = 0;
		c->out.len = 0;
	}
	if (was_full && !guest_conn_full(c) && !c->closed &&
	    c->events->on_writable != NULL)
		c->events->on_writable(c->arg);
}

static void finish_round(struct guest_conn *c)
{
	c->busy = false;
	if (c->closed)
		guest_conn_close(c);
	else
		watch(c);
}

static void on_event(struct loop_fd *source, uint32_t events)
{
	struct guest_conn *c = container_of(source, struct guest_conn, source);

	c->busy = true;
	if (events & EPOLLOUT)
		write_some(c);
	if (!c->closed && !c->paused &&
	    (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		read_some(c);
	else if (!c->closed && c->paused && (events & (EPOLLHUP | EPOLLERR)))
		/* Cannot be masked: read what is left when unpaused. */
		loop_del(c->loop, &c->source);
	finish_round(c);
}

static void on_again(struct loop_timer *timer)
{
	struct guest_conn *c = container_of(timer, struct guest_conn, again);

	c->busy = true;
	if (!c->paused && !give_frames(c))
		end(c, -EPROTO);
	finish_round(c);
}

struct guest_conn *guest_conn_new(struct loop *loop, int fd,
				  const struct guest_events *events, void *arg)
{
	struct guest_conn *c = calloc(1, sizeof(*c));

	if (c == NULL) {
		fd_close(&fd);
		return NULL;
	}
	c->loop = loop;
	c->fd = fd;
	c->events = events;
	c->arg = arg;
	c->out.max = GUEST_OUT_MAX_BYTES;
	c->source = (struct loop_fd){ .fd = -1, .on_event = on_event };
	c->again.on_expire = on_again;
	c->watching = EPOLLIN;
	if (loop_add(loop, &c->source, fd, EPOLLIN) < 0) {
		fd_close(&c->fd);
		free(c);
		return NULL;
	}
	return c;
}

void guest_conn_close(struct guest_conn *c)
{
	if (c == NULL)
		return;
	c->closed = true;
	loop_del(c->loop, &c->source);
	loop_timer_del(c->loop, &c->again);
	fd_close(&c->fd);
	if (c->busy)
		return; /* finish_round() comes back here */
	buf_free(&c->out);
	free(c);
}

int guest_conn_send(struct guest_conn *c, enum guest_frame_type type,
		    const void *payload, size_t n)
{
	struct guest_frame head = {
		.length = (uint32_t)n,
		.type = (uint16_t)type,
	};

	ASSERT(n <= BRIG_FRAME_MAX);
	if (c->out_at > 0) {
		buf_consume(&c->out, c->out_at);
		c->out_at = 0;
	}
	if (sizeof(head) + n > c->out.max - c->out.len)
		return -ENOSPC;
	int r = buf_add(&c->out, &head, sizeof(head));
	if (r == 0)
		r = buf_add(&c->out, payload, n);
	if (r == 0)
		watch(c);
	return r;
}

int guest_conn_send_data(struct guest_conn *c, enum guest_frame_type type,
			 const void *bytes, size_t n)
{
	const char *p = bytes;

	while (n > 0) {
		size_t piece =
			n < BRIG_FRAME_DATA_MAX ? n : BRIG_FRAME_DATA_MAX;
		int r = guest_conn_send(c, type, p, piece);
		if (r < 0)
			return r;
		p += piece;
		n -= piece;
	}
	return 0;
}

bool guest_conn_full(const struct guest_conn *c)
{
	return c->out.len - c->out_at > GUEST_OUT_HIGH_BYTES;
}

void guest_conn_pause(struct guest_conn *c, bool paused)
{
	if (c->paused == paused)
		return;
	c->paused = paused;
	if (!paused && c->source.fd < 0 && !c->closed) {
		/* The peer hung up during the pause. */
		c->watching = EPOLLIN;
		if (loop_add(c->loop, &c->source, c->fd, EPOLLIN) < 0)
			return;
	}
	if (!paused && c->in_len > 0)
		loop_timer_set(c->loop, &c->again, 0);
	watch(c);
}
