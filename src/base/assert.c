/* assert.c - the end of a process that found a bug of its own.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>
#include <unistd.h>

#include "cc.h"

static void put(const char *s)
{
	ssize_t n = write(STDERR_FILENO, s, strlen(s));
	(void)n; /* nobody is left to tell */
}

/* Async-signal-safe and allocation-free: brig-vmm calls it after its lock. */
void assert_failed(const char *what, const char *file, int line)
{
	char digits[12];
	size_t at = sizeof(digits);
	unsigned int n = (unsigned int)line;

	digits[--at] = '\0';
	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n != 0 && at > 0);

	put("bug: ");
	put(what);
	put(" at ");
	put(file);
	put(":");
	put(&digits[at]);
	put("\n");
	__builtin_trap();
}
