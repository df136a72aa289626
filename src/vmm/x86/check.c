/* check.c - whether a saved vCPU or interrupt controller could be real.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Names of registers and bits: Intel SDM volume 3A, chapters 2, 5, 11 and 13;
 * AMD APM volume 2, chapters 3 and 14.
 */
#include "check.h"
#include "cpuid.h"
#include "num.h"

#define BIT(n) (1ull << (n))

enum {
	CR0_PE = 0,
	CR0_NW = 29,
	CR0_CD = 30,
	CR0_PG = 31,
	CR4_PAE = 5,
	CR4_PCIDE = 17,
	EFER_SCE = 0,
	EFER_LME = 8,
	EFER_LMA = 10,
	EFER_NXE = 11,
	EFER_TCE = 15,
	EFER_AUTOIBRS = 21,
	XCR0_FP = 0,
	XCR0_SSE = 1,
	XCR0_AVX = 2,
	RFLAGS_FIXED = 1,
	RFLAGS_VM = 17,
};

/* All flags that exist. */
#define RFLAGS_KNOWN 0x3f7fd7ull

/* Register numbers in CPUID. */
enum reg {
	EAX,
	EBX,
	ECX,
	EDX
};

static bool has(const struct kvm_cpuid_table *cpuid, uint32_t function,
		uint32_t index, enum reg reg, unsigned int bit)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, function, index);

	if (e == NULL)
		return false;
	const uint32_t all[] = { e->eax, e->ebx, e->ecx, e->edx };
	return all[reg] & BIT(bit);
}

/* What the linear addresses of this processor are made of. */
static unsigned int linear_bits(const struct kvm_cpuid_table *cpuid)
{
	return has(cpuid, 7, 0, ECX, 16) ? 57 : 48;
}

static bool is_canonical(uint64_t at, unsigned int bits)
{
	unsigned int unused = 64 - bits;

	return (uint64_t)((int64_t)(at << unused) >> unused) == at;
}

/* --- control registers ----------------------------------------------------- */

struct cr4_bit {
	unsigned int cr4;
	uint32_t function;
	enum reg reg;
	unsigned int bit;
};

/* Bits 0 to 10 are on every processor that we run on. What is hidden from
 * guests (VMX, shadow stacks, pointer tags) is not here. */
#define CR4_ALWAYS 0x7ffull

static const struct cr4_bit cr4_bits[] = {
	{ 11, 7, ECX, 2 },  /* UMIP */
	{ 12, 7, ECX, 16 }, /* LA57 */
	{ 16, 7, EBX, 0 },  /* FSGSBASE */
	{ 17, 1, ECX, 17 }, /* PCIDE */
	{ 18, 1, ECX, 26 }, /* OSXSAVE */
	{ 20, 7, EBX, 7 },  /* SMEP */
	{ 21, 7, EBX, 20 }, /* SMAP */
	{ 22, 7, ECX, 3 },  /* PKE */
};

static uint64_t cr4_allowed(const struct kvm_cpuid_table *cpuid)
{
	uint64_t allowed = CR4_ALWAYS;

	for (size_t i = 0; i < ARRAY_LEN(cr4_bits); i++) {
		const struct cr4_bit *b = &cr4_bits[i];
		if (has(cpuid, b->function, 0, b->reg, b->bit))
			allowed |= BIT(b->cr4);
	}
	return allowed;
}

static uint64_t efer_allowed(const struct kvm_cpuid_table *cpuid)
{
	uint64_t allowed =
		BIT(EFER_SCE) | BIT(EFER_LME) | BIT(EFER_LMA) | BIT(EFER_NXE);

	if (has(cpuid, 0x80000001, 0, ECX, 17))
		allowed |= BIT(EFER_TCE);
	if (has(cpuid, 0x80000021, 0, EAX, 8))
		allowed |= BIT(EFER_AUTOIBRS);
	return allowed;
}

