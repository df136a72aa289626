/* main.c - brig, the command line: finds the command and calls it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "term.h"

const struct cmd commands[] = {
	{ "run", cmd_run, "run a command in a new sandbox, then delete it",
	  NULL },
	{ "create", cmd_create, "create sandboxes and print their ids", NULL },
	{ "exec", cmd_exec, "run a command in a sandbox", NULL },
	{ "ps", cmd_ps, "list sandboxes", NULL },
	{ "rm", cmd_rm, "delete sandboxes", NULL },
	{ "cp", cmd_cp, "copy a file into or out of a sandbox", NULL },
	{ "clone", cmd_clone, "copy a running sandbox with all that runs in it",
	  NULL },
	{ "snapshot", cmd_snapshot, "keep sandboxes as they are now",
	  snapshot_words },
	{ "restore", cmd_restore, "create a sandbox from a snapshot", NULL },
	{ "rollback", cmd_rollback, "put a sandbox back to a snapshot", NULL },
	{ "pause", cmd_pause, "stop a sandbox, keep its memory on disk", NULL },
	{ "resume", cmd_resume, "let a paused sandbox go on", NULL },
	{ "reset", cmd_reset, "put a sandbox back to what it was made from",
	  NULL },
	{ "template", cmd_template, "keep what new sandboxes start from",
	  template_words },
	{ "logs", cmd_logs, "show past runs, or a sandbox's boot log", NULL },
	{ "status", cmd_status, "show one sandbox as JSON", NULL },
	{ "inspect", cmd_status, "the same as status", NULL },
	{ "host", cmd_host, "start, stop or look at the host VM", NULL },
	{ "doctor", cmd_doctor, "say what this machine can do", NULL },
	{ "completion", cmd_completion, "print shell completions", NULL },
	{ "version", cmd_version, "print the version", NULL },
	{ "help", cmd_help, "explain a command", NULL },
	{ NULL, NULL, NULL, NULL },
};

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
	const struct cmd *c = cmd_find(commands, argv[1]);
	if (c == NULL) {
		complain("no command '%s'; `brig help` lists them", argv[1]);
		return CMD_USAGE;
	}
	return term_flush(c->run(argc - 1, argv + 1));
}
