/* api_move.c - snapshots out to a client and in from one, as one stream.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The snapshot store has a thread for each transfer, which blocks on its end
 * of a socket pair; our end does not block. So a slow client slows the thread
 * and nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "api.h"
#include "api_snapshot.h"
#include "fd.h"
#include "log.h"

#define PIECE (64u << 10)

/* 0 or -errno; ours does not block. */
static int make_pair(int *ret_ours, int *ret_theirs)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	return fd_set_nonblock(pair[0]);
}

/* --- Export ------------------------------------------------------------------------------ */

struct leaving {
	struct snap_export export;
	struct request *rq; /* NULL: answered, or the client is gone */
	struct loop *loop;
	struct loop_fd source;
	int fd;    /* our end */
	bool over; /* on_done was called */
	int error; /* with this */
};

static void leaving_free(struct leaving *l)
{
	loop_del(l->loop, &l->source);
	fd_close(&l->fd);
	if (!l->over)
		return; /* on_exported() comes back here */
	fd_close(&l->export.fd);
	free(l);
}

static void on_leaving_abort(struct request *rq)
{
	struct leaving *l = rq->job;

	l->rq = NULL;
	leaving_free(l);
}

/* All was read, and the thread says whether it was all. */
static void end_export(struct leaving *l)
{
	struct request *rq = l->rq;

	l->rq = NULL;
	if (rq != NULL)
		http_stream_end(rq, l->error == 0);
	leaving_free(l);
}

static void watch(struct leaving *l, bool on)
{
	int r = loop_mod(l->loop, &l->source, on ? EPOLLIN : 0);

	if (r < 0)
		log_warn("export: %s; going on", strerror(-r));
}

static void on_readable(struct loop_fd *source, uint32_t events)
{
	struct leaving *l = container_of(source, struct leaving, source);
	struct buf *to = http_stream_buf(l->rq);
	char *room = buf_reserve(to, PIECE);

	(void)events;
	ssize_t n = room == NULL ? 0 : recv(l->fd, room, PIECE, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		if (room == NULL)
			l->error = -ENOMEM;
		loop_del(l->loop, &l->source);
		fd_close(&l->fd);
		if (l->over)
			end_export(l);
		return;
	}
	to->len += (size_t)n;
	http_stream_push(l->rq);
	if (http_stream_full(l->rq))
		watch(l, false);
}

static void on_leaving_drain(struct request *rq)
{
	struct leaving *l = rq->job;

	if (l->source.fd >= 0)
		watch(l, true);
}

static void on_exported(struct snap_export *e, int error)
{
	struct leaving *l = container_of(e, struct leaving, export);

	l->over = true;
	if (l->error == 0)
		l->error = error;
	fd_close(&l->export.fd); /* ours reads the rest, then the end */
	if (l->rq == NULL || l->source.fd < 0)
		end_export(l);
}

static int start_export(struct leaving *l, const char *id)
{
	int r = make_pair(&l->fd, &l->export.fd);

	if (r == 0)
		r = loop_add(l->loop, &l->source, l->fd, EPOLLIN);
	if (r == 0)
		r = snapstore_export(api_app(l->rq)->snapstore, id, &l->export);
	return r;
}