/* Physical addresses that CR3 may hold. */
static uint64_t cr3_allowed(const struct kvm_cpuid_table *cpuid)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, 0x80000008, 0);
	unsigned int bits = e == NULL ? 36 : e->eax & 0xff;

	return bits >= 52 ? BIT(52) - 1 : BIT(bits) - 1;
}

static const char *check_cr0(const struct kvm_sregs *s)
{
	bool paging = s->cr0 & BIT(CR0_PG);

	if (s->cr0 >> 32 != 0 || (paging && !(s->cr0 & BIT(CR0_PE))) ||
	    ((s->cr0 & BIT(CR0_NW)) && !(s->cr0 & BIT(CR0_CD))))
		return "cr0";
	return NULL;
}

static const char *check_mode(const struct kvm_sregs *s,
			      const struct kvm_cpuid_table *cpuid)
{
	bool paging = s->cr0 & BIT(CR0_PG);
	bool lma = s->efer & BIT(EFER_LMA);

	if (s->efer & ~efer_allowed(cpuid))
		return "efer";
	if (lma != (paging && (s->efer & BIT(EFER_LME))))
		return "efer: long mode";
	if (s->cr4 & ~cr4_allowed(cpuid))
		return "cr4";
	if ((lma && !(s->cr4 & BIT(CR4_PAE))) ||
	    (!lma && (s->cr4 & BIT(CR4_PCIDE))))
		return "cr4: long mode";
	if (s->cr3 & ~cr3_allowed(cpuid))
		return "cr3";
	if (s->cr8 > 15)
		return "cr8";
	return NULL;
}

/* --- segments -------------------------------------------------------------- */

static bool segment_ok(const struct kvm_segment *s, bool wide,
		       unsigned int bits)
{
	if (s->type > 15 || s->dpl > 3 || s->present > 1 || s->db > 1 ||
	    s->s > 1 || s->l > 1 || s->g > 1 || s->avl > 1 || s->unusable > 1)
		return false;
	return wide ? is_canonical(s->base, bits) : s->base >> 32 == 0;
}

static const char *check_segments(const struct kvm_sregs *s, unsigned int bits)
{
	const struct kvm_segment *flat[] = { &s->cs, &s->ds, &s->es, &s->ss };
	const struct kvm_segment *wide[] = { &s->fs, &s->gs, &s->tr, &s->ldt };
	bool lma = s->efer & BIT(EFER_LMA);

	for (size_t i = 0; i < ARRAY_LEN(flat); i++) {
		if (!segment_ok(flat[i], false, bits) ||
		    !segment_ok(wide[i], true, bits))
			return "segment";
	}
	if (s->cs.l && (!lma || s->cs.db))
		return "cs: 64 bit";
	if (!is_canonical(s->gdt.base, bits) ||
	    !is_canonical(s->idt.base, bits))
		return "descriptor table";
	return NULL;
}

static const char *check_regs(const struct x86_vcpu *v, unsigned int bits)
{
	uint64_t flags = v->regs.rflags;

	if ((flags & ~RFLAGS_KNOWN) || !(flags & BIT(RFLAGS_FIXED)) ||
	    ((flags & BIT(RFLAGS_VM)) && (v->sregs.efer & BIT(EFER_LMA))))
		return "rflags";
	if (v->sregs.cs.l && !is_canonical(v->regs.rip, bits))
		return "rip";
	if (v->debugregs.dr6 >> 32 != 0 || v->debugregs.dr7 >> 32 != 0)
		return "debug registers";
	return NULL;
}

/* --- extended state -------------------------------------------------------- */

/* Of the XSAVE area (SDM volume 1, 13.4). */
enum {
	XSAVE_MXCSR = 24,
	XSAVE_HEADER = 512,
	XSAVE_HEADER_BYTES = 64,
};

#define MXCSR_KNOWN 0xffffu
#define XCR0_AVX512 0xe0ull

