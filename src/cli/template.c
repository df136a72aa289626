/* template.c - brig template: what new sandboxes start from.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "cmd.h"
#include "listing.h"
#include "making.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"

static const struct column columns[] = {
	{ "NAME", "name", CELL_TEXT, 0, "" },
	{ "STATUS", "status", CELL_TEXT, 0, "" },
	{ "IMAGE", "image", CELL_TEXT, 0, "" },
	{ "CPU", "vcpus", CELL_NUMBER, 1, "" },
	{ "MEMORY", "memory_mib", CELL_NUMBER, 1, " MiB" },
	{ "DISK", "disk_gib", CELL_NUMBER, 1, " GiB" },
	{ "RESIDENT", "resident_bytes", CELL_BYTES, 0, "" },
	{ "CREATED", "created_at", CELL_AGE, 0, "" },
};

static const struct listing templates = {
	.what = "templates",
	.member = "templates",
	.id_key = "name",
	.delete_path = "/v2/templates/",
	.columns = columns,
	.count = ARRAY_LEN(columns),
};

/* --- create ------------------------------------------------------------------- */

struct wanted {
	const char *name;
	const char *image; /* NULL and 0: brigd's default */
	const char *warm;
	uint64_t vcpus;
	uint64_t memory_mib;
	uint64_t disk_gib;
};

static json_t *pack_wanted(const struct wanted *w)
{
	json_t *body = json_pack("{s:s, s:s*, s:s*}", "name", w->name, "image",
				 w->image, "warm", w->warm);

	if (making_put(body, "vcpus", w->vcpus) < 0 ||
	    making_put(body, "memory_mib", w->memory_mib) < 0 ||
	    making_put(body, "disk_gib", w->disk_gib) < 0) {
		json_decref(body);
		return NULL;
	}
	return body;
}

static int create(const json_t *body, bool json)
{
	/* a warm-up takes as long as it takes */
	const struct request rq = {
		.method = "POST",
		.path = "/v2/templates",
		.body = body,
		.what = "making template",
		.label = "making template",
		.left = "a template may be left: see `brig template ls`",
	};

	return sandbox_do(&rq, "name", json);
}

static const struct usage create_usage = {
	.name = "template create",
	.operands = "NAME",
	.about = "Boots an image, runs a command in it and keeps the result as "
		 "NAME. What the command left running runs in all that is "
		 "created from it.",
	.examples = "  brig template create numpy --warm 'pip install numpy'\n"
		    "  brig create --template numpy\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

static int template_create(int argc, char **argv)
{
	struct wanted w = { .name = NULL };
	bool json = false;
	const struct opt opts[] = {
		{ "image", 0, OPT_TEXT, "IMAGE", "image to boot (default)",
		  &w.image, 0, 0 },
		{ "vcpus", 0, OPT_NUMBER, "N", "virtual CPUs (1)", &w.vcpus, 1,
		  BRIG_VCPUS_MAX },
		{ "memory", 0, OPT_NUMBER, "MIB", "memory in MiB (512)",
		  &w.memory_mib, MAKING_MEMORY_MIN, MAKING_MEMORY_MAX },
		{ "disk", 0, OPT_NUMBER, "GIB", "size of the disk in GiB (10)",
		  &w.disk_gib, MAKING_DISK_MIN, MAKING_DISK_MAX },
		{ "warm", 0, OPT_TEXT, "COMMAND",
		  "shell line to run before it is kept", &w.warm, 0, 0 },
		OPT_JSON(&json),
	};
	int at = opt_parse(&create_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	w.name = argv[at];
	json_t *body = pack_wanted(&w);
	int code = CMD_FAILED;
	if (body == NULL)
		complain("the command is not valid UTF-8");
	else
		code = create(body, json);
	json_decref(body);
	return code;
}

/* --- ls, rm ------------------------------------------------------------------- */

static const struct usage ls_usage = {
	.name = "template ls",
	.operands = "",
	.about = "Lists the templates. RESIDENT is the memory that each takes "
		 "while nobody uses it.",
	.examples = "  brig template ls\n",
};

static int template_ls(int argc, char **argv)
{
	return listing_ls(&templates, &ls_usage, "/v2/templates", argc, argv);
}

static const struct usage rm_usage = {
	.name = "template rm",
	.operands = "NAME...",
	.about = "Deletes templates and prints their names. Sandboxes that "
		 "were made from them stay.",
	.examples = "  brig template rm numpy\n",
	.least = 1,
	.most = OPT_ANY,
	.ids = true,
};

static int template_rm(int argc, char **argv)
{
	return listing_rm(&templates, &rm_usage, argc, argv);
}

/* --- the command -------------------------------------------------------------- */

const struct cmd template_words[] = {
	{ "create", template_create, "boot an image, warm it up, keep it",
	  NULL },
	{ "ls", template_ls, "list templates", NULL },
	{ "rm", template_rm, "delete templates", NULL },
	{ NULL, NULL, NULL, NULL },
};

static const struct usage template_usage = {
	.name = "template",
	.operands = "create|ls|rm [ARG]...",
	.about = "Templates: images that were booted and warmed up, and are "
		 "kept like that. A sandbox that is created from one starts "
		 "where it stopped.",
	.examples = "  brig help template create\n"
		    "  brig template ls\n",
	.words = template_words,
	.passes_on = true,
};

int cmd_template(int argc, char **argv)
{
	return opt_run_word(&template_usage, argc, argv);
}
