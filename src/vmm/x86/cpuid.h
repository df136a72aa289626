/* cpuid.h - the CPUID table that a guest sees.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_X86_CPUID_H
#define BRIG_VMM_X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "../kvm.h"

/* Makes the table of vCPU `id` of `vcpus` from what KVM supports: hides what
 * a snapshot could not carry (nested virtualization, asynchronous page faults,
 * shadow stacks, the invariant TSC: a guest that may be moved keeps kvm-clock
 * as its clock) and what saved registers may not use (pointer tags), shows the
 * TSC deadline timer and a flat topology of one socket with `vcpus` cores
 * whose APIC ids are 0..vcpus-1. Applied twice it changes nothing. */
void cpuid_make(struct kvm_cpuid_table *table, unsigned int id,
		unsigned int vcpus);

/* One entry, or NULL. */
const struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid_table *table,
					  uint32_t function, uint32_t index);

/* Whether the tables are the same, entry by entry. */
bool cpuid_equal(const struct kvm_cpuid_table *a,
		 const struct kvm_cpuid_table *b);

/* NULL if a guest that was given `file` can go on where `host` is what there
 * is: the processor is of the same vendor and has all of its features. Else
 * what is wrong, in at most STATE_NAME_MAX characters. `file` is not trusted;
 * its nent is at most KVM_CPUID_MAX. */
const char *cpuid_check(const struct kvm_cpuid_table *file,
			const struct kvm_cpuid_table *host);

/* Whether this very processor is emulated by QEMU in software, as in the host
 * VM (its hypervisor leaf says so). */
bool cpuid_is_emulated(void);

#endif
