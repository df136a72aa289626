/* api.c - requests to brigd: address, key, calls, errors.
 * SPDX-License-Identifier: Apache-2.0
 */
#define CURL_DISABLE_TYPECHECK /* its macros do not survive -Wconversion */
#include "api.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "loop.h"
#include "stop.h"

#define CONNECT_TIMEOUT_S 10L
#define TICK_MS 250

/* --- address and key -------------------------------------------------------- */

static int set_base(struct api *a, const char **ret_why)
{
	const char *url = getenv("BRIG_BASE_URL");

	a->base = url != NULL && *url != '\0' ? url : API_DEFAULT_URL;
	if (strncmp(a->base, "http://", 7) == 0 ||
	    strncmp(a->base, "https://", 8) == 0)
		return 0;
	*ret_why = "BRIG_BASE_URL does not begin with http:// or https://";
	return -EINVAL;
}

int api_open(struct api *a, const char **ret_why)
{
	*a = (struct api){ .multi = NULL };
	int r = set_base(a, ret_why);
	if (r == 0)
		r = key_find(a->base, &a->key, ret_why);
	if (r < 0)
		return r;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
		a->multi = curl_multi_init();
	if (a->multi == NULL) {
		*ret_why = "libcurl does not start";
		return -ENOMEM;
	}
	return 0;
}

void api_close(struct api *a)
{
	if (a->multi != NULL)
		(void)curl_multi_cleanup(a->multi);
	a->multi = NULL;
	explicit_bzero(a->key.text, sizeof(a->key.text));
}

char *api_escape(const char *text)
{
	return curl_easy_escape(NULL, text, 0);
}

/* --- bytes in and out -------------------------------------------------------- */

static size_t take_bytes(char *bytes, size_t size, size_t count, void *ctx)
{
	struct api_call *c = ctx;
	size_t n = size * count; /* size is always 1 */
	curl_off_t length = -1;

	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &c->status);
	if (c->sink == NULL || c->status < 200 || c->status > 299)
		return buf_add(&c->reply, bytes, n) < 0 ? 0 : n;
	(void)curl_easy_getinfo(c->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
				&length);
	c->expected = length < 0 ? UINT64_MAX : (uint64_t)length;
	c->received += n;
	c->sink_result = c->sink(c->sink_ctx, bytes, n);
	return c->sink_result < 0 ? 0 : n;
}

bool api_can_read(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

static size_t pause_source(struct api_call *c)
{
	if (c->give_up)
		return 0; /* the body ends here */
	c->paused = true;
	c->paused_ns = now_ns();
	return CURL_READFUNC_PAUSE;
}

/* Never blocks: the call sleeps until the source has something to say. */
static size_t give_bytes(char *bytes, size_t size, size_t count, void *ctx)
{
	struct api_call *c = ctx;

	if (!api_can_read(c->source_fd))
		return pause_source(c);
	ssize_t n = read(c->source_fd, bytes, size * count);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return pause_source(c);
	if (n < 0) {
		c->source_errno = errno;
		return CURL_READFUNC_ABORT;
	}
	c->sent += (uint64_t)n;
	c->source_ended = n == 0;
	return (size_t)n;
}

/* --- one call ----------------------------------------------------------------- */

static int add_header(struct api_call *c, const char *line)
{
	struct curl_slist *more = curl_slist_append(c->headers, line);

	if (more == NULL)
		return -ENOMEM;
	c->headers = more;
	return 0;
}

static int add_key(struct api_call *c)
{
	char line[KEY_MAX + 16];

	if (c->api->key.text[0] == '\0')
		return 0;
	(void)snprintf(line, sizeof(line), "x-api-key: %s", c->api->key.text);
	int r = add_header(c, line);
	explicit_bzero(line, sizeof(line));
	return r;
}

static int set_headers(struct api_call *c)
{
	int r = add_header(c, "Accept: application/json, */*");

	if (r == 0)
		r = add_key(c);
	if (r == 0)
		r = add_header(c, "Expect:"); /* no second of waiting */
	if (r == 0 && c->body != NULL)
		r = add_header(c, "Content-Type: application/json");
	if (r == 0 && c->source_fd >= 0 && c->form_path == NULL)
		r = add_header(c, "Content-Type: application/octet-stream");
	if (r == 0 && c->source_fd >= 0 && c->source_size < 0 &&
	    c->form_path == NULL)
		r = add_header(c, "Transfer-Encoding: chunked");
	if (r == 0)
		(void)curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
	return r;
}

static int set_form(struct api_call *c)
{
	c->form = curl_mime_init(c->easy);
	if (c->form == NULL)
		return -ENOMEM;
	curl_mimepart *part = curl_mime_addpart(c->form);
	if (part == NULL || curl_mime_name(part, "path") != CURLE_OK ||
	    curl_mime_data(part, c->form_path, CURL_ZERO_TERMINATED) !=
		    CURLE_OK)
		return -ENOMEM;
	part = curl_mime_addpart(c->form);
	if (part == NULL || curl_mime_name(part, "file") != CURLE_OK ||
	    curl_mime_filename(part, "file") != CURLE_OK ||
	    curl_mime_type(part, "application/octet-stream") != CURLE_OK ||
	    curl_mime_data_cb(part, c->source_size, give_bytes, NULL, NULL,
			      c) != CURLE_OK)
		return -ENOMEM;
	(void)curl_easy_setopt(c->easy, CURLOPT_MIMEPOST, c->form);
	return 0;
}

static int set_body(struct api_call *c)
{
	if (c->form_path != NULL)
		return set_form(c);
	if (c->source_fd >= 0) {
		(void)curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
		(void)curl_easy_setopt(c->easy, CURLOPT_READFUNCTION,
				       give_bytes);
		(void)curl_easy_setopt(c->easy, CURLOPT_READDATA, c);
		(void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE,
				       (curl_off_t)c->source_size);
		return 0;
	}
	if (c->body == NULL && strcmp(c->method, "POST") == 0)
		(void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, "");
	if (c->body != NULL) {
		c->body_text = json_dumps(c->body, JSON_COMPACT);
		if (c->body_text == NULL)
			return -ENOMEM;
		(void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS,
				       c->body_text);
	}
	return 0;
}

static int set_options(struct api_call *c)
{
	CURL *e = c->easy;
	char *url = NULL;

	if (asprintf(&url, "%.*s%s",
		     (int)(strlen(c->api->base) -
			   (c->api->base[strlen(c->api->base) - 1] == '/')),
		     c->api->base, c->path) < 0)
		return -ENOMEM;
	CURLcode r = curl_easy_setopt(e, CURLOPT_URL, url);
	free(url);
	if (r != CURLE_OK)
		return -ENOMEM;
	(void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(e, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	(void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	(void)curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)c->timeout_s);
	(void)curl_easy_setopt(e, CURLOPT_USERAGENT, "brig/" BRIG_VERSION);
	(void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->curl_error);
	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, c);
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_bytes);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	int ret = set_body(c);
	if (ret == 0)
		ret = set_headers(c);
	(void)curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, c->method);
	return ret;
}

