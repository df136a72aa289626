/* run.c - brig run, brig exec, brig create: sandboxes and what runs in them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "job.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "stop.h"

/* Everything that the options of the three commands can say. */
struct choices {
	struct sandbox_spec spec;
	json_t *env;
	const char *user;
	const char *cwd;
	uint64_t timeout_ms;
	bool interactive;
	bool json;
	bool keep;
};

/* --- options that commands share ---------------------------------------------- */

/* clang-format off: rows of tables */
#define SIZE_OPTS(spec)                                                      \
	{ "image",        0, OPT_TEXT, "IMAGE", "image to boot (default)",   \
	  &(spec)->image, 0, 0 },                                            \
		{ "cpus",                                                    \
		  0,                                                         \
		  OPT_CPUS,                                                  \
		  "CPUS",                                                    \
		  "CPUs, in steps of 0.25 (1)",                              \
		  &(spec)->cpu_quarters,                                     \
		  0,                                                         \
		  0 },                                                       \
		{ "memory",                                                  \
		  0,                                                         \
		  OPT_NUMBER,                                                \
		  "MIB",                                                     \
		  "memory in MiB (512)",                                     \
		  &(spec)->memory_mib,                                       \
		  SANDBOX_MEMORY_MIN,                                        \
		  SANDBOX_MEMORY_MAX },                                      \
	{                                                                    \
		"disk", 0, OPT_NUMBER, "GB", "size of the disk in GiB (10)", \
			&(spec)->disk_gb, SANDBOX_DISK_MIN, SANDBOX_DISK_MAX \
	}

#define COMMAND_OPTS(c)                                                          \
	{ "env",                                                                 \
	  'e',                                                                   \
	  OPT_ENV,                                                               \
	  "NAME=VALUE",                                                          \
	  "set a variable; may be repeated",                                     \
	  (c)->env,                                                              \
	  0,                                                                     \
	  0 },                                                                   \
		{ "user",     'u', OPT_TEXT, "USER", "user in the guest (root)", \
		  &(c)->user, 0,   0 },                                          \
		{ "cwd",                                                         \
		  'w',                                                           \
		  OPT_TEXT,                                                      \
		  "DIR",                                                         \
		  "directory (the user's home)",                                 \
		  &(c)->cwd,                                                     \
		  0,                                                             \
		  0 },                                                           \
		{ "timeout",                                                     \
		  0,                                                             \
		  OPT_DURATION,                                                  \
		  "TIME",                                                        \
		  "kill the command after TIME: 30, 1.5s, 10m",                  \
		  &(c)->timeout_ms,                                              \
		  0,                                                             \
		  0 },                                                           \
		{ NULL,                                                          \
		  'i',                                                           \
		  OPT_FLAG,                                                      \
		  NULL,                                                          \
		  "pass on standard input also from a terminal",                 \
		  &(c)->interactive,                                             \
		  0,                                                             \
		  0 },                                                           \
	{                                                                        \
		"json", 0, OPT_FLAG, NULL, "print the whole result as JSON",     \
			&(c)->json, 0, 0                                         \
	}
/* clang-format on */

/* --- the run as JSON -------------------------------------------------------- */

