/* frames.h - what a frame to the agent may look like: types, lengths, shape.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pure functions over bytes; nothing is allocated or kept. The bytes come
 * from the host, which the guest trusts, but a frame of the wrong shape must
 * cost one connection and not the agent. Results point into the payload.
 */
#ifndef BRIG_INIT_FRAMES_H
#define BRIG_INIT_FRAMES_H

#include <stddef.h>

#include "cc.h"
#include "wire/guest.h"

/* What the other side may send now. */
enum frames_phase {
	FRAMES_READY,   /* the ready connection */
	FRAMES_REQUEST, /* first frame of an agent connection */
	FRAMES_RUN,     /* after EXEC */
	FRAMES_UPLOAD,  /* after WRITE */
	FRAMES_QUIESCE, /* after QUIESCE */
};

/* Room that the agent needs in `env` for its own defaults and a NULL. */
#define FRAMES_ENV_SPARE 16u

struct exec_request {
	uint32_t flags;
	uint32_t timeout_ms;
	const char *user; /* empty: root */
	const char *cwd;  /* empty: home directory */
	uint32_t argc;
	uint32_t envc;
	char *argv[BRIG_ARGV_MAX + 1]; /* ends with NULL */
	char *env[BRIG_ENV_MAX + FRAMES_ENV_SPARE];
};

/* 0, -EPROTO when the type has no place in this phase, -EMSGSIZE when the
 * length is out of its bounds. */
must_check int frames_check(const struct guest_frame *f,
			    enum frames_phase phase);

/* The payload of an EXEC frame; 0 or -EINVAL. */
must_check int frames_parse_exec(char *payload, size_t n,
				 struct exec_request *ret);

/* The path that ends the payload of READ, WRITE and STAT after `head` bytes;
 * NULL when it is empty, too long or not one string. */
must_check const char *frames_parse_path(char *payload, size_t n, size_t head);

#endif