void api_snapshot_export(struct request *rq)
{
	struct app *app = api_app(rq);
	struct fault fault;
	const struct snap *s =
		snapstore_find(app->snapstore, rq->tenant, rq->param[0]);

	if (s == NULL || snapshot_is_pause(s)) {
		http_reply_error(rq, 404, "not_found", "no such snapshot");
		return;
	}
	struct leaving *l = calloc(1, sizeof(*l));
	if (l == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	l->rq = rq;
	l->loop = app->loop;
	l->fd = -1;
	l->export.fd = -1;
	l->export.on_done = on_exported;
	l->source = (struct loop_fd){ .fd = -1, .on_event = on_readable };
	int r = start_export(l, rq->param[0]);
	if (r < 0) {
		l->over = true;
		leaving_free(l);
		snapshot_fault(r, &fault);
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	rq->job = l;
	rq->on_abort = on_leaving_abort;
	rq->on_drain = on_leaving_drain;
	http_stream_start(rq, "application/octet-stream");
}

/* --- Import -------------------------------------------------------------------------------- */

struct arriving {
	struct snap_import import;
	struct request *rq; /* NULL: answered, or the client is gone */
	struct loop *loop;
	struct loop_fd source;
	int fd;          /* our end */
	bool over;       /* on_done was called */
	bool whole;      /* the body is all here */
	struct buf wait; /* of the body, until the thread takes it */
};

static void arriving_free(struct arriving *a)
{
	loop_del(a->loop, &a->source);
	fd_close(&a->fd);
	if (!a->over)
		return; /* on_imported() comes back here */
	fd_close(&a->import.fd);
	buf_free(&a->wait);
	free(a);
}

/* The thread sees the stream end, and gives up. */
static void on_arriving_abort(struct request *rq)
{
	struct arriving *a = rq->job;

	a->rq = NULL;
	arriving_free(a);
}

static void flush(struct arriving *a)
{
	while (a->wait.len > 0) {
		ssize_t n = send(a->fd, a->wait.data, a->wait.len,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		/* The thread ended: on_imported() tells why. */
		buf_consume(&a->wait, n < 0 ? a->wait.len : (size_t)n);
	}
	int r = loop_mod(a->loop, &a->source, a->wait.len > 0 ? EPOLLOUT : 0);
	if (r < 0)
		log_warn("import: %s; going on", strerror(-r));
	if (a->wait.len == 0 && a->whole)
		(void)shutdown(a->fd, SHUT_WR);
}

static void on_room(struct loop_fd *source, uint32_t events)
{
	struct arriving *a = container_of(source, struct arriving, source);

	if (events & (EPOLLHUP | EPOLLERR)) {
		loop_del(a->loop, source); /* cannot be masked */
		a->wait.len = 0;
	} else {
		flush(a);
	}
	if (a->rq != NULL && !a->whole && a->wait.len == 0)
		http_body_block(a->rq, false);
}

static void on_body(struct request *rq, const char *bytes, size_t n)
{
	struct arriving *a = rq->job;

	if (a->source.fd < 0)
		return; /* the thread ended */
	if (buf_add(&a->wait, bytes, n) < 0) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		a->rq = NULL;
		arriving_free(a);
		return;
	}
	flush(a);
	if (a->wait.len > 0)
		http_body_block(rq, true);
}

static void on_imported(struct snap_import *im, int error)
{
	struct arriving *a = container_of(im, struct arriving, import);
	struct request *rq = a->rq;
	struct fault fault;

	a->over = true;
	a->rq = NULL;
	if (rq != NULL && error == 0) {
		api_snapshot_reply(rq, im->id);
	} else if (rq != NULL) {
		if (error == -EBADMSG)
			(void)fault_set(&fault, 422, "snapshot_damaged",
					"this is no whole, undamaged "
					"snapshot");
		else
			snapshot_fault(error, &fault);
		http_reply_fault(rq, &fault, NULL);
	}
	arriving_free(a);
}

static int start_import(struct arriving *a, struct request *rq)
{
	int r = make_pair(&a->fd, &a->import.fd);

	if (r == 0)
		r = loop_add(a->loop, &a->source, a->fd, 0);
	if (r == 0)
		r = snapstore_import(api_app(rq)->snapstore, &a->import);
	return r;
}

void api_snapshot_import_begin(struct request *rq)
{
	struct fault fault;
	struct arriving *a = calloc(1, sizeof(*a));

	if (a == NULL) {
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	a->rq = rq;
	a->loop = api_app(rq)->loop;
	a->fd = -1;
	a->wait.max = STREAM_MAX_BYTES;
	a->source = (struct loop_fd){ .fd = -1, .on_event = on_room };
	a->import.fd = -1;
	a->import.tenant = rq->tenant;
	a->import.on_done = on_imported;
	int r = start_import(a, rq);
	if (r < 0) {
		a->over = true;
		arriving_free(a);
		snapshot_fault(r, &fault);
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	rq->job = a;
	rq->on_abort = on_arriving_abort;
	rq->on_body = on_body;
}

/* The body is whole; the answer comes when the thread has read it. */
void api_snapshot_import(struct request *rq)
{
	struct arriving *a = rq->job;

	a->whole = true;
	if (a->source.fd >= 0)
		flush(a);
}
