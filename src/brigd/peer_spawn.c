/* peer_spawn.c - our side of wire/spawn.h.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "peer_spawn.h"

#define RETRY_S 1u

struct spawn_peer {
	struct loop *loop;
	const char *path;
	void (*on_exited)(void *arg, uint32_t handle, int32_t wait_status);
	void *arg;
	int fd;
	struct loop_fd source;
	struct loop_timer retry;
	uint32_t seq;
	struct spawn_call *calls;
	struct spawn_call probe;
	uint32_t kvm_kind;
	uint64_t iterations_per_s;
	bool complained; /* one line per outage */
};

static struct spawn_call *take_call(struct spawn_peer *p, uint32_t seq)
{
	struct spawn_call **at = &p->calls;

	while (*at != NULL && (*at)->seq != seq)
		at = &(*at)->next;
	struct spawn_call *call = *at;
	if (call != NULL) {
		*at = call->next;
		call->pending = false;
	}
	return call;
}

static void disconnect(struct spawn_peer *p, const char *why)
{
	if (p->fd >= 0)
		log_error("spawn: connection lost: %s", why);
	loop_del(p->loop, &p->source);
	fd_close(&p->fd);
	while (p->calls != NULL) {
		struct spawn_call *call = take_call(p, p->calls->seq);
		call->on_reply(call, NULL, NULL, 0);
	}
	loop_timer_set(p->loop, &p->retry, RETRY_S * NS_PER_S);
}

static bool has_right_fds(const struct spawn_msg *msg, size_t nfds)
{
	bool started = msg->type == SPAWN_STARTED && msg->status == 0;

	return nfds == (started ? SPAWN_STARTED_FDS : 0u);
}

static void close_all(const int *fds, size_t nfds)
{
	for (size_t i = 0; i < nfds; i++)
		(void)close(fds[i]);
}

static void handle(struct spawn_peer *p, const struct spawn_msg *msg, int *fds,
		   size_t nfds)
{
	if (msg->type == SPAWN_EXITED) {
		p->on_exited(p->arg, msg->handle, msg->wait_status);
		return;
	}
	struct spawn_call *call = take_call(p, msg->seq);
	if (call != NULL) {
		call->on_reply(call, msg, fds, nfds);
		return;
	}
	close_all(fds, nfds);
}

static void on_event(struct loop_fd *source, uint32_t events)
{
	struct spawn_peer *p = container_of(source, struct spawn_peer, source);
	struct spawn_msg msg;
	int fds[SPAWN_STARTED_FDS];
	size_t nfds = 0;

	(void)events;
	ssize_t n = fd_recv_packet(p->fd, &msg, sizeof(msg), fds,
				   SPAWN_STARTED_FDS, &nfds);
	if (n == -EAGAIN)
		return;
	if (n != (ssize_t)sizeof(msg) || !has_right_fds(&msg, nfds)) {
		close_all(fds, nfds);
		disconnect(p, n == 0  ? "closed"
			      : n < 0 ? strerror((int)-n)
				      : "message of the wrong shape");
		return;
	}
	handle(p, &msg, fds, nfds);
}

static void on_probed(struct spawn_call *call, const struct spawn_msg *msg,
		      const int *fds, size_t nfds)
{
	struct spawn_peer *p = container_of(call, struct spawn_peer, probe);

	(void)fds;
	(void)nfds;
	if (msg == NULL || msg->status != 0)
		return;
	p->kvm_kind = msg->kvm_kind;
	p->iterations_per_s = msg->iterations_per_s;
	log_info("kvm=%s iterations_per_s=%llu",
		 p->kvm_kind == SPAWN_KVM_HARDWARE   ? "hardware"
		 : p->kvm_kind == SPAWN_KVM_EMULATED ? "emulated"
						     : "none",
		 (unsigned long long)p->iterations_per_s);
}

static int open_socket(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	cleanup_fd int fd = socket(
		AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	return fd_take(&fd);
}

static void try_connect(struct spawn_peer *p)
{
	struct spawn_msg probe = { .type = SPAWN_PROBE };
	int fd = open_socket(p->path);
	int r = fd;

	if (fd >= 0) {
		p->fd = fd;
		r = loop_add(p->loop, &p->source, fd, EPOLLIN);
	}
	if (r < 0) {
		if (!p->complained)
			log_warn("spawn: cannot connect to %s: %s; retrying",
				 p->path, strerror(-r));
		p->complained = true;
		fd_close(&p->fd);
		loop_timer_set(p->loop, &p->retry, RETRY_S * NS_PER_S);
		return;
	}
	p->complained = false;
	log_info("spawn: connected to %s", p->path);
	r = spawn_peer_send(p, &probe, NULL, 0, &p->probe);
	if (r < 0)
		log_warn("spawn: probe: %s; going on", strerror(-r));
}

static void on_retry(struct loop_timer *timer)
{
	try_connect(container_of(timer, struct spawn_peer, retry));
}

struct spawn_peer *spawn_peer_new(struct loop *loop, const char *path,
				  void (*on_exited)(void *arg, uint32_t handle,
						    int32_t wait_status),
				  void *arg)
{
	struct spawn_peer *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->loop = loop;
	p->path = path;
	p->on_exited = on_exited;
	p->arg = arg;
	p->fd = -1;
	p->source = (struct loop_fd){ .fd = -1, .on_event = on_event };
	p->retry.on_expire = on_retry;
	p->probe.on_reply = on_probed;
	try_connect(p);
	return p;
}

void spawn_peer_free(struct spawn_peer *p)
{
	if (p == NULL)
		return;
	loop_del(p->loop, &p->source);
	loop_timer_del(p->loop, &p->retry);
	fd_close(&p->fd);
	free(p);
}

int spawn_peer_send(struct spawn_peer *p, struct spawn_msg *msg, const int *fds,
		    size_t nfds, struct spawn_call *call)
{
	ASSERT(!call->pending && call->on_reply != NULL);
	if (p->fd < 0)
		return -ENOTCONN;
	msg->seq = ++p->seq;
	int r = fd_send_packet(p->fd, msg, sizeof(*msg), fds, nfds);
	if (r < 0)
		return r;
	call->seq = msg->seq;
	call->pending = true;
	call->next = p->calls;
	p->calls = call;
	return 0;
}

void spawn_peer_cancel(struct spawn_peer *p, struct spawn_call *call)
{
	if (call->pending)
		(void)take_call(p, call->seq);
}

enum spawn_kvm_kind spawn_peer_kvm(const struct spawn_peer *p,
				   uint64_t *ret_iterations_per_s)
{
	*ret_iterations_per_s = p->iterations_per_s;
	if (p->kvm_kind == SPAWN_KVM_HARDWARE)
		return SPAWN_KVM_HARDWARE;
	if (p->kvm_kind == SPAWN_KVM_EMULATED)
		return SPAWN_KVM_EMULATED;
	return SPAWN_KVM_NONE;
}
