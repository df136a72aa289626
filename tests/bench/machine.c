/* machine.c - measures brig-vmm with a tiny guest on the bare /dev/kvm.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   machine VMM GUEST [--list | --quick] [NAME...]
 *
 * Prints a JSON list of results (docs/performance.md has the form). Every
 * clock but the pause's stops when a product of two random numbers, which
 * only the guest has computed, is in the console ring.
 */
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "tests/bench/vm.h"

#define SAMPLES_MAX 1000u
#define DIRTY_PAGES 2048u /* 8 MiB */
#define RESET_PAGES 64u
#define CYCLES 50u /* of create and destroy for one sample */

static struct image template;

/* --- one sample each: ms, bytes or per second ------------------------------- */

static double ms_since(uint64_t start)
{
	return (double)(clock_ns() - start) / 1e6;
}

static void ready_shell(struct vm *v)
{
	vm_files(v);
	vm_start(v);
	(void)vm_expect(v, VMM_READY);
	(void)usleep(500); /* so that it waits */
}

/* Asks, restores, waits for the answer. */
static void answered(struct vm *v, enum vmm_msg_type type, uint32_t dirty_pages)
{
	uint32_t answer;
	cleanup_fd int delta_fd = question_make(dirty_pages, -1, &answer);

	vm_restore(v, type, &template, delta_fd);
	vm_await(v, answer);
}

static double claim(void)
{
	struct vm v;
	uint32_t answer;
	cleanup_fd int delta_fd = question_make(0, -1, &answer);

	ready_shell(&v);
	uint64_t start = clock_ns();
	vm_restore(&v, VMM_RESTORE, &template, delta_fd);
	vm_await(&v, answer);
	double ms = ms_since(start);
	vm_end(&v);
	return ms;
}

static double create(void)
{
	struct vm v;
	uint32_t answer;
	cleanup_fd int delta_fd = question_make(0, -1, &answer);

	vm_files(&v);
	uint64_t start = clock_ns();
	vm_start(&v);
	vm_restore(&v, VMM_RESTORE, &template, delta_fd);
	vm_await(&v, answer);
	double ms = ms_since(start);
	vm_end(&v);
	return ms;
}

/* The guest has written to pages since the last reset; then it has only to
 * answer. */
static double reset(void)
{
	static struct vm v;
	uint32_t answer;

	if (v.pid == 0)
		ready_shell(&v);
	answered(&v, v.seen == 0 ? VMM_RESTORE : VMM_RESET, RESET_PAGES);
	cleanup_fd int delta_fd = question_make(0, -1, &answer);
	(void)usleep(500);
	uint64_t start = clock_ns();
	vm_restore(&v, VMM_RESET, &template, delta_fd);
	vm_await(&v, answer);
	return ms_since(start);
}

/* A machine that was restored, has written to 8 MiB and waits for the next
 * question. What it wrote differs from the template at each save. */
static struct vm *dirty_vm(void)
{
	static struct vm v;

	if (v.pid == 0) {
		cleanup_fd int delta_fd = file_new("delta");
		if (ftruncate(delta_fd, (off_t)VM_MEMORY_MIB << 20) < 0)
			die("ftruncate: %m");
		uint32_t answer = question_write(delta_fd, DIRTY_PAGES, false);
		file_seal(delta_fd);
		ready_shell(&v);
		vm_restore(&v, VMM_RESTORE, &template, delta_fd);
		vm_await(&v, answer);
	}
	vm_resume(&v);
	return &v;
}

static double saved_pause(struct vm *v, int state_fd, int memory_fd,
			  double *ret_written_ms)
{
	uint64_t start = clock_ns();

	vm_save(v, 0, state_fd, memory_fd);
	uint64_t pause_ns = vm_expect(v, VMM_REPLY).value;
	struct vmm_saved saved = vm_expect(v, VMM_SAVED).u.saved;
	*ret_written_ms = ms_since(start);
	if (saved.memory_bytes < (uint64_t)DIRTY_PAGES << 12)
		die("a save of %llu bytes only",
		    (unsigned long long)saved.memory_bytes);
	return (double)pause_ns / 1e6;
}