static json_t *pack_argv(char **argv)
{
	json_t *list = json_array();

	for (; *argv != NULL; argv++) {
		/* fails on what is not UTF-8: JSON cannot carry it */
		if (json_array_append_new(list, json_string(*argv)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *pack_run(const struct choices *c, char **argv)
{
	json_t *list = pack_argv(argv);

	if (list == NULL)
		return NULL;
	json_t *body = json_pack("{s:o, s:O, s:s*, s:s*}", "argv", list, "env",
				 c->env, "user", c->user, "cwd", c->cwd);
	if (body != NULL && c->timeout_ms > 0 &&
	    json_object_set_new(body, "timeout_s",
				json_real((double)c->timeout_ms / 1000.0)) <
		    0) {
		json_decref(body);
		return NULL;
	}
	return body;
}

static int run_in(struct api *a, const struct choices *c, const char *id,
		  char **argv)
{
	struct job job = { .sandbox = id,
			   .request = pack_run(c, argv),
			   .send_stdin =
				   c->interactive || !isatty(STDIN_FILENO),
			   .as_json = c->json };
	int code = CMD_FAILED;

	if (job.request == NULL)
		complain("the command is not valid UTF-8");
	else
		code = job_run(a, &job);
	json_decref(job.request);
	return code;
}

/* --- run ---------------------------------------------------------------------- */

static int run_and_delete(struct choices *c, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	json_t *sandbox = NULL;
	int code = sandbox_open_api(&a);

	if (code == CMD_OK)
		code = sandbox_create(&a, &c->spec, &sandbox);
	if (code != CMD_OK)
		return code;
	const char *id = json_string_value(json_object_get(sandbox, "id"));
	code = run_in(&a, c, id, argv);
	if (c->keep)
		complain("kept sandbox %s", id);
	else if (sandbox_delete(&a, id) != CMD_OK && code == CMD_OK)
		code = CMD_FAILED;
	json_decref(sandbox);
	return code;
}

static const struct usage run_usage = {
	.name = "run",
	.operands = "[--] COMMAND [ARG]...",
	.about = "Creates a sandbox, runs COMMAND in it, deletes the sandbox. "
		 "Output, input and\nexit code are those of COMMAND.",
	.examples =
		"  brig run python3 -c 'print(6 * 7)'\n"
		"  brig run --memory 1024 --timeout 30s -- sh -c 'ls -l /'\n"
		"  brig run python3 - < script.py\n",
};

int cmd_run(int argc, char **argv)
{
	struct choices c = { .env = json_object() };
	const struct opt opts[] = {
		SIZE_OPTS(&c.spec),
		COMMAND_OPTS(&c),
		{ "keep", 0, OPT_FLAG, NULL, "do not delete the sandbox",
		  &c.keep, 0, 0 },
	};
	int at = opt_parse(&run_usage, opts, ARRAY_LEN(opts), argc, argv);
	int code;

	if (at < 0)
		code = opt_exit(at);
	else if (at == argc)
		code = opt_wrong(&run_usage, "no command");
	else
		code = run_and_delete(&c, argv + at);
	json_decref(c.env);
	return code;
}

/* --- exec --------------------------------------------------------------------- */

static const struct usage exec_usage = {
	.name = "exec",
	.operands = "ID [--] COMMAND [ARG]...",
	.about = "Runs COMMAND in the sandbox ID. Output, input and exit code "
		 "are those of COMMAND.",
	.examples = "  brig exec sb_... uname -a\n"
		    "  brig exec -i -u nobody sb_... sh\n"
		    "  tar c . | brig exec sb_... tar x -C /srv\n",
};

static int exec_in(const struct choices *c, int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	int first = argc > 1 && strcmp(argv[1], "--") == 0 ? 2 : 1;

	if (argc == 0)
		return opt_wrong(&exec_usage, "no sandbox");
	if (!ref_is_id(argv[0]))
		return opt_wrong(&exec_usage, "'%s' is not an id", argv[0]);
	if (first >= argc)
		return opt_wrong(&exec_usage, "no command");
	int code = sandbox_open_api(&a);
	return code != CMD_OK ? code : run_in(&a, c, argv[0], argv + first);
}

int cmd_exec(int argc, char **argv)
{
	struct choices c = { .env = json_object() };
	const struct opt opts[] = {
		COMMAND_OPTS(&c),
	};
	int at = opt_parse(&exec_usage, opts, ARRAY_LEN(opts), argc, argv);
	int code = at < 0 ? opt_exit(at) : exec_in(&c, argc - at, argv + at);

	json_decref(c.env);
	return code;
}

/* --- create ------------------------------------------------------------------- */

static int create_and_print(const struct choices *c)
{
	struct api a cleanup_api = { .multi = NULL };
	json_t *sandbox = NULL;
	int code = sandbox_open_api(&a);

	if (code == CMD_OK)
		code = sandbox_create(&a, &c->spec, &sandbox);
	if (code != CMD_OK)
		return code;
	if (c->json) {
		if (term_print_json(sandbox) < 0)
			code = CMD_FAILED;
	} else {
		(void)printf("%s\n",
			     json_string_value(json_object_get(sandbox, "id")));
	}
	json_decref(sandbox);
	return code;
}

static const struct usage create_usage = {
	.name = "create",
	.operands = "",
	.about = "Creates a sandbox and prints its id. It lives until "
		 "`brig rm`.",
	.examples = "  id=$(brig create)\n"
		    "  brig create --cpus 2 --memory 2048 --name builder\n",
};

int cmd_create(int argc, char **argv)
{
	struct choices c = { .env = json_object() };
	const struct opt opts[] = {
		SIZE_OPTS(&c.spec),
		{ "name", 'n', OPT_TEXT, "NAME", "name (a generated one)",
		  &c.spec.name, 0, 0 },
		{ "env", 'e', OPT_ENV, "NAME=VALUE",
		  "a variable for all its commands; may be repeated", c.env, 0,
		  0 },
		{ "no-wait", 0, OPT_FLAG, NULL,
		  "do not wait until it has booted", &c.spec.no_wait, 0, 0 },
		{ "json", 0, OPT_FLAG, NULL, "print the reply as JSON", &c.json,
		  0, 0 },
	};
	int at = opt_parse(&create_usage, opts, ARRAY_LEN(opts), argc, argv);
	int code;

	c.spec.env = c.env;
	if (at < 0)
		code = opt_exit(at);
	else if (at != argc)
		code = opt_wrong(&create_usage, "'%s' is too much", argv[at]);
	else
		code = create_and_print(&c);
	json_decref(c.env);
	return code;
}
