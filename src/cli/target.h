/* target.h - a local file, or standard output, that a reply is written to.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Only names that the user typed become local paths; nothing that the server
 * says does.
 */
#ifndef BRIG_CLI_TARGET_H
#define BRIG_CLI_TARGET_H

#include <stdbool.h>

#include "api.h"

#define TARGET_PATH_BYTES 4096

struct target {
	char path[TARGET_PATH_BYTES];
	int fd; /* opened at the first byte: an error leaves the old file */
	bool made;
};

/* "-" is standard output; a directory DIR becomes DIR/NAME, where NULL is no
 * name. CMD_OK, or CMD_FAILED after complaining. */
must_check int target_find(struct target *t, const char *local,
			   const char *name);

/* Performs the call, whose label is set, with its reply going to the target:
 * enum cmd_exit, after complaining about `what` or the file. The caller may
 * look at c->error and calls api_end. A target that was made goes again when
 * not all of it came. */
must_check int target_receive(struct api *a, struct api_call *c,
			      struct target *t, const char *what);

#endif
