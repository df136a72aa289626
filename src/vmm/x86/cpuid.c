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
	LEAF1_ECX_MONITOR = 3,
	LEAF1_ECX_VMX = 5,
	LEAF1_ECX_TSC_DEADLINE = 24,
	LEAF1_ECX_OSXSAVE = 27,
	LEAF1_ECX_HYPERVISOR = 31,
	LEAF1_EDX_APIC = 9,
	LEAF1_EDX_HTT = 28,
	LEAF7_ECX_OSPKE = 4,
	LEAF7_ECX_SHSTK = 7,
	LEAF7_EDX_IBT = 20,
	LEAF7_1_EAX_FRED = 17,
	LEAF7_1_EAX_LAM = 26,
	EXT1_ECX_SVM = 2,
	EXT1_ECX_TOPOEXT = 22,
	EXT7_EDX_INVARIANT_TSC = 8,
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

static void structured_features(struct kvm_cpuid_entry2 *e)
{
	if (e->index == 0) {
		e->ecx &= ~BIT(LEAF7_ECX_SHSTK);
		e->edx &= ~BIT(LEAF7_EDX_IBT);
	} else if (e->index == 1) {
		e->eax &= ~(BIT(LEAF7_1_EAX_FRED) | BIT(LEAF7_1_EAX_LAM));
	}
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
	case 0x7:
		structured_features(e);
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
	case 0x80000007:
		e->edx &= ~BIT(EXT7_EDX_INVARIANT_TSC);
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffu) | (vcpus - 1) |
			 (bits_for(vcpus) << 12);
		break;
	case 0x8000001e: /* where the CPU is that answered KVM */
		e->eax = e->ebx = e->ecx = 0;
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

const struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid_table *table,
					  uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < table->nent && i < KVM_CPUID_MAX; i++) {
		const struct kvm_cpuid_entry2 *e = &table->entries[i];
		bool indexed = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		if (e->function == function && (!indexed || e->index == index))
			return e;
	}
	return NULL;
}

/* --- comparing ------------------------------------------------------------- */

enum {
	EAX,
	EBX,
	ECX,
	EDX,
	REGISTERS
};

struct mask {
	uint32_t function;
	uint32_t index;
	uint32_t bits[REGISTERS];
};

#define ALL 0xffffffffu

/* What KVM makes of CR4, the APIC base and IA32_MISC_ENABLE, whatever it is
 * given. */
static const struct mask follows_guest[] = {
	{ 0x1,
	  0,
	  { [ECX] = BIT(LEAF1_ECX_OSXSAVE) | BIT(LEAF1_ECX_MONITOR),
	    [EDX] = BIT(LEAF1_EDX_APIC) } },
	{ 0x7, 0, { [ECX] = BIT(LEAF7_ECX_OSPKE) } },
};

/* Where each bit is a feature that software may use when it is set. */
static const struct mask features[] = {
	{ 0x1, 0, { [ECX] = ALL, [EDX] = ALL } },
	{ 0x7, 0, { [EBX] = ALL, [ECX] = ALL, [EDX] = ALL } },
	{ 0x7, 1, { ALL, ALL, ALL, ALL } },
	{ 0x7, 2, { [EDX] = ALL } },
	{ 0xd, 0, { [EAX] = ALL, [EDX] = ALL } }, /* XCR0 */
	{ 0xd, 1, { [EAX] = ALL, [ECX] = ALL, [EDX] = ALL } },
	{ 0x40000001, 0, { [EAX] = ALL } },
	{ 0x80000001, 0, { [ECX] = ALL, [EDX] = ALL } },
	{ 0x80000007, 0, { [EDX] = ALL } },
	{ 0x80000008, 0, { [EBX] = ALL } },
	{ 0x8000000a, 0, { [EDX] = ALL } },
	{ 0x8000001f, 0, { [EAX] = ALL } },
	{ 0x80000021, 0, { [EAX] = ALL } },
};

static const struct mask *find_mask(const struct mask *masks, size_t n,
				    const struct kvm_cpuid_entry2 *e)
{
	for (size_t i = 0; i < n; i++) {
		if (masks[i].function == e->function &&
		    masks[i].index == e->index)
			return &masks[i];
	}
	return NULL;
}

static uint32_t reg(const struct kvm_cpuid_entry2 *e, unsigned int which)
{
	const uint32_t all[REGISTERS] = { e->eax, e->ebx, e->ecx, e->edx };

	return all[which];
}

/* The bits of a register that do not follow the guest. */
static uint32_t steady(const struct kvm_cpuid_entry2 *e, unsigned int which)
{
	const struct mask *m =
		find_mask(follows_guest, ARRAY_LEN(follows_guest), e);

	return m == NULL ? reg(e, which) : reg(e, which) & ~m->bits[which];
}

bool cpuid_equal(const struct kvm_cpuid_table *a,
		 const struct kvm_cpuid_table *b)
{
	return a->nent == b->nent && a->nent <= KVM_CPUID_MAX &&
	       memcmp(a->entries, b->entries,
		      a->nent * sizeof(a->entries[0])) == 0;
}

static bool has_features(const struct kvm_cpuid_entry2 *file,
			 const struct kvm_cpuid_table *host)
{
	const struct mask *m = find_mask(features, ARRAY_LEN(features), file);
	const struct kvm_cpuid_entry2 *h;

	if (m == NULL)
		return true;
	h = cpuid_find(host, file->function, file->index);
	for (unsigned int i = 0; i < REGISTERS; i++) {
		uint32_t have = h == NULL ? 0 : reg(h, i);
		if (steady(file, i) & m->bits[i] & ~have)
			return false;
	}
	return true;
}

static bool well_formed(const struct kvm_cpuid_entry2 *e)
{
	if ((e->padding[0] | e->padding[1] | e->padding[2]) != 0)
		return false;
	return e->flags == KVM_CPUID_FLAG_SIGNIFCANT_INDEX ||
	       (e->flags == 0 && e->index == 0);
}

const char *cpuid_check(const struct kvm_cpuid_table *file,
			const struct kvm_cpuid_table *host)
{
	const struct kvm_cpuid_entry2 *f = cpuid_find(file, 0, 0);
	const struct kvm_cpuid_entry2 *h = cpuid_find(host, 0, 0);

	if (f == NULL || h == NULL || f->ebx != h->ebx || f->ecx != h->ecx ||
	    f->edx != h->edx)
		return "cpuid: another vendor";
	for (uint32_t i = 0; i < file->nent && i < KVM_CPUID_MAX; i++) {
		if (!well_formed(&file->entries[i]))
			return "cpuid: entry";
		if (!has_features(&file->entries[i], host))
			return "cpuid: feature not here";
	}
	return NULL;
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
