/* hooks.c - runs the programs of a directory of the guest, one by one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "hooks.h"
#include "spawn.h"

/* What one may take, and what its death may take then. */
#define HOOK_NS (5 * NS_PER_S)
#define DEATH_NS NS_PER_S

/* Entries of the directory that are looked at. */
#define ENTRIES_MAX 1024

static void go_on(struct hooks *h);

static void forget_names(struct hooks *h)
{
	for (unsigned int i = 0; i < h->count; i++)
		free(h->names[i]);
	h->count = 0;
	h->next = 0;
}

/* Takes `name` into the sorted list; without memory or room it has failed. */
static void insert(struct hooks *h, const char *name)
{
	char *copy = h->count < HOOKS_MAX ? strdup(name) : NULL;
	unsigned int at = h->count;

	if (copy == NULL) {
		h->failed++;
		return;
	}
	for (; at > 0 && strcmp(h->names[at - 1], copy) > 0; at--)
		h->names[at] = h->names[at - 1];
	h->names[at] = copy;
	h->count++;
}

static bool is_program(int dir, const char *name)
{
	struct stat st;

	return name[0] != '.' && fstatat(dir, name, &st, 0) == 0 &&
	       S_ISREG(st.st_mode) && (st.st_mode & 0111) != 0;
}

static void list(struct hooks *h)
{
	DIR *d = opendir(h->directory);

	if (d == NULL)
		return;
	for (int i = 0; i < ENTRIES_MAX; i++) {
		const struct dirent *e = readdir(d);
		if (e == NULL)
			break;
		if (is_program(dirfd(d), e->d_name))
			insert(h, e->d_name);
	}
	(void)closedir(d);
}

static void close_current(struct hooks *h)
{
	int none[2] = { -1, -1 };

	loop_timer_del(h->loop, &h->deadline);
	reaper_del(h->reaper, &h->child);
	if (h->cgroup_id != 0)
		leftover_add(h->leftovers, h->cgroup_id, none);
	h->cgroup_id = 0;
	h->killed = false;
}

static void on_exit_status(struct child *c, int status)
{
	struct hooks *h = container_of(c, struct hooks, child);

	if (status != 0)
		h->failed++;
	go_on(h);
}

static void on_deadline(struct loop_timer *timer)
{
	struct hooks *h = container_of(timer, struct hooks, deadline);

	if (!h->killed) {
		h->killed = true;
		cgroup_kill(h->tree, h->cgroup_id);
		loop_timer_set(h->loop, &h->deadline, DEATH_NS);
		return;
	}
	/* It hangs in the kernel and cannot even die. */
	h->failed++;
	go_on(h);
}

static int start(struct hooks *h, const char *name)
{
	char path[PATH_MAX];
	cleanup_fd int cgroup_fd = -1;

	if (snprintf(path, sizeof(path), "%s/%s", h->directory, name) >=
	    PATH_MAX)
		return -ENAMETOOLONG;
	int r = cgroup_take(h->tree, &h->cgroup_id, &cgroup_fd);
	if (r < 0)
		return r;
	pid_t pid = spawn_quiet(path, h->env, cgroup_fd);
	if (pid < 0) {
		close_current(h);
		return pid;
	}
	reaper_add(h->reaper, &h->child, pid);
	loop_timer_set(h->loop, &h->deadline, HOOK_NS);
	return 0;
}

/* Starts the next one that can be started; false when none is left. */
static bool start_next(struct hooks *h)
{
	while (h->next < h->count) {
		if (start(h, h->names[h->next++]) == 0)
			return true;
		h->failed++;
	}
	forget_names(h);
	return false;
}

static void go_on(struct hooks *h)
{
	close_current(h);
	if (!start_next(h))
		h->on_done(h);
}

void hooks_init(struct hooks *h)
{
	h->child = (struct child){ .on_exit = on_exit_status };
	h->deadline = (struct loop_timer){ .on_expire = on_deadline };
}

static void set_env(struct hooks *h, char *const *more)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:"
			     "/usr/bin:/sbin:/bin";
	static char home[] = "HOME=/root";
	static char lang[] = "LANG=C.UTF-8";
	char *const usual[] = { path, home, lang };
	unsigned int n = 0;

	static_assert(ARRAY_LEN(usual) + HOOKS_ENV_MAX < ARRAY_LEN(h->env),
		      "room for the end");
	for (; n < ARRAY_LEN(usual); n++)
		h->env[n] = usual[n];
	for (unsigned int i = 0; i < HOOKS_ENV_MAX && more[i] != NULL; i++)
		h->env[n++] = more[i];
	h->env[n] = NULL;
}

bool hooks_start(struct hooks *h, const char *directory, char *const *env)
{
	ASSERT(h->count == 0);
	h->directory = directory;
	set_env(h, env);
	h->failed = 0;
	list(h);
	return start_next(h);
}

void hooks_stop(struct hooks *h)
{
	if (h->cgroup_id != 0)
		cgroup_kill(h->tree, h->cgroup_id);
	close_current(h);
	forget_names(h);
}
