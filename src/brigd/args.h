/* args.h - request bodies and query values as checked C values.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pure functions: bytes that a client chose go in, a checked struct or a
 * fault comes out. Strings are borrowed from args.json, which args_*_free
 * drops. Functions return 0, or -EINVAL after filling *fault.
 */
#ifndef BRIGD_ARGS_H
#define BRIGD_ARGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "fault.h"
#include "limits.h"

/* POST /v1/sandboxes/create */
struct args_create {
	json_t *json;
	const char *name;  /* NULL: generate one */
	const char *image; /* "default" if not given */
	json_t *env;       /* NULL or {name: value}, checked */
	uint32_t cpus;     /* quarters of a vCPU */
	uint32_t memory_mib;
	uint32_t storage_gb;
	bool wait_for_ready;
};

must_check int args_parse_create(const char *text, size_t n,
				 struct args_create *ret, struct fault *fault);
void args_free_create(struct args_create *a);

/* execute, execute_async and POST /v2/sandboxes/{id}/runs */
struct args_run {
	json_t *json;
	const char *command;  /* a line for the shell; NULL: argv is given */
	json_t *argv;         /* NULL, or an array of strings */
	const char *language; /* of `code`; NULL: a command or argv is given */
	const char *code;
	json_t *env;       /* NULL or {name: value}, checked */
	const char *cwd;   /* "": the user's home */
	const char *user;  /* "": root */
	const char *input; /* stdin text; NULL: none */
	size_t input_bytes;
	bool stdin_open;
	bool stream;
	uint32_t timeout_ms;   /* 0: none */
	uint64_t output_limit; /* of stdout and of stderr; UINT64_MAX: none */
};

/* Part 1: unknown fields are ignored. `stream` for execute_async. */
must_check int args_parse_execute(const char *text, size_t n, bool stream,
				  struct args_run *ret, struct fault *fault);

/* Part 2: unknown fields are refused. */
must_check int args_parse_run(const char *text, size_t n, struct args_run *ret,
			      struct fault *fault);

/* POST /v2/sandboxes/{id}/code: as runs, with `language` and `code`. */
must_check int args_parse_code(const char *text, size_t n, struct args_run *ret,
			       struct fault *fault);
void args_free_run(struct args_run *a);

/* The payload of GUEST_EXEC. `defaults` (NULL or an object) is the sandbox's
 * environment; the run's own values win. -EINVAL with a 422 if it does not
 * fit one frame, or with a 500 if there is no memory. */
must_check int args_encode_exec(const struct args_run *a, json_t *defaults,
				struct buf *ret, struct fault *fault);

/* A query value that is a whole number, perhaps written as a decimal ("2.0"),
 * in 1..max. `text` NULL: *ret is set to `fallback`. */
must_check int args_query_number(const char *text, const char *name,
				 uint32_t max, uint32_t fallback, uint32_t *ret,
				 struct fault *fault);

/* {name: value} below `name`: 1 and *ret, 0 if it is not given. */
must_check int args_get_env(json_t *object, const char *name, json_t **ret,
			    struct fault *fault);

/* The same for an environment that a sandbox keeps; see settings.h. */
must_check int args_get_kept_env(json_t *object, const char *name, json_t **ret,
				 struct fault *fault);

must_check bool args_is_image_name(const char *s);

/* A path in the guest: not empty, less than PATH_MAX. */
must_check int args_check_path(const char *path, struct fault *fault);

#endif