static uint64_t xcr0_allowed(const struct kvm_cpuid_table *cpuid)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, 0xd, 0);
	uint64_t basic = BIT(XCR0_FP) | BIT(XCR0_SSE);

	return e == NULL ? basic : basic | e->eax | (uint64_t)e->edx << 32;
}

static const char *check_xcrs(const struct kvm_xcrs *x, uint64_t allowed)
{
	uint64_t v = x->xcrs[0].value;
	uint64_t avx512 = v & XCR0_AVX512;

	if (x->nr_xcrs == 0)
		return NULL; /* a processor without XSAVE */
	if ((v & ~allowed) || !(v & BIT(XCR0_FP)) ||
	    ((v & BIT(XCR0_AVX)) && !(v & BIT(XCR0_SSE))))
		return "xcr0";
	if (avx512 != 0 && (avx512 != XCR0_AVX512 || !(v & BIT(XCR0_AVX))))
		return "xcr0";
	return NULL;
}

static const char *check_xsave(const uint8_t *area, uint64_t allowed)
{
	if (load_le64(area + XSAVE_HEADER) & ~allowed)
		return "xsave: features";
	/* not compacted, and nothing that is reserved */
	for (size_t i = sizeof(uint64_t); i < XSAVE_HEADER_BYTES; i++) {
		if (area[XSAVE_HEADER + i] != 0)
			return "xsave: header";
	}
	if (load_le32(area + XSAVE_MXCSR) & ~MXCSR_KNOWN)
		return "xsave: mxcsr";
	return NULL;
}

/* --- local APIC ------------------------------------------------------------ */

/* Offsets of registers, and the bits that KVM lets a guest write. */
static const struct {
	uint32_t offset;
	uint32_t bits;
} lapic_registers[] = {
	{ 0x080, 0xff },    /* task priority */
	{ 0x0f0, 0x13ff },  /* spurious vector */
	{ 0x320, 0x710ff }, /* timer */
	{ 0x3e0, 0xb },     /* timer's divider */
};

#define LAPIC_ID 0x20

#define APIC_BASE 0xfee00000ull
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLE BIT(11)

static uint32_t lapic_read(const struct kvm_lapic_state *l, uint32_t offset)
{
	return load_le32(&l->regs[offset]);
}

static const char *check_lapic(const struct x86_vcpu *v, uint32_t id)
{
	uint64_t base = v->sregs.apic_base;
	uint64_t mode = base & (APIC_BASE_X2APIC | APIC_BASE_ENABLE);

	if ((base & ~(APIC_BASE_BSP | mode)) != APIC_BASE ||
	    mode == APIC_BASE_X2APIC || !(base & APIC_BASE_BSP) != (id != 0))
		return "apic base";
	if (lapic_read(&v->lapic, LAPIC_ID) != id << 24)
		return "lapic: id";
	for (size_t i = 0; i < ARRAY_LEN(lapic_registers); i++) {
		if (lapic_read(&v->lapic, lapic_registers[i].offset) &
		    ~lapic_registers[i].bits)
			return "lapic: reserved bits";
	}
	return NULL;
}

/* --- MSRs ------------------------------------------------------------------ */

enum {
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF_TYPE = 0x2ff,
};

#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_KERNEL_GS_BASE 0xc0000102u

#define MTRR_DEF_TYPE_BITS 0xcffull

