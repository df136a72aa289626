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

/* Entries of a CPUID table that we can hold; KVM knows about 80. */
#define KVM_CPUID_MAX 128

/* A struct kvm_cpuid2, which ends in a flexible array, with room. */
struct kvm_cpuid_table {
	uint32_t nent;
	uint32_t padding;
	struct kvm_cpuid_entry2 entries[KVM_CPUID_MAX];
};

must_check int kvm_check_version(int kvm_fd);
must_check int kvm_create_vm(int kvm_fd);
must_check int kvm_vcpu_run_bytes(int kvm_fd);
must_check int kvm_supported_cpuid(int kvm_fd, struct kvm_cpuid_table *ret);

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

/* Runs until the next exit. -EINTR and -EAGAIN are normal. */
must_check int kvm_run_vcpu(int vcpu_fd);

#endif
