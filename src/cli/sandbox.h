/* sandbox.h - requests that commands have in common, and the first steps.
 * SPDX-License-Identifier: Apache-2.0
 *
 * These tell the user what went wrong and return enum cmd_exit.
 */
#ifndef BRIG_CLI_SANDBOX_H
#define BRIG_CLI_SANDBOX_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api.h"

/* Opens the API and watches for signals: the first step of every command. */
must_check int sandbox_open_api(struct api *a);

/* What a call that was performed with `r` < 0 means: complains, unless the
 * user's own signal was the reason. */
must_check int sandbox_fail(const char *what, const struct api_call *c, int r);

struct request {
	const char *method;
	const char *path;
	const json_t *body; /* NULL: none */
	const char *what;   /* for messages */
	const char *label;  /* says what takes so long; NULL: nothing */
	const char *left;   /* said when a signal cut it; NULL: nothing */
	unsigned int timeout_s;
	bool finish; /* the first signal does not cut it */
};

/* CMD_OK and the reply, a new reference; JSON null for an empty one. */
must_check int sandbox_ask(struct api *a, const struct request *rq,
			   json_t **ret);

/* The whole of a command that asks once: opens the API, asks, and prints the
 * reply as sandbox_print() does. */
must_check int sandbox_do(const struct request *rq, const char *key, bool json);

/* GET or DELETE `path`, reply in JSON: CMD_OK and a new reference. `what` is
 * for messages. */
must_check int sandbox_fetch(struct api *a, const char *method,
			     const char *path, const char *what, json_t **ret);

must_check int sandbox_delete(struct api *a, const char *id);

/* Prints the reply's member `key`, which is an id, or all of it as JSON. */
must_check int sandbox_print(const json_t *reply, const char *key, bool json);

#endif
