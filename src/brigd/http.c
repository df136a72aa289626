/* http.c - libmicrohttpd in our event loop: requests in, replies out.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "gate.h"
#include "http.h"
#include "id.h"
#include "log.h"
#include "route.h"
#include "utf8.h"

#define ENDPOINTS_MAX 2 /* TCP and unix socket */
#define STREAM_BLOCK_BYTES (32u << 10)

/* One listening socket. */
struct endpoint {
	struct http *http;
	struct MHD_Daemon *daemon;
	struct loop_fd source;   /* the daemon's epoll descriptor */
	struct loop_timer timer; /* its next time-out, or "run it soon" */
};

/* One TCP connection. */
struct http_client {
	struct http *http;
	struct endpoint *endpoint;
	int fd;               /* libmicrohttpd's */
	struct loop_fd watch; /* while its request is suspended */
	struct loop_timer deadline;
	struct request *request; /* the one that is being answered */
	bool waiting;            /* for a request header */
	bool bad_uri;
	bool streaming_body; /* of its request, comes in */
	TAILQ_ENTRY(http_client) all;
	TAILQ_ENTRY(http_client) wait;
};

TAILQ_HEAD(client_list, http_client);

struct http {
	struct loop *loop;
	void *app;
	struct endpoint endpoints[ENDPOINTS_MAX];
	size_t endpoint_count;
	struct client_list clients;
	struct client_list waiting; /* oldest first */
	unsigned int waiting_count;
};

/* --- The daemon in our loop -------------------------------------------------- */

static void run_daemon(struct endpoint *ep)
{
	unsigned MHD_LONG_LONG ms = 0;

	if (ep->daemon == NULL)
		return;
	(void)MHD_run(ep->daemon);
	if (MHD_get_timeout(ep->daemon, &ms) == MHD_YES)
		loop_timer_set(ep->http->loop, &ep->timer,
			       (uint64_t)ms * NS_PER_MS);
	else
		loop_timer_del(ep->http->loop, &ep->timer);
}

static void on_ready(struct loop_fd *source, uint32_t events)
{
	(void)events;
	run_daemon(container_of(source, struct endpoint, source));
}

static void on_timer(struct loop_timer *timer)
{
	run_daemon(container_of(timer, struct endpoint, timer));
}

/* A suspended connection was resumed: have it served in this round. */
static void kick(struct endpoint *ep)
{
	loop_timer_set(ep->http->loop, &ep->timer, 0);
}

/* --- Connections --------------------------------------------------------------- */

static void stop_waiting(struct http_client *cl)
{
	if (!cl->waiting)
		return;
	TAILQ_REMOVE(&cl->http->waiting, cl, wait);
	cl->http->waiting_count--;
	cl->waiting = false;
	loop_timer_del(cl->http->loop, &cl->deadline);
}

static void start_waiting(struct http_client *cl, unsigned int seconds)
{
	struct http *http = cl->http;

	TAILQ_INSERT_TAIL(&http->waiting, cl, wait);
	http->waiting_count++;
	cl->waiting = true;
	loop_timer_set(http->loop, &cl->deadline, seconds * NS_PER_S);
	if (http->waiting_count > CLIENTS_WAITING_MAX) {
		struct http_client *oldest = TAILQ_FIRST(&http->waiting);
		stop_waiting(oldest);
		(void)shutdown(oldest->fd, SHUT_RDWR);
	}
}

/* The client sent all it will ever send, and libmicrohttpd has read it. It may
 * not know: its edge-triggered reader takes a short read for "nothing more
 * now", also when the end of the stream came along with those bytes. */
static bool has_left(const struct http_client *cl)
{
	struct pollfd p = { .fd = cl->fd, .events = POLLRDHUP };
	int unread = 0;

	return poll(&p, 1, 0) == 1 && ioctl(cl->fd, SIOCINQ, &unread) == 0 &&
	       unread == 0;
}

/* The header or a JSON body did not come in time, or the client left in the
 * middle of a streamed body; libmicrohttpd sees the end of the stream and
 * frees the connection. */
static void on_deadline(struct loop_timer *timer)
{
	struct http_client *cl =
		container_of(timer, struct http_client, deadline);

	if (cl->streaming_body && !has_left(cl)) {
		loop_timer_set(cl->http->loop, timer, BODY_CHECK_S * NS_PER_S);
		return;
	}
	stop_waiting(cl);
	(void)shutdown(cl->fd, SHUT_RDWR);
}

