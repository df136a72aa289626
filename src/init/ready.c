/* ready.c - the connection by which the host knows that the agent lives.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <unistd.h>

#include "configure.h"
#include "fd.h"
#include "ready.h"

/* The host has gone: the agent serves on for whoever comes next. */
static void hang_up(struct ready *r)
{
	loop_del(r->loop, &r->socket);
	stream_fini(&r->stream);
}

static void put_configured(struct ready *r)
{
	struct guest_configure want;
	struct guest_configured done;
	const char *what;

	memcpy(&want, r->stream.in, sizeof(want));
	int e = configure_guest(&want, &done, &what);
	explicit_bzero(&want, sizeof(want));
	explicit_bzero(r->stream.in, sizeof(want));
	if (e < 0) {
		stream_put_error(&r->stream, GUEST_AT_SETUP, -e, "%s", what);
		return;
	}
	done.disk_grown = r->disk_grown;
	stream_put(&r->stream, GUEST_CONFIGURED, &done, sizeof(done));
}

static void take_frame(struct ready *r)
{
	if (r->stream.head.type == GUEST_CONFIGURE)
		put_configured(r);
	else
		stream_put(&r->stream, GUEST_PONG, r->stream.in,
			   r->stream.head.length);
	stream_next(&r->stream);
}

/* Reads only while nothing waits to be sent. */
static int advance(struct ready *r, uint32_t events)
{
	int got = stream_flush(&r->stream);

	if (got == 1 && (events & ~(uint32_t)EPOLLOUT)) {
		got = stream_read(&r->stream, FRAMES_READY);
		if (got < 0)
			return got;
		if (got == 1) {
			take_frame(r);
			got = stream_flush(&r->stream);
		}
	}
	if (got < 0)
		return got;
	return loop_mod(r->loop, &r->socket,
			stream_idle(&r->stream) ? EPOLLIN : EPOLLOUT);
}

static void on_socket(struct loop_fd *source, uint32_t events)
{
	struct ready *r = container_of(source, struct ready, socket);

	if (advance(r, events) < 0)
		hang_up(r);
}

int ready_init(struct ready *r, struct loop *loop, int fd, bool disk_grown)
{
	struct guest_hello hello = {
		.version = GUEST_PROTOCOL_VERSION,
		.vcpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
		.uptime_ns = now_ns(),
	};

	*r = (struct ready){ .loop = loop, .disk_grown = disk_grown };
	r->socket = (struct loop_fd){ .fd = -1, .on_event = on_socket };
	int e = stream_init(&r->stream, fd);
	if (e < 0) {
		(void)close(fd);
		return e;
	}
	stream_put(&r->stream, GUEST_HELLO, &hello, sizeof(hello));
	e = fd_set_nonblock(fd);
	if (e == 0)
		e = loop_add(loop, &r->socket, fd, EPOLLIN);
	if (e == 0 && stream_flush(&r->stream) < 0)
		e = -ECONNRESET;
	if (e == 0 && !stream_idle(&r->stream))
		e = loop_mod(loop, &r->socket, EPOLLIN | EPOLLOUT);
	if (e < 0)
		hang_up(r);
	return e;
}
