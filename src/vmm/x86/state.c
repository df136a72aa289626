/* state.c - what KVM holds of a machine: vCPUs, interrupt controllers, clock.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Time: the guest's clock (kvm-clock) and its TSC go on from what was saved,
 * as if nothing had been in between; the agent then sets the wall clock. The
 * TSC is set as an offset to the host's, one for each vCPU. To write the MSR
 * instead would not do: KVM takes a write that is within a second of what it
 * expects for an attempt to synchronize the vCPUs, and keeps its own value.
 *
 * The APIC timer in TSC-deadline mode: KVM clears the deadline when it turns
 * it into an interrupt. So the MSRs are read before the APIC, where that
 * interrupt then is. Should a deadline still be 0 while the timer is on, the
 * interrupt may have been lost, and with it the guest's only timer: the copy
 * gets one at once, which a kernel takes for a spurious one at worst.
 *
 * An ioctl on a vCPU loads that vCPU onto the processor: 0.5 to 6 us for each.
 * So none is made for what is known: the TSC's rate is asked for once, the
 * host's TSC is read by ourselves, and what a new vCPU holds is not set again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "check.h"
#include "cpuid.h"
#include "num.h"
#include "state.h"

enum {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_TSC_DEADLINE = 0x6e0,
};

#define MSR_EFER 0xc0000080u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u

/* Kept by KVM, but older kernels do not list them: memory types, and to be
 * sure the deadline. */
static const struct {
	uint32_t first;
	uint32_t count;
} unlisted[] = {
	{ 0x200, 16 }, /* ranges */
	{ 0x250, 1 },  /* fixed ones */
	{ 0x258, 2 },
	{ 0x268, 8 },
	{ 0x2ff, 1 }, /* default */
	{ MSR_TSC_DEADLINE, 1 },
};

/* These pass in other ways: with kvm_sregs, or as x86_vcpu.tsc. */
static const uint32_t elsewhere[] = { MSR_TSC, MSR_APIC_BASE, MSR_EFER,
				      MSR_FS_BASE, MSR_GS_BASE };

/* All that the host lists, ascending; set by x86_init(). */
static struct kvm_msr_index_table known;

/* The TSC, then those of them that can be read: KVM tells which when it meets
 * one that cannot. The values are scratch. */
static struct kvm_msr_table readable;

/* The CPUID table of a file that this machine's vCPUs were given in place of
 * the host's. */
static struct kvm_cpuid_table given;

/* What of kvm_vcpu_events counts when it is set: all that it can hold without
 * a capability that somebody would have to turn on. */
#define EVENTS_FLAGS                                                    \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | \
	 KVM_VCPUEVENT_VALID_SMM)

static bool scaling;  /* the host can give a guest another TSC rate */
static bool scaled;   /* and has done so here */
static uint32_t rate; /* of the guest's TSC, in kHz; 0: not asked yet */

/* --- the list of MSRs ------------------------------------------------------ */

static int compare_indexes(const void *a, const void *b)
{
	uint32_t x = load_le32(a);
	uint32_t y = load_le32(b);

	return x < y ? -1 : x > y;
}

bool x86_knows_msr(uint32_t index)
{
	return bsearch(&index, known.indices, known.nmsrs, sizeof(index),
		       compare_indexes) != NULL;
}

static bool is_elsewhere(uint32_t index)
{
	for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++) {
		if (elsewhere[i] == index)
			return true;
	}
	return false;
}

/* Sorts, and drops what is there twice or passes in another way. */
static void tidy_known(void)
{
	uint32_t n = 0;

	qsort(known.indices, known.nmsrs, sizeof(known.indices[0]),
	      compare_indexes);
	for (uint32_t i = 0; i < known.nmsrs; i++) {
		uint32_t index = known.indices[i];
		if (is_elsewhere(index) ||
		    (n > 0 && known.indices[n - 1] == index))
			continue;
		known.indices[n++] = index;
	}
	known.nmsrs = n;
}

int x86_init(int kvm_fd)
{
	int r = kvm_check(kvm_fd, KVM_CAP_XSAVE2);

	if (r > (int)KVM_XSAVE_BYTES)
		return -ENOTSUP;
	scaling = kvm_check(kvm_fd, KVM_CAP_TSC_CONTROL) > 0;
	scaled = false;
	rate = 0;
	r = kvm_msr_indexes(kvm_fd, &known);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(unlisted); i++) {
		for (uint32_t j = 0; j < unlisted[i].count; j++) {
			if (known.nmsrs == KVM_MSR_INDEXES_MAX)
				return -E2BIG;
			known.indices[known.nmsrs++] = unlisted[i].first + j;
		}
	}
	tidy_known();
	if (known.nmsrs >= KVM_MSRS_MAX)
		return -E2BIG;
	readable.nmsrs = 1 + known.nmsrs;
	readable.entries[0].index = MSR_TSC;
	for (uint32_t i = 0; i < known.nmsrs; i++)
		readable.entries[1 + i].index = known.indices[i];
	return 0;
}

