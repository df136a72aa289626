/* diagnose.c - from facts about a machine to what it can do and what to do.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "diagnose.h"

/* The host VM's memory (host/brig-host) and what QEMU needs beside it. */
#define HOST_VM_MEMORY_BYTES (4ull << 30)

/* Images and one sandbox's layer. */
#define DISK_MIN_BYTES (4ull << 30)

/* One sandbox of the default size, and the programs around it. */
#define MEMORY_MIN_BYTES (1ull << 30)

#define GIB 1073741824.0

/* --- readers --------------------------------------------------------------------- */

/* The word `word` among the `n` bytes at `list`, separated by spaces. */
static bool has_word(const char *list, size_t n, const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i + len <= n; i++) {
		bool starts = i == 0 || list[i - 1] == ' ';
		bool ends = i + len == n || list[i + len] == ' ';
		if (starts && ends && memcmp(list + i, word, len) == 0)
			return true;
	}
	return false;
}

void facts_read_cpuinfo(struct facts *f, const char *text)
{
	const char *flags = strstr(text, "\nflags");
	const char *colon = flags != NULL ? strchr(flags, ':') : NULL;

	if (colon == NULL)
		return;
	size_t n = strcspn(colon, "\n");
	f->svm = has_word(colon, n, "svm");
	f->vmx = has_word(colon, n, "vmx");
}

void facts_read_mountinfo(struct facts *f, const char *text)
{
	char at[128];

	for (; *text != '\0'; text += strcspn(text, "\n")) {
		text += *text == '\n';
		const char *dash = strstr(text, " - ");
		if (dash == NULL || dash > text + strcspn(text, "\n"))
			continue;
		if (strncmp(dash, " - cgroup2 ", 11) != 0 ||
		    sscanf(text, "%*s %*s %*s %*s %127s", at) != 1)
			continue;
		(void)snprintf(f->cgroup2, sizeof(f->cgroup2), "%s", at);
		return;
	}
}

static uint64_t kib_of(const char *text, const char *key)
{
	const char *line = strstr(text, key);
	unsigned long long kib = 0;

	if (line != NULL)
		kib = strtoull(line + strlen(key), NULL, 10);
	return kib <= UINT64_MAX / 1024 ? kib * 1024 : 0;
}

void facts_read_meminfo(struct facts *f, const char *text)
{
	f->memory_bytes = kib_of(text, "MemTotal:");
	f->memory_free_bytes = kib_of(text, "MemAvailable:");
}

static const char *const kvm_names[] = {
	[KVM_UNKNOWN] = "unknown",
	[KVM_NONE] = "none",
	[KVM_EMULATED] = "emulated",
	[KVM_HARDWARE] = "hardware",
};

enum kvm_kind facts_kvm_kind(const char *name)
{
	for (size_t i = 0; name != NULL && i < ARRAY_LEN(kvm_names); i++) {
		if (strcmp(name, kvm_names[i]) == 0)
			return (enum kvm_kind)i;
	}
	return KVM_UNKNOWN;
}

const char *facts_kvm_name(enum kvm_kind kind)
{
	return kvm_names[kind];
}

void facts_read_probe(struct facts *f, const char *text)
{
	json_t *line = json_loads(text, 0, NULL);
	const char *reason = json_string_value(json_object_get(line, "reason"));
	json_int_t n =
		json_integer_value(json_object_get(line, "iterations_per_s"));

	f->kvm =
		facts_kvm_kind(json_string_value(json_object_get(line, "kvm")));
	f->iterations_per_s = n > 0 ? (uint64_t)n : 0;
	(void)snprintf(f->kvm_reason, sizeof(f->kvm_reason), "%s",
		       reason != NULL ? reason : "");
	json_decref(line);
}

/* --- checks ---------------------------------------------------------------------- */

static struct check *add(struct diagnosis *d, const char *name)
{
	struct check *c = &d->checks[d->count++];

	ASSERT(d->count <= CHECKS_MAX);
	*c = (struct check){ .name = name, .level = CHECK_OK };
	return c;
}

printf_like(3, 4) static void set(struct check *c, enum check_level level,
				  const char *fmt, ...)
{
	va_list ap;

	c->level = level;
	va_start(ap, fmt);
	(void)vsnprintf(c->text, sizeof(c->text), fmt, ap);
	va_end(ap);
}

static void todo(struct check *c, const char *text)
{
	(void)snprintf(c->todo, sizeof(c->todo), "%s", text);
}

