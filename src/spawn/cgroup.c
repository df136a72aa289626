/* cgroup.c - one cgroup v2 directory for each microVM.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "fd.h"
#include "log.h"
#include "request.h"

/* Memory of brig-vmm besides the guest's RAM: its own, page tables on both
 * sides (0.4 % of RAM) and page cache of the disk, which can be reclaimed. And
 * RAM counts twice: what a clone is made of is written to a memfd, which
 * belongs to who wrote it. */
#define RAM_COPIES 2u
#define OVERHEAD_MIB 64u
#define OVERHEAD_DIVISOR 100u

/* Threads: vCPUs, the device thread, a few to spare. */
#define PIDS_MAX 32u

#define CPU_PERIOD_US 100000u

/* Waiting for what a previous run left: 200 times 10 ms. */
#define SWEEP_TRIES 200
#define SWEEP_PAUSE_NS 10000000

static const char *const mounts[] = { "/sys/fs/cgroup",
				      "/sys/fs/cgroup/unified" };
static const char *const controllers[] = { "+memory", "+pids", "+cpu" };

static int top_fd = -1; /* <mount>/brig */
static bool no_limits;

/* --- files ---------------------------------------------------------------- */

static int write_file(int dir_fd, const char *name, const char *text)
{
	cleanup_fd int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fd_write_all(fd, text, strlen(text));
}

static int open_dir(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name,
			O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int make_dir(int dir_fd, const char *name)
{
	if (mkdirat(dir_fd, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	return open_dir(dir_fd, name);
}

static int find_mount(void)
{
	for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
		struct statfs fs;
		if (statfs(mounts[i], &fs) == 0 &&
		    fs.f_type == CGROUP2_SUPER_MAGIC)
			return open_dir(AT_FDCWD, mounts[i]);
	}
	return -ENOENT;
}

/* --- set-up --------------------------------------------------------------- */

/* A cgroup other than the real root has either processes or controllers for
 * its children. Where we are the process in the way, we go to a leaf. */
static int step_aside(void)
{
	cleanup_fd int fd = make_dir(top_fd, "daemon");

	return fd < 0 ? fd : write_file(fd, "cgroup.procs", "0");
}

static int enable_controllers(int dir_fd, const char *what)
{
	for (size_t i = 0; i < ARRAY_LEN(controllers); i++) {
		const char *c = controllers[i];
		int r = write_file(dir_fd, "cgroup.subtree_control", c);
		if (r == -EBUSY && step_aside() == 0)
			r = write_file(dir_fd, "cgroup.subtree_control", c);
		if (r == 0)
			continue;
		log_warn("cgroup: no controller %s in the %s: %s", c + 1, what,
			 strerrordesc_np(-r));
		if (!no_limits)
			return r;
	}
	return 0;
}

/* What sweep() finds must not belong to a brig-spawn that runs. */
static int lock_top(void)
{
	static int fd = -1; /* held to the end of the program */

	fd = openat(top_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	int r = -errno;
	log_error("cgroup: cannot lock: %s%s", strerrordesc_np(-r),
		  r == -EWOULDBLOCK ? " (brig-spawn already runs)" : "");
	return r;
}

static int remove_leftover(const char *id)
{
	const struct timespec pause = { .tv_nsec = SWEEP_PAUSE_NS };
	int r = cgroup_kill(id);

	for (int i = 0; r == 0 && i < SWEEP_TRIES; i++) {
		r = cgroup_remove(id);
		if (r != -EBUSY)
			break;
		r = 0;
		(void)nanosleep(&pause, NULL);
	}
	return r;
}

/* Directories with the name of a sandbox are ours; others stay. A read gives
 * some of them, and what is removed does not disturb the rest. */
static int sweep(void)
{
	cleanup_fd int fd =
		openat(top_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_Alignas(struct dirent64) char buf[4096];

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = getdents64(fd, buf, sizeof(buf));
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *e = (const void *)&buf[at];
			at += e->d_reclen;
			if (request_check_id(e->d_name, strlen(e->d_name) + 1) <
			    0)
				continue;
			int r = remove_leftover(e->d_name);
			log_warn("cgroup: %s left by a previous run: %s",
				 e->d_name,
				 r == 0 ? "removed" : strerrordesc_np(-r));
		}
	}
}

int cgroup_init(const char *name, bool unlimited)
{
	cleanup_fd int root = find_mount();

	no_limits = unlimited;
	if (root < 0) {
		log_error("cgroup: no cgroup v2 mount below /sys/fs/cgroup");
		return root;
	}
	top_fd = make_dir(root, name);
	if (top_fd < 0) {
		log_error("cgroup: cannot make %s: %s", name,
			  strerrordesc_np(-top_fd));
		return top_fd;
	}
	int r = lock_top();
	if (r == 0)
		r = enable_controllers(root, "root");
	if (r == 0)
		r = enable_controllers(top_fd, "daemon's cgroup");
	return r < 0 ? r : sweep();
}

/* --- one microVM ---------------------------------------------------------- */

/* The kernel was asked for the controllers at start, so without `no_limits`
 * a missing file is an error; only swap may be compiled out. */
static int set_limit(int dir_fd, const char *name, const char *text)
{
	int r = write_file(dir_fd, name, text);

	if (r == -ENOENT && (no_limits || strcmp(name, "memory.swap.max") == 0))
		return 0;
	return r;
}

static int set_limits(int dir_fd, const struct cgroup_limits *l)
{
	char text[64];
	uint64_t mib = RAM_COPIES * (uint64_t)l->memory_mib + OVERHEAD_MIB +
		       l->memory_mib / OVERHEAD_DIVISOR;

	(void)snprintf(text, sizeof(text), "%" PRIu64 "M", mib);
	int r = set_limit(dir_fd, "memory.max", text);
	if (r == 0)
		r = set_limit(dir_fd, "memory.swap.max", "0");
	if (r == 0)
		r = set_limit(dir_fd, "memory.oom.group", "1");
	(void)snprintf(text, sizeof(text), "%u", PIDS_MAX);
	if (r == 0)
		r = set_limit(dir_fd, "pids.max", text);
	(void)snprintf(text, sizeof(text), "%u %u",
		       l->cpu_quota_percent * (CPU_PERIOD_US / 100),
		       CPU_PERIOD_US);
	if (r == 0 && l->cpu_quota_percent > 0)
		r = set_limit(dir_fd, "cpu.max", text);
	return r;
}

int cgroup_make(const char *id, const struct cgroup_limits *limits, int *ret_fd)
{
	if (mkdirat(top_fd, id, 0755) < 0)
		return -errno;
	cleanup_fd int fd = open_dir(top_fd, id);
	int r = fd < 0 ? fd : set_limits(fd, limits);
	if (r < 0) {
		(void)unlinkat(top_fd, id, AT_REMOVEDIR);
		return r;
	}
	*ret_fd = fd_take(&fd);
	return 0;
}

int cgroup_kill(const char *id)
{
	cleanup_fd int fd = open_dir(top_fd, id);

	return fd < 0 ? fd : write_file(fd, "cgroup.kill", "1");
}

int cgroup_remove(const char *id)
{
	if (unlinkat(top_fd, id, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}
