/* kvm.h - thin wrappers over ioctl(KVM_*); kvm.c is the only file that calls
 * them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All functions return 0 (or a descriptor, or a count) or -errno. The order
 * of set-up is part of the design: memory slots, then the irqchip, then the
 * vCPUs, then ioeventfds and irqfds. A slot that is set after anything is
 * registered on KVM's I/O bus waits 7 ms for a grace period.
 */
#ifndef BRIG_VMM_KVM_H
#define BRIG_VMM_KVM_H

#include <linux/kvm.h>
#include <stdint.h>

#include "cc.h"
#include "wire/vmm.h"

/* Entries of a CPUID table that we can hold. */
#define KVM_CPUID_MAX VMM_CPUID_MAX

/* A struct kvm_cpuid2, which ends in a flexible array, with room. */
struct kvm_cpuid_table {
	uint32_t nent;
	uint32_t padding;
	struct kvm_cpuid_entry2 entries[KVM_CPUID_MAX];
};

/* More than any kernel lists. */
#define KVM_MSR_INDEXES_MAX 512u

/* A struct kvm_msr_list with room. */
struct kvm_msr_index_table {
	uint32_t nmsrs;
	uint32_t indices[KVM_MSR_INDEXES_MAX];
};

/* What KVM takes in one KVM_GET_MSRS or KVM_SET_MSRS. */
#define KVM_MSRS_MAX 256u

/* A struct kvm_msrs with room. */
struct kvm_msr_table {
	uint32_t nmsrs;
	uint32_t pad;
	struct kvm_msr_entry entries[KVM_MSRS_MAX];
};

/* The XSAVE area of a vCPU, as long as no feature of dynamic size is on. */
#define KVM_XSAVE_BYTES 4096u

must_check int kvm_check_version(int kvm_fd);
must_check int kvm_create_vm(int kvm_fd);
must_check int kvm_vcpu_run_bytes(int kvm_fd);
must_check int kvm_supported_cpuid(int kvm_fd, struct kvm_cpuid_table *ret);

/* KVM_CHECK_EXTENSION: 0 when there is no such thing. */
must_check int kvm_check(int kvm_fd, unsigned int capability);

/* Indexes of the MSRs that KVM keeps; -E2BIG when there are more than fit. */
must_check int kvm_msr_indexes(int kvm_fd, struct kvm_msr_index_table *ret);

must_check int kvm_set_memory(int vm_fd, uint32_t slot, uint64_t gpa,
			      uint64_t bytes, void *host);
must_check int kvm_set_tss_addr(int vm_fd, uint64_t gpa);
must_check int kvm_create_irqchip(int vm_fd);
must_check int kvm_create_vcpu(int vm_fd, unsigned int id);
must_check int kvm_add_irqfd(int vm_fd, int event_fd, uint32_t gsi);

/* A 32-bit write of `value` to MMIO address `at` signals event_fd. */
must_check int kvm_add_ioeventfd(int vm_fd, int event_fd, uint64_t at,
				 uint32_t value);

must_check int kvm_set_cpuid(int vcpu_fd, const struct kvm_cpuid_table *table);
must_check int kvm_get_sregs(int vcpu_fd, struct kvm_sregs *ret);
must_check int kvm_set_sregs(int vcpu_fd, const struct kvm_sregs *sregs);
must_check int kvm_get_regs(int vcpu_fd, struct kvm_regs *ret);
must_check int kvm_set_regs(int vcpu_fd, const struct kvm_regs *regs);

must_check int kvm_get_mp_state(int vcpu_fd, struct kvm_mp_state *ret);
must_check int kvm_set_mp_state(int vcpu_fd, const struct kvm_mp_state *state);
must_check int kvm_get_xsave(int vcpu_fd, uint8_t *ret);
must_check int kvm_set_xsave(int vcpu_fd, const uint8_t *xsave);
must_check int kvm_get_xcrs(int vcpu_fd, struct kvm_xcrs *ret);
must_check int kvm_set_xcrs(int vcpu_fd, const struct kvm_xcrs *xcrs);
must_check int kvm_get_debugregs(int vcpu_fd, struct kvm_debugregs *ret);
must_check int kvm_set_debugregs(int vcpu_fd, const struct kvm_debugregs *regs);
must_check int kvm_get_lapic(int vcpu_fd, struct kvm_lapic_state *ret);
must_check int kvm_set_lapic(int vcpu_fd, const struct kvm_lapic_state *lapic);
must_check int kvm_get_events(int vcpu_fd, struct kvm_vcpu_events *ret);
must_check int kvm_set_events(int vcpu_fd,
			      const struct kvm_vcpu_events *events);

/* How many MSRs, from the first on, could be read or written. */
must_check int kvm_get_msrs(int vcpu_fd, struct kvm_msr_table *table);
must_check int kvm_set_msrs(int vcpu_fd, const struct kvm_msr_table *table);

/* The guest's TSC is the host's, scaled, plus this offset. */
must_check int kvm_get_tsc_offset(int vcpu_fd, uint64_t *ret);
must_check int kvm_set_tsc_offset(int vcpu_fd, uint64_t offset);
must_check int kvm_get_tsc_khz(int vcpu_fd);
must_check int kvm_set_tsc_khz(int vcpu_fd, uint32_t khz);

/* Tells the guest's watchdogs that it stood still. -EINVAL: no kvm-clock. */
must_check int kvm_note_pause(int vcpu_fd);

/* ret->chip_id says which chip. */
must_check int kvm_get_irqchip(int vm_fd, struct kvm_irqchip *ret);
must_check int kvm_set_irqchip(int vm_fd, const struct kvm_irqchip *chip);
must_check int kvm_get_clock(int vm_fd, struct kvm_clock_data *ret);
must_check int kvm_set_clock(int vm_fd, const struct kvm_clock_data *clock);

/* Runs until the next exit. -EINTR and -EAGAIN are normal. */
must_check int kvm_run_vcpu(int vcpu_fd);

#endif
