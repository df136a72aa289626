/* move.c - brig pause, resume, reset, rollback: a sandbox in another state.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "cmd.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"

#define MOVE_TIMEOUT_S 600u
#define PATH_BYTES 256

/* POST .../ID/WHAT; prints the id, or what the sandbox is now. */
static int move(const char *id, const char *what, const json_t *body, bool json)
{
	char path[PATH_BYTES];
	char label[PATH_BYTES];
	const struct request rq = { .method = "POST",
				    .path = path,
				    .body = body,
				    .what = label,
				    .label = label,
				    .timeout_s = MOVE_TIMEOUT_S };

	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s/%s", id, what);
	(void)snprintf(label, sizeof(label), "%s of %s", what, id);
	return sandbox_do(&rq, "id", json);
}

/* The command `u`: `brig WHAT ID`, with a snapshot behind it or not. */
static int move_command(const struct usage *u, int argc, char **argv)
{
	bool json = false;
	const struct opt opts[] = { OPT_JSON(&json) };
	int at = opt_parse(u, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	json_t *body = NULL;
	if (u->most > 1)
		body = json_pack("{s:s}", "snapshot", argv[at + 1]);
	int code = move(argv[at], u->name, body, json);
	json_decref(body);
	return code;
}

/* --- the commands ------------------------------------------------------------- */

static const struct usage pause_usage = {
	.name = "pause",
	.operands = "ID",
	.about = "Stops the sandbox ID and keeps its memory on disk. It keeps "
		 "its id.",
	.examples = "  brig pause sb_...\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

int cmd_pause(int argc, char **argv)
{
	return move_command(&pause_usage, argc, argv);
}

static const struct usage resume_usage = {
	.name = "resume",
	.operands = "ID",
	.about = "Lets the paused sandbox ID go on where it was.",
	.examples = "  brig resume sb_...\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

int cmd_resume(int argc, char **argv)
{
	return move_command(&resume_usage, argc, argv);
}

static const struct usage reset_usage = {
	.name = "reset",
	.operands = "ID",
	.about = "Puts the sandbox ID back to what it was made from. It keeps "
		 "its id; what ran and was written in it is gone.",
	.examples = "  brig reset sb_...\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

int cmd_reset(int argc, char **argv)
{
	return move_command(&reset_usage, argc, argv);
}

static const struct usage rollback_usage = {
	.name = "rollback",
	.operands = "ID SNAPSHOT",
	.about = "Puts the sandbox ID back to SNAPSHOT. It keeps its id; what "
		 "happened in it since is gone.",
	.examples = "  snap=$(brig snapshot create sb_...)\n"
		    "  brig exec sb_... rm -rf /srv\n"
		    "  brig rollback sb_... $snap\n",
	.least = 2,
	.most = 2,
	.ids = true,
};

int cmd_rollback(int argc, char **argv)
{
	return move_command(&rollback_usage, argc, argv);
}
