/* info.c - brig help, brig version, brig completion: about brig itself.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "brig-bash.h" /* made from completion/brig.bash */
#include "cmd.h"
#include "opt.h"
#include "term.h"

/* --- help ---------------------------------------------------------------------- */

static void print_commands(void)
{
	(void)printf("usage: brig COMMAND [OPTION]... [ARG]...\n\n"
		     "Runs commands in microVMs on your own machine.\n\n"
		     "Commands:\n");
	cmd_print(commands);
	(void)printf("\n`brig help COMMAND` explains one. Environment:\n"
		     "  BRIG_BASE_URL  where brigd answers "
		     "(http://127.0.0.1:2744)\n"
		     "  BRIG_API_KEY   its key (else read from "
		     "/var/lib/brig/key)\n"
		     "  BRIG_LIBEXEC   where brig-host and brig-vmm are\n"
		     "  NO_COLOR       no colours\n");
}

static const struct usage help_usage = {
	.name = "help",
	.operands = "[COMMAND [WORD]]",
	.about = "Lists the commands, or explains one.",
	.examples = "  brig help run\n"
		    "  brig help snapshot create\n",
	.most = 2,
};

static int explain(char **words, int count)
{
	char option[] = "--help";
	const struct cmd *c = cmd_find(commands, words[0]);

	if (c == NULL)
		return opt_wrong(&help_usage, "no command '%s'", words[0]);
	if (count == 2 && c->words != NULL)
		c = cmd_find(c->words, words[1]);
	else if (count > 1)
		c = NULL;
	if (c == NULL)
		return opt_wrong(&help_usage, "'%s' has no command '%s'",
				 words[0], words[1]);
	char *args[] = { words[count - 1], option, NULL };
	return c->run(2, args);
}

int cmd_help(int argc, char **argv)
{
	int at = argc > 1 ? opt_parse(&help_usage, NULL, 0, argc, argv) : argc;

	if (at < 0)
		return opt_exit(at);
	if (at < argc)
		return explain(argv + at, argc - at);
	print_commands();
	return CMD_OK;
}

/* --- version ------------------------------------------------------------------- */

static const struct usage version_usage = {
	.name = "version",
	.operands = "",
	.about = "Prints the version of this program.",
	.examples = "  brig version\n",
};

int cmd_version(int argc, char **argv)
{
	int at = opt_parse(&version_usage, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	(void)printf("brig %s\n", BRIG_VERSION);
	return CMD_OK;
}

/* --- completion ------------------------------------------------------------------ */

static const struct usage completion_usage = {
	.name = "completion",
	.operands = "bash",
	.about = "Prints a script that lets the shell complete commands, "
		 "options and ids.",
	.examples = "  source <(brig completion bash)\n",
	.least = 1,
	.most = 1,
};

int cmd_completion(int argc, char **argv)
{
	int at = opt_parse(&completion_usage, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (strcmp(argv[at], "bash") != 0)
		return opt_wrong(&completion_usage, "only bash is known");
	(void)fputs(brig_bash, stdout);
	return CMD_OK;
}
