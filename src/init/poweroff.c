/* poweroff.c - the end of the machine, asked for or not.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "fd.h"
#include "poweroff.h"

#define LINE_BYTES 256

static void switch_off(void)
{
#ifndef BRIG_TEST
	(void)reboot(RB_POWER_OFF);
#endif
}

void poweroff(struct loop *loop, const struct cgroup_tree *tree)
{
	cgroup_kill_all(tree);
	sync();
	switch_off();
	loop_stop(loop);
}

/* The kernel's log reaches the console before the machine goes; what is
 * written to the terminal itself may not. "<2>" is a critical message, which
 * a quiet kernel prints too. */
void poweroff_failed(const char *what, int error)
{
	char line[LINE_BYTES];

	int n = snprintf(line, sizeof(line), "<2>brig-init: %s: %s\n", what,
			 error != 0 ? strerrordesc_np(error) : "failed");
	cleanup_fd int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		(void)fprintf(stderr, "%s", line + 3);
	switch_off();
	_exit(1);
}
