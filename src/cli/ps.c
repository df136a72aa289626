/* ps.c - brig ps, brig status, brig rm: the sandboxes there are.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "when.h"

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

/* What is not there or of the wrong kind becomes "-". */
static int add_number(struct table *t, const json_t *n, double scale,
		      const char *unit)
{
	char text[48];

	(void)snprintf(text, sizeof(text), "%.4g%s",
		       json_number_value(n) * scale, unit);
	return table_add(t, json_is_number(n) ? text : NULL);
}

static int add_age(struct table *t, const char *created)
{
	char age[WHEN_AGE_BYTES];
	char text[WHEN_AGE_BYTES + 8];
	int64_t ms;

	if (created == NULL || when_read(created, &ms) < 0)
		return table_add(t, created);
	when_age(when_now_ms() - ms, age);
	(void)snprintf(text, sizeof(text), "%s ago", age);
	return table_add(t, text);
}

static int add_sandbox(struct table *t, const json_t *s)
{
	static const char *const texts[] = { "id", "name", "status" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(texts) && r == 0; i++)
		r = table_add(t,
			      json_string_value(json_object_get(s, texts[i])));
	if (r == 0)
		r = add_number(t, json_object_get(s, "cpu"), 0.25, "");
	if (r == 0)
		r = add_number(t, json_object_get(s, "memory"), 1, " MiB");
	if (r == 0)
		r = add_number(t, json_object_get(s, "disk_size"), 1, " GiB");
	if (r == 0)
		r = add_age(
			t, json_string_value(json_object_get(s, "created_at")));
	return r;
}

static int print_list(const json_t *all)
{
	static const char *const header[] = { "ID",     "NAME", "STATUS", "CPU",
					      "MEMORY", "DISK", "CREATED" };
	struct table t cleanup_table = TABLE_INIT(ARRAY_LEN(header));
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(header) && r == 0; i++)
		r = table_add(&t, header[i]);
	for (size_t i = 0; i < json_array_size(all) && r == 0; i++)
		r = add_sandbox(&t, json_array_get(all, i));
	if (r < 0) {
		complain("out of memory");
		return CMD_FAILED;
	}
	table_print(&t);
	return CMD_OK;
}

static void print_ids(const json_t *all)
{
	for (size_t i = 0; i < json_array_size(all); i++) {
		const char *id = json_string_value(
			json_object_get(json_array_get(all, i), "id"));
		if (id != NULL && ref_is_id(id))
			(void)printf("%s\n", id);
	}
}

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
	if (at != argc)
		return opt_wrong(&ps_usage, "'%s' is too much", argv[at]);
	json_t *all = json_array();
	int code = fetch_all(all);
	if (code == CMD_OK && json)
		code = term_print_json(all) < 0 ? CMD_FAILED : CMD_OK;
	else if (code == CMD_OK && quiet)
		print_ids(all);
	else if (code == CMD_OK)
		code = print_list(all);
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
};

int cmd_status(int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	char path[REF_ID_MAX + 32];
	json_t *reply = NULL;
	int at = opt_parse(&status_usage, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (argc - at != 1 || !ref_is_id(argv[at]))
		return opt_wrong(&status_usage, "one id is needed");
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
	for (int i = at; i < argc; i++) {
		if (!ref_is_id(argv[i]))
			return opt_wrong(&rm_usage, "'%s' is not an id",
					 argv[i]);
	}
	int code = sandbox_open_api(&a);
	if (code != CMD_OK)
		return code;
	return all ? delete_all(&a) : delete_each(&a, argv + at);
}
