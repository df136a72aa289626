/* log.c - one line per event, key=value, to standard error.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"

static const char *program = "brig";
static bool debug;

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};

void log_init(const char *name)
{
	program = name;
	debug = getenv("BRIG_DEBUG") != NULL;
}

/* Copies `from` with control and non-ASCII bytes as \xNN; returns length. */
static size_t escape(char *to, size_t size, const char *from)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (; *from != '\0' && n + 5 < size; from++) {
		unsigned char c = (unsigned char)*from;
		if (c >= 0x20 && c < 0x7f) {
			to[n++] = (char)c;
			continue;
		}
		to[n++] = '\\';
		to[n++] = 'x';
		to[n++] = hex[c >> 4];
		to[n++] = hex[c & 15];
	}
	return n;
}

printf_like(2, 0) static void vlog(enum log_level level, const char *fmt,
				   va_list ap)
{
	char text[LOG_LINE_MAX / 2];
	char line[LOG_LINE_MAX];
	int saved = errno;

	if (level == LOG_DEBUG && !debug)
		return;
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	int head = snprintf(line, sizeof(line), "%s[%d] %s: ", program,
			    (int)getpid(), level_names[level]);
	size_t n = (size_t)head;
	n += escape(line + n, sizeof(line) - n - 1, text);
	line[n++] = '\n';
	ssize_t done = write(STDERR_FILENO, line, n);
	(void)done; /* a log that cannot be written must not stop us */
	errno = saved;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(level, fmt, ap);
	va_end(ap);
}

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(LOG_ERROR, fmt, ap);
	va_end(ap);
	exit(EXIT_FAILURE);
}
