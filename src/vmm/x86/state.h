/* state.h - what KVM holds of a machine: vCPUs, interrupt controllers, clock.
 * SPDX-License-Identifier: Apache-2.0
 *
 * x86_get() and x86_set() talk to KVM and check nothing; x86_state() is the
 * one place that saves, loads and validates. So all of a file is checked
 * before the first ioctl. Order of the ioctls: performance.md, "Correctness";
 * Linux Documentation/virt/kvm/api.rst.
 */
#ifndef BRIG_VMM_X86_STATE_H
#define BRIG_VMM_X86_STATE_H

#include "../kvm.h"
#include "../state/stream.h"
#include "wire/limits.h"

#define X86_MSRS_MAX KVM_MSRS_MAX

struct x86_msr {
	uint32_t index;
	uint64_t value;
};

struct x86_vcpu {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint8_t xsave[KVM_XSAVE_BYTES];
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint64_t tsc; /* all vCPUs' at one time */
	uint32_t msr_count;
	struct x86_msr msrs[X86_MSRS_MAX]; /* ascending indexes */
};

struct x86_machine {
	uint32_t vcpus;
	uint32_t tsc_khz; /* of the guest */
	struct kvm_irqchip pic[2];
	struct kvm_irqchip ioapic;
	struct kvm_clock_data clock;
	struct kvm_cpuid_table cpuid; /* of vCPU 0 */
	bool own_cpuid; /* `cpuid` is from a file, not this host's */
	struct x86_vcpu vcpu[BRIG_VCPUS_MAX];
};

/* Which MSRs there are to save: asks KVM once. Before the claim. 0 or -errno. */
must_check int x86_init(int kvm_fd);

/* Whether the host lists this MSR. After x86_init(). */
bool x86_knows_msr(uint32_t index);

/* Reads all of it from a machine whose vCPUs stand still: MP_STATE first,
 * VCPU_EVENTS last. Fast: this is in the pause of a snapshot. 0 or -errno. */
must_check int x86_get(struct x86_machine *x, int vm_fd, const int *vcpu_fds,
		       uint32_t vcpus);

/* Gives it to KVM, for vCPUs that stand still: new ones, or those of a machine
 * that goes back to this state. `have` is what x86_get() said of vCPUs that
 * have not run since, and what is the same there is not set again; NULL: all
 * is. The memory must be in place before: KVM reads page tables and writes
 * times. 0, -ENOTSUP (before anything was done) when the TSC is of another
 * rate than what the guest knows, or -errno. */
must_check int x86_set(const struct x86_machine *x,
		       const struct x86_machine *have, int vm_fd,
		       const int *vcpu_fds, uint32_t vcpus);

/* Saves, or loads and validates. `host` is the CPUID that this machine's vCPU
 * 0 was given: a file that needs a feature which is not there is refused
 * (state_fail). Bounded: registers that KVM or the processor would refuse
 * make the file refused; MSRs only from the host's own list. */
void x86_state(struct state_stream *s, struct x86_machine *x, uint32_t vcpus,
	       const struct kvm_cpuid_table *host);

#endif
