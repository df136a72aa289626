/* cp.c - brig cp: one file into or out of a sandbox.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "fd.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "target.h"

static const struct usage cp_usage = {
	.name = "cp",
	.operands = "SOURCE TARGET",
	.about = "Copies one file. One of the two is ID:PATH, the other a "
		 "local path, or - for standard input or output.",
	.examples = "  brig cp script.py sb_...:/srv/script.py\n"
		    "  brig cp sb_...:/etc/os-release .\n"
		    "  brig cp sb_...:out.tar - | tar x\n",
	.least = 2,
	.most = 2,
};

static bool is_standard(const char *path)
{
	return strcmp(path, "-") == 0;
}

/* --- into a sandbox ------------------------------------------------------------ */

/* What was stored must be what was sent. */
static int check_stored(struct api_call *c, const char *path)
{
	json_t *reply = api_reply_json(c);
	const json_t *size = json_object_get(reply, "size");
	int code = CMD_OK;

	if (!json_is_integer(size) ||
	    (uint64_t)json_integer_value(size) != c->sent) {
		complain("%s: %llu bytes were sent, not all were stored", path,
			 (unsigned long long)c->sent);
		code = CMD_FAILED;
	}
	json_decref(reply);
	return code;
}

static int upload(struct api *a, const char *local, const struct ref_file *to)
{
	int fd cleanup_fd = -1;
	struct stat st;
	char path[REF_ID_MAX + 40];

	fd = is_standard(local) ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
				: open(local, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		complain("%s: %s", local, strerror(errno));
		return CMD_FAILED;
	}
	if (S_ISDIR(st.st_mode)) {
		complain("%s is a directory; copy it as an archive: "
			 "tar c -C %s . | brig exec %s tar x -C DIR",
			 local, local, to->id);
		return CMD_FAILED;
	}
	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/upload", to->id);
	bool sized = S_ISREG(st.st_mode) && !is_standard(local);
	struct api_call c = { .method = "POST",
			      .path = path,
			      .source_fd = fd,
			      .source_size = sized ? st.st_size : -1,
			      .form_path = to->path,
			      .label = "copying" };
	int r = api_perform(a, &c);
	int code = r == 0 ? check_stored(&c, to->path)
			  : sandbox_fail(to->path, &c, r);
	api_end(&c);
	return code;
}

/* --- out of a sandbox ------------------------------------------------------------ */

static bool is_directory(const struct api_call *c)
{
	const char *code = json_string_value(json_object_get(c->error, "code"));

	return code != NULL && strcmp(code, "is_a_directory") == 0;
}

static int download(struct api *a, const struct ref_file *from,
		    const char *local)
{
	struct target t;
	char *path = NULL;
	char *escaped = api_escape(from->path);

	if (escaped == NULL ||
	    asprintf(&path, "/v1/sandboxes/%s/download?path=%s", from->id,
		     escaped) < 0) {
		curl_free(escaped);
		complain("out of memory");
		return CMD_FAILED;
	}
	curl_free(escaped);
	struct api_call c = { .method = "GET",
			      .path = path,
			      .source_fd = -1,
			      .label = "copying" };
	int code = target_find(&t, local, ref_base_name(from->path));
	if (code == CMD_OK)
		code = target_receive(a, &c, &t, from->path);
	if (is_directory(&c))
		complain("copy it as an archive: brig exec %s tar c -C %s . | "
			 "tar x -C DIR",
			 from->id, from->path);
	api_end(&c);
	free(path);
	return code;
}

/* --- the command -------------------------------------------------------------- */

int cmd_cp(int argc, char **argv)
{
	struct api a cleanup_api = { .multi = NULL };
	struct ref_file from;
	struct ref_file to;
	int at = opt_parse(&cp_usage, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (ref_read_file(argv[at], &from) < 0)
		return opt_wrong(&cp_usage, "'%s' is no ID:PATH", argv[at]);
	if (ref_read_file(argv[at + 1], &to) < 0)
		return opt_wrong(&cp_usage, "'%s' is no ID:PATH", argv[at + 1]);
	if ((from.id[0] == '\0') == (to.id[0] == '\0'))
		return opt_wrong(&cp_usage,
				 "one of the two must be ID:PATH, not both");
	int code = sandbox_open_api(&a);
	if (code != CMD_OK)
		return code;
	return from.id[0] != '\0' ? download(&a, &from, to.path)
				  : upload(&a, from.path, &to);
}
