/* where.c - where the programs are that brig starts.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "where.h"

/* Joins into `ret`; true when an executable is there. */
static bool is_there(char ret[static WHERE_BYTES], const char *dir, size_t n,
		     const char *rest)
{
	int len = snprintf(ret, WHERE_BYTES, "%.*s/%s", (int)n, dir, rest);

	return len > 0 && len < WHERE_BYTES && access(ret, X_OK) == 0;
}

/* The directory of this program; empty when /proc does not say. */
static void own_directory(char ret[static WHERE_BYTES])
{
	ssize_t n = readlink("/proc/self/exe", ret, WHERE_BYTES - 1);

	ret[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(ret, '/');
	if (slash != NULL)
		*slash = '\0';
}

static bool in_build_tree(const char *own)
{
	return fnmatch("*/build/*/bin", own, 0) == 0;
}

int where_find(const char *name, const char *in_tree,
	       char ret[static WHERE_BYTES])
{
	char own[WHERE_BYTES];
	char beside[64];
	const char *chosen = getenv("BRIG_LIBEXEC");

	if (chosen != NULL && *chosen != '\0')
		return is_there(ret, chosen, strlen(chosen), name) ? 0
								   : -ENOENT;
	own_directory(own);
	(void)snprintf(beside, sizeof(beside), "../libexec/brig/%s", name);
	if (own[0] != '\0' && is_there(ret, own, strlen(own), beside))
		return 0;
	if (in_build_tree(own) && is_there(ret, own, strlen(own), in_tree))
		return 0;
	const char *last = "/usr/libexec/brig";
	return is_there(ret, last, strlen(last), name) ? 0 : -ENOENT;
}

/* The length of `path` without its last `n` components. */
static size_t length_above(const char *path, unsigned int n)
{
	size_t len = strlen(path);

	while (n > 0 && len > 0)
		n -= path[--len] == '/';
	return len;
}

void where_host_dir(char ret[static WHERE_BYTES])
{
	char own[WHERE_BYTES];
	const char *chosen = getenv("BRIG_HOST_DIR");
	const char *state = getenv("XDG_STATE_HOME");
	const char *home = getenv("HOME");
	int n = 0;

	ret[0] = '\0';
	own_directory(own);
	if (chosen != NULL && *chosen != '\0')
		n = snprintf(ret, WHERE_BYTES, "%s", chosen);
	else if (in_build_tree(own))
		n = snprintf(ret, WHERE_BYTES, "%.*s/host",
			     (int)length_above(own, 2), own);
	else if (geteuid() == 0)
		n = snprintf(ret, WHERE_BYTES, "/var/lib/brig/host");
	else if (state != NULL && *state != '\0')
		n = snprintf(ret, WHERE_BYTES, "%s/brig/host", state);
	else if (home != NULL && *home != '\0')
		n = snprintf(ret, WHERE_BYTES, "%s/.local/state/brig/host",
			     home);
	if (n < 0 || n >= WHERE_BYTES)
		ret[0] = '\0';
}

int where_in_path(const char *name, char ret[static WHERE_BYTES])
{
	const char *path = getenv("PATH");

	while (path != NULL && *path != '\0') {
		size_t n = strcspn(path, ":");
		if (n > 0 && is_there(ret, path, n, name))
			return 0;
		path += n + (path[n] == ':');
	}
	return -ENOENT;
}
