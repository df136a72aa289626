/* kvm.h - what KVM supports, for every brig-vmm to know.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_SPAWN_KVM_H
#define BRIG_SPAWN_KVM_H

#include <linux/kvm.h>

#include "wire/vmm.h"

/* A struct kvm_cpuid2 with room. */
struct cpuid_table {
	uint32_t entries; /* 0: KVM did not say */
	uint32_t padding;
	struct kvm_cpuid_entry2 entry[VMM_CPUID_MAX];
};

/* KVM_GET_SUPPORTED_CPUID, asked once: the answer takes KVM some 80 CPUID
 * instructions, which in a virtual machine are 0.25 ms. */
const struct cpuid_table *kvm_supported_cpuid(int kvm_fd);

#endif
