/* peer_vmm.c - our side of the control socket of one brig-vmm (wire/vmm.h).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fd.h"
#include "limits.h"
#include "peer_vmm.h"

struct vmm_peer {
	struct loop *loop;
	int fd;
	struct loop_fd source;
	struct loop_timer timer; /* of the oldest call */
	const struct vmm_events *events;
	void *arg;
	uint32_t seq;
	struct vmm_call *calls; /* oldest first */
	bool busy;              /* in a callback: do not free */
	bool closed;
};

static struct vmm_call *take_call(struct vmm_peer *p, uint32_t seq)
{
	struct vmm_call **at = &p->calls;

	while (*at != NULL && (*at)->seq != seq)
		at = &(*at)->next;
	struct vmm_call *call = *at;
	if (call != NULL) {
		*at = call->next;
		call->pending = false;
	}
	return call;
}

static void arm_timer(struct vmm_peer *p)
{
	uint64_t now = now_ns();

	if (p->calls == NULL) {
		loop_timer_del(p->loop, &p->timer);
		return;
	}
	uint64_t at = p->calls->deadline_ns;
	loop_timer_set(p->loop, &p->timer, at > now ? at - now : 0);
}

static void fail_call(struct vmm_peer *p, struct vmm_call *call, int status)
{
	(void)take_call(p, call->seq);
	call->on_reply(call, status, -1, NULL);
}

static void on_timer(struct loop_timer *timer)
{
	struct vmm_peer *p = container_of(timer, struct vmm_peer, timer);
	bool was_busy = p->busy;

	p->busy = true;
	while (p->calls != NULL && p->calls->deadline_ns <= now_ns())
		fail_call(p, p->calls, -ETIMEDOUT);
	p->busy = was_busy;
	if (p->closed)
		vmm_peer_close(p);
	else
		arm_timer(p);
}

static bool is_stream_socket(int fd)
{
	int type = 0;
	socklen_t n = sizeof(type);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 &&
	       type == SOCK_STREAM;
}

/* 0 or -errno, whatever came. */
static int status_of(const struct vmm_msg *msg)
{
	return msg->status <= 0 && msg->status >= -4095 ? msg->status : -EPROTO;
}

static void on_reply(struct vmm_peer *p, const struct vmm_msg *msg, int *fd)
{
	struct vmm_call *call = take_call(p, msg->seq);
	int status = status_of(msg);

	if (call == NULL)
		return;
	if (status == 0 && call->connect && !is_stream_socket(*fd))
		status = -EPROTO;
	bool give = status == 0 && call->connect;
	call->on_reply(call, status, give ? fd_take(fd) : -1, msg);
}

/* False if the message is none that a VMM may send. */
static bool handle(struct vmm_peer *p, const struct vmm_msg *msg, int *fd)
{
	switch (msg->type) {
	case VMM_REPLY:
		on_reply(p, msg, fd);
		return true;
	case VMM_READY:
		p->events->on_ready(p->arg, msg->value);
		return true;
	case VMM_SAVED:
		p->events->on_saved(p->arg, msg->seq, status_of(msg),
				    &msg->u.saved);
		return true;
	case VMM_RUNNING:
		p->events->on_running(p->arg, msg->value);
		return true;
	case VMM_ACCEPT:
		if (!is_stream_socket(*fd))
			return false;
		p->events->on_accept(p->arg, msg->port, fd);
		return true;
	case VMM_STOPPED:
		p->events->on_stopped(p->arg, msg->status);
		return true;
	default:
		return false;
	}
}

static void on_event(struct loop_fd *source, uint32_t events)
{
	struct vmm_peer *p = container_of(source, struct vmm_peer, source);
	struct vmm_msg msg;
	cleanup_fd int fd = -1;
	size_t nfds = 0;

	(void)events;
	ssize_t n = fd_recv_packet(p->fd, &msg, sizeof(msg), &fd, 1, &nfds);
	if (n == -EAGAIN)
		return;
	p->busy = true;
	if (n != (ssize_t)sizeof(msg) || !handle(p, &msg, &fd)) {
		loop_del(p->loop, &p->source);
		if (!p->closed)
			p->events->on_closed(p->arg);
	}
	p->busy = false;
	if (p->closed)
		vmm_peer_close(p);
	else
		arm_timer(p);
}

struct vmm_peer *vmm_peer_new(struct loop *loop, int fd,
			      const struct vmm_events *events, void *arg)
{
	struct vmm_peer *p = calloc(1, sizeof(*p));

	if (p == NULL) {
		fd_close(&fd);
		return NULL;
	}
	p->loop = loop;
	p->fd = fd;
	p->events = events;
	p->arg = arg;
	p->source = (struct loop_fd){ .fd = -1, .on_event = on_event };
	p->timer.on_expire = on_timer;
	int r = fd_set_nonblock(fd);
	if (r == 0)
		r = loop_add(loop, &p->source, fd, EPOLLIN);
	if (r < 0) {
		fd_close(&p->fd);
		free(p);
		return NULL;
	}
	return p;
}

void vmm_peer_close(struct vmm_peer *p)
{
	if (p == NULL)
		return;
	bool was_busy = p->busy;
	p->closed = true;
	p->busy = true;
	loop_del(p->loop, &p->source);
	loop_timer_del(p->loop, &p->timer);
	fd_close(&p->fd);
	while (p->calls != NULL)
		fail_call(p, p->calls, -EPIPE);
	if (!was_busy)
		free(p);
}

static void add_call(struct vmm_peer *p, struct vmm_call *call)
{
	struct vmm_call **at = &p->calls;

	/* Soonest deadline first: the timer is that of the first. */
	while (*at != NULL && (*at)->deadline_ns <= call->deadline_ns)
		at = &(*at)->next;
	call->next = *at;
	*at = call;
	call->pending = true;
	if (p->calls == call)
		arm_timer(p);
}

int vmm_peer_send(struct vmm_peer *p, struct vmm_msg *msg, const int *fds,
		  size_t nfds, unsigned int timeout_s, struct vmm_call *call)
{
	ASSERT(!call->pending && call->on_reply != NULL);
	if (p == NULL || p->fd < 0)
		return -EPIPE;
	msg->seq = ++p->seq;
	int r = fd_send_packet(p->fd, msg, sizeof(*msg), fds, nfds);
	if (r < 0)
		return r;
	call->seq = msg->seq;
	call->connect = msg->type == VMM_CONNECT;
	call->deadline_ns = now_ns() + timeout_s * NS_PER_S;
	add_call(p, call);
	return 0;
}

int vmm_peer_connect(struct vmm_peer *p, uint32_t port, struct vmm_call *call)
{
	struct vmm_msg msg = { .type = VMM_CONNECT, .port = port };

	return vmm_peer_send(p, &msg, NULL, 0, VMM_REPLY_TIMEOUT_S, call);
}

int vmm_peer_stats(struct vmm_peer *p, struct vmm_call *call)
{
	struct vmm_msg msg = { .type = VMM_STATS };

	return vmm_peer_send(p, &msg, NULL, 0, VMM_REPLY_TIMEOUT_S, call);
}

void vmm_peer_cancel(struct vmm_peer *p, struct vmm_call *call)
{
	if (p != NULL && call->pending)
		(void)take_call(p, call->seq);
}
