/* api_files.c - download and upload: files in and out of a sandbox.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Both stream with bounded memory. A path is the guest's business: it is
 * passed on as data and never becomes a path of the host.
 *
 * Upload: when the form has `path` before `file`, the bytes go to the guest
 * as they come; the other way round they wait in an unnamed file of the host
 * until `path` is known.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "api.h"
#include "args.h"
#include "fd.h"
#include "log.h"
#include "num.h"

/* Where the agent begins relative paths (wire/guest.h). */
#define GUEST_HOME "/root/"

#define IDLE_NS (TRANSFER_IDLE_TIMEOUT_S * NS_PER_S)
#define SPOOL_PIECE_BYTES (32u << 10)

/* The post processor's own buffer: a line of a part's header fits. */
#define FORM_BUFFER_BYTES (16u << 10)

/* Bytes of the file that came before the agent's connection stood: one body
 * piece, after which the body is blocked. */
#define PENDING_MAX ((size_t)2 * CLIENT_MEMORY_BYTES)

/* --- Download ---------------------------------------------------------------------------------- */

struct download {
	struct agent agent;
	struct request *rq;
	struct sandbox *sb;
	bool streaming;
};

static void download_free(struct download *d)
{
	agent_stop(&d->agent);
	free(d);
}

static void fail_download(struct download *d, const struct fault *fault)
{
	if (d->streaming)
		http_stream_end(d->rq, false);
	else
		api_reply_sandbox_fault(d->rq, fault, d->sb);
	download_free(d);
}

static void on_download_drain(struct request *rq)
{
	struct download *d = rq->job;

	agent_set_deadline(&d->agent, IDLE_NS);
	guest_conn_pause(d->agent.conn, false);
}

static void begin_download(struct download *d, const struct frame *f)
{
	struct guest_file_info info;
	struct fault fault;

	frame_copy(f, &info, sizeof(info));
	if (S_ISREG(info.mode)) {
		d->streaming = true;
		d->rq->on_drain = on_download_drain;
		http_stream_start(d->rq, "application/octet-stream");
		return;
	}
	(void)fault_set(&fault, 422,
			S_ISDIR(info.mode) ? "is_a_directory" : "not_a_file",
			S_ISDIR(info.mode) ? "the path is a directory"
					   : "the path is no regular file");
	fail_download(d, &fault);
}

static void add_download(struct download *d, const struct frame *f)
{
	struct fault fault;

	if (buf_add(http_stream_buf(d->rq), f->payload, f->length) < 0) {
		(void)fault_set(&fault, 500, "no_memory", "out of memory");
		fail_download(d, &fault);
		return;
	}
	http_stream_push(d->rq);
	if (http_stream_full(d->rq)) {
		/* A slow client is libmicrohttpd's to time out. */
		agent_set_deadline(&d->agent, 0);
		guest_conn_pause(d->agent.conn, true);
	}
}

static void on_download_frame(void *arg, const struct frame *f)
{
	struct download *d = arg;
	struct fault fault;

	agent_set_deadline(&d->agent, IDLE_NS);
	if (f->type == GUEST_FILE_INFO && !d->streaming) {
		begin_download(d, f);
	} else if (f->type == GUEST_DATA && d->streaming) {
		add_download(d, f);
	} else if (f->type == GUEST_END && d->streaming) {
		http_stream_end(d->rq, true);
		download_free(d);
	} else if (f->type == GUEST_ERROR) {
		agent_fault_of_frame(f, &fault);
		fail_download(d, &fault);
	} else {
		agent_fault(d->sb, -EPROTO, &fault);
		fail_download(d, &fault);
	}
}

static void on_download_end(void *arg, int error)
{
	struct download *d = arg;
	struct fault fault;

	agent_fault(d->sb, error, &fault);
	fail_download(d, &fault);
}

static const struct agent_events download_events = {
	.on_frame = on_download_frame,
	.on_end = on_download_end,
};

static void on_download_abort(struct request *rq)
{
	download_free(rq->job);
}

