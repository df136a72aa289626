/* doctor.c - brig doctor: what this machine can do, and what is missing.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"
#include "cmd.h"
#include "diagnose.h"
#include "fd.h"
#include "loop.h"
#include "opt.h"
#include "where.h"

/* Files of /proc; a machine with hundreds of CPUs has flags in the first. */
#define PROC_BYTES_MAX (64u << 10)
#define PROBE_TIMEOUT_MS 10000
#define PROBE_BYTES_MAX 1024u
#define API_TIMEOUT_S 3u

/* --- files ------------------------------------------------------------------------ */

/* Reads the beginning of a file; an empty string when that fails. */
static void read_text(const char *path, char *ret, size_t size)
{
	int fd cleanup_fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : fd_read_all(fd, ret, size - 1);

	ret[n > 0 ? n : 0] = '\0';
}

static void read_controllers(struct facts *f)
{
	char path[sizeof(f->cgroup2) + 32];

	if (f->cgroup2[0] == '\0')
		return;
	(void)snprintf(path, sizeof(path), "%s/cgroup.controllers", f->cgroup2);
	read_text(path, f->controllers, sizeof(f->controllers));
	f->controllers[strcspn(f->controllers, "\n")] = '\0';
}

static int read_proc(struct facts *f)
{
	char *text = malloc(PROC_BYTES_MAX);

	if (text == NULL)
		return -ENOMEM;
	read_text("/proc/cpuinfo", text, PROC_BYTES_MAX);
	facts_read_cpuinfo(f, text);
	read_text("/proc/self/mountinfo", text, PROC_BYTES_MAX);
	facts_read_mountinfo(f, text);
	read_text("/proc/meminfo", text, PROC_BYTES_MAX);
	facts_read_meminfo(f, text);
	free(text);
	read_controllers(f);
	return 0;
}

static void read_system(struct facts *f)
{
	static const char *const places[] = { "/var/lib/brig", "/var/lib" };
	struct utsname u;
	struct statvfs v;

	if (uname(&u) == 0)
		(void)snprintf(f->kernel, sizeof(f->kernel), "%s", u.release);
	f->uid = (uint32_t)geteuid();
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		if (statvfs(places[i], &v) < 0)
			continue;
		f->disk_free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
		break;
	}
	int fd cleanup_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	f->kvm_errno = fd < 0 ? errno : 0;
}

/* --- the probe -------------------------------------------------------------------- */