static void check_cpu(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "cpu");

	if (f->svm || f->vmx) {
		set(c, CHECK_OK, "virtualization flag %s",
		    f->svm ? "svm" : "vmx");
		return;
	}
	set(c, CHECK_WARN, "neither svm nor vmx");
	todo(c, "turn on virtualization in the firmware, or nesting where "
		"this machine itself is virtual");
}

static void check_kvm_device(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "/dev/kvm");

	if (f->kvm_errno == 0) {
		set(c, CHECK_OK, "opens");
	} else if (f->kvm_errno == EACCES || f->kvm_errno == EPERM) {
		set(c, CHECK_WARN, "exists, but not for user %u", f->uid);
		todo(c, "run `sudo brig doctor`; brig-spawn opens it as root");
	} else {
		set(c, CHECK_MISSING, "%s", strerror(f->kvm_errno));
		todo(c, "load kvm-amd or kvm-intel, if the CPU can");
	}
}

static void check_kvm_kind(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "kvm");

	switch (f->kvm) {
	case KVM_HARDWARE:
		set(c, CHECK_OK, "hardware (%.0f M iterations/s)",
		    (double)f->iterations_per_s / 1e6);
		return;
	case KVM_EMULATED:
		set(c, CHECK_WARN,
		    "emulates guest kernel code (%.1f M iterations/s): too "
		    "slow for a kernel",
		    (double)f->iterations_per_s / 1e6);
		todo(c, "use the host VM: `brig host start`");
		return;
	case KVM_NONE:
		set(c, CHECK_MISSING, "%s",
		    f->kvm_reason[0] ? f->kvm_reason : "does not work");
		todo(c, "use the host VM: `brig host start`");
		return;
	case KVM_UNKNOWN:
		set(c, CHECK_WARN, "not tested: %s",
		    f->kvm_reason[0] ? f->kvm_reason
				     : "brig-vmm --probe said nothing");
		return;
	}
}

static void check_kernel(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "kernel");
	char *dot = NULL;
	unsigned long major = strtoul(f->kernel, &dot, 10);
	unsigned long minor = *dot == '.' ? strtoul(dot + 1, NULL, 10) : 0;

	/* 5.14: cgroup.kill, with which brig-spawn ends a sandbox */
	if (major > 5 || (major == 5 && minor >= 14)) {
		set(c, CHECK_OK, "%s", f->kernel);
		return;
	}
	set(c, CHECK_WARN, "'%s' is older than 5.14", f->kernel);
	todo(c, "use a newer kernel, or the host VM");
}

static bool cgroups_do(const struct facts *f)
{
	size_t n = strlen(f->controllers);

	return f->cgroup2[0] != '\0' && has_word(f->controllers, n, "cpu") &&
	       has_word(f->controllers, n, "memory") &&
	       has_word(f->controllers, n, "pids");
}

static void check_cgroups(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "cgroup v2");

	if (f->cgroup2[0] == '\0') {
		set(c, CHECK_MISSING, "not mounted");
	} else if (cgroups_do(f)) {
		set(c, CHECK_OK, "%s: %s", f->cgroup2, f->controllers);
		return;
	} else {
		set(c, CHECK_MISSING,
		    "%s has %s; cpu, memory and pids are "
		    "needed",
		    f->cgroup2,
		    f->controllers[0] ? f->controllers : "no controllers");
	}
	todo(c, "boot with systemd.unified_cgroup_hierarchy=1, or use the "
		"host VM");
}

static void check_resources(struct diagnosis *d, const struct facts *f)
{
	struct check *memory = add(d, "memory");
	struct check *disk = add(d, "disk");

	set(memory, CHECK_OK, "%.1f of %.1f GiB free",
	    (double)f->memory_free_bytes / GIB, (double)f->memory_bytes / GIB);
	if (f->memory_free_bytes < MEMORY_MIN_BYTES) {
		memory->level = CHECK_MISSING;
		todo(memory, "free some: one sandbox takes 512 MiB");
	} else if (f->memory_free_bytes < HOST_VM_MEMORY_BYTES) {
		memory->level = CHECK_WARN;
		todo(memory, "the host VM would need 4 GiB");
	}
	set(disk, CHECK_OK, "%.1f GiB free", (double)f->disk_free_bytes / GIB);
	if (f->disk_free_bytes < DISK_MIN_BYTES) {
		disk->level = CHECK_WARN;
		todo(disk, "images and sandboxes need some GiB");
	}
}