/* --- reading --------------------------------------------------------------- */

static void drop_readable(uint32_t at)
{
	readable.nmsrs--;
	memmove(&readable.entries[at], &readable.entries[at + 1],
		(readable.nmsrs - at) * sizeof(readable.entries[0]));
}

static int get_msrs(struct x86_vcpu *v, int fd)
{
	int r = kvm_get_msrs(fd, &readable);

	/* Once in the life of the process: later calls find them all. */
	while (r > 0 && (uint32_t)r < readable.nmsrs) {
		drop_readable((uint32_t)r);
		r = kvm_get_msrs(fd, &readable);
	}
	if (r <= 0)
		return r < 0 ? r : -ENOTSUP;
	v->tsc = readable.entries[0].data;
	v->msr_count = readable.nmsrs - 1;
	for (uint32_t i = 0; i < v->msr_count; i++)
		v->msrs[i] = (struct x86_msr){
			.index = readable.entries[1 + i].index,
			.value = readable.entries[1 + i].data,
		};
	return 0;
}

#define LAPIC_LVT_TIMER 0x320
#define LVT_MASKED (1u << 16)
#define LVT_TIMER_MODE (3u << 17)
#define LVT_TIMER_DEADLINE (2u << 17)

/* The guest's only timer must not die: see above. */
static void keep_timer(struct x86_vcpu *v)
{
	uint32_t lvt = load_le32(&v->lapic.regs[LAPIC_LVT_TIMER]);

	if ((lvt & LVT_MASKED) || (lvt & LVT_TIMER_MODE) != LVT_TIMER_DEADLINE)
		return;
	for (uint32_t i = 0; i < v->msr_count; i++) {
		struct x86_msr *m = &v->msrs[i];
		if (m->index == MSR_TSC_DEADLINE && m->value == 0)
			m->value = v->tsc;
	}
}

static int get_vcpu(struct x86_vcpu *v, int fd)
{
	int r = kvm_get_mp_state(fd, &v->mp_state);

	if (r == 0)
		r = kvm_get_regs(fd, &v->regs);
	if (r == 0)
		r = kvm_get_sregs(fd, &v->sregs);
	if (r == 0)
		r = kvm_get_xsave(fd, v->xsave);
	if (r == 0)
		r = kvm_get_xcrs(fd, &v->xcrs);
	if (r == 0)
		r = kvm_get_debugregs(fd, &v->debugregs);
	if (r == 0)
		r = get_msrs(v, fd);
	if (r == 0)
		r = kvm_get_lapic(fd, &v->lapic);
	if (r == 0)
		r = kvm_get_events(fd, &v->events);
	if (r < 0)
		return r;
	v->events.flags = EVENTS_FLAGS;
	keep_timer(v);
	return 0;
}

/* Each vCPU's TSC was read at another time: makes it one time. */
static int align_tscs(struct x86_machine *x, const int *vcpu_fds)
{
	uint64_t first = 0;
	int r = x->vcpus > 1 ? kvm_get_tsc_offset(vcpu_fds[0], &first) : 0;

	for (uint32_t i = 1; i < x->vcpus && r == 0; i++) {
		uint64_t offset;
		r = kvm_get_tsc_offset(vcpu_fds[i], &offset);
		if (r == 0)
			x->vcpu[i].tsc = x->vcpu[0].tsc + (offset - first);
	}
	return r;
}

static int get_chip(struct kvm_irqchip *chip, int vm_fd, uint32_t id)
{
	chip->chip_id = id;
	return kvm_get_irqchip(vm_fd, chip);
}

static int get_chips(struct x86_machine *x, int vm_fd)
{
	int r = get_chip(&x->pic[0], vm_fd, KVM_IRQCHIP_PIC_MASTER);

	if (r == 0)
		r = get_chip(&x->pic[1], vm_fd, KVM_IRQCHIP_PIC_SLAVE);
	if (r == 0)
		r = get_chip(&x->ioapic, vm_fd, KVM_IRQCHIP_IOAPIC);
	return r;
}

