/* jail.c - what a child of brig-spawn does between clone and exec.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Order matters: all that needs privileges comes first, then they go, ids
 * before capabilities. Plain system calls where glibc would act on threads.
 *
 * brig-vmm makes itself undumpable: exec would undo it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "jail.h"

#define EXIT_NOT_STARTED 127

/* Each vsock connection is one end of a socket pair that brig-vmm holds, two
 * while it hands the other one over (BRIG_VSOCK_CONNS_MAX); the rest are a
 * few dozen. */
#define NOFILE_MAX 1024u

/* The last block, and the log if that is a file. */
#define FSIZE_SLACK (64ull << 20)

/* Any directory that every system has: the new root is put on top of it in a
 * mount namespace of the child's own. */
#define MOUNT_POINT "/tmp"

noreturn_fn static void fail(int report_fd, const char *step)
{
	struct jail_failure f = { .error = errno };

	(void)snprintf(f.step, sizeof(f.step), "%s", step);
	ssize_t n = write(report_fd, &f, sizeof(f));
	(void)n; /* the parent sees that we ended */
	_exit(EXIT_NOT_STARTED);
}

/* --- steps: 0, or -1 with errno ------------------------------------------- */

/* An empty read-only tmpfs as the only mount of the namespace. */
static int empty_root(void)
{
	const unsigned long flags =
		MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	if (mount("empty", MOUNT_POINT, "tmpfs", flags,
		  "size=4k,nr_inodes=1,mode=0555") < 0)
		return -1;
	if (chdir(MOUNT_POINT) < 0)
		return -1;
	/* Puts the old root on top of the new one, and then away. */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return -1;
	if (umount2(".", MNT_DETACH) < 0)
		return -1;
	return chdir("/");
}

/* A procfs that shows the processes of this PID namespace and nothing else,
 * mounted nowhere. */
static int open_proc(int *ret)
{
	int fs = fsopen("proc", FSOPEN_CLOEXEC);

	if (fs < 0 ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "subset", "pid", 0) < 0 ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	*ret = fsmount(fs, FSMOUNT_CLOEXEC,
		       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
			       MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return *ret < 0 ? -1 : 0;
}

static int set_limit(__rlimit_resource_t what, rlim_t max)
{
	const struct rlimit limit = { .rlim_cur = max, .rlim_max = max };

	return setrlimit(what, &limit);
}

static int set_rlimits(uint64_t file_bytes)
{
	if (set_limit(RLIMIT_CORE, 0) < 0 ||
	    set_limit(RLIMIT_NOFILE, NOFILE_MAX) < 0)
		return -1;
	return set_limit(RLIMIT_FSIZE, file_bytes + FSIZE_SLACK);
}

/* Moves a descriptor above the numbers that have a meaning in brig-vmm. */
static int move_up(int *fd)
{
	*fd = fcntl(*fd, F_DUPFD_CLOEXEC, VMM_FD_END);
	return *fd < 0 ? -1 : 0;
}

/* First all sources go up, so that no target overwrites a source; then each
 * goes to its place. Everything above closes at exec. */
static int place_fds(struct jail *j)
{
	if (move_up(&j->report_fd) < 0 || move_up(&j->vmm_fd) < 0 ||
	    move_up(&j->null_fd) < 0)
		return -1;
	for (int fd = VMM_FD_CONFIG; fd < VMM_FD_END; fd++) {
		if (move_up(&j->fds[fd]) < 0)
			return -1;
	}
	if (dup2(j->null_fd, STDIN_FILENO) < 0 ||
	    dup2(j->null_fd, STDOUT_FILENO) < 0)
		return -1;
	for (int fd = VMM_FD_CONFIG; fd < VMM_FD_END; fd++) {
		if (dup2(j->fds[fd], fd) < 0)
			return -1;
	}
	return close_range(VMM_FD_END, UINT_MAX, CLOSE_RANGE_CLOEXEC);
}

static int drop_bounding_set(void)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		return errno == EINVAL ? 0 : -1; /* the last one is behind us */
	}
	return 0;
}

static int change_ids(uid_t uid)
{
	if (syscall(SYS_setgroups, 0, NULL) < 0)
		return -1;
	if (syscall(SYS_setresgid, uid, uid, uid) < 0)
		return -1;
	return (int)syscall(SYS_setresuid, uid, uid, uid);
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -1;
	if (syscall(SYS_capset, &header, none) < 0)
		return -1;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* By descriptor: there is no file system left to name the program in. */
static void run(int vmm_fd, bool probe)
{
	static char name[] = "brig-vmm";
	static char option[] = "--probe";
	char *argv[] = { name, probe ? option : NULL, NULL };
	char *envp[] = { NULL };

	(void)syscall(SYS_execveat, vmm_fd, "", argv, envp, AT_EMPTY_PATH);
}

void jail_run_vmm(const struct jail *jail)
{
	struct jail j = *jail;

	if (setsid() < 0)
		fail(j.report_fd, "setsid");
	if (empty_root() < 0)
		fail(j.report_fd, "empty root");
	/* Not by clone: it would take the cgroup of brig-spawn as its root. */
	if (unshare(CLONE_NEWCGROUP) < 0)
		fail(j.report_fd, "cgroup namespace");
	if (open_proc(&j.fds[VMM_FD_PROC]) < 0)
		fail(j.report_fd, "procfs");
	if (place_fds(&j) < 0)
		fail(j.report_fd, "descriptors");
	if (set_rlimits(j.file_bytes) < 0)
		fail(j.report_fd, "rlimits");
	if (drop_bounding_set() < 0)
		fail(j.report_fd, "bounding set");
	if (change_ids(j.uid) < 0)
		fail(j.report_fd, "user and group");
	if (drop_capabilities() < 0)
		fail(j.report_fd, "capabilities");
	run(j.vmm_fd, false);
	fail(j.report_fd, "execveat");
}

void jail_run_probe(int vmm_fd, int null_fd, int out_fd)
{
	if (setsid() >= 0 && dup2(null_fd, STDIN_FILENO) >= 0 &&
	    dup2(out_fd, STDOUT_FILENO) >= 0 && drop_bounding_set() == 0 &&
	    drop_capabilities() == 0)
		run(vmm_fd, true);
	_exit(EXIT_NOT_STARTED);
}
