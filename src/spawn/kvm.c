/* kvm.c - what KVM supports, for every brig-vmm to know.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <sys/ioctl.h>

#include "kvm.h"

static_assert(offsetof(struct cpuid_table, entry) ==
		      offsetof(struct kvm_cpuid2, entries),
	      "same layout");

const struct cpuid_table *kvm_supported_cpuid(int kvm_fd)
{
	static struct cpuid_table cpuid;

	if (cpuid.entries > 0)
		return &cpuid;
	cpuid.entries = VMM_CPUID_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0)
		cpuid.entries = 0; /* brig-vmm asks too, and says what failed */
	return &cpuid;
}
