/* cli_events.c - fuzzes what brig makes of a server's stream of events.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <stdint.h>

#include "src/cli/cmd.h"
#include "src/cli/events.h"
#include "src/cli/term.h"

/* What a terminal gets must not hold a control character. */
static void check_escaped(const struct buf *data)
{
	struct buf safe cleanup_buf = BUF_INIT(4 * (size_t)EVENT_LINE_MAX);

	ASSERT(data->len == 0 ||
	       term_escape(&safe, data->data, data->len, false) == 0);
	for (size_t i = 0; i < safe.len; i++)
		ASSERT((unsigned char)safe.data[i] >= 0x20 &&
		       safe.data[i] != 0x7f);
}

static int on_line(void *ctx, const char *line, size_t n)
{
	struct event e;
	int *codes = ctx;

	if (event_read(line, n, &e) < 0)
		return 0;
	check_escaped(&e.data);
	*codes |= outcome_of_result(e.json) |
		  outcome_of_error(json_object_get(e.json, "error"));
	event_free(&e);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf rest cleanup_buf = BUF_INIT(4096);
	size_t cut = size > 0 ? data[0] : 0;
	int codes = 0;

	if (cut >= size)
		cut = size;
	if (lines_feed(&rest, (const char *)data, cut, on_line, &codes) == 0)
		(void)!lines_feed(&rest, (const char *)data + cut, size - cut,
				  on_line, &codes);
	ASSERT(codes >= 0 && codes < 256);
	return 0;
}
