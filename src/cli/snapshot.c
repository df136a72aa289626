/* snapshot.c - brig snapshot: sandboxes as they were.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "fd.h"
#include "listing.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "target.h"

#define PATH_BYTES 256

static const struct column columns[] = {
	{ "ID", "id", CELL_TEXT, 0, "" },
	{ "NAME", "name", CELL_TEXT, 0, "" },
	{ "STATUS", "status", CELL_TEXT, 0, "" },
	{ "KIND", "kind", CELL_TEXT, 0, "" },
	{ "OWN", "own_bytes", CELL_BYTES, 0, "" },
	{ "SHARED", "shared_bytes", CELL_BYTES, 0, "" },
	{ "SANDBOX", "source_sandbox_name", CELL_TEXT, 0, "" },
	{ "CREATED", "created_at", CELL_AGE, 0, "" },
};

static const struct listing snapshots = {
	.what = "snapshots",
	.member = "snapshots",
	.id_key = "id",
	.delete_path = "/v2/snapshots/",
	.columns = columns,
	.count = ARRAY_LEN(columns),
};

/* --- create ------------------------------------------------------------------- */

static int create(const char *id, const json_t *body, bool json)
{
	char path[PATH_BYTES];
	char what[PATH_BYTES];
	/* memory is written to a disk: as long as that takes */
	const struct request rq = {
		.method = "POST",
		.path = path,
		.body = body,
		.what = what,
		.label = what,
		.left = "a snapshot may be left: see `brig snapshot ls`",
	};

	(void)snprintf(path, sizeof(path), "/v2/sandboxes/%s/snapshots", id);
	(void)snprintf(what, sizeof(what), "snapshot of %s", id);
	return sandbox_do(&rq, "id", json);
}

static const struct usage create_usage = {
	.name = "snapshot create",
	.operands = "ID",
	.about = "Keeps the sandbox ID as it is now, and prints the id of the "
		 "snapshot. The sandbox runs on; it stands still for about a "
		 "millisecond.",
	.examples = "  snap=$(brig snapshot create sb_...)\n"
		    "  brig snapshot create sb_... --name before-upgrade\n",
	.least = 1,
	.most = 1,
	.ids = true,
};