static int encode(struct buf *to, const void *head, size_t n, const char *path)
{
	int r = buf_add(to, head, n);

	return r < 0 ? r : buf_add(to, path, strlen(path) + 1);
}

void api_download(struct request *rq)
{
	struct guest_read head = { .length = UINT64_MAX };
	struct buf payload = BUF_INIT(BRIG_FRAME_MAX);
	const char *path = http_query(rq, "path");
	struct fault fault;
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (args_check_path(path, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	struct download *d = calloc(1, sizeof(*d));
	if (d == NULL || encode(&payload, &head, sizeof(head), path) < 0) {
		buf_free(&payload);
		free(d);
		http_reply_error(rq, 500, "no_memory", "out of memory");
		return;
	}
	d->rq = rq;
	d->sb = sb;
	d->agent.events = &download_events;
	d->agent.arg = d;
	if (agent_start(&d->agent, sb, GUEST_READ, &payload, &fault) < 0) {
		free(d);
		api_reply_sandbox_fault(rq, &fault, sb);
		return;
	}
	rq->job = d;
	rq->on_abort = on_download_abort;
}

/* --- Upload ------------------------------------------------------------------------------------ */

struct upload {
	struct agent agent;
	struct request *rq;
	struct sandbox *sb; /* valid while the agent is active */
	char sandbox_id[BRIG_ID_BYTES];
	struct MHD_PostProcessor *form;
	struct buf path;
	bool path_seen;
	bool file_seen;
	bool sending;   /* WRITE was started */
	bool body_done; /* the whole form was read */
	bool end_sent;
	bool refused;        /* in the form's iterator: see `fault` */
	uint64_t file_bytes; /* of `file` so far */
	struct buf pending;  /* waits for the connection */
	int spool;           /* -1: none */
	uint64_t spool_at;
	struct fault fault;
};

static void upload_free(struct upload *u)
{
	agent_stop(&u->agent);
	if (u->form != NULL)
		(void)MHD_destroy_post_processor(u->form);
	buf_free(&u->path);
	buf_free(&u->pending);
	fd_close(&u->spool);
	free(u);
}

static void fail_upload(struct upload *u, const struct fault *fault)
{
	if (u->sending)
		api_reply_sandbox_fault(u->rq, fault, u->sb);
	else
		http_reply_fault(u->rq, fault, NULL);
	upload_free(u);
}

static void on_upload_abort(struct request *rq)
{
	upload_free(rq->job);
}

/* Silence of the guest counts only while we wait for it. */
static void update_deadline(struct upload *u)
{
	bool waiting = u->end_sent || guest_conn_full(u->agent.conn);

	agent_set_deadline(&u->agent, waiting ? IDLE_NS : 0);
}

/* Sends what waits, as far as there is room; 0 or -errno. */
static int pump_spool(struct upload *u)
{
	static char piece[SPOOL_PIECE_BYTES];

	while (u->spool >= 0 && !guest_conn_full(u->agent.conn)) {
		ssize_t n = fd_pread_all(u->spool, piece, sizeof(piece),
					 (off_t)u->spool_at);
		if (n < 0)
			return (int)n;
		if (n == 0) {
			fd_close(&u->spool);
			return 0;
		}
		int r = guest_conn_send_data(u->agent.conn, GUEST_DATA, piece,
					     (size_t)n);
		if (r < 0)
			return r;
		u->spool_at += (uint64_t)n;
	}
	return 0;
}

static void pump(struct upload *u)
{
	struct guest_conn *conn = u->agent.conn;
	int r = 0;

	if (u->pending.len > 0)
		r = guest_conn_send_data(conn, GUEST_DATA, u->pending.data,
					 u->pending.len);
	buf_free(&u->pending);
	if (r == 0)
		r = pump_spool(u);
	if (r == 0 && u->body_done && u->spool < 0 && !u->end_sent) {
		r = guest_conn_send(conn, GUEST_END, NULL, 0);
		u->end_sent = true;
	}
	if (r < 0) {
		agent_fault(u->sb, r, &u->fault);
		fail_upload(u, &u->fault);
		return;
	}
	update_deadline(u);
	if (!guest_conn_full(conn))
		http_body_block(u->rq, false);
}

static void on_upload_open(void *arg)
{
	pump(arg);
}

static void on_upload_frame(void *arg, const struct frame *f)
{
	struct upload *u = arg;
	struct fault fault;

	if (f->type == GUEST_FILE_INFO && u->end_sent) {
		json_t *path = json_sprintf(
			"%s%s", u->path.data[0] == '/' ? "" : GUEST_HOME,
			u->path.data);
		http_reply_json(u->rq,
				json_pack("{s:s, s:o, s:I}", "message",
					  "File uploaded", "path", path, "size",
					  (json_int_t)u->file_bytes));
		upload_free(u);
		return;
	}
	if (f->type == GUEST_ERROR)
		agent_fault_of_frame(f, &fault);
	else
		agent_fault(u->sb, -EPROTO, &fault);
	fail_upload(u, &fault);
}

static void on_upload_end(void *arg, int error)
{
	struct upload *u = arg;
	struct fault fault;

	agent_fault(u->sb, error, &fault);
	fail_upload(u, &fault);
}

static const struct agent_events upload_events = {
	.on_open = on_upload_open,
	.on_frame = on_upload_frame,
	.on_end = on_upload_end,
	.on_writable = on_upload_open,
};

static int start_write(struct upload *u, struct fault *fault)
{
	struct guest_write head = { .size = UINT64_MAX };
	struct buf payload = BUF_INIT(BRIG_FRAME_MAX);

	int r = args_check_path(u->path.data, fault);
	if (r < 0)
		return r;
	u->sb = sandbox_find(api_app(u->rq)->sandboxes, u->rq->tenant,
			     u->sandbox_id);
	if (u->sb == NULL)
		return fault_set(fault, 404, "not_found", "no such sandbox");
	if (u->body_done)
		head.size = u->file_bytes;
	if (encode(&payload, &head, sizeof(head), u->path.data) < 0) {
		buf_free(&payload);
		return fault_set(fault, 500, "no_memory", "out of memory");
	}
	u->agent.events = &upload_events;
	u->agent.arg = u;
	r = agent_start(&u->agent, u->sb, GUEST_WRITE, &payload, fault);
	u->sending = r == 0;
	return r;
}

static int spool(struct upload *u, const char *bytes, size_t n,
		 struct fault *fault)
{
	if (u->spool < 0)
		u->spool = snapstore_file(api_app(u->rq)->snapstore);
	int r = u->spool < 0 ? u->spool : fd_write_all(u->spool, bytes, n);
	if (r == 0)
		return 0;
	log_error("upload: spool: %s", strerror(-r));
	return fault_set(fault, 503, "no_capacity",
			 "the host has no room for the upload; send `path` "
			 "before `file` to avoid the detour");
}

/* A piece of `file`. */
static int take_file(struct upload *u, const char *bytes, size_t n,
		     struct fault *fault)
{
	int r = 0;

	u->file_bytes += n;
	if (u->file_bytes > UPLOAD_MAX_BYTES)
		return fault_set(fault, 413, "too_large",
				 "the file is larger than %llu bytes",
				 UPLOAD_MAX_BYTES);
	if (!u->path_seen)
		return spool(u, bytes, n, fault);
	if (!u->sending)
		r = start_write(u, fault);
	if (r < 0)
		return r;
	if (u->agent.conn == NULL) {
		r = buf_add(&u->pending, bytes, n);
		http_body_block(u->rq, true);
	} else {
		r = guest_conn_send_data(u->agent.conn, GUEST_DATA, bytes, n);
		update_deadline(u);
		if (guest_conn_full(u->agent.conn))
			http_body_block(u->rq, true);
	}
	if (r < 0)
		agent_fault(u->sb, r, fault);
	return r;
}

static int take_path(struct upload *u, const char *bytes, size_t n,
		     struct fault *fault)
{
	if (memchr(bytes, '\0', n) != NULL)
		return fault_set(fault, 422, "invalid_field",
				 "`path` must not hold a NUL character");
	if (buf_add(&u->path, bytes, n) < 0)
		return fault_set(fault, 422, "invalid_field",
				 "`path` is longer than %u bytes",
				 BRIG_PATH_BYTES - 1);
	u->path_seen = true;
	return 0;
}

/* A piece of a part; `off` 0 begins one. Must not free `u`.
 * NOLINTNEXTLINE(readability-function-size): MHD_PostDataIterator's arguments. */
static enum MHD_Result on_part(void *cls, enum MHD_ValueKind kind,
			       const char *key, const char *filename,
			       const char *type, const char *encoding,
			       const char *bytes, uint64_t off, size_t n)
{
	struct upload *u = cls;
	int r = 0;

	(void)kind;
	(void)filename;
	(void)type;
	(void)encoding;
	if (u->refused)
		return MHD_NO;
	if (key != NULL && strcmp(key, "file") == 0) {
		if (off == 0 && u->file_bytes > 0)
			r = fault_set(&u->fault, 422, "invalid_field",
				      "`file` is given twice");
		else
			r = take_file(u, bytes, n, &u->fault);
		u->file_seen = true;
	} else if (key != NULL && strcmp(key, "path") == 0) {
		if (off == 0 && u->path_seen)
			r = fault_set(&u->fault, 422, "invalid_field",
				      "`path` is given twice");
		else
			r = take_path(u, bytes, n, &u->fault);
	}
	u->refused = r < 0;
	return r < 0 ? MHD_NO : MHD_YES;
}

static void on_upload_body(struct request *rq, const char *bytes, size_t n)
{
	struct upload *u = rq->job;

	enum MHD_Result r = MHD_post_process(u->form, bytes, n);
	if (u->refused) {
		fail_upload(u, &u->fault);
	} else if (r != MHD_YES) {
		(void)fault_set(&u->fault, 400, "malformed_form",
				"the body is not a multipart form");
		fail_upload(u, &u->fault);
	}
}

void api_upload_begin(struct request *rq)
{
	struct fault fault;
	const char *type = http_header(rq, "Content-Type");
	struct sandbox *sb = api_sandbox_of(rq);

	if (sb == NULL)
		return;
	if (sandbox_check_running(sb, &fault) < 0) {
		api_reply_sandbox_fault(rq, &fault, sb);
		return;
	}
	if (type == NULL || strncasecmp(type, "multipart/form-data", 19) != 0) {
		http_reply_error(rq, 415, "unsupported_media_type",
				 "the body must be multipart/form-data");
		return;
	}
	struct upload *u = calloc(1, sizeof(*u));
	if (u != NULL)
		u->form = MHD_create_post_processor(rq->mhd, FORM_BUFFER_BYTES,
						    on_part, u);
	if (u == NULL || u->form == NULL) {
		free(u);
		http_reply_error(rq, 400, "malformed_form",
				 "the multipart form has no boundary");
		return;
	}
	u->rq = rq;
	u->spool = -1;
	u->path.max = BRIG_PATH_BYTES - 1;
	u->pending.max = PENDING_MAX;
	memcpy(u->sandbox_id, sb->id, sizeof(u->sandbox_id));
	rq->job = u;
	rq->on_abort = on_upload_abort;
	rq->on_body = on_upload_body;
}

void api_upload(struct request *rq)
{
	struct upload *u = rq->job;
	struct fault fault;
	int r = 0;

	enum MHD_Result whole = MHD_destroy_post_processor(u->form);
	u->form = NULL;
	u->body_done = true;
	if (u->refused) {
		fault = u->fault;
		r = -EINVAL;
	} else if (whole != MHD_YES) {
		r = fault_set(&fault, 400, "malformed_form",
			      "the multipart form has no end");
	} else if (!u->file_seen) {
		r = fault_set(&fault, 422, "missing_field",
			      "`file` is missing");
	} else if (!u->path_seen) {
		r = fault_set(&fault, 422, "missing_field",
			      "`path` is missing");
	} else if (!u->sending) {
		r = start_write(u, &fault);
	}
	if (r < 0) {
		fail_upload(u, &fault);
		return;
	}
	if (u->agent.conn != NULL)
		pump(u);
}
