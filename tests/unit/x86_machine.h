/* x86_machine.h - a saved machine as a Linux guest leaves it, without KVM.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the unit test and the fuzz target of x86/state.c, so it aborts
 * instead of asserting. Link with -Wl,--wrap=ioctl: KVM is asked for its list
 * of MSRs and for capabilities, and for nothing else.
 */
#ifndef BRIG_TESTS_X86_MACHINE_H
#define BRIG_TESTS_X86_MACHINE_H

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "src/vmm/x86/cpuid.h"
#include "src/vmm/x86/state.h"

#define MACHINE_VCPUS 2u
#define MACHINE_FILE_MAX (64u << 10)

static const uint32_t machine_msrs[] = {
	0x10,       0x174,      0x175,      0x176, 0x277,
	0xc0000081, 0xc0000082, 0xc0000102, 0x6e0, 0xc0000080,
};

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	struct kvm_msr_list *list;
	va_list args;

	(void)fd;
	if (request == KVM_CHECK_EXTENSION)
		return 0;
	if (request != KVM_GET_MSR_INDEX_LIST)
		abort();
	va_start(args, request);
	list = va_arg(args, struct kvm_msr_list *);
	va_end(args);
	list->nmsrs = ARRAY_LEN(machine_msrs);
	memcpy(list->indices, machine_msrs, sizeof(machine_msrs));
	return 0;
}

static inline void machine_cpuid(struct kvm_cpuid_table *t)
{
	static const struct kvm_cpuid_entry2 entries[] = {
		{ .function = 0,
		  .eax = 0x16,
		  .ebx = 0x756e6547,
		  .ecx = 0x6c65746e,
		  .edx = 0x49656e69 },
		/* PCID, XSAVE, deadline timer, hypervisor; the usual EDX */
		{ .function = 1, .ecx = 0x85020001, .edx = 0x178bfbff },
		/* FSGSBASE, SMEP, SMAP; UMIP */
		{ .function = 7, .flags = 1, .ebx = 0x00100081, .ecx = 0x4 },
		/* FP, SSE, AVX */
		{ .function = 0xd,
		  .flags = 1,
		  .eax = 7,
		  .ebx = 832,
		  .ecx = 832 },
		{ .function = 0xd, .index = 1, .flags = 1, .eax = 1 },
		{ .function = 0x40000001, .eax = 0x01000003 },
		{ .function = 0x80000001, .ecx = 0x1, .edx = 0x28100800 },
		{ .function = 0x80000008, .eax = 0x3028 },
	};

	memset(t, 0, sizeof(*t));
	t->nent = ARRAY_LEN(entries);
	memcpy(t->entries, entries, sizeof(entries));
}

static inline void machine_lapic(struct x86_vcpu *v, uint32_t id)
{
	const uint32_t words[][2] = {
		{ 0x20, id << 24 }, { 0x30, 0x50014 },  { 0x80, 0x10 },
		{ 0xf0, 0x1ff },    { 0x320, 0x400ec }, { 0x350, 0x10700 },
		{ 0x360, 0x400 },   { 0x3e0, 0xb },
	};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		memcpy(&v->lapic.regs[words[i][0]], &words[i][1], 4);
}

static inline void machine_msr_values(struct x86_vcpu *v)
{
	const struct x86_msr all[] = {
		{ 0x174, 0x10 },
		{ 0x175, 0xfffffe0000002000 },
		{ 0x176, 0xffffffff81a01470 },
		{ 0x277, 0x407050600070106 },
		{ 0x2ff, 0xc06 },
		{ 0x6e0, 0x123456789 },
		{ 0xc0000081, 0x23001000000000 },
		{ 0xc0000082, 0xffffffff81a00010 },
		{ 0xc0000102, 0x7f1234567000 },
	};

	v->msr_count = ARRAY_LEN(all);
	memcpy(v->msrs, all, sizeof(all));
}

