/* events.h - a streamed run: its lines, its events, its exit code.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pure: no input or output. All bytes come from the server and are untrusted.
 */
#ifndef BRIG_CLI_EVENTS_H
#define BRIG_CLI_EVENTS_H

#include <jansson.h>
#include <stddef.h>

#include "buf.h"

/* One frame of a guest is 32 KiB; as JSON at most six times that. */
#define EVENT_LINE_MAX (1u << 20)

enum event_kind {
	EVENT_STARTED,
	EVENT_STDOUT,
	EVENT_STDERR,
	EVENT_EXIT,
	EVENT_ERROR,
	EVENT_OTHER, /* of a newer brigd: to be ignored */
};

struct event {
	enum event_kind kind;
	json_t *json;    /* the whole event; owned */
	struct buf data; /* the bytes of stdout or stderr; owned */
};

/* 0, -ENOMEM, or -EPROTO: not an event. Then nothing is to be freed. */
must_check int event_read(const char *line, size_t n, struct event *ret);
void event_free(struct event *e);

/* Cuts a stream into lines. `on_line` gets each without its newline and may
 * return -errno to stop. Returns that, -ENOMEM, or -ENOSPC for a line over
 * the buffer's maximum. */
must_check int lines_feed(struct buf *rest, const char *bytes, size_t n,
			  int (*on_line)(void *ctx, const char *line, size_t n),
			  void *ctx);

/* The exit code of brig for the result of a run (enum cmd_exit). */
int outcome_of_result(const json_t *result);

/* The same for an error object instead of a result. */
int outcome_of_error(const json_t *error);

#endif
