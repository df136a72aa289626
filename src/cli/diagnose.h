/* diagnose.h - from facts about a machine to what it can do and what to do.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pure: doctor.c gathers the facts, this file judges them.
 */
#ifndef BRIG_CLI_DIAGNOSE_H
#define BRIG_CLI_DIAGNOSE_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"

#define CHECKS_MAX 16
#define CHECK_TEXT_BYTES 256

enum kvm_kind {
	KVM_UNKNOWN, /* not probed */
	KVM_NONE,
	KVM_EMULATED, /* guest kernel code is interpreted: far too slow */
	KVM_HARDWARE,
};

enum api_state {
	API_SILENT,
	API_REFUSES_KEY,
	API_ANSWERS
};

struct facts {
	bool svm; /* flags of the CPU */
	bool vmx;
	int kvm_errno; /* of opening /dev/kvm; 0: it opens */
	enum kvm_kind kvm;
	uint64_t iterations_per_s; /* of a loop in guest ring 0 */
	char kvm_reason[128];      /* of the probe; untrusted text */
	char kernel[128];          /* release */
	char cgroup2[128];         /* where it is mounted; "": nowhere */
	char controllers[256];     /* of it, separated by spaces */
	uint32_t uid;
	uint64_t disk_free_bytes; /* where sandboxes would be */
	uint64_t memory_bytes;
	uint64_t memory_free_bytes;
	char qemu[128];        /* path of qemu-system-x86_64; "": none */
	char host_script[128]; /* path of brig-host; "": none */
	enum api_state api;
	char api_url[128];
	enum kvm_kind api_kvm; /* what brigd found where it runs */
	char api_version[32];
};

enum check_level {
	CHECK_OK,
	CHECK_WARN,
	CHECK_MISSING
};

struct check {
	const char *name;
	enum check_level level;
	char text[CHECK_TEXT_BYTES];
	char todo[CHECK_TEXT_BYTES]; /* "": nothing */
};

enum verdict {
	VERDICT_RUNNING, /* brigd answers and can run sandboxes */
	VERDICT_DIRECT,  /* sandboxes can run on this machine itself */
	VERDICT_HOST_VM, /* they can run in the host VM */
	VERDICT_IMPOSSIBLE,
};

struct diagnosis {
	struct check checks[CHECKS_MAX];
	unsigned int count;
	enum verdict verdict;
	char summary[2 * CHECK_TEXT_BYTES];
};

void diagnose(const struct facts *f, struct diagnosis *ret);

/* --- readers of what the kernel and brig-vmm say; for tests too --- */

/* /proc/cpuinfo: sets svm and vmx. */
void facts_read_cpuinfo(struct facts *f, const char *text);

/* /proc/self/mountinfo: the first cgroup2 mount. */
void facts_read_mountinfo(struct facts *f, const char *text);

/* /proc/meminfo. */
void facts_read_meminfo(struct facts *f, const char *text);

/* The line of `brig-vmm --probe`; one that makes no sense leaves
 * KVM_UNKNOWN. */
void facts_read_probe(struct facts *f, const char *text);

enum kvm_kind facts_kvm_kind(const char *name); /* NULL: KVM_UNKNOWN */
const char *facts_kvm_name(enum kvm_kind kind);

#endif
