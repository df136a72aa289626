/* term.h - what the user sees: messages, escaped text, tables, progress.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Bytes from the server, and so from guests, are data: all that is printed
 * through here has control characters written as \xNN, so that none of them
 * can move the cursor, rename the window or forge a line.
 */
#ifndef BRIG_CLI_TERM_H
#define BRIG_CLI_TERM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

#define TERM_MESSAGE_MAX 2048
#define TABLE_COLUMNS_MAX 8

enum term_colour {
	TERM_PLAIN,
	TERM_GREEN,
	TERM_YELLOW,
	TERM_RED
};

/* "brig: ..." and a newline to stderr, escaped. */
printf_like(1, 2) void complain(const char *fmt, ...);

/* Appends `n` bytes: valid UTF-8 as it is, all else and every control or
 * direction-changing character as \xNN. Newlines too unless `lines`. */
must_check int term_escape(struct buf *to, const char *text, size_t n,
			   bool lines);

/* Colours start and end; empty strings unless stdout is a terminal that can
 * do them and NO_COLOR is not set. */
const char *term_colour(enum term_colour colour);

/* Prints to stdout, indented; for a terminal in ASCII. 0 or -errno. */
must_check int term_print_json(const json_t *json);

/* Flushes stdout: `code`, or CMD_FAILED when it was 0 and writing failed. */
int term_flush(int code);

/* --- a table: cells are added in order; the first row is the header --- */

struct table {
	size_t columns;
	size_t count;     /* cells so far */
	struct buf cells; /* NUL-terminated, escaped */
	size_t width[TABLE_COLUMNS_MAX];
};

#define TABLE_BYTES_MAX (64u << 20)
#define TABLE_INIT(n)                                              \
	{                                                          \
		.columns = (n), .cells = BUF_INIT(TABLE_BYTES_MAX) \
	}

/* NULL counts as "-". 0 or -errno. */
must_check int table_add(struct table *t, const char *cell);
void table_print(const struct table *t);
void table_free(struct table *t);

#define cleanup_table __attribute__((cleanup(table_free)))

/* --- one line on stderr that says how long something takes --- */

struct progress {
	const char *label; /* NULL: silent */
	uint64_t start_ns;
	uint64_t shown_s; /* 0: nothing on the screen */
};

/* Does nothing unless stderr is a terminal. */
void progress_start(struct progress *p, const char *label);

/* Call it often: shows from the second second on, once a second. `total` 0:
 * only time; else bytes of `total` (UINT64_MAX: not known). */
void progress_tick(struct progress *p, uint64_t done, uint64_t total);

/* Wipes the line. */
void progress_end(struct progress *p);

#endif
