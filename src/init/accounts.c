/* accounts.c - users of the guest, from /etc/passwd and /etc/group.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "accounts.h"
#include "fd.h"

#define FILE_MAX ((size_t)1 << 20)
#define FIELDS 7
#define ID_DIGITS_MAX 10

void account_root(struct account *ret)
{
	*ret = (struct account){ .name = "root", .home = "/root" };
}

/* The file's text with a NUL at its end, which the caller frees; NULL and
 * *ret_error when it cannot be read. */
static char *load(const char *etc, const char *file, int *ret_error)
{
	char path[PATH_MAX];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/%s", etc, file);
	cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		*ret_error = -errno;
		return NULL;
	}
	*ret_error = -EINVAL;
	if (!S_ISREG(st.st_mode) || (size_t)st.st_size > FILE_MAX)
		return NULL;
	size_t size = (size_t)st.st_size;
	*ret_error = -ENOMEM;
	char *text = malloc(size + 1);
	if (text == NULL)
		return NULL;
	ssize_t got = fd_read_all(fd, text, size);
	if (got < 0) {
		*ret_error = (int)got;
		free(text);
		return NULL;
	}
	text[got] = '\0';
	return text;
}

/* Cuts the next line off *text; NULL at the end. */
static char *next_line(char **text)
{
	char *line = *text;

	if (line[0] == '\0')
		return NULL;
	char *end = strchr(line, '\n');
	if (end == NULL) {
		*text = line + strlen(line);
		return line;
	}
	*end = '\0';
	*text = end + 1;
	return line;
}

/* Cuts a line at its colons; returns the number of fields. */
static size_t split(char *line, char **fields, size_t max)
{
	size_t n = 0;

	while (n < max) {
		fields[n++] = line;
		line = strchr(line, ':');
		if (line == NULL)
			break;
		*line++ = '\0';
	}
	return n;
}

static bool parse_id(const char *s, uint32_t *ret)
{
	uint64_t v = 0;
	size_t n = strspn(s, "0123456789");

	if (n == 0 || n > ID_DIGITS_MAX || s[n] != '\0')
		return false;
	for (size_t i = 0; i < n; i++)
		v = v * 10 + (uint64_t)(s[i] - '0');
	/* The highest id means "do not change" to setresuid(2). */
	if (v >= UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool take_passwd_line(char *line, const char *user, struct account *ret)
{
	char *f[FIELDS];
	uint32_t uid;
	uint32_t gid;
	uint32_t wanted;

	if (split(line, f, FIELDS) < FIELDS - 1)
		return false;
	if (!parse_id(f[2], &uid) || !parse_id(f[3], &gid))
		return false;
	if (strcmp(f[0], user) != 0 &&
	    !(parse_id(user, &wanted) && wanted == uid))
		return false;
	if (strlen(f[0]) >= sizeof(ret->name) ||
	    strlen(f[5]) >= sizeof(ret->home))
		return false;
	*ret = (struct account){ .uid = uid, .gid = gid };
	memcpy(ret->name, f[0], strlen(f[0]));
	memcpy(ret->home, f[5], strlen(f[5]));
	if (ret->home[0] != '/')
		memcpy(ret->home, "/", 2);
	return true;
}

static bool is_member(const char *members, const char *name)
{
	size_t n = strlen(name);

	while (members[0] != '\0') {
		size_t len = strcspn(members, ",");
		if (len == n && memcmp(members, name, n) == 0)
			return true;
		members += len;
		members += members[0] == ',';
	}
	return false;
}

static void add_groups(const char *etc, struct account *a)
{
	int ignored;
	char *text = load(etc, "group", &ignored);

	if (text == NULL)
		return; /* an image without groups is a valid one */
	char *rest = text;
	for (char *line = next_line(&rest); line != NULL;
	     line = next_line(&rest)) {
		char *f[4];
		uint32_t gid;
		if (split(line, f, 4) < 4 || !parse_id(f[2], &gid))
			continue;
		if (gid == a->gid || !is_member(f[3], a->name))
			continue;
		if (a->group_count == ACCOUNTS_GROUPS_MAX)
			break;
		a->groups[a->group_count++] = gid;
	}
	free(text);
}

int account_find(const char *etc, const char *user, struct account *ret)
{
	int r;
	char *text = load(etc, "passwd", &r);

	if (text == NULL)
		return r;
	r = -ENOENT;
	char *rest = text;
	for (char *line = next_line(&rest); line != NULL && r < 0;
	     line = next_line(&rest)) {
		if (take_passwd_line(line, user, ret))
			r = 0;
	}
	free(text);
	if (r == 0)
		add_groups(etc, ret);
	return r;
}
