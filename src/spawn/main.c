/* main.c - brig-spawn: starts microVMs for brigd; the only privileged program.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   main.c     options, socket, packets of brigd
 *   request.c  what brigd may ask for
 *   launch.c   the microVMs that run
 *   cgroup.c   their cgroups
 *   jail.c     the child, from clone to exec
 *   probe.c    the kind of KVM
 *
 * One thread and no heap. What can be answered at once is; a start takes as
 * long as a clone and an exec, and the probe its deadline at most. SIGTERM
 * ends the program as any other death would: nothing is to be done, microVMs
 * go on, and the next run takes away what it finds of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cgroup.h"
#include "fd.h"
#include "launch.h"
#include "log.h"
#include "loop.h"
#include "probe.h"
#include "wire/spawn.h"

#define PASSWD_BYTES_MAX (64u << 10)

static struct {
	const char *socket;
	const char *vmm;
	const char *user;
	const char *cgroup;
	const char *unlimited; /* NULL: not given */
	const char *help;
} options = {
	.socket = SPAWN_SOCKET_PATH,
	.vmm = "/usr/libexec/brig/brig-vmm",
	.user = "brig",
	.cgroup = "brig",
};

static struct {
	struct loop loop;
	struct loop_fd listener;
	struct loop_fd brigd; /* fd -1: not connected */
	int vmm_fd;
	int null_fd;
	uid_t uid; /* of brigd */
	gid_t gid;
} server;

/* --- options -------------------------------------------------------------- */

static const struct option_row {
	const char *name;
	const char *argument; /* NULL: takes none */
	const char *help;
	const char **value; /* without argument: its name */
} option_rows[] = {
	{ "--socket", "PATH", "listen here", &options.socket },
	{ "--vmm", "PATH", "the monitor", &options.vmm },
	{ "--user", "NAME", "who may connect, besides root", &options.user },
	{ "--cgroup", "NAME", "cgroup to make microVMs in", &options.cgroup },
	{ "--unlimited", NULL, "go on without cgroup controllers (tests only)",
	  &options.unlimited },
	{ "--help", NULL, "show this", &options.help },
};

static void show_help(void)
{
	(void)puts("brig-spawn starts microVMs for brigd. Runs as root.\n");
	for (size_t i = 0; i < ARRAY_LEN(option_rows); i++) {
		const struct option_row *o = &option_rows[i];
		(void)printf("  %-11s %-4s  %s", o->name,
			     o->argument != NULL ? o->argument : "", o->help);
		if (o->argument != NULL)
			(void)printf(" (%s)", *o->value);
		(void)putchar('\n');
	}
}

static void parse_option(int argc, char **argv, int *at)
{
	for (size_t i = 0; i < ARRAY_LEN(option_rows); i++) {
		const struct option_row *o = &option_rows[i];
		if (strcmp(argv[*at], o->name) != 0)
			continue;
		if (o->argument != NULL && ++*at == argc)
			die("%s needs an argument", o->name);
		*o->value = argv[*at];
		return;
	}
	die("unknown option %s; see --help", argv[*at]);
}

/* --- set-up --------------------------------------------------------------- */

/* Looks a user up in /etc/passwd: name:x:uid:gid:... The program is static and
 * runs as root, so glibc's name services have no place in it. */
static int find_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
	static char text[PASSWD_BYTES_MAX + 1];
	cleanup_fd int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -errno : fd_read_all(fd, text, PASSWD_BYTES_MAX);
	size_t length = strlen(name);
	char *rest = NULL;

	if (n < 0)
		return (int)n;
	text[n] = '\0';
	for (char *line = strtok_r(text, "\n", &rest); line != NULL;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, name, length) != 0 || line[length] != ':')
			continue;
		char *at = strchr(line + length + 1, ':');
		if (at == NULL)
			continue;
		*ret_uid = (uid_t)strtoul(at + 1, &at, 10);
		if (*at != ':')
			continue;
		*ret_gid = (gid_t)strtoul(at + 1, NULL, 10);
		return 0;
	}
	return -ENOENT;
}

/* Listens on options.socket, which root and the user's group may open. */
static int listen_on_socket(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
			0);

	if (strlen(options.socket) >= sizeof(addr.sun_path))
		die("socket path too long: %s", options.socket);
	memcpy(addr.sun_path, options.socket, strlen(options.socket));
	(void)unlink(options.socket);
	(void)umask(0117);
	if (fd < 0 || bind(fd, (const void *)&addr, sizeof(addr)) < 0 ||
	    chown(options.socket, 0, server.gid) < 0 || listen(fd, 8) < 0)
		die("socket %s: %m", options.socket);
	(void)umask(022);
	return fd;
}

/* --- packets -------------------------------------------------------------- */

static void hang_up(void)
{
	int fd = server.brigd.fd;

	loop_del(&server.loop, &server.brigd);
	fd_close(&fd);
}

