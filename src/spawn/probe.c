/* probe.c - asks brig-vmm what kind of KVM this machine has.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "jail.h"
#include "log.h"
#include "loop.h"
#include "probe.h"

#define PROBE_BYTES_MAX 256

/* Not a JSON reader: the two fields as brig-vmm, which is ours, writes them. */
int probe_parse(const char *line, struct probe_result *ret)
{
	static const char rate[] = "\"iterations_per_s\": ";
	const char *at = strstr(line, rate);
	struct probe_result p = { .kind = SPAWN_KVM_NONE };

	if (strstr(line, "\"kvm\": \"hardware\"") != NULL)
		p.kind = SPAWN_KVM_HARDWARE;
	else if (strstr(line, "\"kvm\": \"emulated\"") != NULL)
		p.kind = SPAWN_KVM_EMULATED;
	else if (strstr(line, "\"kvm\": \"none\"") == NULL)
		return -EPROTO;
	if (at == NULL)
		return -EPROTO;
	p.iterations_per_s = strtoull(at + strlen(rate), NULL, 10);
	*ret = p;
	return 0;
}

/* Reads up to the end of the pipe; 0 or -errno. */
static int read_line(int fd, char *line, size_t size)
{
	uint64_t deadline = now_ns() + PROBE_DEADLINE_MS * NS_PER_MS;
	size_t n = 0;

	while (n < size - 1) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = now_ns();
		if (now >= deadline)
			return -ETIMEDOUT;
		int r = poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r <= 0)
			continue;
		ssize_t got = read(fd, line + n, size - 1 - n);
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	line[n] = '\0';
	return 0;
}

static int ask(int vmm_fd, int null_fd, char *line, size_t size)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0)
		jail_run_probe(vmm_fd, null_fd, ends[1]);
	int r = pid < 0 ? -errno : 0;
	fd_close(&ends[1]);
	if (r == 0) {
		r = read_line(ends[0], line, size);
		(void)kill(pid, SIGKILL); /* it has printed, or is too late */
		(void)waitpid(pid, NULL, 0);
	}
	fd_close(&ends[0]);
	return r;
}

int probe_run(int vmm_fd, int null_fd, struct probe_result *ret)
{
	static struct probe_result known;
	static bool is_known;
	char line[PROBE_BYTES_MAX + 1];

	if (!is_known) {
		int r = ask(vmm_fd, null_fd, line, sizeof(line));
		if (r == 0)
			r = probe_parse(line, &known);
		if (r < 0)
			return r;
		is_known = true;
		log_info("probe: %s", line);
	}
	*ret = known;
	return 0;
}
