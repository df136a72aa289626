/* stop.c - SIGINT, SIGTERM and SIGHUP as something that can be waited for.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "stop.h"

static int signal_fd = -1;
static unsigned int count;
static int first;

int stop_watch(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGHUP);
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
	    sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return signal_fd < 0 ? -errno : 0;
}

int stop_fd(void)
{
	return signal_fd;
}

unsigned int stop_count(void)
{
	struct signalfd_siginfo info;

	while (signal_fd >= 0 &&
	       read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (first == 0)
			first = (int)info.ssi_signo;
		count++;
	}
	return count;
}

int stop_signal(void)
{
	(void)stop_count();
	return first;
}

int stop_write(int fd, const void *bytes, size_t n)
{
	const char *at = bytes;
	unsigned int before = stop_count();

	while (n > 0) {
		struct pollfd fds[2] = {
			{ .fd = fd, .events = POLLOUT },
			{ .fd = signal_fd, .events = POLLIN },
		};
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (stop_count() != before)
			return -EINTR;
		if (fds[0].revents == 0)
			continue;
		/* what poll promises: a pipe takes PIPE_BUF at once */
		ssize_t put = write(fd, at, n < PIPE_BUF ? n : PIPE_BUF);
		if (put < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (put > 0) {
			at += put;
			n -= (size_t)put;
		}
	}
	return 0;
}
