/* spawn.c - starts the main process of a run.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "spawn.h"
#include "textfile.h"

static char default_path[] =
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static char default_lang[] = "LANG=C.UTF-8";

/* As everywhere: select(2) breaks above. The hard limit is left high. */
#define PIPE_BYTES (256 << 10)

#define NOFILE_SOFT 1024

/* Descriptors of the child before execve. */
enum {
	IN,
	OUT,
	ERR,
	REPORT,
	KEPT,
	KEPT_MAX = KEPT + SPAWN_ASIDE
};

static bool has_name(const struct exec_request *req, const char *entry)
{
	size_t n = strcspn(entry, "=") + 1;

	for (uint32_t i = 0; i < req->envc; i++) {
		if (strncmp(req->env[i], entry, n) == 0)
			return true;
	}
	return false;
}

/* "NAME=value" at *at in the store, which moves past it. */
static char *compose(char *store, size_t *at, const char *name,
		     const char *value)
{
	char *entry = store + *at;
	size_t room = SPAWN_STORE_BYTES - *at;

	*at += (size_t)snprintf(entry, room, "%s=%s", name, value) + 1;
	ASSERT(*at <= SPAWN_STORE_BYTES);
	return entry;
}

void spawn_add_defaults(struct exec_request *req, const struct account *who,
			char store[SPAWN_STORE_BYTES])
{
	size_t at = 0;
	char *const added[] = {
		default_path,
		default_lang,
		compose(store, &at, "HOME", who->home),
		compose(store, &at, "USER", who->name),
		compose(store, &at, "LOGNAME", who->name),
	};
	uint32_t n = req->envc;

	static_assert(ARRAY_LEN(added) < FRAMES_ENV_SPARE, "room for env");
	for (size_t i = 0; i < ARRAY_LEN(added); i++) {
		if (!has_name(req, added[i]))
			req->env[n++] = added[i];
	}
	req->env[n] = NULL;
}

static noreturn_fn void fail(int report, enum guest_error_stage stage,
			     int error)
{
	struct spawn_failure f = {
		.stage = (uint32_t)stage,
		.error = (uint32_t)error,
	};
	ssize_t put = write(report, &f, sizeof(f));

	(void)put;
	_exit(127);
}

void spawn_keep_only(const int *fds, int count)
{
	int high[KEPT_MAX];
	sigset_t none;

	/* Out of the way of the targets first. */
	ASSERT(count <= KEPT_MAX);
	for (int i = 0; i < count; i++) {
		high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, KEPT_MAX);
		if (high[i] < 0)
			_exit(127);
	}
	for (int i = 0; i < count; i++) {
		if (dup2(high[i], i) < 0)
			_exit(127);
	}
	if (syscall(SYS_close_range, (unsigned int)count, ~0u, 0u) < 0)
		_exit(127);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void set_limits(void)
{
	const struct rlimit core = { 0, RLIM_INFINITY };
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = NOFILE_SOFT;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)setrlimit(RLIMIT_CORE, &core);
	/* The agent is exempt from the OOM killer; what it starts is not. */
	int r = textfile_write(AT_FDCWD, "/proc/self/oom_score_adj", "0");
	(void)r;
	(void)umask(022);
}

/* The pipes become the user's own, so that /dev/stdout can be opened. */
static int become(const struct account *who, uint32_t flags)
{
	if (who->uid != 0 && (fchown(OUT, who->uid, who->gid) < 0 ||
			      fchown(ERR, who->uid, who->gid) < 0 ||
			      ((flags & GUEST_EXEC_STDIN) &&
			       fchown(IN, who->uid, who->gid) < 0)))
		return -errno;
	if (setgroups(who->group_count, who->groups) < 0 ||
	    setresgid(who->gid, who->gid, who->gid) < 0 ||
	    setresuid(who->uid, who->uid, who->uid) < 0)
		return -errno;
	return 0;
}

/* A home directory that is not there is no reason to fail. */
static int enter(const struct exec_request *req, const struct account *who)
{
	if (chdir(who->home) < 0 && chdir("/") < 0)
		return -errno;
	if (req->cwd[0] != '\0' && chdir(req->cwd) < 0)
		return -errno;
	return 0;
}