static int start_probe(const char *path, int out, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	char name[] = "brig-vmm";
	char option[] = "--probe";
	char *args[] = { name, option, NULL };
	char *no_env[] = { NULL };

	if (posix_spawn_file_actions_init(&actions) != 0)
		return -ENOMEM;
	int r = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawn(ret, path, &actions, NULL, args, no_env);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* What it prints until it closes its output, or time is up. */
static size_t read_probe(int in, char *text, size_t size)
{
	uint64_t end = now_ns() + PROBE_TIMEOUT_MS * NS_PER_MS;
	size_t n = 0;

	while (n < size - 1) {
		struct pollfd pfd = { .fd = in, .events = POLLIN };
		uint64_t now = now_ns();
		if (now >= end ||
		    poll(&pfd, 1, (int)((end - now) / NS_PER_MS) + 1) <= 0)
			break;
		ssize_t got = read(in, text + n, size - 1 - n);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	text[n] = '\0';
	return n;
}

static void probe_kvm(struct facts *f)
{
	char path[WHERE_BYTES];
	char text[PROBE_BYTES_MAX];
	int pipe_fds[2];
	pid_t pid = -1;

	if (where_find("brig-vmm", "brig-vmm", path) < 0) {
		(void)snprintf(f->kvm_reason, sizeof(f->kvm_reason),
			       "brig-vmm is not installed");
		return;
	}
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return;
	int in cleanup_fd = pipe_fds[0];
	int out cleanup_fd = pipe_fds[1];
	int r = start_probe(path, out, &pid);
	if (r < 0) {
		(void)snprintf(f->kvm_reason, sizeof(f->kvm_reason),
			       "brig-vmm: %s", strerror(-r));
		return;
	}
	fd_close(&out);
	if (read_probe(in, text, sizeof(text)) > 0)
		facts_read_probe(f, text);
	(void)kill(pid, SIGKILL); /* it printed its line, or never will */
	(void)waitpid(pid, NULL, 0);
}

/* --- the API ---------------------------------------------------------------------- */

static void read_host(struct facts *f, struct api_call *c)
{
	json_t *reply = api_reply_json(c);
	const json_t *kvm = json_object_get(reply, "kvm");
	const char *version =
		json_string_value(json_object_get(reply, "version"));

	f->api_kvm =
		facts_kvm_kind(json_string_value(json_object_get(kvm, "kind")));
	(void)snprintf(f->api_version, sizeof(f->api_version), "%s",
		       version != NULL ? version : "of unknown version");
	json_decref(reply);
}

static void ask_api(struct facts *f)
{
	struct api a cleanup_api = { .multi = NULL };
	const char *why = NULL;

	if (api_open(&a, &why) < 0) {
		(void)snprintf(f->api_url, sizeof(f->api_url), "(%s)", why);
		return;
	}
	(void)snprintf(f->api_url, sizeof(f->api_url), "%s", a.base);
	struct api_call c = { .method = "GET",
			      .path = "/v2/host",
			      .source_fd = -1,
			      .timeout_s = API_TIMEOUT_S };
	int r = api_perform(&a, &c);
	if (r == 0) {
		f->api = API_ANSWERS;
		read_host(f, &c);
	} else if (r == -EACCES) {
		f->api = API_REFUSES_KEY;
	}
	api_end(&c);
}

static int gather(struct facts *f)
{
	char path[WHERE_BYTES];

	if (read_proc(f) < 0)
		return -ENOMEM;
	read_system(f);
	probe_kvm(f);
	if (where_in_path("qemu-system-x86_64", path) == 0)
		(void)snprintf(f->qemu, sizeof(f->qemu), "%.120s", path);
	if (where_find("brig-host", "../../../host/brig-host", path) == 0)
		(void)snprintf(f->host_script, sizeof(f->host_script), "%.120s",
			       path);
	ask_api(f);
	return 0;
}

/* --- printing --------------------------------------------------------------------- */

static const struct {
	const char *name;
	enum term_colour colour;
} levels[] = {
	[CHECK_OK] = { "ok", TERM_GREEN },
	[CHECK_WARN] = { "warn", TERM_YELLOW },
	[CHECK_MISSING] = { "missing", TERM_RED },
};

/* Some of the text comes from brigd and brig-vmm. */
static void print_text(const struct diagnosis *d)
{
	for (unsigned int i = 0; i < d->count; i++) {
		const struct check *c = &d->checks[i];
		struct buf line cleanup_buf = BUF_INIT(8ul * CHECK_TEXT_BYTES);
		if (term_escape(&line, c->text, strlen(c->text), false) < 0)
			continue;
		(void)printf("%s%-7s%s  %-10s %s%s%s\n",
			     term_colour(levels[c->level].colour),
			     levels[c->level].name, term_colour(TERM_PLAIN),
			     c->name, line.len > 0 ? line.data : "",
			     c->todo[0] ? "; " : "", c->todo);
	}
	(void)printf("%s\n", d->summary);
}

static int print_json(const struct facts *f, const struct diagnosis *d)
{
	static const char *const verdicts[] = {
		[VERDICT_RUNNING] = "running",
		[VERDICT_DIRECT] = "direct",
		[VERDICT_HOST_VM] = "host_vm",
		[VERDICT_IMPOSSIBLE] = "impossible",
	};
	json_t *checks = json_array();

	for (unsigned int i = 0; i < d->count; i++) {
		const struct check *c = &d->checks[i];
		(void)json_array_append_new(
			checks,
			json_pack("{s:s, s:s, s:s, s:s}", "name", c->name,
				  "level", levels[c->level].name, "text",
				  c->text, "todo", c->todo));
	}
	json_t *all =
		json_pack("{s:s, s:s, s:{s:s, s:I}, s:o}", "verdict",
			  verdicts[d->verdict], "summary", d->summary, "kvm",
			  "kind", facts_kvm_name(f->kvm), "iterations_per_s",
			  (json_int_t)f->iterations_per_s, "checks", checks);
	int r = all != NULL ? term_print_json(all) : -ENOMEM;
	json_decref(all);
	return r;
}

static const struct usage doctor_usage = {
	.name = "doctor",
	.operands = "",
	.about = "Says whether sandboxes can run on this machine, and what to "
		 "do about what is missing. Exit code 0: one way or the "
		 "other; 1: not at all.",
	.examples = "  brig doctor\n"
		    "  brig doctor --json | jq -r .verdict\n",
};

int cmd_doctor(int argc, char **argv)
{
	struct facts f = { .api = API_SILENT };
	static struct diagnosis d; /* large */
	bool json = false;
	const struct opt opts[] = {
		{ "json", 0, OPT_FLAG, NULL, "print JSON", &json, 0, 0 },
	};
	int at = opt_parse(&doctor_usage, opts, ARRAY_LEN(opts), argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (gather(&f) < 0) {
		complain("out of memory");
		return CMD_FAILED;
	}
	diagnose(&f, &d);
	if (!json)
		print_text(&d);
	else if (print_json(&f, &d) < 0)
		return CMD_FAILED;
	return d.verdict == VERDICT_IMPOSSIBLE ? CMD_CANNOT : CMD_OK;
}
