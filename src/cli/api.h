/* api.h - requests to brigd: address, key, calls, errors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The address is BRIG_BASE_URL, the key as key.h says; it
 * goes to that address only (no proxy, no redirect) and is never printed. All
 * that the server says is untrusted: replies are bounded, and messages are
 * escaped by whoever prints them. One thread; at most API_CALLS_MAX calls at
 * a time. Functions print nothing.
 */
#ifndef BRIG_CLI_API_H
#define BRIG_CLI_API_H

#include <curl/curl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "key.h"
#include "term.h"

#define API_DEFAULT_URL "http://127.0.0.1:2744"

/* A run and its standard input. */
#define API_CALLS_MAX 2

/* The largest reply that is kept in memory: 1,000 log entries with output. */
#define API_REPLY_MAX (64u << 20)

struct api {
	CURLM *multi;
	const char *base; /* without a slash at the end; borrowed */
	struct key key;
	struct api_call *calls[API_CALLS_MAX];
};

/* One request. Zeroed, then set up by the caller (source_fd to -1 where there
 * is none); api_end frees what belongs to it. */
struct api_call {
	const char *method;
	const char *path;      /* from '/', already escaped; borrowed */
	const json_t *body;    /* sent as JSON; NULL: none */
	const char *form_path; /* not NULL: a form of this and the source */
	const char *label;     /* says what takes so long; NULL: nothing */
	/* takes the bytes of a 2xx reply; 0, or -errno to break off. NULL:
	 * kept in `reply` */
	int (*sink)(void *ctx, const char *bytes, size_t n);
	void *sink_ctx;
	off_t source_size; /* -1: not known */
	int source_fd;     /* the body's bytes come from here; borrowed */
	/* end the body when nothing came for so long; 0: wait for ever */
	unsigned int source_idle_ms;
	unsigned int timeout_s; /* for all of it; 0: none */
	bool finish; /* the first signal does not cut it (see api_perform) */

	/* results */
	bool done;
	bool source_ended; /* `source_fd` is at its end */
	int source_errno;  /* why it could not be read */
	int sink_result;   /* what `sink` broke off with */
	long status;       /* HTTP; 0: no reply */
	struct buf reply;  /* NUL-terminated when not empty */
	uint64_t received; /* bytes given to `sink` */
	uint64_t sent;     /* bytes taken from `source_fd` */
	uint64_t expected; /* bytes of the reply; UINT64_MAX: not said */
	json_t *error;     /* {"code", "message", "details"}, or NULL */
	char message[TERM_MESSAGE_MAX / 2]; /* why it failed, for people */

	/* private */
	struct api *api;
	CURL *easy;
	struct curl_slist *headers;
	curl_mime *form;
	char *body_text;
	uint64_t paused_ns; /* since when */
	CURLcode result;
	bool paused;  /* waits for source_fd */
	bool give_up; /* source_idle_ms went by */
	char curl_error[CURL_ERROR_SIZE];
};

/* Reads the environment; -errno with *ret_why (static text) set. */
must_check int api_open(struct api *a, const char **ret_why);
void api_close(struct api *a);

#define cleanup_api __attribute__((cleanup(api_close)))

/* Begins a call; `c` stays put until api_end. 0 or -errno. */
must_check int api_start(struct api *a, struct api_call *c);

/* Moves all calls on, waiting at most `timeout_ms`, until one has news, or
 * `watch_fd` (-1: none) is readable. 0 or -errno. Signals (stop.h) wake it
 * up. */
must_check int api_step(struct api *a, int watch_fd, int timeout_ms);

/* A read of `fd` would not block. */
bool api_can_read(int fd);

/* Ends a call, cutting it off if it still runs. Harmless on a zeroed or ended
 * one. Results stay valid but for reply and error, which it frees. */
void api_end(struct api_call *c);

#define cleanup_call __attribute__((cleanup(api_end)))

/* Sets c->error and c->message from how a done call went: 0 for 2xx; -EINTR,
 * -ECONNREFUSED, -EACCES (401, 403), -ENOENT (404), -EREMOTEIO (any other
 * answer), -EIO (no answer, or the sink's refusal). */
must_check int api_judge(struct api_call *c);

/* Start, wait, judge. A signal cuts the call off: -EINTR; one with `finish`
 * set only the second signal. The caller still calls api_end. */
must_check int api_perform(struct api *a, struct api_call *c);

/* The reply as JSON: a new reference, or NULL with c->message set. */
json_t *api_reply_json(struct api_call *c);

/* Percent-escapes for a query value; to be freed with curl_free. NULL: no
 * memory. */
char *api_escape(const char *text);

#endif
