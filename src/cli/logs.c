/* logs.c - brig logs: past runs, or what the guest's kernel said.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "listing.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "when.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX 1000u
#define CONSOLE_TIMEOUT_S 60u

/* --- past runs ---------------------------------------------------------------- */

static const struct column runs_columns[] = {
	{ "TIME", "timestamp", CELL_TEXT, 0, "" },
	{ "SANDBOX", "sandbox_id", CELL_TEXT, 0, "" },
	{ "STATUS", "status", CELL_TEXT, 0, "" },
	{ "EXIT", "exit_code", CELL_NUMBER, 1, "" },
	{ "TOOK", "execution_time_ms", CELL_NUMBER, 1, " ms" },
	{ "COMMAND", "command", CELL_TEXT, 0, "" },
};

static const struct listing runs_list = {
	.what = "logs",
	.member = "logs",
	.columns = runs_columns,
	.count = ARRAY_LEN(runs_columns),
};

static int show_runs(struct api *a, const char *id, uint64_t limit,
		     uint64_t since_ms, bool as_json)
{
	char path[REF_ID_MAX + WHEN_ISO_BYTES + 96];
	char from[WHEN_ISO_BYTES];

	when_write(when_now_ms() - (int64_t)since_ms, from);
	(void)snprintf(path, sizeof(path),
		       "/v1/sandboxes/logs?limit=%llu%s%s%s%s",
		       (unsigned long long)limit, since_ms > 0 ? "&from=" : "",
		       since_ms > 0 ? from : "",
		       id != NULL ? "&sandbox_id=" : "", id != NULL ? id : "");
	return listing_show(a, &runs_list, path, false, as_json);
}

/* --- boot log ------------------------------------------------------------------- */

/* The guest wrote this: as it is into a file, but not to a terminal. */
static void print_console(const struct buf *text)
{
	struct buf safe cleanup_buf = BUF_INIT(4 * (size_t)API_REPLY_MAX);

	if (text->len == 0)
		return;
	if (!isatty(STDOUT_FILENO)) {
		(void)fwrite(text->data, 1, text->len, stdout);
		return;
	}
	size_t start = 0;
	for (size_t i = 0; i < text->len; i++) {
		if (text->data[i] != '\r')
			continue;
		if (term_escape(&safe, text->data + start, i - start, true) < 0)
			return;
		start = i + 1;
	}
	if (term_escape(&safe, text->data + start, text->len - start, true) ==
		    0 &&
	    safe.len > 0)
		(void)fwrite(safe.data, 1, safe.len, stdout);
}

static int show_console(struct api *a, const char *id)
{
	char path[REF_ID_MAX + 40];
	struct api_call c = { .method = "GET",
			      .path = path,
			      .source_fd = -1,
			      .timeout_s = CONSOLE_TIMEOUT_S };

	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s/console", id);
	int r = api_perform(a, &c);
	if (r == 0)
		print_console(&c.reply);
	else
		complain("%s: %s", id, c.message);
	api_end(&c);
	return r == 0 ? CMD_OK : CMD_FAILED;
}

/* --- the command ---------------------------------------------------------------- */

static const struct usage logs_usage = {
	.name = "logs",
	.operands = "[ID]",
	.about = "Lists past runs, of all sandboxes or of one, deleted ones "
		 "too; or prints the boot log of a sandbox.",
	.examples = "  brig logs --since 10m\n"
		    "  brig logs --json sb_... | jq -r '.[].stderr'\n"
		    "  brig logs --console sb_...\n",
	.most = 1,
	.ids = true,
};

int cmd_logs(int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	uint64_t limit = LIMIT_DEFAULT;
	uint64_t since_ms = 0;
	bool console = false;
	bool json = false;
	const struct opt opts[] = {
		{ "limit", 'n', OPT_NUMBER, "N", "at most N runs (100)", &limit,
		  1, LIMIT_MAX },
		{ "since", 0, OPT_DURATION, "TIME",
		  "runs of the last TIME: 90s, 10m, 2h, 1d (1h)", &since_ms, 0,
		  0 },
		{ "console", 0, OPT_FLAG, NULL, "the boot log of sandbox ID",
		  &console, 0, 0 },
		{ "json", 0, OPT_FLAG, NULL, "print JSON, output included",
		  &json, 0, 0 },
	};
	int at = opt_parse(&logs_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	const char *id = at < argc ? argv[at] : NULL;
	if (console && id == NULL)
		return opt_wrong(&logs_usage, "--console wants an id");
	if (console && json)
		return opt_wrong(&logs_usage, "a boot log is no JSON");
	int code = sandbox_open_api(&a);
	if (code != CMD_OK)
		return code;
	return console ? show_console(&a, id)
		       : show_runs(&a, id, limit, since_ms, json);
}
