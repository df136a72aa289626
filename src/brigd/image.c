/* image.c - root file system images on the host's disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "fd.h"
#include "image.h"

#define SUFFIX ".ext4"
#define LIST_MAX 1000 /* names shown */

static int get_size(int fd, uint64_t *ret_bytes)
{
	struct stat st;
	uint64_t bytes = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		bytes = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return -EINVAL;
	else if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return -errno;
	if (bytes == 0)
		return -EINVAL;
	*ret_bytes = bytes;
	return 0;
}

int image_open(const char *dir, const char *name, uint64_t *ret_bytes)
{
	char path[PATH_MAX];

	ASSERT(strchr(name, '/') == NULL && name[0] != '.');
	int n = snprintf(path, sizeof(path), "%s/%s" SUFFIX, dir, name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	/* O_NONBLOCK: a FIFO somebody put there must not stop the daemon. */
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	int r = get_size(fd, ret_bytes);
	return r < 0 ? r : fd_take(&fd);
}

json_t *image_list(const char *dir)
{
	json_t *names = json_array();
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL &&
	       json_array_size(names) < LIST_MAX) {
		size_t n = strlen(e->d_name);
		size_t suffix = strlen(SUFFIX);
		if (n <= suffix || e->d_name[0] == '.' ||
		    strcmp(e->d_name + n - suffix, SUFFIX) != 0)
			continue;
		/* json_stringn() refuses what is not UTF-8: not shown. */
		(void)json_array_append_new(
			names, json_stringn(e->d_name, n - suffix));
	}
	if (d != NULL)
		(void)closedir(d);
	return names;
}
