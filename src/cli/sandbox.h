/* sandbox.h - creating and deleting sandboxes, for the commands that do.
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
#include "wire/limits.h"

/* What --cpus, --memory and --disk accept. */
#define SANDBOX_MEMORY_MIN BRIG_MEMORY_MIB_MIN
#define SANDBOX_MEMORY_MAX BRIG_MEMORY_MIB_MAX
#define SANDBOX_DISK_MIN 1
#define SANDBOX_DISK_MAX (BRIG_DISK_BYTES_MAX >> 30)

struct sandbox_spec {
	const char *image; /* NULL and 0: brigd's default */
	const char *name;
	uint64_t cpu_quarters;
	uint64_t memory_mib;
	uint64_t disk_gb;
	json_t *env; /* object; NULL: none */
	bool no_wait;
};

/* Opens the API and watches for signals: the first step of every command. */
must_check int sandbox_open_api(struct api *a);

/* The reply is a new reference with a valid "id". A signal meanwhile ends
 * with the sandbox deleted. */
must_check int sandbox_create(struct api *a, const struct sandbox_spec *spec,
			      json_t **ret);

must_check int sandbox_delete(struct api *a, const char *id);

/* GET or DELETE `path`, reply in JSON: CMD_OK and a new reference. `what` is
 * for messages. */
must_check int sandbox_fetch(struct api *a, const char *method,
			     const char *path, const char *what, json_t **ret);

#endif
