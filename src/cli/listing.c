/* listing.c - lists of things: as a table, as ids, as JSON; removing them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "listing.h"
#include "ref.h"
#include "sandbox.h"
#include "when.h"

#define PATH_BYTES 256

/* --- cells -------------------------------------------------------------------- */

static int add_number(struct table *t, const struct column *c, const json_t *n)
{
	char text[48];

	(void)snprintf(text, sizeof(text), "%.10g%s",
		       json_number_value(n) * c->scale, c->unit);
	return table_add(t, json_is_number(n) ? text : NULL);
}

static int add_bytes(struct table *t, const json_t *n)
{
	static const char *const units[] = { "KiB", "MiB", "GiB" };
	double value = json_number_value(n) / 1024;
	size_t unit = 0;
	char text[48];

	for (; value >= 1024 && unit + 1 < ARRAY_LEN(units); unit++)
		value /= 1024;
	(void)snprintf(text, sizeof(text), "%.*f %s",
		       value < 10 && unit > 0 ? 1 : 0, value, units[unit]);
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

static int add_cell(struct table *t, const struct column *c,
		    const json_t *object)
{
	const json_t *value = json_object_get(object, c->key);

	switch (c->kind) {
	case CELL_TEXT:
		return table_add(t, json_string_value(value));
	case CELL_NUMBER:
		return add_number(t, c, value);
	case CELL_BYTES:
		return add_bytes(t, value);
	case CELL_AGE:
		return add_age(t, json_string_value(value));
	}
	return -1;
}

/* --- printing ----------------------------------------------------------------- */

static int print_table(const struct listing *l, const json_t *all)
{
	struct table t cleanup_table = TABLE_INIT(l->count);
	int r = 0;

	for (size_t c = 0; c < l->count && r == 0; c++)
		r = table_add(&t, l->columns[c].title);
	for (size_t i = 0; i < json_array_size(all); i++) {
		const json_t *one = json_array_get(all, i);
		for (size_t c = 0; c < l->count && r == 0; c++)
			r = add_cell(&t, &l->columns[c], one);
	}
	if (r < 0) {
		complain("out of memory");
		return CMD_FAILED;
	}
	table_print(&t);
	return CMD_OK;
}

static void print_ids(const struct listing *l, const json_t *all)
{
	for (size_t i = 0; i < json_array_size(all); i++) {
		const char *id = json_string_value(
			json_object_get(json_array_get(all, i), l->id_key));
		if (id != NULL && ref_is_id(id))
			(void)printf("%s\n", id);
	}
}

int listing_print(const struct listing *l, const json_t *all, bool quiet,
		  bool json)
{
	if (json)
		return term_print_json(all) < 0 ? CMD_FAILED : CMD_OK;
	if (!quiet)
		return print_table(l, all);
	print_ids(l, all);
	return CMD_OK;
}

int listing_show(struct api *a, const struct listing *l, const char *path,
		 bool quiet, bool json)
{
	json_t *reply = NULL;
	int code = sandbox_fetch(a, "GET", path, l->what, &reply);

	if (code != CMD_OK)
		return code;
	const json_t *all = json_object_get(reply, l->member);
	if (json_is_array(all)) {
		code = listing_print(l, all, quiet, json);
	} else {
		complain("%s: brigd sent no list", l->what);
		code = CMD_FAILED;
	}
	json_decref(reply);
	return code;
}

int listing_ls(const struct listing *l, const struct usage *u, const char *path,
	       int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	bool json = false;
	bool quiet = false;
	const struct opt opts[] = {
		{ "quiet", 'q', OPT_FLAG, NULL, "print names only", &quiet, 0,
		  0 },
		{ "json", 0, OPT_FLAG, NULL, "print JSON", &json, 0, 0 },
	};
	int at = opt_parse(u, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	int code = sandbox_open_api(&a);
	return code != CMD_OK ? code : listing_show(&a, l, path, quiet, json);
}

/* --- removing ----------------------------------------------------------------- */

static int delete_one(struct api *a, const struct listing *l, const char *id,
		      json_t *done)
{
	char path[PATH_BYTES];
	char what[PATH_BYTES];
	json_t *reply = NULL;

	(void)snprintf(path, sizeof(path), "%s%s", l->delete_path, id);
	(void)snprintf(what, sizeof(what), "deleting %s", id);
	int code = sandbox_fetch(a, "DELETE", path, what, &reply);
	if (code != CMD_OK)
		return code;
	json_t *row = json_object();
	if ((json_is_object(reply) && json_object_update(row, reply) < 0) ||
	    json_object_set_new(row, l->id_key, json_string(id)) < 0 ||
	    json_array_append(done, row) < 0) {
		complain("out of memory");
		code = CMD_FAILED;
	}
	json_decref(row);
	json_decref(reply);
	return code;
}

int listing_delete(struct api *a, const struct listing *l, char **ids,
		   bool json)
{
	json_t *done = json_array();
	int worst = CMD_OK;

	for (; *ids != NULL; ids++) {
		int code = delete_one(a, l, *ids, done);
		if (code != CMD_OK)
			worst = code;
		if (code > CMD_SIGNAL)
			break; /* the user wants no more of it */
	}
	int code = listing_print(l, done, true, json);
	json_decref(done);
	return worst != CMD_OK ? worst : code;
}

int listing_rm(const struct listing *l, const struct usage *u, int argc,
	       char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	bool json = false;
	const struct opt opts[] = {
		{ "json", 0, OPT_FLAG, NULL, "print brigd's replies as JSON",
		  &json, 0, 0 },
	};
	int at = opt_parse(u, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	int code = sandbox_open_api(&a);
	return code != CMD_OK ? code : listing_delete(&a, l, argv + at, json);
}
