/* args_make.h - request bodies that make sandboxes, snapshots and templates.
 * SPDX-License-Identifier: Apache-2.0
 *
 * As args.h: pure functions; strings are borrowed from `json`, which
 * args_make_free() drops. 0, or -EINVAL after filling *fault.
 */
#ifndef BRIGD_ARGS_MAKE_H
#define BRIGD_ARGS_MAKE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cc.h"
#include "fault.h"

/* What was not given is NULL or 0. */
struct args_make {
	json_t *json;
	const char *name;
	const char *image;
	const char *template_name;
	const char *snapshot;      /* an id */
	const char *snapshot_name; /* for a new one */
	const char *warm;
	json_t *env;
	uint32_t cpus; /* quarters of a vCPU */
	uint32_t vcpus;
	uint32_t memory_mib;
	uint32_t disk_gib;
	uint32_t count;
	bool wait_for_ready; /* true if not given */
	bool quick;
	bool memory; /* true if not given */
	bool create_snapshot;
};

enum args_make_kind {
	MAKE_SANDBOX,     /* POST /v2/sandboxes */
	MAKE_CLONES,      /* POST /v2/sandboxes/{id}/clone */
	MAKE_SNAPSHOT,    /* POST /v2/sandboxes/{id}/snapshots */
	MAKE_ROLLBACK,    /* POST /v2/sandboxes/{id}/rollback */
	MAKE_TEMPLATE,    /* POST /v2/templates */
	MAKE_NOTHING,     /* pause, resume, reset: an empty body */
	MAKE_V1_SNAPSHOT, /* part 1: unknown fields are ignored */
	MAKE_V1_RESTORE,
	MAKE_V1_CLONE,
	MAKE_V1_DELETE,
	MAKE_KINDS,
};

must_check int args_parse_make(enum args_make_kind kind, const char *text,
			       size_t n, struct args_make *ret,
			       struct fault *fault);
void args_make_free(struct args_make *a);

#endif
