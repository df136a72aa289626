/* image.c - root file system images on the host's disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"
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

/* --- Which one is it? ---------------------------------------------------------- */

#define HASHED_BYTES (1u << 20)
#define CACHE_SIZE 16

/* What a file was like when it was hashed: on a hot path once is enough. */
struct known {
	dev_t dev;
	ino_t ino;
	dev_t rdev;
	uint64_t bytes;
	struct timespec mtime;
	struct timespec ctime;
	uint8_t hash[AUTH_HASH_BYTES];
};

static struct known cache[CACHE_SIZE];
static unsigned int cache_next;

static bool is_same_file(const struct known *a, const struct known *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->rdev == b->rdev &&
	       a->bytes == b->bytes && a->mtime.tv_sec == b->mtime.tv_sec &&
	       a->mtime.tv_nsec == b->mtime.tv_nsec &&
	       a->ctime.tv_sec == b->ctime.tv_sec &&
	       a->ctime.tv_nsec == b->ctime.tv_nsec;
}

/* SHA-256 of the size (u64 little-endian) and the first MiB: that has the file
 * system's own id and the time it was made. */
static int hash_file(int fd, uint64_t bytes, uint8_t ret[AUTH_HASH_BYTES])
{
	char *text = malloc(sizeof(bytes) + HASHED_BYTES);

	if (text == NULL)
		return -ENOMEM;
	memcpy(text, &bytes, sizeof(bytes));
	ssize_t n = fd_pread_all(fd, text + sizeof(bytes), HASHED_BYTES, 0);
	if (n >= 0)
		auth_hash(text, sizeof(bytes) + (size_t)n, ret);
	free(text);
	return n < 0 ? (int)n : 0;
}

static int identify(int fd, uint64_t bytes, uint8_t ret[AUTH_HASH_BYTES])
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	struct known now = {
		.dev = st.st_dev,
		.ino = st.st_ino,
		.rdev = st.st_rdev,
		.bytes = bytes,
		.mtime = st.st_mtim,
		.ctime = st.st_ctim,
	};
	for (size_t i = 0; i < CACHE_SIZE; i++) {
		if (cache[i].bytes > 0 && is_same_file(&cache[i], &now)) {
			memcpy(ret, cache[i].hash, AUTH_HASH_BYTES);
			return 0;
		}
	}
	int r = hash_file(fd, bytes, now.hash);
	if (r < 0)
		return r;
	memcpy(ret, now.hash, AUTH_HASH_BYTES);
	cache[cache_next++ % CACHE_SIZE] = now;
	return 0;
}

int image_open_new(const char *dir, struct shape *shape)
{
	cleanup_fd int fd = image_open(dir, shape->image, &shape->base_bytes);

	if (fd < 0)
		return fd;
	int r = identify(fd, shape->base_bytes, shape->image_hash);
	return r < 0 ? r : fd_take(&fd);
}

int image_open_shape(const char *dir, const struct shape *shape)
{
	struct shape now = *shape;
	cleanup_fd int fd = image_open_new(dir, &now);

	if (fd < 0)
		return fd;
	return shape_equal(&now, shape) ? fd_take(&fd) : -ESTALE;
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
