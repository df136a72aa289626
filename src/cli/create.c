/* create.c - brig create, clone, restore: sandboxes that stay.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "cmd.h"
#include "making.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"

#define PATH_BYTES 256

/* --- create ------------------------------------------------------------------- */

static int create(const struct making *m, bool json)
{
	struct api a cleanup_api = { .multi = NULL };
	json_t *reply = NULL;
	int code = sandbox_open_api(&a);

	if (code == CMD_OK)
		code = making_create(&a, m, &reply);
	if (code == CMD_OK)
		code = making_print(reply, json);
	json_decref(reply);
	return code;
}

static const struct usage create_usage = {
	.name = "create",
	.operands = "",
	.about = "Creates a sandbox, or several, and prints their ids. They "
		 "live until `brig rm`.",
	.examples = "  id=$(brig create)\n"
		    "  brig create --cpus 2 --memory 2048 --name builder\n"
		    "  brig create --template numpy --count 10\n",
};

int cmd_create(int argc, char **argv)
{
	struct making m = { .env = json_object() };
	bool json = false;
	const struct opt opts[] = {
		MAKING_OPTS(&m),
		{ "name", 'n', OPT_TEXT, "NAME", "name (a generated one)",
		  &m.name, 0, 0 },
		{ "env", 'e', OPT_ENV, "NAME=VALUE",
		  "a variable for all its commands; may be repeated", m.env, 0,
		  0 },
		{ "count", 0, OPT_NUMBER, "N", "make N of them", &m.count, 1,
		  MAKING_COUNT_MAX },
		{ "no-wait", 0, OPT_FLAG, NULL,
		  "do not wait until it has booted", &m.no_wait, 0, 0 },
		OPT_JSON(&json),
	};
	int at = opt_parse(&create_usage, opts, ARRAY_LEN(opts), argc, argv);
	int code;

	if (at < 0)
		code = opt_exit(at);
	else
		code = making_check(&create_usage, &m);
	if (at >= 0 && code == CMD_OK)
		code = create(&m, json);
	json_decref(m.env);
	return code;
}

/* --- restore ------------------------------------------------------------------ */

static const struct usage restore_usage = {
	.name = "restore",
	.operands = "SNAPSHOT",
	.about = "Creates a sandbox that goes on where SNAPSHOT was taken, and "
		 "prints its id.",
	.examples = "  brig restore snap_...\n"
		    "  brig restore snap_... --name second-try\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

int cmd_restore(int argc, char **argv)
{
	struct making m = { .name = NULL };
	bool json = false;
	const struct opt opts[] = {
		{ "name", 'n', OPT_TEXT, "NAME", "name (a generated one)",
		  &m.name, 0, 0 },
		OPT_JSON(&json),
	};
	int at = opt_parse(&restore_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	m.snapshot = argv[at];
	return create(&m, json);
}

/* --- clone -------------------------------------------------------------------- */

static int make_clones(const char *id, uint64_t count, bool json)
{
	struct api a cleanup_api = { .multi = NULL };
	char path[PATH_BYTES];
	json_t *body = json_pack("{s:I}", "count", (json_int_t)count);
	json_t *reply = NULL;
	int code = sandbox_open_api(&a);

	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s/clone", id);
	if (code == CMD_OK)
		code = making_ask(&a, path, body, "cloning", &reply);
	if (code == CMD_OK)
		code = making_print(reply, json);
	json_decref(reply);
	json_decref(body);
	return code;
}

static const struct usage clone_usage = {
	.name = "clone",
	.operands = "ID",
	.about = "Copies the running sandbox ID and prints the ids of the "
		 "copies. What runs in it goes on in each of them; it stands "
		 "still for about a millisecond.",
	.examples = "  brig clone sb_...\n"
		    "  for id in $(brig clone sb_... -n 10); do brig exec $id "
		    "hostname; done\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

int cmd_clone(int argc, char **argv)
{
	uint64_t count = 1;
	bool json = false;
	const struct opt opts[] = {
		{ "count", 'n', OPT_NUMBER, "N", "make N copies (1)", &count, 1,
		  MAKING_COUNT_MAX },
		OPT_JSON(&json),
	};
	int at = opt_parse(&clone_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	return make_clones(argv[at], count, json);
}
