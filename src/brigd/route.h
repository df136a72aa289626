/* route.h - the table of what brigd serves.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_ROUTE_H
#define BRIGD_ROUTE_H

#include "http.h"

enum route_flags {
	ROUTE_NO_KEY = 1u << 0, /* answers without an API key */
	ROUTE_JSON = 1u << 1,   /* takes a JSON body */
	ROUTE_STREAM = 1u << 2, /* takes the body piecewise: see `begin` */
};

struct route {
	const char *method;
	const char *path; /* "{}" is one segment, given in request.param */
	unsigned int flags;

	/* Called when the whole request is there. Answers, now or later. */
	void (*handle)(struct request *rq);

	/* ROUTE_STREAM: called before the body; sets rq->on_body and job, or
	 * answers (then the body is read and dropped). */
	void (*begin)(struct request *rq);
	uint64_t body_max;
};

/* The route for a method and a decoded path (both the client's), or NULL.
 * Fills `param`. */
const struct route *route_find(const char *method, const char *path,
			       char param[HTTP_PARAMS_MAX][HTTP_PARAM_BYTES]);

#endif