int api_start(struct api *a, struct api_call *c)
{
	size_t slot = 0;

	while (slot < API_CALLS_MAX && a->calls[slot] != NULL)
		slot++;
	ASSERT(slot < API_CALLS_MAX);
	c->api = a;
	c->reply.max = API_REPLY_MAX;
	c->expected = UINT64_MAX;
	c->easy = curl_easy_init();
	if (c->easy == NULL)
		return -ENOMEM;
	int r = set_options(c);
	if (r < 0)
		return r;
	if (curl_multi_add_handle(a->multi, c->easy) != CURLM_OK)
		return -ENOMEM;
	a->calls[slot] = c;
	return 0;
}

void api_end(struct api_call *c)
{
	for (size_t i = 0; c->api != NULL && i < API_CALLS_MAX; i++) {
		if (c->api->calls[i] != c)
			continue;
		(void)curl_multi_remove_handle(c->api->multi, c->easy);
		c->api->calls[i] = NULL;
	}
	if (c->easy != NULL)
		curl_easy_cleanup(c->easy);
	curl_mime_free(c->form);
	curl_slist_free_all(c->headers);
	free(c->body_text);
	json_decref(c->error);
	buf_free(&c->reply);
	c->easy = NULL;
	c->form = NULL;
	c->headers = NULL;
	c->body_text = NULL;
	c->error = NULL;
}

/* --- waiting -------------------------------------------------------------------- */

static bool collect_done(struct api *a)
{
	CURLMsg *m;
	int left;
	bool any = false;

	while ((m = curl_multi_info_read(a->multi, &left)) != NULL) {
		struct api_call *c = NULL;
		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
		c->result = m->data.result;
		c->done = true;
		(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE,
					&c->status);
		any = true;
	}
	return any;
}

static bool is_idle(const struct api_call *c)
{
	return c->source_idle_ms > 0 &&
	       now_ns() - c->paused_ns >= c->source_idle_ms * NS_PER_MS;
}

static void wake_source(struct api_call *c, bool readable)
{
	if (!readable && !is_idle(c))
		return;
	c->give_up = !readable;
	c->paused = false;
	(void)curl_easy_pause(c->easy, CURLPAUSE_CONT);
}

