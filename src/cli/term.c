/* term.c - what the user sees: messages, escaped text, tables, progress.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "fd.h"
#include "loop.h"
#include "term.h"

/* --- escaping --------------------------------------------------------------- */

/* Length of the UTF-8 sequence at `s`, 0 when it is none; *ret_code is the
 * character (RFC 3629: no overlong forms, no surrogates). */
static size_t utf8_read(const unsigned char *s, size_t n, uint32_t *ret_code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80   ? 1
		     : s[0] < 0xc0 ? 0
		     : s[0] < 0xe0 ? 2
		     : s[0] < 0xf0 ? 3
		     : s[0] < 0xf8 ? 4
				   : 0;

	if (len == 0 || len > n)
		return 0;
	uint32_t code = len == 1 ? s[0] : s[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < least[len] || code > 0x10ffff ||
	    (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return len;
}

static bool is_printable(uint32_t code, bool lines)
{
	if (code == '\n' || code == '\t')
		return lines;
	if (code < 0x20 || (code >= 0x7f && code < 0xa0))
		return false;
	if (code == 0x2028 || code == 0x2029 || code == 0xfeff)
		return false;
	/* marks and overrides of direction reorder what a reader sees */
	if (code == 0x200e || code == 0x200f || code == 0x061c)
		return false;
	return !(code >= 0x202a && code <= 0x202e) &&
	       !(code >= 0x2066 && code <= 0x2069);
}

int term_escape(struct buf *to, const char *text, size_t n, bool lines)
{
	const unsigned char *s = (const unsigned char *)text;
	int r = 0;

	for (size_t i = 0; i < n && r == 0;) {
		uint32_t code = 0;
		size_t len = utf8_read(s + i, n - i, &code);
		if (len > 0 && is_printable(code, lines)) {
			r = buf_add(to, s + i, len);
			i += len;
			continue;
		}
		for (size_t end = i + (len > 0 ? len : 1); i < end && r == 0;)
			r = buf_addf(to, "\\x%02x", s[i++]);
	}
	return r;
}

/* --- messages ---------------------------------------------------------------- */

void complain(const char *fmt, ...)
{
	char text[TERM_MESSAGE_MAX];
	struct buf line cleanup_buf = BUF_INIT(5ul * TERM_MESSAGE_MAX);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (buf_add_str(&line, "brig: ") < 0 ||
	    term_escape(&line, text, strlen(text), false) < 0 ||
	    buf_add_str(&line, "\n") < 0)
		return;
	(void)fflush(stdout);
	int r = fd_write_all(STDERR_FILENO, line.data, line.len);
	(void)r; /* nobody is left to tell */
}

const char *term_colour(enum term_colour colour)
{
	static const char *const codes[] = {
		[TERM_PLAIN] = "\033[0m",
		[TERM_GREEN] = "\033[32m",
		[TERM_YELLOW] = "\033[33m",
		[TERM_RED] = "\033[31m",
	};
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	if ((no_color != NULL && *no_color != '\0') || term == NULL ||
	    strcmp(term, "dumb") == 0 || !isatty(STDOUT_FILENO))
		return "";
	return codes[colour];
}

int term_print_json(const json_t *json)
{
	size_t flags = JSON_INDENT(2) | JSON_ENCODE_ANY;

	if (isatty(STDOUT_FILENO))
		flags |= JSON_ENSURE_ASCII;
	if (json_dumpf(json, stdout, flags) < 0)
		return -EIO;
	return putchar('\n') == EOF ? -EIO : 0;
}

int term_flush(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	if (errno != EPIPE)
		complain("cannot write to standard output");
	return code == CMD_OK ? CMD_FAILED : code;
}

/* --- tables ------------------------------------------------------------------ */

/* Characters, not bytes; wide ones count as one. */
static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text != '\0'; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

int table_add(struct table *t, const char *cell)
{
	size_t start = t->cells.len;
	size_t column = t->count % t->columns;

	ASSERT(t->columns <= TABLE_COLUMNS_MAX);
	if (cell == NULL)
		cell = "-";
	int r = term_escape(&t->cells, cell, strlen(cell), false);
	if (r == 0)
		r = buf_add(&t->cells, "", 1);
	if (r < 0)
		return r;
	size_t width = width_of(t->cells.data + start);
	if (width > t->width[column])
		t->width[column] = width;
	t->count++;
	return 0;
}

void table_print(const struct table *t)
{
	const char *cell = t->cells.data;

	for (size_t i = 0; i < t->count; i++) {
		size_t column = i % t->columns;
		bool last = column + 1 == t->columns;
		size_t pad = last ? 0 : t->width[column] - width_of(cell) + 2;
		(void)printf("%s%*s%s", cell, (int)pad, "", last ? "\n" : "");
		cell += strlen(cell) + 1;
	}
}

void table_free(struct table *t)
{
	buf_free(&t->cells);
}

/* --- progress ---------------------------------------------------------------- */

void progress_start(struct progress *p, const char *label)
{
	bool silent = label == NULL || !isatty(STDERR_FILENO);

	*p = (struct progress){ .label = silent ? NULL : label,
				.start_ns = now_ns() };
}

void progress_tick(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t s = (now_ns() - p->start_ns) / NS_PER_S;
	double mib = (double)done / 1048576.0;
	const char *clear = "\r\033[K";

	if (p->label == NULL || s <= p->shown_s)
		return;
	p->shown_s = s;
	if (total == 0)
		(void)fprintf(stderr, "%s%s ... %llu s", clear, p->label,
			      (unsigned long long)s);
	else if (total == UINT64_MAX)
		(void)fprintf(stderr, "%s%s ... %.1f MiB, %llu s", clear,
			      p->label, mib, (unsigned long long)s);
	else
		(void)fprintf(stderr, "%s%s ... %.1f of %.1f MiB, %llu s",
			      clear, p->label, mib, (double)total / 1048576.0,
			      (unsigned long long)s);
}

void progress_end(struct progress *p)
{
	if (p->label != NULL && p->shown_s > 0)
		(void)fputs("\r\033[K", stderr);
	p->label = NULL;
}
