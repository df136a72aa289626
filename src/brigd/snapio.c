/* snapio.c - system calls that change files of the snapshot store.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "snapio.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#ifdef BRIG_TEST
int (*snapio_hook)(const char *step);
struct snapio_step snapio_step;

static int step(const char *what, int fd, int dir_fd, const char *name)
{
	snapio_step = (struct snapio_step){ fd, dir_fd, name };
	return snapio_hook != NULL ? snapio_hook(what) : 0;
}
#else
static int step(const char *what, int fd, int dir_fd, const char *name)
{
	(void)what;
	(void)fd;
	(void)dir_fd;
	(void)name;
	return 0;
}
#endif

int snapio_create(int dir_fd)
{
	int r = step("create", -1, -1, NULL);

	if (r < 0)
		return r;
	int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int snapio_memory(const char *name, uint64_t bytes)
{
	cleanup_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	int r = snapio_resize(fd, bytes);
	return r < 0 ? r : fd_take(&fd);
}

int snapio_seal(int memfd)
{
	return fcntl(memfd, F_ADD_SEALS, SEALS) < 0 ? -errno : 0;
}

int snapio_resize(int fd, uint64_t bytes)
{
	int r = step("resize", fd, -1, NULL);

	if (r < 0)
		return r;
	return ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;
}

int snapio_write(int fd, uint64_t at, const void *bytes, size_t n)
{
	size_t done = 0;
	int r = step("write", fd, -1, NULL);

	while (r == 0 && done < n) {
		ssize_t put = pwrite(fd, (const char *)bytes + done, n - done,
				     (off_t)(at + done));
		if (put > 0)
			done += (size_t)put;
		else if (put == 0)
			r = -EIO;
		else if (errno != EINTR)
			r = -errno;
	}
	return r;
}

int snapio_finish(int fd)
{
	int r = step("chmod", fd, -1, NULL);

	if (r == 0 && fchmod(fd, 0400) < 0)
		r = -errno;
	return r < 0 ? r : snapio_sync(fd);
}

int snapio_sync(int dir_fd)
{
	int r = step("sync", dir_fd, -1, NULL);

	if (r < 0)
		return r;
	return fsync(dir_fd) < 0 ? -errno : 0;
}

int snapio_link(int fd, int dir_fd, const char *name)
{
	char path[32];
	int r = step("link", fd, dir_fd, name);

	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, dir_fd, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	return 0;
}

int snapio_unlink(int dir_fd, const char *name)
{
	int r = step("unlink", -1, dir_fd, name);

	if (r < 0)
		return r;
	return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

int snapio_open(int dir_fd, const char *name)
{
	struct stat st;
	/* O_NONBLOCK: a FIFO that somebody put there must not stop us. */
	cleanup_fd int fd = openat(
		dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return errno == ELOOP ? -EBADMSG : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) ? fd_take(&fd) : -EBADMSG;
}

int snapio_open_dir(int parent_fd, const char *name)
{
	int r = step("mkdir", -1, parent_fd, name);

	if (r < 0)
		return r;
	if (mkdirat(parent_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}
