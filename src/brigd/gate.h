/* gate.h - what every request must pass before its body is read.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_GATE_H
#define BRIGD_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "fault.h"
#include "http.h"

#define GATE_BODY_UNKNOWN UINT64_MAX

struct gate_result {
	bool has_body;
	uint64_t body_bytes; /* announced; GATE_BODY_UNKNOWN when chunked */
	bool ambiguous; /* framing in doubt: nothing more from this client */
	bool expects_continue;
};

/* Checks framing, key, route, content type and size, in this order, and sets
 * rq->route, param and tenant. *ret is always filled. 0, or -EINVAL after
 * filling *fault. */
must_check int gate_check(struct request *rq, const char *method,
			  const char *path, bool bad_uri,
			  struct gate_result *ret, struct fault *fault);

#endif