static void run_shell(char *line)
{
	char bash[] = "bash";
	char sh[] = "sh";
	char command[] = "-c";
	char no_option[] = "--"; /* whatever the line begins with */
	char *argv[] = { bash, command, no_option, line, NULL };

	(void)execv("/bin/bash", argv);
	if (errno != ENOENT)
		return;
	argv[0] = sh;
	(void)execv("/bin/sh", argv);
}

static noreturn_fn void child(struct exec_request *req,
			      const struct account *who, const int *fds,
			      int count)
{
	spawn_keep_only(fds, count);
	if (fcntl(REPORT, F_SETFD, FD_CLOEXEC) < 0)
		_exit(127);
	(void)setsid();
	set_limits();
	int r = become(who, req->flags);
	if (r < 0)
		fail(REPORT, GUEST_AT_USER, -r);
	r = enter(req, who);
	if (r < 0)
		fail(REPORT, GUEST_AT_CWD, -r);
	/* execvp looks for the program in this PATH. */
	environ = req->env;
	if (req->flags & GUEST_EXEC_SHELL)
		run_shell(req->argv[0]);
	else
		(void)execvp(req->argv[0], req->argv);
	fail(REPORT, GUEST_AT_EXEC, errno);
}

/* fork(2) into a cgroup. The child gets a copy of everything. */
static pid_t fork_into(int cgroup_fd)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = (__u64)(unsigned int)cgroup_fd,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	return pid < 0 ? (pid_t)-errno : (pid_t)pid;
}

/* A pipe whose end [`mine`] is non-blocking; large, so that a program can go
 * on while its output gathers. Where that is refused the usual size will do. */
static int make_pipe(int fds[2], int mine)
{
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	(void)fcntl(fds[0], F_SETPIPE_SZ, PIPE_BYTES);
	return fd_set_nonblock(fds[mine]);
}

static int make_stdin(uint32_t flags, int fds[2])
{
	if (flags & GUEST_EXEC_STDIN)
		return make_pipe(fds, 1);
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return fds[0] < 0 ? -errno : 0;
}

int spawn_make_pipe(int *ret_theirs, int *ret_mine, bool mine_writes)
{
	int fds[2] = { -1, -1 };
	int mine = mine_writes ? 1 : 0;
	int r = make_pipe(fds, mine);

	*ret_mine = fds[mine];
	*ret_theirs = fds[1 - mine];
	return r;
}

int spawn_start(struct exec_request *req, const struct account *who,
		int cgroup_fd, const int aside[SPAWN_ASIDE],
		struct spawned *ret)
{
	int pipes[KEPT][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 }, { -1, -1 } };
	int fds[KEPT_MAX];
	int count = KEPT;
	pid_t pid = 0;

	int r = make_stdin(req->flags, pipes[IN]);
	for (int i = OUT; i < KEPT && r == 0; i++)
		r = make_pipe(pipes[i], 0);
	if (r == 0) {
		fds[IN] = pipes[IN][0];
		for (int i = OUT; i < KEPT; i++)
			fds[i] = pipes[i][1];
		for (int i = 0; i < SPAWN_ASIDE && aside[i] >= 0; i++)
			fds[count++] = aside[i];
		pid = fork_into(cgroup_fd);
		if (pid == 0)
			child(req, who, fds, count);
		r = pid < 0 ? (int)pid : 0;
	}
	if (r == 0) {
		ret->pid = pid;
		ret->in = fd_take(&pipes[IN][1]);
		ret->out[0] = fd_take(&pipes[OUT][0]);
		ret->out[1] = fd_take(&pipes[ERR][0]);
		ret->report = fd_take(&pipes[REPORT][0]);
	}
	for (int i = 0; i < KEPT; i++) {
		fd_close(&pipes[i][0]);
		fd_close(&pipes[i][1]);
	}
	return r;
}

pid_t spawn_quiet(const char *path, char *const *env, int cgroup_fd)
{
	char *argv[] = { strdup(path), NULL };
	cleanup_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid =
		null < 0 || argv[0] == NULL ? -EAGAIN : fork_into(cgroup_fd);

	if (pid == 0) {
		const int fds[] = { null, null, null };
		spawn_keep_only(fds, ARRAY_LEN(fds));
		(void)setsid();
		set_limits();
		if (chdir("/") == 0)
			(void)execve(path, argv, env);
		_exit(127);
	}
	free(argv[0]);
	return pid;
}
