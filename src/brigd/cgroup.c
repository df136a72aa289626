/* cgroup.c - reads what the kernel counted for a microVM's process.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "fd.h"

#define FILE_BYTES 1024

static int read_text(int dir, const char *name, char text[FILE_BYTES])
{
	if (dir < 0)
		return -ENOENT;
	cleanup_fd int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = fd_read_all(fd, text, FILE_BYTES - 1);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	return 0;
}

static int get_number(const char *text, uint64_t *ret)
{
	char *end = NULL;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno != 0)
		return -errno;
	*ret = v;
	return 0;
}

int cgroup_read_cpu(int dir, uint64_t *ret_usec)
{
	static const char key[] = "usage_usec ";
	char text[FILE_BYTES] = "";
	int r = read_text(dir, "cpu.stat", text);

	if (r < 0)
		return r;
	const char *at = strstr(text, key);
	return at == NULL ? -EINVAL : get_number(at + strlen(key), ret_usec);
}

int cgroup_read_memory(int dir, uint64_t *ret_bytes)
{
	char text[FILE_BYTES] = "";
	int r = read_text(dir, "memory.current", text);

	return r < 0 ? r : get_number(text, ret_bytes);
}
