/* when.c - wall-clock times as the API writes and reads them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdbool.h>
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

void when_format(int64_t ms, char ret[WHEN_BYTES])
{
	int64_t rest = ((ms % 1000) + 1000) % 1000;
	time_t seconds = (time_t)((ms - rest) / 1000);
	struct tm tm;

	if (gmtime_r(&seconds, &tm) == NULL)
		memset(&tm, 0, sizeof(tm));
	(void)snprintf(ret, WHEN_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		       tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		       tm.tm_min, tm.tm_sec, (int)rest);
}

/* Takes exactly `digits` digits with a value in min..max. */
static bool take_number(const char **at, int digits, int min, int max, int *ret)
{
	int v = 0;

	for (int i = 0; i < digits; i++) {
		char c = (*at)[i];
		if (c < '0' || c > '9')
			return false;
		v = v * 10 + (c - '0');
	}
	if (v < min || v > max)
		return false;
	*at += digits;
	*ret = v;
	return true;
}

static bool take_char(const char **at, const char *any)
{
	if (**at == '\0' || strchr(any, **at) == NULL)
		return false;
	(*at)++;
	return true;
}

static bool take_date(const char **at, struct tm *tm)
{
	if (!take_number(at, 4, 1970, 9999, &tm->tm_year) ||
	    !take_char(at, "-") || !take_number(at, 2, 1, 12, &tm->tm_mon) ||
	    !take_char(at, "-") || !take_number(at, 2, 1, 31, &tm->tm_mday))
		return false;
	tm->tm_year -= 1900;
	tm->tm_mon -= 1;
	return true;
}

/* After "12:34:56": an optional fraction of any length. */
static bool take_fraction(const char **at, int *ret_ms)
{
	int scale = 100;
	const char *first;

	*ret_ms = 0;
	if (!take_char(at, ".,"))
		return true;
	first = *at;
	for (; **at >= '0' && **at <= '9'; (*at)++) {
		*ret_ms += (**at - '0') * scale;
		scale /= 10;
	}
	return *at > first;
}

static bool take_offset(const char **at, int *ret_minutes)
{
	int hours = 0;
	int minutes = 0;
	char sign = **at;

	*ret_minutes = 0;
	if (take_char(at, "Zz"))
		return true;
	/* A '+' in a query that the client did not escape reads as a blank. */
	if (!take_char(at, "+- "))
		return sign == '\0';
	if (!take_number(at, 2, 0, 23, &hours))
		return false;
	(void)take_char(at, ":");
	if (!take_number(at, 2, 0, 59, &minutes))
		return false;
	*ret_minutes = (hours * 60 + minutes) * (sign == '-' ? -1 : 1);
	return true;
}

int when_parse(const char *text, int64_t *ret_ms)
{
	struct tm tm = { .tm_mday = 1 };
	int ms = 0;
	int offset = 0;

	if (!take_date(&text, &tm))
		return -EINVAL;
	int day = tm.tm_mday;
	if (*text != '\0') {
		if (!take_char(&text, "Tt ") ||
		    !take_number(&text, 2, 0, 23, &tm.tm_hour) ||
		    !take_char(&text, ":") ||
		    !take_number(&text, 2, 0, 59, &tm.tm_min))
			return -EINVAL;
		if (take_char(&text, ":") &&
		    (!take_number(&text, 2, 0, 60, &tm.tm_sec) ||
		     !take_fraction(&text, &ms)))
			return -EINVAL;
		if (!take_offset(&text, &offset) || *text != '\0')
			return -EINVAL;
	}
	bool leap_second = tm.tm_sec == 60;
	time_t seconds = timegm(&tm);
	if (!leap_second && tm.tm_mday != day)
		return -EINVAL; /* 31 February */
	*ret_ms = ((int64_t)seconds - (int64_t)offset * 60) * 1000 + ms;
	return 0;
}