static int get_rate(int vcpu_fd)
{
	int khz = rate == 0 ? kvm_get_tsc_khz(vcpu_fd) : 0;

	if (khz > 0)
		rate = (uint32_t)khz;
	return khz < 0 ? khz : 0;
}

int x86_get(struct x86_machine *x, int vm_fd, const int *vcpu_fds,
	    uint32_t vcpus)
{
	int r = get_rate(vcpu_fds[0]);

	x->vcpus = vcpus;
	x->tsc_khz = rate;
	for (uint32_t i = 0; i < vcpus && r == 0; i++)
		r = get_vcpu(&x->vcpu[i], vcpu_fds[i]);
	if (r == 0)
		r = align_tscs(x, vcpu_fds);
	if (r == 0)
		r = get_chips(x, vm_fd);
	if (r == 0)
		r = kvm_get_clock(vm_fd, &x->clock);
	x->own_cpuid = given.nent > 0;
	if (x->own_cpuid)
		x->cpuid = given;
	return r;
}

/* --- writing --------------------------------------------------------------- */

/* KVM refuses to change what a vCPU has run with. */
static int set_cpuids(const struct x86_machine *x, const int *vcpu_fds)
{
	static struct kvm_cpuid_table table;
	int r = 0;

	if (!x->own_cpuid)
		return given.nent == 0 ? 0 : -EINVAL;
	given = x->cpuid;
	for (uint32_t i = 0; i < x->vcpus && r == 0; i++) {
		table = x->cpuid;
		cpuid_make(&table, i, x->vcpus);
		r = kvm_set_cpuid(vcpu_fds[i], &table);
	}
	return r;
}

/* A guest does not notice 250 ppm: NTP corrects as much. */
#define TSC_TOLERANCE 4000u

static int set_tsc_rate(const struct x86_machine *x, const int *vcpu_fds)
{
	int r = get_rate(vcpu_fds[0]);

	if (r < 0)
		return r;
	uint32_t off =
		rate > x->tsc_khz ? rate - x->tsc_khz : x->tsc_khz - rate;
	if (off <= rate / TSC_TOLERANCE)
		return 0;
	if (!scaling)
		return -ENOTSUP;
	for (uint32_t i = 0; i < x->vcpus && r == 0; i++)
		r = kvm_set_tsc_khz(vcpu_fds[i], x->tsc_khz);
	scaled = true;
	rate = x->tsc_khz;
	return r;
}

/* What a vCPU's TSC is, now, were its offset 0. Only KVM knows how it scales
 * the host's. */
static int tsc_without_offset(int vcpu_fd, uint64_t *ret)
{
	struct kvm_msr_table now = { .nmsrs = 1 };
	uint64_t offset;

	*ret = __rdtsc();
	if (!scaled)
		return 0;
	now.entries[0].index = MSR_TSC;
	int r = kvm_get_tsc_offset(vcpu_fd, &offset);
	if (r == 0)
		r = kvm_get_msrs(vcpu_fd, &now);
	if (r != 1)
		return r < 0 ? r : -ENOTSUP;
	*ret = now.entries[0].data - offset;
	return 0;
}

/* The offset that makes vCPU 0's TSC what was saved, now; the other vCPUs get
 * theirs from it, so that they keep step. */
static int set_tscs(const struct x86_machine *x, const int *vcpu_fds)
{
	uint64_t now;
	int r = tsc_without_offset(vcpu_fds[0], &now);

	for (uint32_t i = 0; i < x->vcpus && r == 0; i++)
		r = kvm_set_tsc_offset(vcpu_fds[i], x->vcpu[i].tsc - now);
	return r;
}

/* KVM did not take this one. That is no harm where it has that value already,
 * or where it does not have the MSR and the guest had not used it. */
static bool msr_is_set(int fd, const struct kvm_msr_entry *e)
{
	struct kvm_msr_table one = { .nmsrs = 1 };

	one.entries[0].index = e->index;
	if (kvm_get_msrs(fd, &one) != 1)
		return e->data == 0;
	return one.entries[0].data == e->data;
}

/* Those that `have` does not have already. Both are ascending. */
static void list_msrs(const struct x86_vcpu *v, const struct x86_vcpu *have,
		      struct kvm_msr_table *ret)
{
	uint32_t at = 0;

