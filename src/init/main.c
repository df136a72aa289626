/* main.c - brig-init: PID 1 of a guest, and its agent.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "poweroff.h"

#ifdef BRIG_TEST
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fd.h"
#endif

#define CGROUP_ROOT "/sys/fs/cgroup"

static struct loop loop;
static struct cgroup_tree runs;
static struct cgroup_tree hooks;
static struct agent agent;

static void must(int r, const char *what)
{
	if (r < 0)
		poweroff_failed(what, -r);
}

static void make_cgroups(const char *root)
{
	must(cgroup_init(&runs, root, "runs"), "cgroup of runs");
	must(cgroup_init(&hooks, root, "hooks"), "cgroup of hooks");
}

#ifdef BRIG_TEST

static int listen_unix(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, AGENT_CONNS_MAX) < 0) {
		int r = -errno;
		(void)close(fd);
		return r;
	}
	return fd;
}

static const char *host_path;

/* Never waits: a unix socket is connected at once or not at all. */
static int connect_unix(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_fd int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (host_path == NULL)
		return -ENOENT;
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", host_path);
	if (fd < 0 ||
	    connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	return fd_take(&fd);
}

/* The agent on a unix socket, with runs in a cgroup of the caller's, and a
 * second socket as the host to report to; no mounts, no clock, and the root
 * file system is never frozen. CONFIGURE is for a namespace of its own. */
int main(int argc, char **argv)
{
	struct agent_config config = {
		.runs = &runs,
		.hooks = &hooks,
		.connect = connect_unix,
	};

	if (argc < 4 || argc > 5 || strcmp(argv[1], "--serve") != 0) {
		(void)fprintf(stderr, "usage: brig-init --serve SOCKET CGROUP"
				      " [HOST_SOCKET]\n");
		return 2;
	}
	host_path = argc == 5 ? argv[4] : NULL;
	/* As PID 1 gets the processes that lost their parent. */
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	make_cgroups(argv[3]);
	must(loop_init(&loop), "event loop");
	config.listen_fd = listen_unix(argv[2]);
	must(config.listen_fd, "socket");
	must(agent_init(&agent, &loop, &config), "agent");
	must(loop_run(&loop), "event loop");
	agent_fini(&agent);
	loop_fini(&loop);
	return 0;
}

#else

int main(void)
{
	struct agent_config config = {
		.runs = &runs,
		.hooks = &hooks,
		.connect = boot_connect_host,
	};

	if (getpid() != 1) {
		(void)fprintf(stderr, "brig-init: runs as PID 1 of a guest\n");
		return 2;
	}
	boot_mount_root();
	config.disk_grown = boot_grow_root();
	boot_settle();
	make_cgroups(CGROUP_ROOT);
	must(loop_init(&loop), "event loop");
	config.listen_fd = boot_listen();
	must(agent_init(&agent, &loop, &config), "agent");
	must(loop_run(&loop), "event loop");
	poweroff_failed("event loop ended", 0);
}

#endif