static void abort_request(struct request *rq)
{
	void (*on_abort)(struct request *) = rq->on_abort;

	rq->gone = true;
	rq->on_abort = NULL;
	rq->on_drain = NULL;
	if (on_abort != NULL)
		on_abort(rq);
	rq->job = NULL;
}

static void resume(struct request *rq)
{
	if (!rq->suspended)
		return;
	rq->suspended = false;
	loop_del(rq->http->loop, &rq->client->watch);
	MHD_resume_connection(rq->mhd);
	kick(rq->client->endpoint);
}

static void on_client_gone(struct loop_fd *source, uint32_t events)
{
	struct http_client *cl =
		container_of(source, struct http_client, watch);
	struct request *rq = cl->request;

	(void)events;
	loop_del(cl->http->loop, &cl->watch);
	if (rq == NULL)
		return;
	log_debug("request=%s client=gone", rq->id);
	abort_request(rq);
	resume(rq);
}

static void suspend(struct request *rq)
{
	struct http_client *cl = rq->client;

	if (rq->suspended)
		return;
	rq->suspended = true;
	MHD_suspend_connection(rq->mhd);
	int r = loop_add(rq->http->loop, &cl->watch, cl->fd, EPOLLRDHUP);
	if (r < 0)
		log_warn("request=%s watching its client: %s; going on", rq->id,
			 strerror(-r));
}

static void client_open(struct endpoint *ep, int fd, void **ret)
{
	struct http_client *cl = calloc(1, sizeof(*cl));

	*ret = cl;
	if (cl == NULL)
		return; /* its requests are refused */
	cl->http = ep->http;
	cl->endpoint = ep;
	cl->fd = fd;
	cl->watch.fd = -1;
	cl->watch.on_event = on_client_gone;
	cl->deadline.on_expire = on_deadline;
	TAILQ_INSERT_TAIL(&ep->http->clients, cl, all);
	start_waiting(cl, HEADER_TIMEOUT_S);
}

static void client_close(struct http_client *cl)
{
	if (cl == NULL)
		return;
	stop_waiting(cl);
	loop_timer_del(cl->http->loop, &cl->deadline);
	loop_del(cl->http->loop, &cl->watch);
	TAILQ_REMOVE(&cl->http->clients, cl, all);
	free(cl);
}

static void on_connection(void *cls, struct MHD_Connection *c, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);

	if (code == MHD_CONNECTION_NOTIFY_CLOSED)
		client_close(*context);
	else if (info != NULL)
		client_open(cls, info->connect_fd, context);
}

static struct http_client *client_of(struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info == NULL ? NULL : info->socket_context;
}

/* --- Requests: in ---------------------------------------------------------------- */

static struct request *request_new(struct endpoint *ep,
				   struct MHD_Connection *c)
{
	struct http_client *cl = client_of(c);
	struct request *rq;

	if (cl == NULL)
		return NULL;
	rq = calloc(1, sizeof(*rq));
	if (rq == NULL)
		return NULL;
	rq->http = ep->http;
	rq->client = cl;
	rq->mhd = c;
	rq->body.max = JSON_BODY_MAX;
	rq->stream.max = STREAM_MAX_BYTES;
	id_make(rq->id, "req_");
	cl->request = rq;
	stop_waiting(cl);
	return rq;
}

static enum MHD_Result queue_reply(struct request *rq)
{
	struct MHD_Response *response = rq->response;

	rq->response = NULL;
	rq->started = true;
	enum MHD_Result r = MHD_queue_response(rq->mhd, rq->status, response);
	MHD_destroy_response(response);
	return r;
}

/* Reads on if the reply is there or the body is not; else waits. */
static enum MHD_Result settle(struct request *rq)
{
	if (rq->gone)
		return MHD_NO;
	if (rq->response != NULL)
		return queue_reply(rq);
	suspend(rq);
	return MHD_YES;
}

