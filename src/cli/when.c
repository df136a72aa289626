/* when.c - points in time, as the API writes them and as people read them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "when.h"

int64_t when_now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int when_read(const char *iso, int64_t *ret_ms)
{
	struct tm tm = { .tm_isdst = 0 };
	int64_t ms = 0;
	int64_t scale = 100;
	const char *rest = strptime(iso, "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest == NULL)
		return -EINVAL;
	if (*rest == '.') {
		for (rest++; *rest >= '0' && *rest <= '9'; rest++) {
			ms += scale * (*rest - '0');
			scale /= 10;
		}
	}
	if (strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0)
		return -EINVAL;
	*ret_ms = (int64_t)timegm(&tm) * 1000 + ms;
	return 0;
}

void when_write(int64_t ms, char ret[static WHEN_ISO_BYTES])
{
	time_t s = ms / 1000;
	struct tm tm;

	ret[0] = '\0';
	if (ms < 0 || gmtime_r(&s, &tm) == NULL ||
	    strftime(ret, WHEN_ISO_BYTES - 5, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		return;
	size_t n = strlen(ret);
	(void)snprintf(ret + n, WHEN_ISO_BYTES - n, ".%03dZ", (int)(ms % 1000));
}

void when_age(int64_t ms, char ret[static WHEN_AGE_BYTES])
{
	long long s = ms < 0 ? 0 : ms / 1000;

	if (s < 120)
		(void)snprintf(ret, WHEN_AGE_BYTES, "%lld s", s);
	else if (s < 7200)
		(void)snprintf(ret, WHEN_AGE_BYTES, "%lld min", s / 60);
	else if (s < 172800)
		(void)snprintf(ret, WHEN_AGE_BYTES, "%lld h", s / 3600);
	else
		(void)snprintf(ret, WHEN_AGE_BYTES, "%lld d", s / 86400);
}