static void check_host_vm(struct diagnosis *d, const struct facts *f)
{
	struct check *qemu = add(d, "qemu");
	struct check *script = add(d, "brig-host");

	set(qemu, CHECK_OK, "%s", f->qemu);
	if (f->qemu[0] == '\0') {
		set(qemu, f->kvm == KVM_HARDWARE ? CHECK_WARN : CHECK_MISSING,
		    "no qemu-system-x86_64");
		todo(qemu, "apt install qemu-system-x86, for the host VM");
	}
	set(script, CHECK_OK, "%s", f->host_script);
	if (f->host_script[0] == '\0') {
		set(script, f->kvm == KVM_HARDWARE ? CHECK_WARN : CHECK_MISSING,
		    "not found");
		todo(script, "install brig completely, or set BRIG_LIBEXEC");
	}
}

static void check_user(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "user");

	if (f->uid == 0) {
		set(c, CHECK_OK, "root");
		return;
	}
	set(c, CHECK_OK, "uid %u; only brig-spawn and brigd's start need root",
	    f->uid);
}

static void check_api(struct diagnosis *d, const struct facts *f)
{
	struct check *c = add(d, "api");

	switch (f->api) {
	case API_ANSWERS:
		set(c, CHECK_OK, "brigd %s at %s, kvm %s", f->api_version,
		    f->api_url, facts_kvm_name(f->api_kvm));
		return;
	case API_REFUSES_KEY:
		set(c, CHECK_WARN, "brigd at %s wants another key", f->api_url);
		todo(c, "set BRIG_API_KEY");
		return;
	case API_SILENT:
		set(c, CHECK_WARN, "nothing answers at %s", f->api_url);
		todo(c, "`brig host start` or brig-spawn(8) and brigd(8)");
		return;
	}
}

/* --- the end ---------------------------------------------------------------------- */

static enum verdict judge(const struct facts *f)
{
	/* who cannot open the device must believe the flags */
	bool kvm = f->kvm == KVM_HARDWARE ||
		   (f->kvm != KVM_EMULATED && (f->svm || f->vmx) &&
		    (f->kvm_errno == EACCES || f->kvm_errno == EPERM));

	if (f->api == API_ANSWERS && f->api_kvm == KVM_HARDWARE)
		return VERDICT_RUNNING;
	if (kvm && cgroups_do(f) && f->memory_free_bytes >= MEMORY_MIN_BYTES)
		return VERDICT_DIRECT;
	if (f->qemu[0] != '\0' && f->host_script[0] != '\0' &&
	    f->memory_free_bytes >= HOST_VM_MEMORY_BYTES)
		return VERDICT_HOST_VM;
	return VERDICT_IMPOSSIBLE;
}

static void describe_kvm(const struct facts *f, char *ret, size_t n)
{
	switch (f->kvm) {
	case KVM_HARDWARE:
		(void)snprintf(ret, n, "/dev/kvm works in hardware");
		return;
	case KVM_EMULATED:
		(void)snprintf(ret, n,
			       "/dev/kvm emulates guest kernel code (%.1f M "
			       "iterations/s)",
			       (double)f->iterations_per_s / 1e6);
		return;
	case KVM_NONE:
		(void)snprintf(ret, n, "no usable /dev/kvm");
		return;
	case KVM_UNKNOWN:
		(void)snprintf(ret, n, "/dev/kvm was not tested");
		return;
	}
}

static void summarize(const struct facts *f, struct diagnosis *d)
{
	static const char *const ends[] = {
		[VERDICT_RUNNING] = "brigd is ready: `brig run` works",
		[VERDICT_DIRECT] = "sandboxes run on it directly (start "
				   "brig-spawn(8) and brigd(8))",
		[VERDICT_HOST_VM] = "sandboxes run in the host VM (`brig host "
				    "start`)",
		[VERDICT_IMPOSSIBLE] = "no sandbox can run here until what is "
				       "missing is there",
	};
	char kvm[128];

	describe_kvm(f, kvm, sizeof(kvm));
	(void)snprintf(d->summary, sizeof(d->summary), "this machine: %s: %s",
		       kvm, ends[d->verdict]);
}

void diagnose(const struct facts *f, struct diagnosis *ret)
{
	*ret = (struct diagnosis){ .count = 0 };
	check_cpu(ret, f);
	check_kvm_device(ret, f);
	check_kvm_kind(ret, f);
	check_kernel(ret, f);
	check_cgroups(ret, f);
	check_user(ret, f);
	check_resources(ret, f);
	check_host_vm(ret, f);
	check_api(ret, f);
	ret->verdict = judge(f);
	summarize(f, ret);
}