/* The header is there. */
static enum MHD_Result begin(struct request *rq, const char *method,
			     const char *path)
{
	struct fault fault;
	struct gate_result gate;
	struct http_client *cl = rq->client;

	int r = gate_check(rq, method, path, cl->bad_uri, &gate, &fault);
	cl->bad_uri = false;
	rq->close = gate.ambiguous || gate.body_bytes == GATE_BODY_UNKNOWN;
	cl->streaming_body = r == 0 && (rq->route->flags & ROUTE_STREAM) != 0;
	if (gate.has_body)
		loop_timer_set(rq->http->loop, &cl->deadline,
			       NS_PER_S * (cl->streaming_body
						   ? BODY_CHECK_S
						   : BODY_TIMEOUT_S));
	if (r == 0) {
		if (rq->route->begin != NULL)
			rq->route->begin(rq);
		if (rq->response != NULL && gate.expects_continue)
			return queue_reply(rq);
		return MHD_YES;
	}
	http_reply_fault(rq, &fault, NULL);
	rq->draining = true;
	bool too_long = gate.has_body && gate.body_bytes > DRAIN_BODY_MAX &&
			gate.body_bytes != GATE_BODY_UNKNOWN;
	if (gate.ambiguous || too_long ||
	    (gate.has_body && gate.expects_continue))
		return queue_reply(rq); /* closes the connection after it */
	return MHD_YES;
}

static void take_json(struct request *rq, const char *bytes, size_t n)
{
	int r = buf_add(&rq->body, bytes, n);

	if (r == 0)
		return;
	buf_free(&rq->body);
	if (r == -ENOSPC)
		http_reply_error(rq, 413, "too_large",
				 "the body is larger than %u bytes",
				 JSON_BODY_MAX);
	else
		http_reply_error(rq, 500, "no_memory", "out of memory");
}

static enum MHD_Result take_body(struct request *rq, const char *bytes,
				 size_t *n)
{
	uint64_t drain_max = DRAIN_BODY_MAX;

	if (rq->route != NULL && rq->route->body_max > drain_max)
		drain_max = rq->route->body_max;
	if (rq->blocked && rq->response == NULL) {
		suspend(rq);
		return MHD_YES;
	}
	rq->body_bytes += *n;
	if (rq->response != NULL || rq->draining) {
		if (rq->body_bytes > drain_max)
			return MHD_NO;
	} else if (rq->on_body != NULL) {
		rq->on_body(rq, bytes, *n);
	} else {
		take_json(rq, bytes, *n);
	}
	*n = 0;
	return MHD_YES;
}

/* NOLINTNEXTLINE(readability-function-size): MHD_AccessHandlerCallback's. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *c,
				  const char *path, const char *method,
				  const char *version, const char *bytes,
				  size_t *n, void **context)
{
	struct request *rq = *context;

	(void)version;
	if (rq == NULL) {
		rq = request_new(cls, c);
		*context = rq;
		return rq == NULL ? MHD_NO : begin(rq, method, path);
	}
	if (rq->gone)
		return MHD_NO;
	if (*n > 0)
		return take_body(rq, bytes, n);
	if (!rq->dispatched) {
		rq->dispatched = true;
		loop_timer_del(rq->http->loop, &rq->client->deadline);
		if (rq->response == NULL)
			rq->route->handle(rq);
	}
	return settle(rq);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **context,
			 enum MHD_RequestTerminationCode code)
{
	struct request *rq = *context;

	(void)cls;
	(void)c;
	(void)code;
	if (rq == NULL)
		return;
	abort_request(rq);
	loop_timer_del(rq->http->loop, &rq->client->deadline);
	loop_del(rq->http->loop, &rq->client->watch);
	rq->client->request = NULL;
	rq->client->streaming_body = false;
	start_waiting(rq->client, KEEPALIVE_TIMEOUT_S);
	if (rq->response != NULL)
		MHD_destroy_response(rq->response);
	buf_free(&rq->body);
	buf_free(&rq->stream);
	free(rq);
	*context = NULL;
}

/* Sees the request line as it came: after unescaping, "%00" would silently
 * end the text there. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
	struct http_client *cl = client_of(c);

	(void)cls;
	if (cl != NULL)
		cl->bad_uri = strstr(uri, "%00") != NULL;
	return NULL;
}

__attribute__((format(printf, 2, 0))) static void
on_mhd_log(void *cls, const char *fmt, va_list ap)
{
	char text[256];

	(void)cls;
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("http: %s", text); /* clients can cause any number */
}

