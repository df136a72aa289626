/* cp.c - brig cp: one file into or out of a sandbox.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Only names that the user typed become local paths; nothing that the server
 * says does.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "fd.h"
#include "opt.h"
#include "ref.h"
#include "sandbox.h"
#include "stop.h"

#define LOCAL_PATH_BYTES 4096

static const struct usage cp_usage = {
	.name = "cp",
	.operands = "SOURCE TARGET",
	.about = "Copies one file. One of the two is ID:PATH, the other a "
		 "local path, or - for standard\ninput or output.",
	.examples = "  brig cp script.py sb_...:/srv/script.py\n"
		    "  brig cp sb_...:/etc/os-release .\n"
		    "  brig cp sb_...:out.tar - | tar x\n",
};

static bool is_standard(const char *path)
{
	return strcmp(path, "-") == 0;
}

static int fail(const char *path, const struct api_call *c, int r)
{
	if (r == -EINTR && stop_signal() != 0)
		return CMD_SIGNAL + stop_signal();
	complain("%s: %s", path, c->message);
	return CMD_FAILED;
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
	int code = r == 0 ? check_stored(&c, to->path) : fail(to->path, &c, r);
	api_end(&c);
	return code;
}

/* --- out of a sandbox ------------------------------------------------------------ */

struct target {
	const char *path;
	int fd; /* opened at the first byte: an error leaves the old file */
	bool made;
};

static int open_target(struct target *t)
{
	if (t->fd >= 0)
		return 0;
	t->fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	t->made = t->fd >= 0;
	if (t->fd < 0 && errno == EEXIST)
		t->fd = open(t->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			     0666);
	return t->fd < 0 ? -errno : 0;
}

static int write_target(void *ctx, const char *bytes, size_t n)
{
	struct target *t = ctx;
	int r = open_target(t);

	return r < 0 ? r : stop_write(t->fd, bytes, n);
}

static int close_target(struct target *t, int code)
{
	if (code == CMD_OK && t->fd < 0 && open_target(t) < 0) {
		complain("%s: %s", t->path, strerror(errno));
		code = CMD_FAILED; /* an empty file */
	}
	if (t->fd >= 0 && close(t->fd) < 0 && code == CMD_OK) {
		complain("%s: %s", t->path, strerror(errno));
		code = CMD_FAILED;
	}
	if (code != CMD_OK && t->made)
		(void)unlink(t->path); /* rather none than half a file */
	return code;
}

/* DIR becomes DIR/NAME, with the last part of the path the user typed. */
static int find_target(const char *local, const char *remote,
		       char ret[static LOCAL_PATH_BYTES])
{
	struct stat st;
	const char *name = ref_base_name(remote);
	int n;

	if (stat(local, &st) < 0 || !S_ISDIR(st.st_mode))
		n = snprintf(ret, LOCAL_PATH_BYTES, "%s", local);
	else if (name == NULL)
		return -EISDIR;
	else
		n = snprintf(ret, LOCAL_PATH_BYTES, "%s/%s", local, name);
	return n < 0 || n >= LOCAL_PATH_BYTES ? -ENAMETOOLONG : 0;
}

static bool is_directory(const struct api_call *c)
{
	const char *code = json_string_value(json_object_get(c->error, "code"));

	return code != NULL && strcmp(code, "is_a_directory") == 0;
}

static int download_to(struct api *a, const struct ref_file *from,
		       struct target *t)
{
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
			      .label = t->fd == STDOUT_FILENO &&
						       isatty(STDOUT_FILENO)
					       ? NULL
					       : "copying",
			      .sink = write_target,
			      .sink_ctx = t };
	int r = api_perform(a, &c);
	int code = CMD_OK;
	if (c.sink_result == -EPIPE)
		code = CMD_SIGNAL + SIGPIPE;
	else if (r < 0)
		code = fail(c.sink_result < 0 ? t->path : from->path, &c, r);
	if (is_directory(&c))
		complain("copy it as an archive: brig exec %s tar c -C %s . | "
			 "tar x -C DIR",
			 from->id, from->path);
	api_end(&c);
	free(path);
	return code;
}

static int download(struct api *a, const struct ref_file *from,
		    const char *local)
{
	char path[LOCAL_PATH_BYTES];
	struct target t = { .path = path, .fd = -1 };

	if (is_standard(local)) {
		t.fd = STDOUT_FILENO;
		return download_to(a, from, &t);
	}
	int r = find_target(local, from->path, path);
	if (r < 0) {
		complain("%s: %s", local, strerror(-r));
		return CMD_FAILED;
	}
	return close_target(&t, download_to(a, from, &t));
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
	if (argc - at != 2)
		return opt_wrong(&cp_usage, "a source and a target are needed");
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
