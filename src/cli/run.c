/* run.c - brig run, brig exec: what runs in sandboxes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "code.h"
#include "job.h"
#include "making.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"

/* Everything that the options of the two commands can say. */
struct choices {
	struct making making;
	json_t *env;
	const char *user;
	const char *cwd;
	const char *python; /* files with code */
	const char *node;
	uint64_t timeout_ms;
	bool interactive;
	bool json;
	bool keep;
};

/* Rows that the commands share. */
/* clang-format off */
#define COMMAND_OPTS(c)                                                      \
	{ "env", 'e', OPT_ENV, "NAME=VALUE",                                 \
	  "set a variable; may be repeated", (c)->env, 0, 0 },               \
	{ "user", 'u', OPT_TEXT, "USER", "user in the guest (root)",         \
	  &(c)->user, 0, 0 },                                                \
	{ "cwd", 'w', OPT_TEXT, "DIR", "directory (the user's home)",        \
	  &(c)->cwd, 0, 0 },                                                 \
	{ "timeout", 0, OPT_DURATION, "TIME",                                \
	  "kill the command after TIME: 30, 1.5s, 10m", &(c)->timeout_ms,    \
	  0, 0 },                                                            \
	{ "python", 0, OPT_TEXT, "FILE",                                     \
	  "run this Python code instead of a command", &(c)->python, 0, 0 }, \
	{ "node", 0, OPT_TEXT, "FILE",                                       \
	  "run this JavaScript code instead of a command", &(c)->node,       \
	  0, 0 },                                                            \
	{ NULL, 'i', OPT_FLAG, NULL,                                         \
	  "pass on standard input also from a terminal, or to code",         \
	  &(c)->interactive, 0, 0 },                                         \
	{ "json", 0, OPT_FLAG, NULL, "print the whole result as JSON",       \
	  &(c)->json, 0, 0 }
/* clang-format on */

static const char *file_of(const struct choices *c)
{
	return c->python != NULL ? c->python : c->node;
}

/* A command, or code: one of them. */
static int check_choices(const struct usage *u, const struct choices *c,
			 char **argv)
{
	const char *file = file_of(c);

	if (c->python != NULL && c->node != NULL)
		return opt_wrong(u, "either --python or --node");
	if (file == NULL && *argv == NULL)
		return opt_wrong(u, "no command");
	if (file != NULL && *argv != NULL)
		return opt_wrong(u, "either code or a command, not '%s'",
				 *argv);
	if (file != NULL && strcmp(file, "-") == 0 && c->interactive)
		return opt_wrong(u, "standard input is either code or input");
	return CMD_OK;
}

/* --- the run as JSON -------------------------------------------------------- */

static int add_argv(json_t *body, char **argv)
{
	json_t *list = json_array();

	/* fails on what is not UTF-8: JSON cannot carry it */
	for (; *argv != NULL; argv++) {
		if (json_array_append_new(list, json_string(*argv)) < 0)
			break;
	}
	if (*argv == NULL && json_object_set(body, "argv", list) == 0) {
		json_decref(list);
		return 0;
	}
	complain("the command is not valid UTF-8");
	json_decref(list);
	return -1;
}

/* All of its input at once: interpreters take no more later. */
static int add_code(json_t *body, const struct choices *c)
{
	json_t *language = json_string(c->python != NULL ? "python" : "node");

	if (json_object_set_new(body, "language", language) < 0 ||
	    json_object_set_new(body, "code", code_read(file_of(c))) < 0)
		return -1;
	if (!c->interactive)
		return 0;
	return json_object_set_new(body, "stdin", code_read("-"));
}

/* NULL after complaining. */
static json_t *pack_run(const struct choices *c, char **argv)
{
	json_t *body = json_pack("{s:O, s:s*, s:s*}", "env", c->env, "user",
				 c->user, "cwd", c->cwd);
	int r = 0;

	if (body == NULL) {
		complain("the options are not valid UTF-8");
		return NULL;
	}
	if (c->timeout_ms > 0)
		r = json_object_set_new(
			body, "timeout_s",
			json_real((double)c->timeout_ms / 1000.0));
	if (r == 0)
		r = file_of(c) != NULL ? add_code(body, c)
				       : add_argv(body, argv);
	if (r == 0)
		return body;
	json_decref(body);
	return NULL;
}