/* --- Requests: out --------------------------------------------------------------- */

static void set_reply(struct request *rq, unsigned int status, const char *type,
		      struct MHD_Response *response)
{
	rq->job = NULL;
	rq->on_abort = NULL;
	rq->on_drain = NULL;
	rq->on_body = NULL;
	rq->blocked = false;
	if (response == NULL) {
		rq->gone = true; /* no memory: all we can do is close */
	} else {
		ASSERT(rq->response == NULL && !rq->started);
		if (type != NULL)
			(void)MHD_add_response_header(
				response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
		(void)MHD_add_response_header(response, "x-request-id", rq->id);
		if (rq->close)
			(void)MHD_add_response_header(
				response, MHD_HTTP_HEADER_CONNECTION, "close");
		rq->response = response;
		rq->status = status;
	}
	resume(rq);
}

static void reply_text(struct request *rq, unsigned int status, char *text)
{
	struct MHD_Response *response = NULL;

	if (text != NULL)
		response = MHD_create_response_from_buffer(
			strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (response != NULL && (status == 429 || status == 503))
		(void)MHD_add_response_header(response,
					      MHD_HTTP_HEADER_RETRY_AFTER, "1");
	set_reply(rq, status, "application/json", response);
}

void http_reply_json(struct request *rq, json_t *value)
{
	char *text = value == NULL ? NULL : json_dumps(value, JSON_COMPACT);

	json_decref(value);
	reply_text(rq, 200, text);
}

void http_reply_buf(struct request *rq, const char *type, struct buf *text)
{
	size_t n = text->len;
	struct MHD_Response *response = MHD_create_response_from_buffer(
		n, n > 0 ? text->data : NULL,
		n > 0 ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);

	if (response == NULL || n == 0)
		free(text->data);
	*text = (struct buf)BUF_INIT(text->max);
	set_reply(rq, 200, type, response);
}

void http_reply_empty(struct request *rq)
{
	set_reply(rq, 204, NULL,
		  MHD_create_response_from_buffer(0, NULL,
						  MHD_RESPMEM_PERSISTENT));
}

void http_reply_fault(struct request *rq, const struct fault *fault,
		      json_t *details)
{
	if (details == NULL)
		details = json_object();
	/* The text may quote a client cut in the middle of a character. */
	struct buf text = BUF_INIT((size_t)8 * FAULT_TEXT_BYTES);
	int r = utf8_add(&text, (const uint8_t *)fault->text,
			 strlen(fault->text));
	json_t *v = json_pack("{s:{s:s, s:s, s:o, s:s}}", "error", "code",
			      fault->code, "message",
			      r == 0 && text.len > 0 ? text.data : "",
			      "details", details, "request_id", rq->id);
	char *out = v == NULL ? NULL : json_dumps(v, JSON_COMPACT);

	json_decref(v);
	buf_free(&text);
	log_debug("request=%s status=%u code=%s", rq->id, fault->status,
		  fault->code);
	reply_text(rq, fault->status, out);
}

void http_reply_error(struct request *rq, unsigned int status, const char *code,
		      const char *fmt, ...)
{
	struct fault fault = { .status = status, .code = code };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(fault.text, sizeof(fault.text), fmt, ap);
	va_end(ap);
	http_reply_fault(rq, &fault, NULL);
}

/* --- Streams --------------------------------------------------------------------- */

static ssize_t read_stream(void *cls, uint64_t pos, char *to, size_t max)
{
	struct request *rq = cls;
	size_t n = rq->stream.len - rq->stream_at;

	(void)pos;
	if (rq->gone || rq->stream_failed)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (n == 0 && rq->stream_ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (n == 0) {
		suspend(rq);
		return 0;
	}
	n = n < max ? n : max;
	memcpy(to, rq->stream.data + rq->stream_at, n);
	rq->stream_at += n;
	if (rq->stream_at == rq->stream.len) {
		rq->stream_at = 0;
		rq->stream.len = 0;
	}
	if (rq->stream.len - rq->stream_at <= STREAM_LOW_BYTES &&
	    rq->on_drain != NULL)
		rq->on_drain(rq);
	return (ssize_t)n;
}

void http_stream_start(struct request *rq, const char *type)
{
	void *job = rq->job;
	void (*on_abort)(struct request *) = rq->on_abort;
	void (*on_drain)(struct request *) = rq->on_drain;

	rq->streaming = true;
	set_reply(rq, 200, type,
		  MHD_create_response_from_callback(MHD_SIZE_UNKNOWN,
						    STREAM_BLOCK_BYTES,
						    read_stream, rq, NULL));
	rq->job = job;
	rq->on_abort = on_abort;
	rq->on_drain = on_drain;
}

struct buf *http_stream_buf(struct request *rq)
{
	if (rq->stream_at > STREAM_HIGH_BYTES / 2) {
		buf_consume(&rq->stream, rq->stream_at);
		rq->stream_at = 0;
	}
	return &rq->stream;
}

void http_stream_push(struct request *rq)
{
	ASSERT(rq->streaming);
	if (rq->started && rq->stream.len > rq->stream_at)
		resume(rq);
}

bool http_stream_full(const struct request *rq)
{
	return rq->stream.len - rq->stream_at > STREAM_HIGH_BYTES;
}

void http_stream_end(struct request *rq, bool ok)
{
	rq->stream_ended = true;
	rq->stream_failed = !ok;
	rq->job = NULL;
	rq->on_abort = NULL;
	rq->on_drain = NULL;
	resume(rq);
}

void http_body_block(struct request *rq, bool blocked)
{
	rq->blocked = blocked;
	if (!blocked)
		resume(rq);
}

/* --- Values ---------------------------------------------------------------------- */

const char *http_query(const struct request *rq, const char *name)
{
	return MHD_lookup_connection_value(rq->mhd, MHD_GET_ARGUMENT_KIND,
					   name);
}

const char *http_header(const struct request *rq, const char *name)
{
	return MHD_lookup_connection_value(rq->mhd, MHD_HEADER_KIND, name);
}

void *http_app(const struct http *http)
{
	return http->app;
}

/* --- Life ------------------------------------------------------------------------ */

struct http *http_new(struct loop *loop, void *app)
{
	struct http *http = calloc(1, sizeof(*http));

	if (http == NULL)
		return NULL;
	http->loop = loop;
	http->app = app;
	TAILQ_INIT(&http->clients);
	TAILQ_INIT(&http->waiting);
	return http;
}

int http_listen(struct http *http, int fd)
{
	ASSERT(http->endpoint_count < ENDPOINTS_MAX);
	struct endpoint *ep = &http->endpoints[http->endpoint_count];

	*ep = (struct endpoint){
		.http = http,
		.source = { .fd = -1, .on_event = on_ready },
		.timer = { .on_expire = on_timer },
	};
	ep->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
		NULL, NULL, on_request, ep, MHD_OPTION_EXTERNAL_LOGGER,
		on_mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, CLIENTS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CLIENT_MEMORY_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, CLIENT_IDLE_TIMEOUT_S,
		MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
		ep, MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
	if (ep->daemon == NULL)
		return -EIO;
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(ep->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int r = info == NULL ? -EIO
			     : loop_add(http->loop, &ep->source, info->epoll_fd,
					EPOLLIN);
	if (r < 0) {
		MHD_stop_daemon(ep->daemon);
		ep->daemon = NULL;
		return r;
	}
	http->endpoint_count++;
	run_daemon(ep);
	return 0;
}

void http_quiesce(struct http *http)
{
	for (size_t i = 0; i < http->endpoint_count; i++) {
		int fd = MHD_quiesce_daemon(http->endpoints[i].daemon);
		fd_close(&fd);
	}
}

void http_free(struct http *http)
{
	struct http_client *cl;

	if (http == NULL)
		return;
	/* libmicrohttpd may not be stopped with a suspended connection. */
	TAILQ_FOREACH(cl, &http->clients, all) {
		if (cl->request != NULL) {
			abort_request(cl->request);
			resume(cl->request);
		}
	}
	for (size_t i = 0; i < http->endpoint_count; i++) {
		struct endpoint *ep = &http->endpoints[i];
		loop_del(http->loop, &ep->source);
		loop_timer_del(http->loop, &ep->timer);
		(void)MHD_run(ep->daemon);
		MHD_stop_daemon(ep->daemon);
		loop_timer_del(http->loop, &ep->timer);
	}
	free(http);
}
