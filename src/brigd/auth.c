/* auth.c - API keys: which tenant a key belongs to.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"
#include "fd.h"
#include "id.h"

/* A shorter one was not made by us and could be guessed. */
#define KEY_BYTES_MIN 16

void auth_hash(const void *bytes, size_t n, uint8_t ret[AUTH_HASH_BYTES])
{
	int r = gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, n, ret);

	ASSERT(r == 0);
}

int auth_add(struct auth *a, const uint8_t hash[AUTH_HASH_BYTES],
	     int64_t tenant)
{
	ASSERT(tenant > 0);
	if (a->count == AUTH_KEYS_MAX)
		return -ENOSPC;
	memcpy(a->keys[a->count].hash, hash, AUTH_HASH_BYTES);
	a->keys[a->count].tenant = tenant;
	a->count++;
	return 0;
}

int64_t auth_check(const struct auth *a, const char *key)
{
	uint8_t hash[AUTH_HASH_BYTES];
	int64_t tenant = 0;
	size_t n = strlen(key);

	if (n == 0 || n >= API_KEY_BYTES)
		return 0;
	auth_hash(key, n, hash);
	for (size_t i = 0; i < a->count; i++) {
		if (gnutls_memcmp(hash, a->keys[i].hash, sizeof(hash)) == 0)
			tenant = a->keys[i].tenant;
	}
	return tenant;
}

static int make_key_file(const char *path, char ret[API_KEY_BYTES])
{
	char line[BRIG_ID_BYTES];

	cleanup_fd int fd =
		open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	id_make(line, "key_");
	size_t n = strlen(line);
	memcpy(ret, line, n + 1);
	line[n++] = '\n';
	int r = fd_write_all(fd, line, n);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		(void)unlink(path);
	return r;
}

int auth_read_key_file(const char *path, char ret[API_KEY_BYTES])
{
	struct stat st;

	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return make_key_file(path, ret);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & 0077) != 0)
		return -EACCES;
	ssize_t n = fd_read_all(fd, ret, API_KEY_BYTES - 1);
	if (n < 0)
		return (int)n;
	ret[n] = '\0';
	ret[strcspn(ret, "\r\n")] = '\0';
	return strlen(ret) < KEY_BYTES_MIN ? -EINVAL : 0;
}