/* `request` is what pack_run made. */
static int run_in(struct api *a, const struct choices *c, const char *id,
		  json_t *request)
{
	bool is_code = file_of(c) != NULL;
	const struct job job = {
		.sandbox = id,
		.request = request,
		.is_code = is_code,
		.send_stdin =
			!is_code && (c->interactive || !isatty(STDIN_FILENO)),
		.as_json = c->json,
	};

	return job_run(a, &job);
}

/* --- run ---------------------------------------------------------------------- */

static int run_and_delete(const struct choices *c, json_t *request)
{
	struct api a cleanup_api = { .multi = NULL };
	json_t *sandbox = NULL;
	int code = sandbox_open_api(&a);

	if (code == CMD_OK)
		code = making_create(&a, &c->making, &sandbox);
	if (code != CMD_OK)
		return code;
	const char *id = json_string_value(json_object_get(sandbox, "id"));
	code = run_in(&a, c, id, request);
	if (c->keep)
		complain("kept sandbox %s", id);
	else if (sandbox_delete(&a, id) != CMD_OK && code == CMD_OK)
		code = CMD_FAILED;
	json_decref(sandbox);
	return code;
}

static int run(const struct choices *c, char **argv)
{
	json_t *request = pack_run(c, argv);
	int code = request != NULL ? run_and_delete(c, request) : CMD_FAILED;

	json_decref(request);
	return code;
}

static const struct usage run_usage = {
	.name = "run",
	.operands = "[--] COMMAND [ARG]...",
	.about = "Creates a sandbox, runs COMMAND in it, deletes the sandbox. "
		 "Output, input and exit code are those of COMMAND. With "
		 "--python or --node it runs code, in an interpreter that is "
		 "warm already; - is standard input.",
	.examples =
		"  brig run python3 -c 'print(6 * 7)'\n"
		"  brig run --memory 1024 --timeout 30s -- sh -c 'ls -l /'\n"
		"  brig run --python script.py\n"
		"  echo 'console.log(6 * 7)' | brig run --node -\n",
	.passes_on = true,
};

int cmd_run(int argc, char **argv)
{
	struct choices c = { .env = json_object() };
	const struct opt opts[] = {
		MAKING_OPTS(&c.making),
		COMMAND_OPTS(&c),
		{ "keep", 0, OPT_FLAG, NULL, "do not delete the sandbox",
		  &c.keep, 0, 0 },
	};
	int at = opt_parse(&run_usage, opts, ARRAY_LEN(opts), argc, argv);
	int code = at < 0 ? opt_exit(at) : making_check(&run_usage, &c.making);

	if (at >= 0 && code == CMD_OK)
		code = check_choices(&run_usage, &c, argv + at);
	if (at >= 0 && code == CMD_OK)
		code = run(&c, argv + at);
	json_decref(c.env);
	return code;
}

/* --- exec --------------------------------------------------------------------- */

static const struct usage exec_usage = {
	.name = "exec",
	.operands = "ID [--] COMMAND [ARG]...",
	.about = "Runs COMMAND, or code, in the sandbox ID. Output, input and "
		 "exit code are those of COMMAND.",
	.examples = "  brig exec sb_... uname -a\n"
		    "  brig exec -i -u nobody sb_... sh\n"
		    "  brig exec --python script.py sb_...\n"
		    "  tar c . | brig exec sb_... tar x -C /srv\n",
	.passes_on = true,
};

static int exec_in(const struct choices *c, const char *id, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	json_t *request = pack_run(c, argv);
	int code = request != NULL ? sandbox_open_api(&a) : CMD_FAILED;

	if (code == CMD_OK)
		code = run_in(&a, c, id, request);
	json_decref(request);
	return code;
}

static int exec(const struct choices *c, int argc, char **argv)
{
	int first = argc > 1 && strcmp(argv[1], "--") == 0 ? 2 : 1;

	if (argc == 0)
		return opt_wrong(&exec_usage, "no sandbox");
	if (!ref_is_id(argv[0]))
		return opt_wrong(&exec_usage, "'%s' is not an id", argv[0]);
	int code = check_choices(&exec_usage, c, argv + first);
	return code != CMD_OK ? code : exec_in(c, argv[0], argv + first);
}

int cmd_exec(int argc, char **argv)
{
	struct choices c = { .env = json_object() };
	const struct opt opts[] = {
		COMMAND_OPTS(&c),
	};
	int at = opt_parse(&exec_usage, opts, ARRAY_LEN(opts), argc, argv);
	int code = at < 0 ? opt_exit(at) : exec(&c, argc - at, argv + at);

	json_decref(c.env);
	return code;
}