static double clone_pause(void)
{
	cleanup_fd int state_fd = file_new("state");
	cleanup_fd int memory_fd = file_new("memory");
	double written;

	return saved_pause(dirty_vm(), state_fd, memory_fd, &written);
}

/* The source stays paused, so that the clone has a processor. */
static double clone_child(void)
{
	struct vm *source = dirty_vm();
	struct vm child;
	struct image image;

	ready_shell(&child);
	uint64_t start = clock_ns();
	(void)vm_save_image(source, VMM_SAVE_STAY_PAUSED, &image);
	uint32_t answer = question_write(image.memory_fd, 0, true);
	file_seal(image.memory_fd);
	struct image both = { image.state_fd, template.memory_fd };
	vm_restore(&child, VMM_RESTORE, &both, image.memory_fd);
	vm_await(&child, answer);
	double ms = ms_since(start);
	vm_end(&child);
	image_close(&image);
	return ms;
}

static int disk_file(void)
{
	int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		die("O_TMPFILE: %m");
	return fd;
}

static double snapshot(bool pause)
{
	cleanup_fd int state_fd = disk_file();
	cleanup_fd int memory_fd = disk_file();
	double written;
	double ms = saved_pause(dirty_vm(), state_fd, memory_fd, &written);

	return pause ? ms : written;
}

static double snapshot_pause(void)
{
	return snapshot(true);
}

static double snapshot_written(void)
{
	return snapshot(false);
}

static double restore_diff(void)
{
	static struct image image;
	struct vm v;
	uint32_t answer;

	if (image.state_fd == 0)
		(void)vm_save_image(dirty_vm(), VMM_SAVE_STAY_PAUSED, &image);
	cleanup_fd int delta_fd = question_make(0, image.memory_fd, &answer);
	struct image both = { image.state_fd, template.memory_fd };
	ready_shell(&v);
	uint64_t start = clock_ns();
	vm_restore(&v, VMM_RESTORE, &both, delta_fd);
	vm_await(&v, answer);
	double ms = ms_since(start);
	vm_end(&v);
	return ms;
}

/* Reaping is nobody's hot path: it comes at the end of a sample. */
static double create_destroy(void)
{
	static struct vm vms[CYCLES];
	uint64_t start = clock_ns();

	for (unsigned int i = 0; i < CYCLES; i++) {
		vm_files(&vms[i]);
		vm_start(&vms[i]);
		answered(&vms[i], VMM_RESTORE, 0);
		vm_kill(&vms[i]);
	}
	for (unsigned int i = 0; i < CYCLES; i++)
		vm_reap(&vms[i]);
	return CYCLES * 1000.0 / ms_since(start);
}

static double memory_of_shell(void)
{
	struct vm v;

	ready_shell(&v);
	double bytes = (double)vm_own_memory(&v);
	vm_end(&v);
	return bytes;
}

static double memory_of_guest(void)
{
	struct vm v;

	ready_shell(&v);
	answered(&v, VMM_RESTORE, 0);
	double bytes = (double)vm_own_memory(&v);
	vm_end(&v);
	return bytes;
}

/* --- the list --------------------------------------------------------------- */

#define FILES_OPEN "the files are open, a shell waits; before VMM_RESTORE"
#define PAUSE_FROM "before brig-vmm stops its vCPUs, by its own clock"
#define PAUSE_TO "they run again"
#define ANSWERED "the guest's product of two random numbers is here"