int api_step(struct api *a, int watch_fd, int timeout_ms)
{
	struct curl_waitfd fds[2 + API_CALLS_MAX];
	struct api_call *waiting[2 + API_CALLS_MAX] = { NULL };
	unsigned int n = 0;
	int running;

	if (curl_multi_perform(a->multi, &running) != CURLM_OK)
		return -EIO;
	if (collect_done(a))
		return 0;
	if (stop_fd() >= 0)
		fds[n++] = (struct curl_waitfd){ .fd = stop_fd(),
						 .events = CURL_WAIT_POLLIN };
	if (watch_fd >= 0)
		fds[n++] = (struct curl_waitfd){ .fd = watch_fd,
						 .events = CURL_WAIT_POLLIN };
	for (size_t i = 0; i < API_CALLS_MAX; i++) {
		struct api_call *c = a->calls[i];
		if (c == NULL || !c->paused)
			continue;
		fds[n] = (struct curl_waitfd){ .fd = c->source_fd,
					       .events = CURL_WAIT_POLLIN };
		waiting[n++] = c;
	}
	if (curl_multi_poll(a->multi, fds, n, timeout_ms, NULL) != CURLM_OK)
		return -EIO;
	for (unsigned int i = 0; i < n; i++) {
		if (waiting[i] != NULL)
			wake_source(waiting[i], fds[i].revents != 0);
	}
	return 0;
}

/* What progress counts up to. */
static uint64_t total_of(const struct api_call *c)
{
	if (c->source_fd >= 0)
		return c->source_size < 0 ? UINT64_MAX
					  : (uint64_t)c->source_size;
	return c->sink != NULL ? c->expected : 0;
}

int api_perform(struct api *a, struct api_call *c)
{
	unsigned int before = stop_count();
	unsigned int patience = c->finish ? 2 : 1;
	struct progress progress;
	int r = api_start(a, c);

	progress_start(&progress, c->label);
	while (r == 0 && !c->done) {
		r = api_step(a, -1, TICK_MS);
		if (r == 0 && stop_count() - before >= patience)
			r = -EINTR;
		progress_tick(&progress, c->sent + c->received, total_of(c));
	}
	progress_end(&progress);
	if (r == 0)
		return api_judge(c);
	(void)snprintf(c->message, sizeof(c->message), "%s",
		       r == -EINTR ? "interrupted" : strerror(-r));
	return r;
}

/* --- how it went -------------------------------------------------------------- */

static int judge_no_answer(struct api_call *c)
{
	if (c->source_errno != 0) {
		(void)snprintf(c->message, sizeof(c->message), "%s",
			       strerror(c->source_errno));
		return -EIO;
	}
	if (c->sink_result < 0) {
		(void)snprintf(c->message, sizeof(c->message), "%s",
			       strerror(-c->sink_result));
		return c->sink_result == -EINTR ? -EINTR : -EIO;
	}
	if (c->result == CURLE_COULDNT_CONNECT) {
		(void)snprintf(
			c->message, sizeof(c->message),
			"brigd does not answer at %s; start it with "
			"`brig host start` or brig-spawn(8) and brigd(8)",
			c->api->base);
		return -ECONNREFUSED;
	}
	(void)snprintf(c->message, sizeof(c->message), "%s: %s", c->api->base,
		       c->curl_error[0] != '\0'
			       ? c->curl_error
			       : curl_easy_strerror(c->result));
	return -EIO;
}

static int judge_key(struct api_call *c)
{
	const struct key *k = &c->api->key;

	if (k->text[0] != '\0')
		(void)snprintf(c->message, sizeof(c->message),
			       "brigd at %s refuses the API key of %s",
			       c->api->base, k->from);
	else
		(void)snprintf(c->message, sizeof(c->message),
			       "brigd at %s wants an API key: set "
			       "BRIG_API_KEY%s%s%s%s%s",
			       c->api->base, k->from[0] ? " (" : "", k->from,
			       k->error ? ": " : "",
			       k->error ? strerror(k->error) : "",
			       k->from[0] ? ")" : "");
	return -EACCES;
}

int api_judge(struct api_call *c)
{
	const char *message = NULL;
	const char *code = NULL;

	if (c->result != CURLE_OK || c->sink_result < 0)
		return judge_no_answer(c);
	if (c->status >= 200 && c->status <= 299)
		return 0;
	if (c->status == 401)
		return judge_key(c);
	json_t *reply = json_loadb(c->reply.len > 0 ? c->reply.data : "",
				   c->reply.len, JSON_ALLOW_NUL, NULL);
	json_decref(c->error);
	c->error = json_incref(json_object_get(reply, "error"));
	json_decref(reply);
	message = json_string_value(json_object_get(c->error, "message"));
	code = json_string_value(json_object_get(c->error, "code"));
	if (message == NULL)
		(void)snprintf(c->message, sizeof(c->message),
			       "%s answered with HTTP status %ld", c->api->base,
			       c->status);
	else
		(void)snprintf(c->message, sizeof(c->message), "%s (%s)",
			       message, code != NULL ? code : "no code");
	if (c->status == 403)
		return -EACCES;
	return c->status == 404 ? -ENOENT : -EREMOTEIO;
}

json_t *api_reply_json(struct api_call *c)
{
	json_t *json = json_loadb(c->reply.len > 0 ? c->reply.data : "",
				  c->reply.len, JSON_ALLOW_NUL, NULL);

	if (json == NULL)
		(void)snprintf(c->message, sizeof(c->message),
			       "%s answered with something that is not JSON",
			       c->api->base);
	return json;
}
