/* cpuid.c - the CPUID table that a guest sees.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Leaf and bit numbers: Intel SDM volume 2A, CPUID; AMD APM volume 3,
 * appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst.
 */
#include <cpuid.h>
#include <string.h>

#include "cpuid.h"

#define BIT(n) (1u << (n))

enum {
	LEAF1_ECX_VMX = 5,
	LEAF1_ECX_TSC_DEADLINE = 24,
	LEAF1_ECX_HYPERVISOR = 31,
	LEAF1_EDX_HTT = 28,
	EXT1_ECX_SVM = 2,
	EXT1_ECX_TOPOEXT = 22,
	KVM_ASYNC_PF = 4,
	KVM_ASYNC_PF_VMEXIT = 10,
	KVM_ASYNC_PF_INT = 14,
};

/* Leaf 0xb, sub-leaf levels. */
enum {
	LEVEL_SMT = 1,
	LEVEL_CORE = 2
};

static unsigned int bits_for(unsigned int count)
{
	unsigned int bits = 0;

	while ((1u << bits) < count)
		bits++;
	return bits;
}

/* Sub-leaf 0: one thread a core; sub-leaf 1: all cores in one package. */
static void topology(struct kvm_cpuid_entry2 *e, unsigned int id,
		     unsigned int vcpus)
{
	e->eax = e->index == 0 ? 0 : bits_for(vcpus);
	e->ebx = e->index == 0 ? 1 : vcpus;
	e->ecx = e->index;
	if (e->index == 0)
		e->ecx |= LEVEL_SMT << 8;
	else if (e->index == 1)
		e->ecx |= LEVEL_CORE << 8;
	else
		e->eax = e->ebx = 0;
	e->edx = id;
}

static void one_entry(struct kvm_cpuid_entry2 *e, unsigned int id,
		      unsigned int vcpus)
{
	switch (e->function) {
	case 0x1:
		e->ebx = (e->ebx & 0x0000ffffu) | (id << 24) | (vcpus << 16);
		e->ecx &= ~BIT(LEAF1_ECX_VMX);
		e->ecx |= BIT(LEAF1_ECX_HYPERVISOR);
		e->ecx |= BIT(LEAF1_ECX_TSC_DEADLINE);
		if (vcpus > 1)
			e->edx |= BIT(LEAF1_EDX_HTT);
		break;
	case 0xb:
	case 0x1f:
		topology(e, id, vcpus);
		break;
	case 0x40000001: /* KVM_CPUID_FEATURES */
		e->eax &= ~(BIT(KVM_ASYNC_PF) | BIT(KVM_ASYNC_PF_VMEXIT) |
			    BIT(KVM_ASYNC_PF_INT));
		break;
	case 0x80000001:
		e->ecx &= ~(BIT(EXT1_ECX_SVM) | BIT(EXT1_ECX_TOPOEXT));
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffu) | (vcpus - 1) |
			 (bits_for(vcpus) << 12);
		break;
	default:
		break;
	}
}

void cpuid_make(struct kvm_cpuid_table *table, unsigned int id,
		unsigned int vcpus)
{
	for (uint32_t i = 0; i < table->nent && i < KVM_CPUID_MAX; i++)
		one_entry(&table->entries[i], id, vcpus);
}

bool cpuid_is_emulated(void)
{
	uint32_t leaf[4];
	uint32_t vendor[3];

	__cpuid(1, leaf[0], leaf[1], leaf[2], leaf[3]);
	if (!(leaf[2] & BIT(LEAF1_ECX_HYPERVISOR)))
		return false;
	__cpuid(0x40000000, leaf[0], vendor[0], vendor[1], vendor[2]);
	return memcmp(vendor, "TCGTCGTCGTCG", sizeof(vendor)) == 0;
}