static const struct bench {
	const char *name;
	const char *unit;
	double gate; /* p50 */
	unsigned int warmup;
	unsigned int rounds;
	double (*sample)(void);
	const char *from;
	const char *to;
} benches[] = {
	{ "claim_first_value", "ms", 0.40, 20, 300, claim, FILES_OPEN,
	  ANSWERED },
	{ "create_first_value", "ms", 0.75, 20, 300, create,
	  "the files are open; before brig-vmm is started, without a jail",
	  ANSWERED },
	{ "reset_first_value", "ms", 0.12, 20, 500, reset,
	  "the guest has written to 64 pages; before VMM_RESET", ANSWERED },
	{ "clone_pause_8mib", "ms", 1, 5, 100, clone_pause, PAUSE_FROM,
	  PAUSE_TO },
	{ "clone_child_first_value", "ms", 2.5, 5, 100, clone_child,
	  "a shell waits, 8 MiB differ; before VMM_SAVE of the source",
	  ANSWERED ", said by the clone" },
	{ "snapshot_pause_8mib", "ms", 1, 5, 100, snapshot_pause, PAUSE_FROM,
	  PAUSE_TO },
	{ "snapshot_written_8mib", "ms", 15, 5, 100, snapshot_written,
	  "before VMM_SAVE into files on disk",
	  "VMM_SAVED: all is written, nothing synced" },
	{ "restore_diff", "ms", 2, 10, 200, restore_diff,
	  FILES_OPEN " with 8 MiB of delta in 128 runs, cached", ANSWERED },
	{ "create_destroy_rate", "per_s", 500, 1, 20, create_destroy,
	  "50 times create, answer, kill, one after the other, without a jail",
	  "all are reaped" },
	{ "vmm_memory_shell", "bytes", 1 << 20, 1, 5, memory_of_shell,
	  "no clock: private memory of a shell that waits, in smaps",
	  "without the guest's RAM" },
	{ "vmm_memory", "bytes", 1 << 20, 1, 5, memory_of_guest,
	  "no clock: private memory of a restored machine, in smaps",
	  "without the guest's RAM" },
};

static void make_template(void)
{
	struct vm v;

	ready_shell(&v);
	vm_boot(&v);
	(void)vm_save_image(&v, 0, &template);
	file_seal(template.memory_fd);
	vm_end(&v);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The smallest of the ordered samples that `percent` of all are not above. */
static double percentile(const double *samples, unsigned int n, double percent)
{
	unsigned int rank = (unsigned int)ceil(percent / 100 * n);

	return samples[rank > 0 ? rank - 1 : 0];
}

static void run(const struct bench *b, bool quick, bool first)
{
	unsigned int rounds = quick ? b->rounds / 5 : b->rounds;
	static double samples[SAMPLES_MAX];
	/* Of a rate the bad end is the low one. */
	bool low = strcmp(b->unit, "per_s") == 0;

	for (unsigned int i = 0; i < b->warmup; i++)
		(void)b->sample();
	for (unsigned int i = 0; i < rounds; i++)
		samples[i] = b->sample();
	qsort(samples, rounds, sizeof(samples[0]), compare);
	printf("%s\n  {\"name\": \"%s\", \"unit\": \"%s\", \"n\": %u, ",
	       first ? "" : ",", b->name, b->unit, rounds);
	printf("\"best\": %.3f, \"p50\": %.3f, \"p95\": %.3f, \"p99\": %.3f, ",
	       samples[low ? rounds - 1 : 0], percentile(samples, rounds, 50),
	       percentile(samples, rounds, low ? 5 : 95),
	       percentile(samples, rounds, low ? 1 : 99));
	printf("\"gate\": %g, \"warmup\": %u, \"from\": \"%s\", ", b->gate,
	       b->warmup, b->from);
	printf("\"to\": \"%s\", \"where\": \"kvm\"}", b->to);
	(void)fflush(stdout);
}

static bool is_wanted(const char *name, char **wanted)
{
	if (*wanted == NULL)
		return true;
	for (; *wanted != NULL; wanted++) {
		if (strcmp(name, *wanted) == 0)
			return true;
	}
	return false;
}

static void list(void)
{
	for (size_t i = 0; i < ARRAY_LEN(benches); i++)
		puts(benches[i].name);
}

int main(int argc, char **argv)
{
	bool first = true;
	bool quick = argc > 3 && strcmp(argv[3], "--quick") == 0;

	log_init("bench");
	if (argc < 3)
		die("usage: machine VMM GUEST [--list | --quick] [NAME...]");
	if (argc == 4 && strcmp(argv[3], "--list") == 0) {
		list();
		return 0;
	}
	vm_programs(argv[1], argv[2]);
	make_template();
	printf("[");
	for (size_t i = 0; i < ARRAY_LEN(benches); i++) {
		if (!is_wanted(benches[i].name, argv + 3 + quick))
			continue;
		run(&benches[i], quick, first);
		first = false;
	}
	printf("\n]\n");
	return 0;
}
