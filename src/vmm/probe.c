/* probe.c - what kind of KVM this machine has, by measuring it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Some machines have a /dev/kvm that opens and works but interprets guest
 * kernel code, a thousand times too slowly for Linux; no flag says so. So a
 * loop of a few instructions runs in ring 0 and the clock decides. Hardware
 * does 100 million rounds a second and more, software emulation with nested
 * SVM tens of millions, an interpreting KVM about one million.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "kvm.h"
#include "num.h"
#include "probe.h"

#define PROBE_ROUNDS 30000u
#define PROBE_BYTES 4096u
#define PROBE_FAST_ENOUGH 8000000u /* rounds a second */

/* The best counts: the first pays for page faults, and on a busy machine any
 * may be interrupted. */
#define PROBE_TRIES 8

/* 32-bit code at address 0: count ECX down, then halt. */
static const unsigned char probe_code[] = {
	0xb9,
	PROBE_ROUNDS & 0xff,
	(PROBE_ROUNDS >> 8) & 0xff,
	(PROBE_ROUNDS >> 16) & 0xff,
	(PROBE_ROUNDS >> 24) & 0xff, /* mov ecx */
	0x49,                        /* dec ecx */
	0x75,
	0xfd, /* jnz back */
	0xf4, /* hlt */
};

struct probe {
	int kvm_fd;
	int vm_fd;
	int vcpu_fd;
	uint8_t *memory;
	struct kvm_run *run;
	const char *failed; /* the step that did, or NULL */
};

static int step(struct probe *p, const char *name, int r)
{
	if (r < 0)
		p->failed = name;
	return r;
}

static int set_state(struct probe *p)
{
	struct kvm_sregs s;
	struct kvm_regs regs = { .rflags = 2 };
	int r = kvm_get_sregs(p->vcpu_fd, &s);

	if (r < 0)
		return r;
	s.cs = (struct kvm_segment){ .limit = 0xffffffffu,
				     .selector = 8,
				     .type = 0xb,
				     .present = 1,
				     .db = 1,
				     .s = 1,
				     .g = 1 };
	s.ds = s.es = s.fs = s.gs = s.ss = s.cs;
	s.ds.type = s.es.type = s.fs.type = s.gs.type = s.ss.type = 3;
	s.cr0 |= 1;
	r = kvm_set_sregs(p->vcpu_fd, &s);
	return r < 0 ? r : kvm_set_regs(p->vcpu_fd, &regs);
}

static int set_up(struct probe *p)
{
	p->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (step(p, "open /dev/kvm", p->kvm_fd < 0 ? -errno : 0) < 0)
		return -errno;
	if (step(p, "API version", kvm_check_version(p->kvm_fd)) < 0)
		return -ENOTSUP;
	p->vm_fd = kvm_create_vm(p->kvm_fd);
	if (step(p, "KVM_CREATE_VM", p->vm_fd) < 0)
		return p->vm_fd;
	p->memory = mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED)
		return step(p, "mmap", -ENOMEM);
	memcpy(p->memory, probe_code, sizeof(probe_code));
	int r = kvm_set_memory(p->vm_fd, 0, 0, PROBE_BYTES, p->memory);
	if (step(p, "memory slot", r) < 0)
		return r;
	p->vcpu_fd = kvm_create_vcpu(p->vm_fd, 0);
	if (step(p, "KVM_CREATE_VCPU", p->vcpu_fd) < 0)
		return p->vcpu_fd;
	int bytes = kvm_vcpu_run_bytes(p->kvm_fd);
	p->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		      p->vcpu_fd, 0);
	if (bytes < 0 || p->run == MAP_FAILED)
		return step(p, "vCPU mapping", -ENOMEM);
	return step(p, "vCPU state", set_state(p));
}

static int run_loop(struct probe *p, uint64_t *ret_per_s)
{
	uint64_t start = clock_ns(CLOCK_MONOTONIC);
	int r;

	do
		r = kvm_run_vcpu(p->vcpu_fd);
	while (r == -EINTR);
	uint64_t ns = u64_max(clock_ns(CLOCK_MONOTONIC) - start, 1);
	if (r < 0 || p->run->exit_reason != KVM_EXIT_HLT)
		return step(p, "guest loop", -EIO);
	*ret_per_s = PROBE_ROUNDS * 1000000000ull / ns;
	return 0;
}

int probe_main(void)
{
	struct probe p = { -1, -1, -1, NULL, NULL, NULL };
	const char *kind = "none";
	uint64_t per_s = 0;
	int r = set_up(&p);

	for (int i = 0; i < PROBE_TRIES && r == 0; i++) {
		uint64_t once = 0;
		r = step(&p, "vCPU state", set_state(&p));
		if (r == 0)
			r = run_loop(&p, &once);
		per_s = u64_max(per_s, once);
	}
	if (r == 0)
		kind = per_s >= PROBE_FAST_ENOUGH ? "hardware" : "emulated";
	printf("{\"kvm\": \"%s\", \"api\": %d, \"iterations_per_s\": %llu, "
	       "\"reason\": \"%s%s%s\"}\n",
	       kind, p.kvm_fd >= 0 ? KVM_API_VERSION : 0,
	       (unsigned long long)per_s, p.failed != NULL ? p.failed : "",
	       p.failed != NULL && r < 0 ? ": " : "",
	       r < 0 ? strerrordesc_np(-r) : "");
	return 0;
}