static inline void machine_long_mode(struct x86_vcpu *v)
{
	struct kvm_segment data = { .limit = UINT32_MAX,
				    .selector = 0x18,
				    .type = 3,
				    .present = 1,
				    .db = 1,
				    .s = 1,
				    .g = 1 };
	struct kvm_sregs *s = &v->sregs;

	s->ds = s->es = s->ss = s->fs = s->gs = data;
	s->cs = data;
	s->cs.type = 11;
	s->cs.db = 0;
	s->cs.l = 1;
	s->gs.base = 0xffff88803ec00000;
	s->tr = (struct kvm_segment){ .base = 0xfffffe0000003000,
				      .limit = 0x4087,
				      .selector = 0x40,
				      .type = 11,
				      .present = 1 };
	s->ldt.unusable = 1;
	s->gdt.base = 0xfffffe0000001000;
	s->gdt.limit = 0x7f;
	s->idt.base = 0xfffffe0000000000;
	s->idt.limit = 0xfff;
	s->cr0 = 0x80050033;
	s->cr3 = 0x100a000;
	s->cr4 = 0x3706b0; /* PCIDE among them */
	s->efer = 0xd01;
	v->regs.rip = 0xffffffff81a00000;
	v->regs.rflags = 0x246;
	v->xcrs.xcrs[0].value = 7;
	v->xsave[512] = 3;
}

static inline void machine_vcpu(struct x86_vcpu *v, uint32_t id)
{
	const uint32_t mxcsr = 0x1f80;

	v->regs.rflags = 2;
	v->sregs.cr0 = 0x60000010;
	v->sregs.apic_base = id == 0 ? 0xfee00900 : 0xfee00800;
	v->mp_state.mp_state =
		id == 0 ? KVM_MP_STATE_HALTED : KVM_MP_STATE_UNINITIALIZED;
	v->debugregs.dr6 = 0xffff0ff0;
	v->debugregs.dr7 = 0x400;
	v->xcrs.nr_xcrs = 1;
	v->xcrs.xcrs[0].value = 1;
	memcpy(&v->xsave[24], &mxcsr, sizeof(mxcsr));
	v->events.flags = 0xd;
	v->tsc = 0x1234567890;
	machine_lapic(v, id);
	machine_msr_values(v);
	if (id == 0)
		machine_long_mode(v);
}

/* After x86_init(). */
static inline void machine_make(struct x86_machine *x)
{
	memset(x, 0, sizeof(*x));
	x->vcpus = MACHINE_VCPUS;
	x->tsc_khz = 2400000;
	x->clock.clock = 12345678901;
	machine_cpuid(&x->cpuid);
	x->pic[1].chip_id = 1;
	x->ioapic.chip_id = 2;
	x->pic[0].chip.pic.elcr_mask = 0xf8;
	x->pic[1].chip.pic.elcr_mask = 0xde;
	x->ioapic.chip.ioapic.base_address = 0xfec00000;
	for (uint32_t i = 0; i < MACHINE_VCPUS; i++)
		machine_vcpu(&x->vcpu[i], i);
}

static inline int machine_save(struct x86_machine *x, uint8_t *file,
			       size_t *ret_bytes, struct state_stream *s)
{
	static struct kvm_cpuid_table host;

	machine_cpuid(&host);
	state_save(s, file, MACHINE_FILE_MAX);
	x86_state(s, x, MACHINE_VCPUS, &host);
	return state_finish(s, ret_bytes);
}

static inline int machine_load(struct x86_machine *x, const uint8_t *file,
			       size_t bytes, struct state_stream *s)
{
	static struct kvm_cpuid_table host;

	machine_cpuid(&host);
	state_load(s, file, bytes);
	x86_state(s, x, MACHINE_VCPUS, &host);
	return state_finish(s, NULL);
}

static inline uint32_t machine_crc(const uint8_t *p, size_t n)
{
	static uint32_t table[256];
	static bool made;
	uint32_t crc = UINT32_MAX;

	for (uint32_t b = 0; b < 256 && !made; b++) {
		uint32_t v = b;
		for (int bit = 0; bit < 8; bit++)
			v = v >> 1 ^ (v & 1 ? 0x82f63b78u : 0);
		table[b] = v;
	}
	made = true;
	for (size_t i = 0; i < n; i++)
		crc = crc >> 8 ^ table[(crc ^ p[i]) & 0xff];
	return ~crc;
}

/* Makes the header and the CRC-32C of a changed file right (stream.h). */
static inline void machine_sign(uint8_t *file, size_t bytes)
{
	const uint32_t words[2] = { STATE_FORMAT_VERSION, 0 };
	uint64_t size = bytes;

	if (bytes < 28)
		return;
	memcpy(file, "brigstat", 8);
	memcpy(file + 8, words, sizeof(words));
	memcpy(file + 16, &size, sizeof(size));
	uint32_t crc = machine_crc(file, bytes - 4);
	memcpy(file + bytes - 4, &crc, sizeof(crc));
}

#endif
