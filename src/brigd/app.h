/* app.h - what one brigd consists of.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Built by main.c in this order, taken down in the opposite one. Each member
 * is owned by main.c; modules borrow what they need.
 */
#ifndef BRIGD_APP_H
#define BRIGD_APP_H

#include <stdbool.h>

#include "loop.h"
#include "shell.h"

struct app {
	struct loop *loop;
	struct store *store;
	struct auth *auth;
	struct worker *worker;
	struct snapstore *snapstore;
	struct shell_set shells;
	struct spawn_peer *spawn;
	struct pool *pool;
	struct template_set *templates;
	struct standby_set *standbys;
	struct sandbox_set *sandboxes;
	struct http *http;
	struct runlog *runlog;
	const char *images_dir;
	const char *kernel_path;
	const char *initrd_path;
	unsigned int pool_size; /* shells of one kind */
	bool ending;            /* no sandbox is started any more */
};

#endif