static int snapshot_create(int argc, char **argv)
{
	const char *name = NULL;
	bool quick = false;
	bool disk_only = false;
	bool json = false;
	const struct opt opts[] = {
		{ "name", 'n', OPT_TEXT, "NAME", "name (a generated one)",
		  &name, 0, 0 },
		{ "quick", 0, OPT_FLAG, NULL,
		  "do not wait until programs and files are at rest", &quick, 0,
		  0 },
		{ "disk-only", 0, OPT_FLAG, NULL,
		  "leave out its memory: what is made from it boots",
		  &disk_only, 0, 0 },
		OPT_JSON(&json),
	};
	int at = opt_parse(&create_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	json_t *body = json_pack("{s:s*, s:b, s:b}", "name", name, "quick",
				 quick, "memory", !disk_only);
	int code = CMD_FAILED;
	if (body == NULL)
		complain("the name is not valid UTF-8");
	else
		code = create(argv[at], body, json);
	json_decref(body);
	return code;
}

/* --- ls, rm ------------------------------------------------------------------- */

static const struct usage ls_usage = {
	.name = "snapshot ls",
	.operands = "",
	.about = "Lists the snapshots. OWN is the disk space that deleting it "
		 "would free, SHARED what it has in common with others.",
	.examples = "  brig snapshot ls\n"
		    "  brig snapshot rm $(brig snapshot ls -q)\n",
};

static int snapshot_ls(int argc, char **argv)
{
	return listing_ls(&snapshots, &ls_usage, "/v2/snapshots", argc, argv);
}

static const struct usage rm_usage = {
	.name = "snapshot rm",
	.operands = "SNAPSHOT...",
	.about = "Deletes snapshots and prints their ids. What was made from "
		 "them stays.",
	.examples = "  brig snapshot rm snap_...\n",
	.least = 1,
	.most = OPT_ANY,
	.ids = true,
};

static int snapshot_rm(int argc, char **argv)
{
	return listing_rm(&snapshots, &rm_usage, argc, argv);
}

/* --- export ------------------------------------------------------------------- */

/* One line about what is on the disk now. */
static int print_exported(const char *id, const char *file, uint64_t bytes)
{
	json_t *done = json_pack("{s:s, s:s, s:I}", "id", id, "file", file,
				 "bytes", (json_int_t)bytes);
	int code = CMD_OK;

	if (done == NULL) {
		complain("the file's name is not valid UTF-8");
		code = CMD_FAILED;
	} else if (term_print_json(done) < 0) {
		code = CMD_FAILED;
	}
	json_decref(done);
	return code;
}

static int export(const char *id, const char *local, bool json)
{
	struct api a cleanup_api = { .multi = NULL };
	struct target t;
	char path[PATH_BYTES];
	struct api_call c = { .method = "GET",
			      .path = path,
			      .source_fd = -1,
			      .label = "exporting" };
	int code = sandbox_open_api(&a);

	(void)snprintf(path, sizeof(path), "/v2/snapshots/%s/export", id);
	if (code == CMD_OK)
		code = target_find(&t, local, id);
	if (code == CMD_OK)
		code = target_receive(&a, &c, &t, id);
	api_end(&c);
	if (code == CMD_OK && json)
		code = print_exported(id, t.path, c.received);
	return code;
}

static const struct usage export_usage = {
	.name = "snapshot export",
	.operands = "SNAPSHOT FILE",
	.about = "Writes a snapshot, with all that it needs, to one file, or "
		 "with - to standard output.",
	.examples = "  brig snapshot export snap_... trained.snap\n"
		    "  brig snapshot export snap_... - | ssh host brig "
		    "snapshot import -\n",
	.least = 2,
	.most = 2,
};

static int snapshot_export(int argc, char **argv)
{
	bool json = false;
	const struct opt opts[] = {
		{ "json", 0, OPT_FLAG, NULL, "print file and size as JSON",
		  &json, 0, 0 },
	};
	int at = opt_parse(&export_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (!ref_is_id(argv[at]))
		return opt_wrong(&export_usage, "'%s' is no id", argv[at]);
	if (json && strcmp(argv[at + 1], "-") == 0)
		return opt_wrong(&export_usage,
				 "--json has no place beside the bytes");
	return export(argv[at], argv[at + 1], json);
}

/* --- import ------------------------------------------------------------------- */

static int print_imported(struct api_call *c, bool json)
{
	json_t *reply = api_reply_json(c);
	int code = sandbox_print(reply, "id", json);

	json_decref(reply);
	return code;
}

static int import_from(int fd, const char *local, bool json)
{
	struct api a cleanup_api = { .multi = NULL };
	struct stat st;
	int code = sandbox_open_api(&a);

	if (code != CMD_OK)
		return code;
	if (fd < 0 || fstat(fd, &st) < 0) {
		complain("%s: %s", local, strerror(errno));
		return CMD_FAILED;
	}
	struct api_call c = { .method = "POST",
			      .path = "/v2/snapshots/import",
			      .source_fd = fd,
			      .source_size =
				      S_ISREG(st.st_mode) ? st.st_size : -1,
			      .label = "importing" };
	int r = api_perform(&a, &c);
	code = r == 0 ? print_imported(&c, json) : sandbox_fail(local, &c, r);
	if (r == -EINTR)
		complain("a snapshot may be left: see `brig snapshot ls`");
	api_end(&c);
	return code;
}

static const struct usage import_usage = {
	.name = "snapshot import",
	.operands = "FILE",
	.about = "Takes in what `brig snapshot export` wrote, from a file or "
		 "with - from standard input, and prints the id of the "
		 "snapshot. It appears when all of it was verified.",
	.examples = "  brig snapshot import trained.snap\n",
	.least = 1,
	.most = 1,
};

static int snapshot_import(int argc, char **argv)
{
	bool json = false;
	const struct opt opts[] = {
		OPT_JSON(&json),
	};
	int at = opt_parse(&import_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	int fd cleanup_fd = strcmp(argv[at], "-") == 0
				    ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
				    : open(argv[at], O_RDONLY | O_CLOEXEC);
	return import_from(fd, argv[at], json);
}

/* --- the command -------------------------------------------------------------- */

const struct cmd snapshot_words[] = {
	{ "create", snapshot_create, "keep a sandbox as it is now", NULL },
	{ "ls", snapshot_ls, "list snapshots", NULL },
	{ "rm", snapshot_rm, "delete snapshots", NULL },
	{ "export", snapshot_export, "write a snapshot to a file", NULL },
	{ "import", snapshot_import, "take a snapshot in from a file", NULL },
	{ NULL, NULL, NULL, NULL },
};

static const struct usage snapshot_usage = {
	.name = "snapshot",
	.operands = "create|ls|rm|export|import [ARG]...",
	.about = "Snapshots: sandboxes as they were, with memory, disk and all "
		 "that ran in them. `brig restore` makes new sandboxes of "
		 "them, `brig rollback` puts one back.",
	.examples = "  brig help snapshot create\n"
		    "  brig snapshot ls\n",
	.words = snapshot_words,
	.passes_on = true,
};

int cmd_snapshot(int argc, char **argv)
{
	return opt_run_word(&snapshot_usage, argc, argv);
}
