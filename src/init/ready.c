/* ready.c - the connection by which the host knows that the agent lives.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "num.h"
#include "ready.h"

/* Between attempts: none, then doubled from the first to the last. A machine
 * without a host to talk to wakes up four times in a second. */
#define PAUSE_MIN_NS NS_PER_MS
#define PAUSE_MAX_NS (250 * NS_PER_MS)

/* An attempt that gets no answer is made anew. */
#define CONNECT_NS (2 * NS_PER_S)

static void connect_later(struct ready *r)
{
	loop_timer_set(r->loop, &r->again, r->pause_ns);
	r->pause_ns =
		u64_min(u64_max(2 * r->pause_ns, PAUSE_MIN_NS), PAUSE_MAX_NS);
}

static void hang_up(struct ready *r)
{
	configure_stop(&r->configure);
	r->answer_waits = false;
	loop_del(r->loop, &r->socket);
	stream_fini(&r->stream);
	r->state = READY_DOWN;
	connect_later(r);
}

/* --- frames -----------------------------------------------------------------*/

static void put_hello(struct ready *r)
{
	const struct guest_hello hello = {
		.version = GUEST_PROTOCOL_VERSION,
		.vcpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
		.uptime_ns = now_ns(),
		.generation = r->configure.generation,
	};

	stream_put(&r->stream, GUEST_HELLO, &hello, sizeof(hello));
	r->hello_ns = hello.uptime_ns;
}

static void put_answer(struct ready *r)
{
	struct configure *c = &r->configure;

	r->answer_waits = false;
	if (r->configure_error < 0)
		stream_put_error(&r->stream, GUEST_AT_SETUP,
				 -r->configure_error, "%s", c->what);
	else
		stream_put(&r->stream, GUEST_CONFIGURED, &c->done,
			   sizeof(c->done));
}

/* The host's time is from when it answered our HELLO, which was at some moment
 * since: so half of that is the best guess, and halves the error. */
static void add_travel_time(struct ready *r, struct guest_configure *want)
{
	if (r->hello_ns != 0 && want->realtime_ns <= INT64_MAX)
		want->realtime_ns += (now_ns() - r->hello_ns) / 2;
	r->hello_ns = 0;
}

static int take_configure(struct ready *r)
{
	struct guest_configure want;

	if (r->configure.busy || r->answer_waits)
		return -EPROTO;
	memcpy(&want, r->stream.in, sizeof(want));
	explicit_bzero(r->stream.in, sizeof(want));
	add_travel_time(r, &want);
	configure_start(&r->configure, &want);
	explicit_bzero(&want, sizeof(want));
	return 0;
}

static int take_frame(struct ready *r)
{
	int e = 0;

	r->pause_ns = 0; /* there is a host that speaks with us */
	if (r->stream.head.type == GUEST_CONFIGURE)
		e = take_configure(r);
	else
		stream_put(&r->stream, GUEST_PONG, r->stream.in,
			   r->stream.head.length);
	stream_next(&r->stream);
	return e;
}

/* Sends what there is to say; then 1. 0 when the socket is full. */
static int say(struct ready *r)
{
	int sent = stream_flush(&r->stream);

	if (sent == 1 && r->answer_waits) {
		put_answer(r);
		sent = stream_flush(&r->stream);
	}
	return sent;
}

/* Reads only while nothing waits to be sent. */
static int advance(struct ready *r, bool readable)
{
	int e = say(r);

	if (e == 1 && readable) {
		e = stream_read(&r->stream, FRAMES_READY);
		if (e == 1)
			e = take_frame(r);
		if (e >= 0)
			e = say(r);
	}
	if (e < 0)
		return e;
	return loop_mod(r->loop, &r->socket,
			stream_idle(&r->stream) ? EPOLLIN : EPOLLOUT);
}

static void on_configured(struct configure *c, int error)
{
	struct ready *r = container_of(c, struct ready, configure);

	r->configure_error = error;
	r->answer_waits = true;
	/* Wakes the socket up: this may be within a frame of it. */
	if (loop_mod(r->loop, &r->socket, EPOLLIN | EPOLLOUT) < 0)
		loop_timer_set(r->loop, &r->again, 0);
}

/* --- the connection ---------------------------------------------------------*/

static int end_connecting(struct ready *r)
{
	int error = 0;
	socklen_t n = sizeof(error);

	if (getsockopt(r->stream.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		return -errno;
	if (error != 0)
		return -error;
	loop_timer_del(r->loop, &r->again);
	r->state = READY_UP;
	r->epoch++;
	put_hello(r);
	return 0;
}

static void on_socket(struct loop_fd *source, uint32_t events)
{
	struct ready *r = container_of(source, struct ready, socket);
	int e = 0;

	if (r->state == READY_CONNECTING)
		e = end_connecting(r);
	if (e == 0)
		e = advance(r, (events & ~(uint32_t)EPOLLOUT) != 0);
	if (e < 0)
		hang_up(r);
}

static void connect_now(struct ready *r)
{
	int fd = r->connect();

	if (fd < 0 || stream_init(&r->stream, fd) < 0) {
		if (fd >= 0)
			(void)close(fd);
		connect_later(r);
		return;
	}
	r->state = READY_CONNECTING;
	if (loop_add(r->loop, &r->socket, fd, EPOLLOUT) < 0)
		hang_up(r);
	else
		loop_timer_set(r->loop, &r->again, CONNECT_NS);
}

static void on_again(struct loop_timer *timer)
{
	struct ready *r = container_of(timer, struct ready, again);

	if (r->state == READY_DOWN)
		connect_now(r);
	else
		hang_up(r);
}

bool ready_is_same(const struct ready *r, uint64_t epoch)
{
	struct pollfd p = { .fd = r->stream.fd, .events = POLLRDHUP };

	return r->state == READY_UP && r->epoch == epoch && poll(&p, 1, 0) == 0;
}

void ready_init(struct ready *r)
{
	r->state = READY_DOWN;
	r->stream = (struct stream){ .fd = -1 };
	r->socket = (struct loop_fd){ .fd = -1, .on_event = on_socket };
	r->again = (struct loop_timer){ .on_expire = on_again };
	configure_init(&r->configure);
	r->configure.on_done = on_configured;
	connect_now(r);
}

void ready_fini(struct ready *r)
{
	configure_stop(&r->configure);
	loop_timer_del(r->loop, &r->again);
	loop_del(r->loop, &r->socket);
	stream_fini(&r->stream);
}
