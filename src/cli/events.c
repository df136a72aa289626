/* events.c - a streamed run: its lines, its events, its exit code.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base64.h"
#include "cmd.h"
#include "events.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "";
}

static enum event_kind kind_of(const char *name)
{
	static const char *const names[] = {
		[EVENT_STARTED] = "started", [EVENT_STDOUT] = "stdout",
		[EVENT_STDERR] = "stderr",   [EVENT_EXIT] = "exit",
		[EVENT_ERROR] = "error",
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(name, names[i]) == 0)
			return (enum event_kind)i;
	}
	return EVENT_OTHER;
}

static int read_data(struct event *e)
{
	const json_t *data = json_object_get(e->json, "data");
	const char *encoding = text_of(e->json, "encoding");
	const char *text = json_string_value(data);
	size_t n = json_string_length(data);

	if (e->kind != EVENT_STDOUT && e->kind != EVENT_STDERR)
		return 0;
	if (text == NULL)
		return -EPROTO;
	if (strcmp(encoding, "utf-8") == 0)
		return buf_add(&e->data, text, n);
	if (strcmp(encoding, "base64") == 0)
		return base64_read(&e->data, text, n);
	return -EPROTO;
}

int event_read(const char *line, size_t n, struct event *ret)
{
	struct event e = { .data = BUF_INIT(EVENT_LINE_MAX) };

	e.json = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
	if (!json_is_object(e.json)) {
		json_decref(e.json);
		return -EPROTO;
	}
	e.kind = kind_of(text_of(e.json, "event"));
	int r = read_data(&e);
	if (r < 0) {
		event_free(&e);
		return r == -ENOMEM ? r : -EPROTO;
	}
	*ret = e;
	return 0;
}

void event_free(struct event *e)
{
	json_decref(e->json);
	e->json = NULL;
	buf_free(&e->data);
}

int lines_feed(struct buf *rest, const char *bytes, size_t n,
	       int (*on_line)(void *ctx, const char *line, size_t n), void *ctx)
{
	while (n > 0) {
		const char *end = memchr(bytes, '\n', n);
		size_t part = end != NULL ? (size_t)(end - bytes) : n;
		int r = buf_add(rest, bytes, part);
		if (r < 0 || end == NULL)
			return r;
		r = rest->len > 0 ? on_line(ctx, rest->data, rest->len) : 0;
		rest->len = 0;
		if (r < 0)
			return r;
		bytes += part + 1;
		n -= part + 1;
	}
	return 0;
}

int outcome_of_result(const json_t *result)
{
	const char *reason = text_of(result, "reason");
	const json_t *number = json_object_get(result, "exit_code");
	json_int_t code =
		json_is_integer(number) ? json_integer_value(number) : -1;
	json_int_t signal =
		json_integer_value(json_object_get(result, "signal"));

	if (strcmp(reason, "timeout") == 0)
		return CMD_TIMEOUT;
	if (strcmp(reason, "lost") == 0)
		return CMD_FAILED;
	if (signal > 0 && signal < 128)
		return CMD_SIGNAL + (int)signal;
	return code >= 0 && code <= 255 ? (int)code : CMD_FAILED;
}

/* brigd says in `details` which errno it was, or else only in words: the
 * message ends with the C library's text. */
static bool is_not_found(const json_t *error)
{
	const json_t *number =
		json_object_get(json_object_get(error, "details"), "errno");
	const char *message = text_of(error, "message");
	const char *end = strerrordesc_np(ENOENT);

	if (json_is_integer(number))
		return json_integer_value(number) == ENOENT;
	size_t n = strlen(message);
	return n >= strlen(end) && strcmp(message + n - strlen(end), end) == 0;
}

int outcome_of_error(const json_t *error)
{
	if (strcmp(text_of(error, "code"), "cannot_execute") != 0)
		return CMD_FAILED;
	return is_not_found(error) ? CMD_NOT_FOUND : CMD_NOT_RUNNABLE;
}
