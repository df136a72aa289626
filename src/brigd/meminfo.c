/* meminfo.c - one figure of /proc/meminfo.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "meminfo.h"

uint64_t meminfo_mib(const char *name)
{
	char line[128];
	size_t n = strlen(name);
	uint64_t kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	if (f == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, name, n) == 0 && line[n] == ':') {
			kib = strtoull(line + n + 1, NULL, 10);
			break;
		}
	}
	(void)fclose(f);
	return kib >> 10;
}
