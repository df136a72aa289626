/* meminfo.c - how much memory there is and is left, from /proc/meminfo.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>

#include "meminfo.h"
#include "textfile.h"

/* The two lines are among the first three of the file. */
#define HEAD_BYTES 512

static uint64_t find_kib(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

int meminfo_read(struct meminfo *ret)
{
	char text[HEAD_BYTES];
	int r = textfile_read(AT_FDCWD, "/proc/meminfo", text, sizeof(text));

	if (r < 0)
		return r;
	uint64_t total = find_kib(text, "MemTotal:");
	uint64_t available = find_kib(text, "MemAvailable:");
	if (total == 0)
		return -EINVAL;
	ret->total_bytes = total * 1024;
	ret->available_bytes = available * 1024;
	return 0;
}
