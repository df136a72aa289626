/* cgroup.c - one cgroup for each run, below one that leaves the agent air.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "fd.h"
#include "meminfo.h"
#include "num.h"
#include "textfile.h"

/* What the agent keeps for itself and the kernel: enough for its buffers, a
 * few file transfers and their page cache. */
#define RESERVE_MIN_BYTES (16ull << 20)
#define RESERVE_DIVISOR 16

/* Tasks of all runs. The kernel needs about 20 KiB for each. */
#define TASKS_MIN 512ull
#define TASKS_MAX 16384ull
#define TASKS_PER_MIB 8

#define FILE_BYTES 1024
#define NAME_BYTES 64

static void run_path(char *to, uint64_t id, const char *file)
{
	(void)snprintf(to, NAME_BYTES, "%llu%s%s", (unsigned long long)id,
		       file[0] != '\0' ? "/" : "", file);
}

static int write_number(int dir, const char *file, uint64_t v)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	return textfile_write(dir, file, text);
}

/* The number after `key` and a space at the start of a line, 0 without it. */
static uint64_t find_number(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *line = text; line != NULL;) {
		if (strncmp(line, key, n) == 0 && line[n] == ' ')
			return strtoull(line + n + 1, NULL, 10);
		line = strchr(line, '\n');
		line += line != NULL;
	}
	return 0;
}

static int set_limits(int runs_fd)
{
	struct meminfo m;
	int r = meminfo_read(&m);

	if (r < 0)
		return r;
	uint64_t reserve =
		u64_max(RESERVE_MIN_BYTES, m.total_bytes / RESERVE_DIVISOR);
	reserve = u64_min(reserve, m.available_bytes / 2);
	uint64_t tasks = (m.total_bytes >> 20) * TASKS_PER_MIB;
	tasks = u64_min(u64_max(tasks, TASKS_MIN), TASKS_MAX);
	r = write_number(runs_fd, "memory.max", m.available_bytes - reserve);
	if (r == 0)
		r = write_number(runs_fd, "pids.max", tasks);
	if (r == 0)
		r = textfile_write(runs_fd, "cgroup.subtree_control",
				   "+memory");
	return r;
}