/* A brigd that does not read its answers is as good as gone. */
static void send_to_brigd(const struct spawn_msg *m, const int *fds,
			  size_t nfds)
{
	if (server.brigd.fd < 0)
		return;
	int r = fd_send_packet(server.brigd.fd, m, sizeof(*m), fds, nfds);
	if (r < 0) {
		log_warn("brigd: %s; closing the connection",
			 strerrordesc_np(-r));
		hang_up();
	}
}

static void on_vmm_exited(uint32_t handle, int error, int wait_status)
{
	const struct spawn_msg m = {
		.type = SPAWN_EXITED,
		.status = error,
		.handle = handle,
		.wait_status = wait_status,
	};

	send_to_brigd(&m, NULL, 0);
}

static void answer(const struct spawn_msg *m, const int *fds, size_t nfds)
{
	struct spawn_msg reply = { .type = SPAWN_DONE, .seq = m->seq };
	int out[SPAWN_STARTED_FDS] = { -1, -1 };

	switch (m->type) {
	case SPAWN_START:
		reply.type = SPAWN_STARTED;
		reply.status = launch_start(m, fds, nfds, &reply, out);
		break;
	case SPAWN_KILL:
		reply.handle = m->handle;
		reply.status = nfds > 0 ? -EINVAL : launch_kill(m->handle);
		break;
	case SPAWN_PROBE:
		reply.type = SPAWN_PROBED;
		reply.status = nfds > 0 ? -EINVAL
					: probe_run(server.vmm_fd,
						    server.null_fd, &reply);
		break;
	default:
		reply.status = -EINVAL;
		break;
	}
	if (reply.status < 0)
		log_warn("request %u: %s", m->type,
			 strerrordesc_np(-reply.status));
	send_to_brigd(&reply, out, out[0] < 0 ? 0 : SPAWN_STARTED_FDS);
	fd_close(&out[1]);
}

static void on_packet(struct loop_fd *source, uint32_t events)
{
	struct spawn_msg m;
	int fds[SPAWN_FDS_MAX];
	size_t nfds = 0;
	ssize_t n = fd_recv_packet(source->fd, &m, sizeof(m), fds,
				   SPAWN_FDS_MAX, &nfds);

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n == (ssize_t)sizeof(m)) {
		answer(&m, fds, nfds);
	} else {
		log_info("brigd: %s", n == 0 ? "gone" : "not a request");
		hang_up();
	}
	for (size_t i = 0; i < nfds; i++)
		fd_close(&fds[i]);
}

static bool has_hung_up(int fd)
{
	struct pollfd p = { .fd = fd }; /* below 0: nothing to see */

	return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

/* One brigd at a time; one that died makes room for the next. */
static bool is_welcome(int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 ||
	    (peer.uid != 0 && peer.uid != server.uid)) {
		log_warn("connection refused: not root and not %s",
			 options.user);
		return false;
	}
	if (has_hung_up(server.brigd.fd))
		hang_up();
	log_info("connection of pid %d %s", (int)peer.pid,
		 server.brigd.fd < 0 ? "accepted" : "refused: there is one");
	return server.brigd.fd < 0;
}

static void on_connection(struct loop_fd *source, uint32_t events)
{
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0 && (!is_welcome(fd) ||
			loop_add(&server.loop, &server.brigd, fd, EPOLLIN) < 0))
		fd_close(&fd);
}

int main(int argc, char **argv)
{
	log_init("brig-spawn");
	for (int i = 1; i < argc; i++)
		parse_option(argc, argv, &i);
	if (options.help != NULL) {
		show_help();
		return 0;
	}
	(void)umask(022); /* brigd may look into the cgroups */
	/* Also makes sure that 0, 1 and 2 are taken, for children as well. */
	do
		server.null_fd = open("/dev/null", O_RDWR);
	while (server.null_fd >= 0 && server.null_fd <= STDERR_FILENO);
	server.vmm_fd = open(options.vmm, O_PATH | O_CLOEXEC);
	if (server.vmm_fd < 0)
		die("%s: %m", options.vmm);
	if (find_user(options.user, &server.uid, &server.gid) < 0)
		die("no user %s in /etc/passwd", options.user);
	if (cgroup_init(options.cgroup, options.unlimited != NULL) < 0)
		die("microVMs cannot be limited; see --help");
	if (loop_init(&server.loop) < 0)
		die("epoll: %m");
	server.brigd = (struct loop_fd){ .fd = -1, .on_event = on_packet };
	server.listener.on_event = on_connection;
	launch_init(&(struct launch_shared){ .loop = &server.loop,
					     .vmm_fd = server.vmm_fd,
					     .null_fd = server.null_fd,
					     .on_exited = on_vmm_exited });
	int r = loop_add(&server.loop, &server.listener, listen_on_socket(),
			 EPOLLIN);
	if (r == 0)
		r = loop_run(&server.loop);
	if (r < 0)
		die("epoll: %s", strerrordesc_np(-r));
	return 0;
}
