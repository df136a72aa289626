/* main.c - brig-init: PID 1 of a guest, and its agent.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "poweroff.h"
#include "ready.h"

#ifdef BRIG_TEST
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#endif

#define CGROUP_ROOT "/sys/fs/cgroup"

static struct loop loop;
static struct cgroup_tree tree;
static struct agent agent;

static void must(int r, const char *what)
{
	if (r < 0)
		poweroff_failed(what, -r);
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

/* The agent on a unix socket, with runs in a cgroup of the caller's; no
 * mounts, no clock. */
int main(int argc, char **argv)
{
	if (argc != 4 || strcmp(argv[1], "--serve") != 0) {
		(void)fprintf(stderr,
			      "usage: brig-init --serve SOCKET CGROUP\n");
		return 2;
	}
	must(cgroup_init(&tree, argv[3]), "cgroup");
	must(loop_init(&loop), "event loop");
	int fd = listen_unix(argv[2]);
	must(fd, "socket");
	must(agent_init(&agent, &loop, &tree, fd), "agent");
	must(loop_run(&loop), "event loop");
	agent_fini(&agent);
	loop_fini(&loop);
	return 0;
}

#else

int main(void)
{
	static struct ready ready;

	if (getpid() != 1) {
		(void)fprintf(stderr, "brig-init: runs as PID 1 of a guest\n");
		return 2;
	}
	boot_mount_root();
	bool grown = boot_grow_root();
	boot_settle();
	must(cgroup_init(&tree, CGROUP_ROOT), "cgroup");
	must(loop_init(&loop), "event loop");
	must(agent_init(&agent, &loop, &tree, boot_listen()), "agent");
	must(ready_init(&ready, &loop, boot_connect_host(), grown),
	     "ready connection");
	must(loop_run(&loop), "event loop");
	poweroff_failed("event loop ended", 0);
}

#endif
