/* cmd.h - the commands of brig and what their exit codes mean.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A command gets its own name as argv[0] and returns the exit code of the
 * process. One thread; each command runs once.
 */
#ifndef BRIG_CLI_CMD_H
#define BRIG_CLI_CMD_H

/* run and exec pass on the command's own code; the rest is as env(1),
 * timeout(1) and the shell do it. */
enum cmd_exit {
	CMD_OK = 0,
	CMD_CANNOT = 1, /* doctor: no sandbox can run here */
	CMD_USAGE = 2,
	CMD_TIMEOUT = 124,
	CMD_FAILED = 125, /* brig itself failed */
	CMD_NOT_RUNNABLE =
		126,         /* the guest found the command, could not run it */
	CMD_NOT_FOUND = 127, /* the guest did not find the command */
	CMD_SIGNAL = 128,    /* plus the number of the signal */
};

struct cmd {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;        /* one line */
	const struct cmd *words; /* for `brig NAME WORD`; NULL: none */
};

/* Tables; each ends with a NULL name. */
extern const struct cmd commands[];
extern const struct cmd snapshot_words[];
extern const struct cmd template_words[];

/* NULL: no such command. */
const struct cmd *cmd_find(const struct cmd *table, const char *name);

/* A line for each. */
void cmd_print(const struct cmd *table);

int cmd_run(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_cp(int argc, char **argv);
int cmd_logs(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_clone(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_rollback(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_host(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_help(int argc, char **argv);

#endif
