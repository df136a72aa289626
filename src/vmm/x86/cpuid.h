/* cpuid.h - the CPUID table that a guest sees.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_X86_CPUID_H
#define BRIG_VMM_X86_CPUID_H

#include <stdbool.h>

#include "../kvm.h"

/* Makes the table of vCPU `id` of `vcpus` from what KVM supports: hides
 * nested virtualization and asynchronous page faults (a snapshot could not
 * carry them), shows the TSC deadline timer and a flat topology of one socket
 * with `vcpus` cores whose APIC ids are 0..vcpus-1. */
void cpuid_make(struct kvm_cpuid_table *table, unsigned int id,
		unsigned int vcpus);

/* Whether this very processor is emulated by QEMU in software, as in the host
 * VM (its hypervisor leaf says so). */
bool cpuid_is_emulated(void);

#endif
