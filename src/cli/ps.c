/* ps.c - brig ps, brig status, brig rm: the sandboxes there are.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "listing.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "wire/limits.h"

#define PAGE_SIZE 100u
/* Enough for every sandbox that a host can have, several times over. */
#define PAGES_MAX (4u * BRIG_SANDBOXES_MAX / PAGE_SIZE)

/* --- ps ---------------------------------------------------------------------- */

static int fetch_page(struct api *a, unsigned int page, json_t *all,
		      json_int_t *ret_pages)
{
	char path[80];
	json_t *reply = NULL;

	(void)snprintf(path, sizeof(path),
		       "/v1/sandboxes/list?page=%u&page_size=%u", page,
		       PAGE_SIZE);
	int code = sandbox_fetch(a, "GET", path, "listing", &reply);
	if (code != CMD_OK)
		return code;
	const json_t *pagination = json_object_get(reply, "pagination");
	*ret_pages =
		json_integer_value(json_object_get(pagination, "total_pages"));
	if (json_array_extend(all, json_object_get(reply, "data")) < 0) {
		complain("listing: brigd sent no list");
		code = CMD_FAILED;
	}
	json_decref(reply);
	return code;
}

static int fetch_all(json_t *all)
{
	struct api a cleanup_api = { .multi = NULL };
	json_int_t pages = 1;
	int code = sandbox_open_api(&a);

	for (unsigned int page = 1;
	     code == CMD_OK && page <= PAGES_MAX && page <= pages; page++)
		code = fetch_page(&a, page, all, &pages);
	return code;
}

static const struct column ps_columns[] = {
	{ "ID", "id", CELL_TEXT, 0, "" },
	{ "NAME", "name", CELL_TEXT, 0, "" },
	{ "STATUS", "status", CELL_TEXT, 0, "" },
	{ "CPU", "cpu", CELL_NUMBER, 0.25, "" },
	{ "MEMORY", "memory", CELL_NUMBER, 1, " MiB" },
	{ "DISK", "disk_size", CELL_NUMBER, 1, " GiB" },
	{ "CREATED", "created_at", CELL_AGE, 0, "" },
};

static const struct listing ps_list = {
	.id_key = "id",
	.columns = ps_columns,
	.count = ARRAY_LEN(ps_columns),
};

static const struct usage ps_usage = {
	.name = "ps",
	.operands = "",
	.about = "Lists the sandboxes.",
	.examples = "  brig ps\n"
		    "  brig ps --json | jq '.[].name'\n"
		    "  brig rm $(brig ps -q)\n",
};

int cmd_ps(int argc, char **argv)
{
	bool json = false;
	bool quiet = false;
	const struct opt opts[] = {
		{ "quiet", 'q', OPT_FLAG, NULL, "print ids only", &quiet, 0,
		  0 },
		{ "json", 0, OPT_FLAG, NULL, "print JSON", &json, 0, 0 },
	};
	int at = opt_parse(&ps_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	json_t *all = json_array();
	int code = fetch_all(all);
	if (code == CMD_OK)
		code = listing_print(&ps_list, all, quiet, json);
	json_decref(all);
	return code;
}

/* --- status -------------------------------------------------------------------- */

static const struct usage status_usage = {
	.name = "status",
	.operands = "ID",
	.about = "Shows all that is known of one sandbox, as JSON.",
	.examples = "  brig status sb_...\n"
		    "  brig status sb_... | jq -r .reason\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

int cmd_status(int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	char path[REF_ID_MAX + 32];
	json_t *reply = NULL;
	int at = opt_parse(&status_usage, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s", argv[at]);
	int code = sandbox_open_api(&a);
	if (code == CMD_OK)
		code = sandbox_fetch(&a, "GET", path, argv[at], &reply);
	if (code == CMD_OK && term_print_json(reply) < 0)
		code = CMD_FAILED;
	json_decref(reply);
	return code;
}

/* --- rm ------------------------------------------------------------------------ */

static int delete_all(struct api *a)
{
	json_t *reply = NULL;
	size_t i;
	json_t *item;
	int code = sandbox_fetch(a, "DELETE", "/v1/sandboxes/delete-all",
				 "deleting all", &reply);

	json_array_foreach(json_object_get(reply, "deleted_ids"), i, item) {
		const char *id = json_string_value(item);
		if (id != NULL && ref_is_id(id))
			(void)printf("%s\n", id);
	}
	json_array_foreach(json_object_get(reply, "errors"), i, item) {
		const char *id = json_string_value(json_object_get(item, "id"));
		const char *why =
			json_string_value(json_object_get(item, "error"));
		complain("deleting %s: %s", id != NULL ? id : "a sandbox",
			 why != NULL ? why : "no reason given");
		code = CMD_FAILED;
	}
	json_decref(reply);
	return code;
}

static int delete_each(struct api *a, char **ids)
{
	int worst = CMD_OK;

	for (; *ids != NULL; ids++) {
		int code = sandbox_delete(a, *ids);
		if (code > CMD_SIGNAL)
			return code; /* the user wants no more of it */
		if (code == CMD_OK)
			(void)printf("%s\n", *ids);
		else
			worst = code;
	}
	return worst;
}

static const struct usage rm_usage = {
	.name = "rm",
	.operands = "ID... | --all",
	.about = "Deletes sandboxes with all that runs in them, and prints "
		 "their ids.",
	.examples = "  brig rm sb_...\n"
		    "  brig rm --all\n",
	.most = OPT_ANY,
	.ids = true,
};

int cmd_rm(int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	bool all = false;
	const struct opt opts[] = {
		{ "all", 0, OPT_FLAG, NULL, "delete every sandbox", &all, 0,
		  0 },
	};
	int at = opt_parse(&rm_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (all == (at < argc))
		return opt_wrong(&rm_usage, "either ids or --all");
	int code = sandbox_open_api(&a);
	if (code != CMD_OK)
		return code;
	return all ? delete_all(&a) : delete_each(&a, argv + at);
}
