/* key.c - the API key: where it comes from.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "key.h"
#include "where.h"

/* A header value: visible ASCII only, so that it cannot become two headers. */
static int take_key(struct key *k, const char *text, const char **ret_why)
{
	size_t n = strcspn(text, "\r\n");

	if (n > KEY_MAX || text[n + strspn(text + n, "\r\n")] != '\0') {
		*ret_why = "the API key is not one line of at most 512 bytes";
		return -EINVAL;
	}
	for (size_t i = 0; i < n; i++) {
		if (text[i] > 0x20 && text[i] < 0x7f)
			continue;
		*ret_why = "the API key has characters that no key has";
		return -EINVAL;
	}
	memcpy(k->text, text, n);
	k->text[n] = '\0';
	return 0;
}

static int read_key(struct key *k, const char *path, const char **ret_why)
{
	char text[KEY_MAX + 2];
	int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -errno : fd_read_all(fd, text, sizeof(text) - 1);

	(void)snprintf(k->from, sizeof(k->from), "%.255s", path);
	k->error = n < 0 ? (int)-n : 0; /* told when brigd wants a key */
	if (n < 0)
		return 0;
	text[n] = '\0';
	return take_key(k, text, ret_why);
}

bool key_is_local(const char *url)
{
	static const char *const hosts[] = { "127.0.0.1", "localhost",
					     "[::1]" };
	const char *host = strstr(url, "://");

	for (size_t i = 0; host != NULL && i < ARRAY_LEN(hosts); i++) {
		size_t n = strlen(hosts[i]);
		if (strncmp(host + 3, hosts[i], n) == 0 &&
		    strchr(":/", host[3 + n]) != NULL && /* or its NUL */
		    strchr(host, '@') == NULL)
			return true;
	}
	return false;
}

static bool exists(const char *dir, const char *name)
{
	char path[WHERE_BYTES + 32];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

int key_find(const char *url, struct key *ret, const char **ret_why)
{
	const char *key = getenv("BRIG_API_KEY");
	char dir[WHERE_BYTES];
	char host_key[WHERE_BYTES + 8];

	*ret = (struct key){ .error = 0 };
	if (key != NULL && *key != '\0') {
		(void)snprintf(ret->from, sizeof(ret->from), "BRIG_API_KEY");
		return take_key(ret, key, ret_why);
	}
	if (!key_is_local(url))
		return 0;
	where_host_dir(dir);
	(void)snprintf(host_key, sizeof(host_key), "%s/key", dir);
	bool host_vm = dir[0] != '\0' && exists(dir, "key") &&
		       (exists(dir, "qemu.pid") || access(KEY_FILE, F_OK) < 0);
	return read_key(ret, host_vm ? host_key : KEY_FILE, ret_why);
}
