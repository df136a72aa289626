/* peer_guest.c - init of the guest that QEMU runs for the comparison.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Loads the modules and mounts the root disk as brig-init does, keeps one
 * Python waiting for its code as brig-init does, and then answers lines from a
 * virtio-serial port: `S` and a command for `sh -c`, `P` and code for Python.
 * Both write to the port themselves. The few things that such a guest needs,
 * and nothing of what brig-init does for its users.
 */
#include <fcntl.h>
#include <glob.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK "/dev/vda"
#define ROOT "/newroot"
#define LINE_SIZE 4096

/* Each waits ahead of its question; the next is forked when it has ended. */
static char python_waits[] = "import os, sys\n"
			     "while True:\n"
			     "    pid = os.fork()\n"
			     "    if pid == 0:\n"
			     "        break\n"
			     "    os.waitpid(pid, 0)\n"
			     "exec(sys.stdin.readline())\n";

static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
		     "/sbin:/bin";
static char home[] = "HOME=/root";
static char *environment[] = { path, home, NULL };

static char python[] = "/usr/bin/python3";
static char shell[] = "/bin/sh";
static char option_c[] = "-c";

/* The console's tty may not work; the kernel's messages get out. */
static _Noreturn void die(const char *what)
{
	FILE *log = fopen("/dev/kmsg", "we");

	if (log != NULL) {
		fprintf(log, "<0>peer_guest: %s: %m\n", what);
		fclose(log);
	}
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void load_modules(void)
{
	FILE *list = fopen("/modules/list", "re");
	char name[128];

	if (list == NULL)
		die("/modules/list");
	while (fscanf(list, "%127s", name) == 1) {
		char file[160];
		int fd;

		snprintf(file, sizeof(file), "/modules/%s", name);
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
			die(name);
		close(fd);
	}
	fclose(list);
}

/* The first port of the one virtio-serial device; 0 is for consoles. */
static int open_port(void)
{
	for (int tries = 0; tries < 1000; tries++) {
		glob_t found;
		int fd = -1;

		if (glob("/dev/vport*p1", 0, NULL, &found) == 0)
			fd = open(found.gl_pathv[0], O_RDWR | O_CLOEXEC);
		globfree(&found);
		if (fd >= 0)
			return fd;
		usleep(10000);
	}
	die("port");
}

static int open_when_there(const char *name, int flags)
{
	for (int tries = 0; tries < 1000; tries++) {
		int fd = open(name, flags);

		if (fd >= 0)
			return fd;
		usleep(10000);
	}
	die(name);
}

static void enter_root(void)
{
	close(open_when_there(DISK, O_RDONLY | O_CLOEXEC));
	if (mount(DISK, ROOT, "ext4", 0, NULL) != 0 ||
	    mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL) != 0 ||
	    chdir(ROOT) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 ||
	    chroot(".") != 0 || chdir("/root") != 0)
		die("root");
	if (mount("proc", "/proc", "proc", 0, NULL) != 0 ||
	    mount("sysfs", "/sys", "sysfs", 0, NULL) != 0 ||
	    mount("tmpfs", "/run", "tmpfs", 0, NULL) != 0)
		die("mounts");
}

/* Returns the pid. Descriptors 0 and 1 become the given ones. */
static pid_t start(char *const argv[], int in, int out)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	if (posix_spawn_file_actions_init(&actions) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, in, 0) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, out, 1) != 0 ||
	    posix_spawn(&pid, argv[0], &actions, NULL, argv, environment) != 0)
		die(argv[0]);
	posix_spawn_file_actions_destroy(&actions);
	return pid;
}

static int start_python(int port)
{
	char *argv[] = { python, option_c, python_waits, NULL };
	int pipe_of[2];

	if (pipe2(pipe_of, O_CLOEXEC) != 0)
		die("pipe");
	start(argv, pipe_of[0], port);
	close(pipe_of[0]);
	return pipe_of[1];
}

static void run_in_shell(char *command, int null, int port)
{
	char *argv[] = { shell, option_c, command, NULL };
	pid_t pid = start(argv, null, port);

	while (waitpid(pid, NULL, 0) != pid) {
	}
}

static void answer(char *line, size_t size, int code, int null, int port)
{
	switch (line[0]) {
	case 'P':
		if (write(code, line + 1, size - 1) != (ssize_t)size - 1)
			die("write to Python");
		break;
	case 'S':
		line[size - 1] = '\0';
		run_in_shell(line + 1, null, port);
		break;
	default:
		die("no such question");
	}
}

int main(void)
{
	static char line[LINE_SIZE];
	size_t have = 0;
	int port, null, code;

	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) != 0)
		die("/dev");
	load_modules();
	enter_root();
	port = open_port();
	null = open_when_there("/dev/null", O_RDWR | O_CLOEXEC);
	code = start_python(port);
	for (;;) {
		ssize_t n = read(port, line + have, sizeof(line) - have);

		if (n <= 0) {
			/* Nobody at the other end for now. */
			usleep(1000);
			continue;
		}
		have += (size_t)n;
		if (line[have - 1] == '\n') {
			answer(line, have, code, null, port);
			have = 0;
		} else if (have == sizeof(line)) {
			die("a line too long");
		}
	}
}