	ret->nmsrs = 0;
	for (uint32_t i = 0; i < v->msr_count; i++) {
		const struct x86_msr *m = &v->msrs[i];
		while (have != NULL && at < have->msr_count &&
		       have->msrs[at].index < m->index)
			at++;
		if (have != NULL && at < have->msr_count &&
		    have->msrs[at].index == m->index &&
		    have->msrs[at].value == m->value)
			continue;
		ret->entries[ret->nmsrs++] = (struct kvm_msr_entry){
			.index = m->index,
			.data = m->value,
		};
	}
}

static int set_msrs(const struct x86_vcpu *v, const struct x86_vcpu *have,
		    int fd)
{
	static struct kvm_msr_table table;

	list_msrs(v, have, &table);
	while (table.nmsrs > 0) {
		int r = kvm_set_msrs(fd, &table);
		if (r < 0)
			return r;
		uint32_t done = (uint32_t)r;
		if (done >= table.nmsrs)
			return 0;
		if (!msr_is_set(fd, &table.entries[done]))
			return -EINVAL;
		table.nmsrs -= done + 1;
		memmove(table.entries, &table.entries[done + 1],
			table.nmsrs * sizeof(table.entries[0]));
	}
	return 0;
}

/* Whether this part is to be set: a vCPU whose state is not known gets all. */
#define DIFFERS(member)  \
	(have == NULL || \
	 memcmp(&v->member, &have->member, sizeof(v->member)) != 0)

static int set_vcpu(const struct x86_vcpu *v, const struct x86_vcpu *have,
		    int fd)
{
	int r = 0;

	if (DIFFERS(mp_state))
		r = kvm_set_mp_state(fd, &v->mp_state);
	if (r == 0 && DIFFERS(regs))
		r = kvm_set_regs(fd, &v->regs);
	if (r == 0 && DIFFERS(sregs))
		r = kvm_set_sregs(fd, &v->sregs);
	if (r == 0 && DIFFERS(xsave))
		r = kvm_set_xsave(fd, v->xsave);
	if (r == 0 && v->xcrs.nr_xcrs > 0 && DIFFERS(xcrs))
		r = kvm_set_xcrs(fd, &v->xcrs);
	if (r == 0 && DIFFERS(debugregs))
		r = kvm_set_debugregs(fd, &v->debugregs);
	/* The APIC knows its timer's mode before the deadline comes. Another
	 * mode of the APIC itself may have changed its registers. */
	if (r == 0 && (DIFFERS(lapic) || DIFFERS(sregs.apic_base)))
		r = kvm_set_lapic(fd, &v->lapic);
	if (r == 0)
		r = set_msrs(v, have, fd);
	if (r == 0 && DIFFERS(events))
		r = kvm_set_events(fd, &v->events);
	return r;
}

static int set_chip(int vm_fd, const struct kvm_irqchip *chip,
		    const struct kvm_irqchip *have)
{
	if (have != NULL &&
	    memcmp(&chip->chip, &have->chip, sizeof(chip->chip)) == 0)
		return 0;
	return kvm_set_irqchip(vm_fd, chip);
}

static int set_chips(const struct x86_machine *x,
		     const struct x86_machine *have, int vm_fd)
{
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++)
		r = set_chip(vm_fd, &x->pic[i],
			     have != NULL ? &have->pic[i] : NULL);
	/* Last: it passes on what it holds to the local ones. */
	if (r == 0)
		r = set_chip(vm_fd, &x->ioapic,
			     have != NULL ? &have->ioapic : NULL);
	return r;
}

int x86_set(const struct x86_machine *x, const struct x86_machine *have,
	    int vm_fd, const int *vcpu_fds, uint32_t vcpus)
{
	ASSERT(x->vcpus == vcpus && (have == NULL || have->vcpus == vcpus));
	int r = set_tsc_rate(x, vcpu_fds);

	if (x->own_cpuid)
		have = NULL; /* another CPUID may change what is there */
	if (r == 0)
		r = set_cpuids(x, vcpu_fds);
	/* Before the MSRs: one of them makes KVM write the time of boot, which
	 * it reckons from the clock, into the guest's memory. */
	if (r == 0)
		r = kvm_set_clock(vm_fd, &x->clock);
	if (r == 0)
		r = set_tscs(x, vcpu_fds);
	for (uint32_t i = 0; i < vcpus && r == 0; i++)
		r = set_vcpu(&x->vcpu[i], have != NULL ? &have->vcpu[i] : NULL,
			     vcpu_fds[i]);
	return r < 0 ? r : set_chips(x, have, vm_fd);
}

/* --- the file -------------------------------------------------------------- */