/* Types 2 and 3 are reserved, and what is above 7. */
static bool pat_ok(uint64_t v)
{
	for (unsigned int i = 0; i < 64; i += 8) {
		uint64_t type = v >> i & 0xff;
		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

static bool msr_ok(const struct x86_msr *m, unsigned int bits)
{
	switch (m->index) {
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
		return is_canonical(m->value, bits);
	case MSR_PAT:
		return pat_ok(m->value);
	case MSR_MTRR_DEF_TYPE:
		return (m->value & ~MTRR_DEF_TYPE_BITS) == 0;
	default:
		return true;
	}
}

static const char *check_msrs(const struct x86_vcpu *v, unsigned int bits)
{
	for (uint32_t i = 0; i < v->msr_count; i++) {
		const struct x86_msr *m = &v->msrs[i];
		if (i > 0 && m->index <= v->msrs[i - 1].index)
			return "msrs: order";
		if (!x86_knows_msr(m->index))
			return "msr not here";
		if (!msr_ok(m, bits))
			return "msr: value";
	}
	return NULL;
}

/* --- the rest -------------------------------------------------------------- */

static const char *check_mp_state(uint32_t state, uint32_t id)
{
	switch (state) {
	case KVM_MP_STATE_RUNNABLE:
	case KVM_MP_STATE_HALTED:
		return NULL;
	case KVM_MP_STATE_UNINITIALIZED: /* waits for INIT and SIPI */
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_SIPI_RECEIVED:
		return id != 0 ? NULL : "mp state";
	default:
		return "mp state";
	}
}

#define VECTOR_NMI 2
#define VECTOR_EXCEPTION_MAX 31

static const char *check_events(const struct kvm_vcpu_events *e)
{
	if ((e->exception.injected || e->exception.pending) &&
	    (e->exception.nr > VECTOR_EXCEPTION_MAX ||
	     e->exception.nr == VECTOR_NMI))
		return "events: exception";
	if (e->interrupt.shadow > 3)
		return "events: shadow";
	/* No firmware of ours uses system management mode; its saved state
	 * would need checks of its own. */
	if (e->smi.smm || e->smi.pending || e->smi.smm_inside_nmi ||
	    e->smi.latched_init)
		return "events: smm";
	return NULL;
}

const char *check_vcpu(const struct x86_vcpu *v, uint32_t id,
		       const struct kvm_cpuid_table *cpuid)
{
	unsigned int bits = linear_bits(cpuid);
	uint64_t xcr0 = xcr0_allowed(cpuid);
	const char *what = check_mp_state(v->mp_state.mp_state, id);

	if (what == NULL)
		what = check_cr0(&v->sregs);
	if (what == NULL)
		what = check_mode(&v->sregs, cpuid);
	if (what == NULL)
		what = check_segments(&v->sregs, bits);
	if (what == NULL)
		what = check_regs(v, bits);
	if (what == NULL)
		what = check_xcrs(&v->xcrs, xcr0);
	if (what == NULL)
		what = check_xsave(v->xsave, xcr0);
	if (what == NULL)
		what = check_lapic(v, id);
	if (what == NULL)
		what = check_msrs(v, bits);
	return what != NULL ? what : check_events(&v->events);
}

/* Which lines of each chip may be level-triggered. */
#define PIC_FIRST_ELCR 0xf8u
#define PIC_SECOND_ELCR 0xdeu

const char *check_pic(const struct kvm_pic_state *p, bool second)
{
	uint8_t elcr = second ? PIC_SECOND_ELCR : PIC_FIRST_ELCR;

	if (p->priority_add > 7 || p->init_state > 3 || p->elcr_mask != elcr ||
	    (p->elcr & ~elcr) || p->read_reg_select > 1 || p->poll > 1 ||
	    p->special_mask > 1 || p->auto_eoi > 1 ||
	    p->rotate_on_auto_eoi > 1 || p->special_fully_nested_mode > 1 ||
	    p->init4 > 1)
		return "pic";
	return NULL;
}

#define IOAPIC_BASE 0xfec00000ull

const char *check_ioapic(const struct kvm_ioapic_state *ioapic)
{
	if (ioapic->base_address != IOAPIC_BASE || ioapic->ioregsel > 0xff ||
	    ioapic->id > 0xf || ioapic->irr >> KVM_IOAPIC_NUM_PINS != 0)
		return "ioapic";
	return NULL;
}
