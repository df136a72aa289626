/* textfile.c - the kernel's one-line files, and other small ones.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fd.h"
#include "textfile.h"

int textfile_write(int dir, const char *path, const char *text)
{
	size_t n = strlen(text);
	cleanup_fd int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t put = write(fd, text, n);
	if (put < 0)
		return -errno;
	return (size_t)put == n ? 0 : -EIO;
}

int textfile_read(int dir, const char *path, char *ret, size_t size)
{
	cleanup_fd int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t got = fd_read_all(fd, ret, size - 1);
	if (got < 0)
		return (int)got;
	ret[got] = '\0';
	return 0;
}
