/* main.c - brig, the command line: finds the command and calls it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "term.h"

const struct cmd commands[] = {
	{ "run", cmd_run, "run a command in a new sandbox, then delete it" },
	{ "create", cmd_create, "create a sandbox and print its id" },
	{ "exec", cmd_exec, "run a command in a sandbox" },
	{ "ps", cmd_ps, "list sandboxes" },
	{ "rm", cmd_rm, "delete sandboxes" },
	{ "cp", cmd_cp, "copy a file into or out of a sandbox" },
	{ "logs", cmd_logs, "show past runs, or a sandbox's boot log" },
	{ "status", cmd_status, "show one sandbox as JSON" },
	{ "inspect", cmd_status, "the same as status" },
	{ "host", cmd_host, "start, stop or look at the host VM" },
	{ "doctor", cmd_doctor, "say what this machine can do" },
	{ "completion", cmd_completion, "print shell completions" },
	{ "version", cmd_version, "print the version" },
	{ "help", cmd_help, "explain a command" },
	{ NULL, NULL, NULL },
};

const struct cmd *cmd_find(const char *name)
{
	for (const struct cmd *c = commands; c->name != NULL; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

/* A caller may have closed 0, 1 or 2; a socket must not take their place. */
static int open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR); /* inherited on purpose */
	while (fd >= 0 && fd <= STDERR_FILENO);
	return fd < 0 ? -1 : close(fd);
}

int main(int argc, char **argv)
{
	char help[] = "help";
	char version[] = "version";

	if (open_standard_fds() < 0)
		return CMD_FAILED;
	if (argc < 2) {
		(void)cmd_help(1, argv);
		return CMD_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		argv[1] = help;
	if (strcmp(argv[1], "--version") == 0)
		argv[1] = version;
	const struct cmd *c = cmd_find(argv[1]);
	if (c == NULL) {
		complain("no command '%s'; `brig help` lists them", argv[1]);
		return CMD_USAGE;
	}
	return term_flush(c->run(argc - 1, argv + 1));
}
