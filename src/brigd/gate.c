/* gate.c - what every request must pass before its body is read.
 * SPDX-License-Identifier: Apache-2.0
 *
 * libmicrohttpd parses the header; what it lets through but another program
 * in front of us could read differently (two lengths, a length and chunks) is
 * refused here, and the connection closed, so that no second request can hide
 * in the first one's body (RFC 9112, 6.3 and 11.2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "app.h"
#include "auth.h"
#include "gate.h"
#include "route.h"

struct headers {
	bool odd; /* a name or value that RFC 9110 does not allow */
	unsigned int lengths;
	unsigned int encodings;
	unsigned int keys;
	unsigned int hosts;
	const char *length;
	const char *encoding;
	const char *key;
};

/* RFC 9110, 5.6.2: a token. libmicrohttpd takes "Content-Length : 4" for a
 * header of another name; what is in front of us may not. */
static bool is_token(const char *s)
{
	static const char marks[] = "!#$%&'*+-.^_`|~";

	for (; *s != '\0'; s++) {
		bool letter = (*s >= 'a' && *s <= 'z') ||
			      (*s >= 'A' && *s <= 'Z') ||
			      (*s >= '0' && *s <= '9');
		if (!letter && strchr(marks, *s) == NULL)
			return false;
	}
	return true;
}

static bool has_control(const char *s)
{
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind,
				 const char *name, const char *value)
{
	struct headers *h = cls;

	(void)kind;
	if (!is_token(name) || (value != NULL && has_control(value)))
		h->odd = true;
	if (strcasecmp(name, "Content-Length") == 0) {
		h->lengths++;
		h->length = value;
	} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
		h->encodings++;
		h->encoding = value;
	} else if (strcasecmp(name, "Host") == 0) {
		h->hosts++;
	} else if (strcasecmp(name, "x-api-key") == 0) {
		h->keys++;
		h->key = value;
	} else if (strcasecmp(name, "Authorization") == 0) {
		h->keys++;
		h->key = NULL;
		if (value != NULL && strncasecmp(value, "Bearer ", 7) == 0)
			h->key = value + 7;
	}
	return MHD_YES;
}

static bool get_length(const char *text, uint64_t *ret)
{
	size_t n = text == NULL ? 0 : strlen(text);

	if (n == 0 || n > 18 || strspn(text, "0123456789") != n)
		return false;
	*ret = strtoull(text, NULL, 10);
	return true;
}

static int check_framing(const struct headers *h, struct gate_result *ret,
			 struct fault *fault)
{
	bool fine = !h->odd && h->lengths + h->encodings <= 1 && h->hosts <= 1;

	if (fine && h->lengths == 1) {
		fine = get_length(h->length, &ret->body_bytes);
		ret->has_body = fine && ret->body_bytes > 0;
	}
	if (fine && h->encodings == 1) {
		fine = h->encoding != NULL &&
		       strcasecmp(h->encoding, "chunked") == 0;
		ret->has_body = true;
		ret->body_bytes = GATE_BODY_UNKNOWN;
	}
	if (fine)
		return 0;
	ret->ambiguous = true;
	return fault_set(fault, 400, "bad_request", "the header is malformed");
}

static int check_type(const struct request *rq, struct fault *fault)
{
	const char *type = http_header(rq, "Content-Type");
	const char *want =
		(rq->route->flags & ROUTE_JSON) ? "application/json" : NULL;

	if (type == NULL || want == NULL)
		return 0;
	size_t n = strlen(want);
	if (strncasecmp(type, want, n) == 0 && strchr("; \t", type[n]) != NULL)
		return 0;
	return fault_set(fault, 415, "unsupported_media_type",
			 "the body must be %s", want);
}

static int check_size(const struct request *rq, const struct gate_result *g,
		      struct fault *fault)
{
	uint64_t max = JSON_BODY_MAX;

	if (rq->route->flags & ROUTE_STREAM)
		max = rq->route->body_max;
	if (g->body_bytes == GATE_BODY_UNKNOWN || g->body_bytes <= max)
		return 0;
	return fault_set(fault, 413, "too_large",
			 "the body is larger than %llu bytes",
			 (unsigned long long)max);
}

static int check_key(struct request *rq, const struct headers *h,
		     struct fault *fault)
{
	const struct app *app = http_app(rq->http);

	if (h->keys == 1 && h->key != NULL)
		rq->tenant = auth_check(app->auth, h->key);
	if (rq->tenant > 0)
		return 0;
	return fault_set(fault, 401, "unauthorized",
			 "give a valid API key in the x-api-key header");
}

int gate_check(struct request *rq, const char *method, const char *path,
	       bool bad_uri, struct gate_result *ret, struct fault *fault)
{
	struct headers h = { .lengths = 0 };

	*ret = (struct gate_result){ .has_body = false };
	(void)MHD_get_connection_values(rq->mhd, MHD_HEADER_KIND, on_header,
					&h);
	const char *expect = http_header(rq, "Expect");
	ret->expects_continue = expect != NULL;

	int r = check_framing(&h, ret, fault);
	if (r < 0)
		return r;
	const struct route *route = route_find(method, path, rq->param);
	if (route == NULL || !(route->flags & ROUTE_NO_KEY)) {
		r = check_key(rq, &h, fault);
		if (r < 0)
			return r;
	}
	if (bad_uri)
		return fault_set(fault, 400, "bad_request",
				 "the URL holds a NUL character");
	if (route == NULL)
		return fault_set(fault, 404, "not_found", "no such route");
	rq->route = route;
	if (ret->has_body) {
		r = check_type(rq, fault);
		if (r < 0)
			return r;
	}
	return check_size(rq, ret, fault);
}