int cgroup_init(struct cgroup_tree *t, const char *root, const char *name)
{
	cleanup_fd int root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*t = (struct cgroup_tree){ .runs_fd = -1, .next_id = 1 };
	if (root_fd < 0)
		return -errno;
	int r = textfile_write(root_fd, "cgroup.subtree_control",
			       "+cpu +memory +pids");
#ifndef BRIG_TEST
	if (r < 0)
		return r;
#endif
	if (mkdirat(root_fd, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	t->runs_fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->runs_fd < 0)
		return -errno;
#ifdef BRIG_TEST
	/* A machine whose controllers belong to cgroup v1 has no limits. */
	if (r < 0)
		return 0;
#endif
	return set_limits(t->runs_fd);
}

static int make(struct cgroup_tree *t, uint64_t *ret_id)
{
	char path[NAME_BYTES];

	run_path(path, t->next_id, "");
	if (mkdirat(t->runs_fd, path, 0755) < 0)
		return -errno;
	/* An out-of-memory kill takes the whole run: what is left of a program
	 * that lost a process at random is of no use, and a shell around it
	 * would turn the reason into an exit code. Absent only in tests. */
	run_path(path, t->next_id, "memory.oom.group");
	int r = textfile_write(t->runs_fd, path, "1");
	(void)r;
	*ret_id = t->next_id++;
	return 0;
}

int cgroup_take(struct cgroup_tree *t, uint64_t *ret_id, int *ret_fd)
{
	uint64_t id = t->spare_id;
	char path[NAME_BYTES];

	t->spare_id = 0;
	if (id == 0) {
		int r = make(t, &id);
		if (r < 0)
			return r;
	}
	run_path(path, id, "");
	int fd = openat(t->runs_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		int r = -errno;
		(void)unlinkat(t->runs_fd, path, AT_REMOVEDIR);
		return r;
	}
	*ret_id = id;
	*ret_fd = fd;
	return 0;
}

void cgroup_prepare(struct cgroup_tree *t)
{
	if (t->spare_id != 0)
		return;
	int r = make(t, &t->spare_id);
	(void)r; /* the next cgroup_take tries again, and tells */
}

void cgroup_kill(const struct cgroup_tree *t, uint64_t id)
{
	char path[NAME_BYTES];

	run_path(path, id, "cgroup.kill");
	int r = textfile_write(t->runs_fd, path, "1");
	(void)r; /* fails only when the cgroup has gone */
}

void cgroup_kill_all(const struct cgroup_tree *t)
{
	int r = textfile_write(t->runs_fd, "cgroup.kill", "1");
	(void)r;
}

int cgroup_freeze(const struct cgroup_tree *t, bool frozen)
{
	return textfile_write(t->runs_fd, "cgroup.freeze", frozen ? "1" : "0");
}

bool cgroup_is_frozen(const struct cgroup_tree *t)
{
	char text[FILE_BYTES];

	return textfile_read(t->runs_fd, "cgroup.events", text, sizeof(text)) ==
		       0 &&
	       find_number(text, "frozen") == 1;
}

void cgroup_read_usage(const struct cgroup_tree *t, uint64_t id,
		       struct cgroup_usage *ret)
{
	char path[NAME_BYTES];
	char text[FILE_BYTES];

	*ret = (struct cgroup_usage){ .user_ns = 0 };
	run_path(path, id, "cpu.stat");
	if (textfile_read(t->runs_fd, path, text, sizeof(text)) == 0) {
		ret->user_ns = find_number(text, "user_usec") * 1000;
		ret->system_ns = find_number(text, "system_usec") * 1000;
	}
	run_path(path, id, "memory.peak");
	if (textfile_read(t->runs_fd, path, text, sizeof(text)) == 0)
		ret->memory_peak_bytes = strtoull(text, NULL, 10);
	run_path(path, id, "memory.events");
	if (textfile_read(t->runs_fd, path, text, sizeof(text)) == 0)
		ret->oom_kills = find_number(text, "oom_kill");
}

uint32_t cgroup_count_tasks(const struct cgroup_tree *t)
{
	char text[FILE_BYTES];

	if (textfile_read(t->runs_fd, "pids.current", text, sizeof(text)) < 0)
		return 0;
	return (uint32_t)strtoul(text, NULL, 10);
}

uint32_t cgroup_count_run(const struct cgroup_tree *t, uint64_t id)
{
	char path[NAME_BYTES];
	char text[FILE_BYTES];

	run_path(path, id, "pids.current");
	if (textfile_read(t->runs_fd, path, text, sizeof(text)) < 0)
		return 0;
	return (uint32_t)strtoul(text, NULL, 10);
}

int cgroup_move(const struct cgroup_tree *t, uint64_t id, pid_t pid)
{
	char path[NAME_BYTES];

	run_path(path, id, "cgroup.procs");
	return write_number(t->runs_fd, path, (uint64_t)pid);
}

int cgroup_open_events(const struct cgroup_tree *t, uint64_t id)
{
	char path[NAME_BYTES];

	run_path(path, id, "cgroup.events");
	int fd = openat(t->runs_fd, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

bool cgroup_is_empty(int events_fd)
{
	char text[FILE_BYTES];
	ssize_t got = fd_pread_all(events_fd, text, sizeof(text) - 1, 0);

	if (got < 0)
		return true; /* it was removed */
	text[got] = '\0';
	return find_number(text, "populated") == 0;
}

int cgroup_remove(struct cgroup_tree *t, uint64_t id)
{
	char path[NAME_BYTES];

	run_path(path, id, "");
	if (unlinkat(t->runs_fd, path, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}
