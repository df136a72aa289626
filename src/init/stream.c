/* stream.c - frames over one stream socket, in and out, with fixed room.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdarg.h>
#include <sys/socket.h>

#include "fd.h"
#include "num.h"
#include "stream.h"

#define HEAD sizeof(struct guest_frame)

int stream_init(struct stream *s, int fd)
{
	*s = (struct stream){ .fd = -1 };
	s->out = malloc(HEAD + BRIG_FRAME_DATA_MAX);
	if (s->out == NULL)
		return -ENOMEM;
	s->fd = fd;
	return 0;
}

void stream_fini(struct stream *s)
{
	fd_close(&s->fd);
	free(s->in);
	free(s->out);
	s->in = NULL;
	s->out = NULL;
}

/* Receives up to `n` bytes; 0 when there are none now. */
static ssize_t receive(int fd, void *to, size_t n)
{
	for (;;) {
		ssize_t got = recv(fd, to, n, 0);
		if (got > 0)
			return got;
		if (got == 0)
			return -ECONNRESET;
		if (errno == EAGAIN)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

static int grow(struct stream *s, size_t n)
{
	if (n <= s->in_cap)
		return 0;
	free(s->in);
	s->in_cap = 0;
	s->in = malloc(n);
	if (s->in == NULL)
		return -ENOMEM;
	s->in_cap = n;
	return 0;
}

int stream_read(struct stream *s, enum frames_phase phase)
{
	while (s->head_got < HEAD) {
		ssize_t got = receive(s->fd, (char *)&s->head + s->head_got,
				      HEAD - s->head_got);
		if (got <= 0)
			return (int)got;
		s->head_got += (size_t)got;
		if (s->head_got < HEAD)
			continue;
		int r = frames_check(&s->head, phase);
		if (r == 0)
			r = grow(s, s->head.length);
		if (r < 0)
			return r;
	}
	while (s->in_got < s->head.length) {
		ssize_t got = receive(s->fd, s->in + s->in_got,
				      s->head.length - s->in_got);
		if (got <= 0)
			return (int)got;
		s->in_got += (size_t)got;
	}
	return 1;
}

void stream_next(struct stream *s)
{
	s->head_got = 0;
	s->in_got = 0;
}

char *stream_take(struct stream *s)
{
	char *payload = s->in;

	stream_next(s);
	s->in = NULL;
	s->in_cap = 0;
	return payload;
}

char *stream_room(struct stream *s)
{
	ASSERT(stream_idle(s));
	return s->out + HEAD;
}

void stream_commit(struct stream *s, enum guest_frame_type type, size_t n)
{
	struct guest_frame head = {
		.length = (uint32_t)n,
		.type = (uint16_t)type,
	};

	ASSERT(stream_idle(s) && n <= BRIG_FRAME_DATA_MAX);
	memcpy(s->out, &head, HEAD);
	s->out_len = HEAD + n;
	s->out_sent = 0;
}

void stream_put(struct stream *s, enum guest_frame_type type, const void *p,
		size_t n)
{
	ASSERT(n <= BRIG_FRAME_DATA_MAX);
	if (n > 0)
		memcpy(stream_room(s), p, n);
	stream_commit(s, type, n);
}

void stream_put_error(struct stream *s, enum guest_error_stage stage, int error,
		      const char *fmt, ...)
{
	struct guest_error e = {
		.stage = (uint32_t)stage,
		.error = (uint32_t)error,
	};
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(e.detail, sizeof(e.detail), fmt, ap);
	va_end(ap);
	stream_put(s, GUEST_ERROR, &e, sizeof(e));
}

int stream_flush(struct stream *s)
{
	while (s->out_sent < s->out_len) {
		ssize_t put = send(s->fd, s->out + s->out_sent,
				   s->out_len - s->out_sent, MSG_NOSIGNAL);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EAGAIN)
			return 0;
		if (put < 0)
			return -errno;
		s->out_sent += (size_t)put;
	}
	s->out_len = 0;
	return 1;
}