/* A number in a struct of KVM. */
struct field {
	const char *name;
	size_t offset;
	size_t bytes;
};

#define FIELD(type, member)                            \
	{                                              \
#member, offsetof(type, member),       \
			sizeof(((type *)NULL)->member) \
	}

#define FIELD_AS(type, member, as)                                         \
	{                                                                  \
		as, offsetof(type, member), sizeof(((type *)NULL)->member) \
	}

#define R(member) FIELD(struct kvm_regs, member)
#define G(member) FIELD(struct kvm_segment, member)
#define C(member) FIELD(struct kvm_sregs, member)
#define E(member) FIELD(struct kvm_vcpu_events, member)
#define P(member) FIELD(struct kvm_pic_state, member)
#define A(member) FIELD(struct kvm_ioapic_state, member)

static const struct field regs_fields[] = {
	R(rax), R(rbx), R(rcx), R(rdx), R(rsi), R(rdi),
	R(rsp), R(rbp), R(r8),  R(r9),  R(r10), R(r11),
	R(r12), R(r13), R(r14), R(r15), R(rip), R(rflags),
};

static const struct field segment_fields[] = {
	G(base), G(limit), G(selector), G(type), G(present), G(dpl),
	G(db),   G(s),     G(l),        G(g),    G(avl),     G(unusable),
};

static const struct field sregs_fields[] = {
	C(gdt.base), C(gdt.limit), C(idt.base),  C(idt.limit),
	C(cr0),      C(cr2),       C(cr3),       C(cr4),
	C(cr8),      C(efer),      C(apic_base),
};

static const struct field events_fields[] = {
	E(exception.injected),
	E(exception.nr),
	E(exception.has_error_code),
	E(exception.pending),
	E(exception.error_code),
	E(interrupt.injected),
	E(interrupt.nr),
	E(interrupt.soft),
	E(interrupt.shadow),
	E(nmi.injected),
	E(nmi.pending),
	E(nmi.masked),
	E(smi.smm),
	E(smi.pending),
	E(smi.smm_inside_nmi),
	E(smi.latched_init),
};

static const struct field debugregs_fields[] = {
	FIELD_AS(struct kvm_debugregs, db[0], "dr0"),
	FIELD_AS(struct kvm_debugregs, db[1], "dr1"),
	FIELD_AS(struct kvm_debugregs, db[2], "dr2"),
	FIELD_AS(struct kvm_debugregs, db[3], "dr3"),
	FIELD(struct kvm_debugregs, dr6),
	FIELD(struct kvm_debugregs, dr7),
};

static const struct field pic_fields[] = {
	P(last_irr),
	P(irr),
	P(imr),
	P(isr),
	P(priority_add),
	P(irq_base),
	P(read_reg_select),
	P(poll),
	P(special_mask),
	P(init_state),
	P(auto_eoi),
	P(rotate_on_auto_eoi),
	P(special_fully_nested_mode),
	P(init4),
	P(elcr),
	P(elcr_mask),
};

static const struct field ioapic_fields[] = {
	A(base_address),
	A(ioregsel),
	A(id),
	A(irr),
};

/* `what` is NULL when there is nothing wrong. */
static void refuse(struct state_stream *s, const char *what)
{
	if (what != NULL)
		state_fail(s, what);
}

static void one_field(struct state_stream *s, const struct field *f, void *p)
{
	switch (f->bytes) {
	case 1:
		state_u8(s, f->name, p, 0, UINT8_MAX);
		break;
	case 2:
		state_u16(s, f->name, p, 0, UINT16_MAX);
		break;
	case 4:
		state_u32(s, f->name, p, 0, UINT32_MAX);
		break;
	default:
		state_u64(s, f->name, p, 0, UINT64_MAX);
		break;
	}
}

static void fields(struct state_stream *s, const struct field *f, size_t n,
		   void *object)
{
	for (size_t i = 0; i < n; i++)
		one_field(s, &f[i], (uint8_t *)object + f[i].offset);
}

#define FIELDS(s, table, object) fields(s, table, ARRAY_LEN(table), object)

static void segments(struct state_stream *s, struct kvm_sregs *r)
{
	const struct {
		const char *name;
		struct kvm_segment *segment;
	} all[] = {
		{ "cs", &r->cs }, { "ds", &r->ds },   { "es", &r->es },
		{ "fs", &r->fs }, { "gs", &r->gs },   { "ss", &r->ss },
		{ "tr", &r->tr }, { "ldt", &r->ldt },
	};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		state_begin(s, all[i].name, 1);
		FIELDS(s, segment_fields, all[i].segment);
		state_end(s);
	}
}

