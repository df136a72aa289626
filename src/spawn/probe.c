/* probe.c - asks brig-vmm what kind of KVM this machine has.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "jail.h"
#include "log.h"
#include "probe.h"

#define PROBE_BYTES_MAX 256

/* Not a JSON reader: the two fields as brig-vmm, which is ours, writes them. */
int probe_parse(const char *line, struct spawn_msg *ret)
{
	static const char rate[] = "\"iterations_per_s\": ";
	const char *at = strstr(line, rate);
	uint32_t kind = SPAWN_KVM_NONE;

	if (strstr(line, "\"kvm\": \"hardware\"") != NULL)
		kind = SPAWN_KVM_HARDWARE;
	else if (strstr(line, "\"kvm\": \"emulated\"") != NULL)
		kind = SPAWN_KVM_EMULATED;
	else if (strstr(line, "\"kvm\": \"none\"") == NULL)
		return -EPROTO;
	if (at == NULL)
		return -EPROTO;
	ret->kvm_kind = kind;
	ret->iterations_per_s = strtoull(at + strlen(rate), NULL, 10);
	return 0;
}

/* Waits until the child has ended or is too late, and reads what it printed,
 * which fits into the pipe. */
static ssize_t hear(pid_t pid, int out_fd, char *line)
{
	cleanup_fd int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = pid_fd, .events = POLLIN };
	int ended = poll(&p, 1, PROBE_DEADLINE_MS);

	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	if (ended <= 0)
		return ended < 0 ? -errno : -ETIMEDOUT;
	return fd_read_all(out_fd, line, PROBE_BYTES_MAX);
}

static ssize_t ask(int vmm_fd, int null_fd, char *line)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	cleanup_fd int out_fd = ends[0];
	pid_t pid = fork();
	if (pid == 0)
		jail_run_probe(vmm_fd, null_fd, ends[1]);
	ssize_t n = pid < 0 ? -errno : 0;
	fd_close(&ends[1]);
	return n < 0 ? n : hear(pid, out_fd, line);
}

int probe_run(int vmm_fd, int null_fd, struct spawn_msg *ret)
{
	static char line[PROBE_BYTES_MAX + 1]; /* empty: not asked yet */

	if (line[0] == '\0') {
		ssize_t n = ask(vmm_fd, null_fd, line);
		if (n < 0)
			return (int)n;
		line[strcspn(line, "\n")] = '\0';
		log_info("probe: %s", line);
	}
	return probe_parse(line, ret);
}
