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
	struct api a cleanup_api = { .multi = NULL };
	char path[PATH_BYTES];
	char label[PATH_BYTES];
	json_t *reply = NULL;
	const struct request rq = { .method = "POST",
				    .path = path,
				    .body = body,
				    .what = label,
				    .label = label,
				    .timeout_s = MOVE_TIMEOUT_S };
	int code = sandbox_open_api(&a);

	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s/%s", id, what);
	(void)snprintf(label, sizeof(label), "%s of %s", what, id);
	if (code == CMD_OK)
		code = sandbox_ask(&a, &rq, &reply);
	if (code == CMD_OK)
		code = sandbox_print(reply, "id", json);
	json_decref(reply);
	return code;
}

/* Reads options and `count` ids behind them; the index of the first, or the
 * exit code as ~code. */
static int read_ids(const struct usage *u, int count, int argc, char **argv,
		    bool *ret_json)
{
	const struct opt opts[] = {
		{ "json", 0, OPT_FLAG, NULL, "print what it is now as JSON",
		  ret_json, 0, 0 },
	};
	int at = opt_parse(u, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return ~opt_exit(at);
	if (argc - at != count)
		return ~opt_wrong(u, "%s needed", u->operands);
	for (int i = at; i < argc; i++) {
		if (!ref_is_id(argv[i]))
			return ~opt_wrong(u, "'%s' is not an id", argv[i]);
	}
	return at;
}

static int move_one(const struct usage *u, int argc, char **argv)
{
	bool json = false;
	int at = read_ids(u, 1, argc, argv, &json);

	return at < 0 ? ~at : move(argv[at], u->name, NULL, json);
}

/* --- the commands ------------------------------------------------------------- */

static const struct usage pause_usage = {
	.name = "pause",
	.operands = "ID",
	.about = "Stops the sandbox ID and keeps its memory on disk. It keeps "
		 "its id.",
	.examples = "  brig pause sb_...\n",
};

int cmd_pause(int argc, char **argv)
{
	return move_one(&pause_usage, argc, argv);
}

static const struct usage resume_usage = {
	.name = "resume",
	.operands = "ID",
	.about = "Lets the paused sandbox ID go on where it was.",
	.examples = "  brig resume sb_...\n",
};

int cmd_resume(int argc, char **argv)
{
	return move_one(&resume_usage, argc, argv);
}

static const struct usage reset_usage = {
	.name = "reset",
	.operands = "ID",
	.about = "Puts the sandbox ID back to what it was made from. It keeps "
		 "its id; what ran and was written in it is gone.",
	.examples = "  brig reset sb_...\n",
};

int cmd_reset(int argc, char **argv)
{
	return move_one(&reset_usage, argc, argv);
}

static const struct usage rollback_usage = {
	.name = "rollback",
	.operands = "ID SNAPSHOT",
	.about = "Puts the sandbox ID back to SNAPSHOT. It keeps its id; what "
		 "happened in it since is gone.",
	.examples = "  snap=$(brig snapshot create sb_...)\n"
		    "  brig exec sb_... rm -rf /srv\n"
		    "  brig rollback sb_... $snap\n",
};

int cmd_rollback(int argc, char **argv)
{
	bool json = false;
	int at = read_ids(&rollback_usage, 2, argc, argv, &json);

	if (at < 0)
		return ~at;
	json_t *body = json_pack("{s:s}", "snapshot", argv[at + 1]);
	int code = move(argv[at], "rollback", body, json);
	json_decref(body);
	return code;
}
