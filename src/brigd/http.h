/* http.h - libmicrohttpd in our event loop: requests in, replies out.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * libmicrohttpd runs without threads. Its epoll descriptor is a source of our
 * loop; whenever it is ready, or a timer of it is due, MHD_run() does what can
 * be done. A request whose answer has to wait (for a guest, for a slow
 * reader) is suspended. libmicrohttpd does not notice that the client of a
 * suspended request went away, so for that time we watch the client's socket
 * ourselves for EPOLLRDHUP.
 *
 * Life of a request:
 *
 *   headers --> refused at once (framing, key, route, size): the rest of a
 *      |        small body is read and dropped, then the fault is sent
 *      |
 *      +------> body collected (JSON), or given to request.on_body piecewise
 *                    |
 *                  route.handle(rq)
 *                    |
 *        http_reply_*(rq) now, or later  |  http_stream_start(rq, ...) and
 *                                        |  http_stream_*(rq) until the end
 *
 * A handler that answers later keeps `rq` as its own reference and sets
 * rq->job and rq->on_abort. The reference ends with http_reply_*(),
 * http_stream_end(), or when on_abort is called (the client is gone); these
 * clear job and on_abort. After that rq must not be touched.
 *
 * One thread; nothing here may be called from another.
 */
#ifndef BRIGD_HTTP_H
#define BRIGD_HTTP_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "fault.h"
#include "limits.h"
#include "loop.h"
#include "wire/limits.h"

#define HTTP_PARAMS_MAX 2
#define HTTP_PARAM_BYTES 64

struct http;
struct http_client;
struct route;

struct request {
	struct http *http;          /* owner */
	struct http_client *client; /* the connection it came on */
	struct MHD_Connection *mhd;
	const struct route *route; /* NULL when refused before routing */
	char id[BRIG_ID_BYTES];    /* "req_..." */
	char param[HTTP_PARAMS_MAX][HTTP_PARAM_BYTES]; /* of the path */
	int64_t tenant;  /* whose key it was; 0: no key needed */
	struct buf body; /* JSON text, when the handler runs */

	/* The handler's own, while it owes an answer. */
	void *job;
	void (*on_abort)(struct request *rq); /* client gone; drop job */
	void (*on_drain)(struct request *rq); /* stream has room again */

	/* Routes with a streamed body: called for each piece, all of which
	 * must be taken. Set *blocked_* through http_body_block(). */
	void (*on_body)(struct request *rq, const char *bytes, size_t n);

	/* Private to http.c. */
	struct MHD_Response *response;
	unsigned int status;
	uint64_t body_bytes;
	struct buf stream;
	size_t stream_at;
	bool started, dispatched, suspended, gone, close, draining, blocked;
	bool streaming, stream_ended, stream_failed;
};

struct http *http_new(struct loop *loop, void *app);

/* The pointer given to http_new. */
void *http_app(const struct http *http);

/* Serves a listening socket (owned by http after success). 0 or -errno. */
must_check int http_listen(struct http *http, int fd);

/* Closes the listening sockets: no new connection from here on. */
void http_quiesce(struct http *http);

/* Ends all connections and frees everything. Aborts what still runs. */
void http_free(struct http *http);

/* --- For handlers ----------------------------------------------------------- */

/* A value of the query or a header, or NULL; borrowed until the request ends.
 * Chosen by the client; holds no NUL. */
const char *http_query(const struct request *rq, const char *name);
const char *http_header(const struct request *rq, const char *name);

/* Sends 200 and a JSON value (taken; NULL counts as out of memory). */
void http_reply_json(struct request *rq, json_t *value);

/* Sends `text` (its memory is taken and the buffer emptied). */
void http_reply_buf(struct request *rq, const char *type, struct buf *text);

/* Sends 204. */
void http_reply_empty(struct request *rq);

/* Sends an error body. `details` may be NULL; it is taken. */
void http_reply_fault(struct request *rq, const struct fault *fault,
		      json_t *details);
printf_like(4, 5) void http_reply_error(struct request *rq, unsigned int status,
					const char *code, const char *fmt, ...);

/* Begins a 200 whose body follows by http_stream_add(). */
void http_stream_start(struct request *rq, const char *type);

/* Where to append stream bytes; then call http_stream_push(). Valid until the
 * next call of anything in this module. */
struct buf *http_stream_buf(struct request *rq);
void http_stream_push(struct request *rq);

/* True when the source should pause until on_drain. */
must_check bool http_stream_full(const struct request *rq);

/* Ends the body; with `ok` false the connection is cut so that the client
 * cannot take it for whole. */
void http_stream_end(struct request *rq, bool ok);

/* Stops (or goes on) reading a streamed body. */
void http_body_block(struct request *rq, bool blocked);

#endif
