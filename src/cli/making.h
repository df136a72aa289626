/* making.h - requests that make sandboxes: one or many, new or copies.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A sandbox that nobody knows of is never left: the first signal does not cut
 * such a request, and what it made is deleted then. All tell the user what
 * went wrong and return enum cmd_exit.
 */
#ifndef BRIG_CLI_MAKING_H
#define BRIG_CLI_MAKING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api.h"
#include "opt.h"
#include "wire/limits.h"

/* What --cpus, --memory, --disk and --count accept. */
#define MAKING_MEMORY_MIN BRIG_MEMORY_MIB_MIN
#define MAKING_MEMORY_MAX BRIG_MEMORY_MIB_MAX
#define MAKING_DISK_MIN 1
#define MAKING_DISK_MAX (BRIG_DISK_BYTES_MAX >> 30)
#define MAKING_COUNT_MAX 1000

/* Rows of a table of options, for whoever makes one sandbox or several. */
/* clang-format off */
#define MAKING_OPTS(m)                                                     \
	{ "image", 0, OPT_TEXT, "IMAGE", "image to boot (default)",        \
	  &(m)->image, 0, 0 },                                             \
	{ "template", 0, OPT_TEXT, "NAME", "start from this template",     \
	  &(m)->template, 0, 0 },                                          \
	{ "snapshot", 0, OPT_TEXT, "ID", "go on from this snapshot",       \
	  &(m)->snapshot, 0, 0 },                                          \
	{ "cpus", 0, OPT_CPUS, "CPUS", "CPUs, in steps of 0.25 (1)",       \
	  &(m)->cpu_quarters, 0, 0 },                                      \
	{ "memory", 0, OPT_NUMBER, "MIB", "memory in MiB (512)",           \
	  &(m)->memory_mib, MAKING_MEMORY_MIN, MAKING_MEMORY_MAX },        \
	{ "disk", 0, OPT_NUMBER, "GB", "size of the disk in GiB (10)",     \
	  &(m)->disk_gb, MAKING_DISK_MIN, MAKING_DISK_MAX }
/* clang-format on */

struct making {
	const char *image; /* NULL and 0: brigd's default */
	const char *template;
	const char *snapshot;
	const char *name;
	uint64_t cpu_quarters;
	uint64_t memory_mib;
	uint64_t disk_gb;
	uint64_t count; /* 0: one, and the reply is that one */
	json_t *env;    /* object; NULL: none */
	bool no_wait;
};

/* Sets `key` unless `value` is 0. -1: no memory, or no object. */
must_check int making_put(json_t *object, const char *key, uint64_t value);

/* What cannot be asked for together is wrong usage: CMD_USAGE. */
must_check int making_check(const struct usage *u, const struct making *m);

/* The reply is a new reference; all of its ids are valid. */
must_check int making_create(struct api *a, const struct making *m,
			     json_t **ret);

/* The same of a request of one's own: POST `body` to `path`. */
must_check int making_ask(struct api *a, const char *path, const json_t *body,
			  const char *what, json_t **ret);

/* Prints the ids in a reply, or all of it. CMD_FAILED where some of several
 * sandboxes could not be made. */
must_check int making_print(const json_t *reply, bool json);

#endif