static void xcrs(struct state_stream *s, struct kvm_xcrs *x)
{
	/* There is one such register, 0. */
	state_u32(s, "xcrs", &x->nr_xcrs, 0, 1);
	state_u64(s, "xcr0", (void *)&x->xcrs[0].value, 0, UINT64_MAX);
}

static void msrs(struct state_stream *s, struct x86_vcpu *v)
{
	state_u64(s, "tsc", &v->tsc, 0, UINT64_MAX);
	state_u32(s, "msrs", &v->msr_count, 0, X86_MSRS_MAX);
	for (uint32_t i = 0; i < v->msr_count && state_ok(s); i++) {
		state_u32(s, "index", &v->msrs[i].index, 0, UINT32_MAX);
		state_u64(s, "value", &v->msrs[i].value, 0, UINT64_MAX);
	}
}

static void vcpu(struct state_stream *s, struct x86_machine *x, uint32_t id)
{
	struct x86_vcpu *v = &x->vcpu[id];

	state_begin(s, "vcpu", 1);
	state_u32(s, "mp_state", &v->mp_state.mp_state, 0, UINT32_MAX);
	FIELDS(s, regs_fields, &v->regs);
	FIELDS(s, sregs_fields, &v->sregs);
	state_bytes(s, "interrupt_bitmap", v->sregs.interrupt_bitmap,
		    sizeof(v->sregs.interrupt_bitmap));
	segments(s, &v->sregs);
	FIELDS(s, debugregs_fields, &v->debugregs);
	xcrs(s, &v->xcrs);
	state_bytes(s, "xsave", v->xsave, sizeof(v->xsave));
	state_bytes(s, "lapic", v->lapic.regs, sizeof(v->lapic.regs));
	FIELDS(s, events_fields, &v->events);
	msrs(s, v);
	state_end(s);
	refuse(s, check_vcpu(v, id, &x->cpuid));
}

static void chips(struct state_stream *s, struct x86_machine *x)
{
	struct kvm_ioapic_state *ioapic = &x->ioapic.chip.ioapic;

	for (uint32_t i = 0; i < 2; i++) {
		state_begin(s, "pic", 1);
		x->pic[i].chip_id = i;
		FIELDS(s, pic_fields, &x->pic[i].chip.pic);
		state_end(s);
		refuse(s, check_pic(&x->pic[i].chip.pic, i == 1));
	}
	state_begin(s, "ioapic", 1);
	x->ioapic.chip_id = KVM_IRQCHIP_IOAPIC;
	FIELDS(s, ioapic_fields, ioapic);
	for (uint32_t i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		state_u64(s, "redirection", (void *)&ioapic->redirtbl[i].bits,
			  0, UINT64_MAX);
	state_end(s);
	refuse(s, check_ioapic(ioapic));
}

static void clear(struct x86_machine *x, uint32_t vcpus)
{
	memset(x, 0, offsetof(struct x86_machine, vcpu));
	memset(x->vcpu, 0, vcpus * sizeof(x->vcpu[0]));
	for (uint32_t i = 0; i < vcpus; i++)
		x->vcpu[i].events.flags = EVENTS_FLAGS;
}

void x86_state(struct state_stream *s, struct x86_machine *x, uint32_t vcpus,
	       const struct kvm_cpuid_table *host)
{
	ASSERT(vcpus >= 1 && vcpus <= BRIG_VCPUS_MAX);
	if (s->loading)
		clear(x, vcpus); /* what the file does not have is 0 */
	else if (!x->own_cpuid)
		x->cpuid = *host;
	state_begin(s, "x86", 1);
	state_u32(s, "vcpus", &x->vcpus, vcpus, vcpus);
	state_u32(s, "tsc_khz", &x->tsc_khz, 1, UINT32_MAX);
	state_u64(s, "clock", (void *)&x->clock.clock, 0, UINT64_MAX);
	state_u32(s, "cpuid", &x->cpuid.nent, 1, KVM_CPUID_MAX);
	state_bytes(s, "entries", x->cpuid.entries,
		    x->cpuid.nent * sizeof(x->cpuid.entries[0]));
	refuse(s, cpuid_check(&x->cpuid, host));
	x->own_cpuid = x->own_cpuid || !cpuid_equal(&x->cpuid, host);
	chips(s, x);
	for (uint32_t i = 0; i < vcpus; i++)
		vcpu(s, x, i);
	state_end(s);
}
