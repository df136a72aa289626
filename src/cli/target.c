/* target.c - a local file, or standard output, that a reply is written to.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "sandbox.h"
#include "stop.h"
#include "target.h"

int target_find(struct target *t, const char *local, const char *name)
{
	struct stat st;
	int n;

	*t = (struct target){ .fd = -1 };
	if (strcmp(local, "-") == 0) {
		t->fd = STDOUT_FILENO;
		return CMD_OK;
	}
	if (stat(local, &st) < 0 || !S_ISDIR(st.st_mode))
		n = snprintf(t->path, sizeof(t->path), "%s", local);
	else if (name != NULL)
		n = snprintf(t->path, sizeof(t->path), "%s/%s", local, name);
	else
		n = -EISDIR;
	if (n >= (int)sizeof(t->path))
		n = -ENAMETOOLONG;
	if (n >= 0)
		return CMD_OK;
	complain("%s: %s", local, strerror(-n));
	return CMD_FAILED;
}

static int open_file(struct target *t)
{
	if (t->fd >= 0)
		return 0;
	t->fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	t->made = t->fd >= 0;
	if (t->fd < 0 && errno == EEXIST)
		t->fd = open(t->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			     0666);
	return t->fd < 0 ? -errno : 0;
}

static int write_file(void *ctx, const char *bytes, size_t n)
{
	struct target *t = ctx;
	int r = open_file(t);

	return r < 0 ? r : stop_write(t->fd, bytes, n);
}

static int close_file(struct target *t, int code)
{
	if (code == CMD_OK && open_file(t) < 0) {
		complain("%s: %s", t->path, strerror(errno));
		code = CMD_FAILED; /* an empty file */
	}
	if (t->fd >= 0 && close(t->fd) < 0 && code == CMD_OK) {
		complain("%s: %s", t->path, strerror(errno));
		code = CMD_FAILED;
	}
	if (code != CMD_OK && t->made)
		(void)unlink(t->path); /* rather none than half a file */
	return code;
}

int target_receive(struct api *a, struct api_call *c, struct target *t,
		   const char *what)
{
	bool standard = t->fd == STDOUT_FILENO;
	int code = CMD_OK;

	if (standard && isatty(STDOUT_FILENO))
		c->label = NULL;
	c->sink = write_file;
	c->sink_ctx = t;
	int r = api_perform(a, c);
	if (c->sink_result == -EPIPE)
		code = CMD_SIGNAL + SIGPIPE;
	else if (r < 0)
		code = sandbox_fail(
			c->sink_result < 0 && !standard ? t->path : what, c, r);
	return standard ? code : close_file(t, code);
}
