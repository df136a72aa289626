/* x86_state.c - what KVM holds of a machine, through a file; hostile files.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every file here has a correct checksum: what is refused is refused for what
 * it says (security.md C-15). No KVM is needed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "x86_machine.h"

static struct x86_machine good;
static uint8_t file[MACHINE_FILE_MAX];
static size_t file_bytes;

static int set_up(void **state)
{
	struct state_stream s;

	machine_make(&good);
	return machine_save(&good, file, &file_bytes, &s);
}

/* --- changing a file ------------------------------------------------------- */

/* The value of the `nth` field of that kind and name. */
static uint8_t *find(char kind, const char *name, unsigned int nth)
{
	size_t n = strlen(name);

	for (size_t i = 0; i + n + 2 < file_bytes; i++) {
		uint8_t *p = file + i;
		if (p[0] != (uint8_t)kind || p[1] != n ||
		    memcmp(p + 2, name, n) != 0)
			continue;
		if (nth-- == 0)
			return p + 2 + n + (kind == 'b' ? 4 : 0);
	}
	fail_msg("no field %s", name);
	return NULL;
}

static void refused_with(int error, const char *what)
{
	static struct x86_machine x;
	struct state_stream s;

	machine_sign(file, file_bytes);
	int r = machine_load(&x, file, file_bytes, &s);
	if (r != error || strstr(s.where, what) == NULL)
		fail_msg("%s: %d instead of %d (%s)", what, r, error, s.where);
}

/* --- what goes through ----------------------------------------------------- */

static void comes_back_as_it_was(void **state)
{
	static struct x86_machine x;
	static uint8_t again[MACHINE_FILE_MAX];
	struct state_stream s;
	size_t bytes;

	memset(&x, 0xa5, sizeof(x));
	assert_int_equal(machine_load(&x, file, file_bytes, &s), 0);
	assert_int_equal(x.vcpus, MACHINE_VCPUS);
	assert_false(x.own_cpuid);
	assert_int_equal(x.clock.flags, 0);
	assert_memory_equal(&x.cpuid, &good.cpuid, sizeof(x.cpuid));
	assert_memory_equal(x.pic, good.pic, sizeof(x.pic));
	assert_memory_equal(&x.ioapic, &good.ioapic, sizeof(x.ioapic));
	assert_memory_equal(x.vcpu, good.vcpu,
			    MACHINE_VCPUS * sizeof(x.vcpu[0]));
	assert_int_equal(machine_save(&x, again, &bytes, &s), 0);
	assert_int_equal(bytes, file_bytes);
	assert_memory_equal(again, file, bytes);
}

/* A guest of an older processor keeps the CPUID that it knows. */
static void keeps_a_smaller_cpuid(void **state)
{
	static struct x86_machine x;
	struct state_stream s;

	good.cpuid.entries[2].ebx &= ~1u; /* no FSGSBASE */
	good.vcpu[0].sregs.cr4 &= ~0x10000ull;
	good.own_cpuid = true;
	assert_int_equal(machine_save(&good, file, &file_bytes, &s), 0);
	assert_int_equal(machine_load(&x, file, file_bytes, &s), 0);
	assert_true(x.own_cpuid);
	assert_int_equal(x.cpuid.entries[2].ebx, good.cpuid.entries[2].ebx);
}

/* What a copy cannot do is said when it is saved. */
static void refuses_to_save(void **state)
{
	static uint8_t out[MACHINE_FILE_MAX];
	struct state_stream s;
	size_t bytes;

	good.vcpu[1].events.smi.smm = 1;
	assert_int_equal(machine_save(&good, out, &bytes, &s), -ERANGE);
	assert_non_null(strstr(s.where, "smm"));
}

/* --- hostile values -------------------------------------------------------- */

struct poke {
	char kind;
	const char *name;
	unsigned int nth;
	size_t offset;
	uint64_t value;
	size_t bytes;
	const char *what;
};

#define V(k, name, nth, value, what)                            \
	{                                                       \
		k, name, nth, 0, value, (size_t)(k - '0'), what \
	}
#define B(name, nth, offset, value, bytes, what)           \
	{                                                  \
		'b', name, nth, offset, value, bytes, what \
	}

/* Sections by number: cs ds es fs gs ss tr ldt of vCPU 0, then of vCPU 1. */
static const struct poke pokes[] = {
	V('4', "vcpus", 0, 1, "vcpus"),
	V('4', "vcpus", 0, 9, "vcpus"),
	V('4', "tsc_khz", 0, 0, "tsc_khz"),
	V('4', "cpuid", 0, 0, "cpuid"),
	V('4', "cpuid", 0, KVM_CPUID_MAX + 1, "cpuid"),
	/* entry 1 is leaf 1: function, index, flags, registers, padding */
	B("entries", 0, 4, 1, 4, "cpuid: entry"),
	B("entries", 0, 16, 1, 4, "vendor"),
	B("entries", 0, 40 + 4, 1, 4, "cpuid: entry"),
	B("entries", 0, 40 + 8, 2, 4, "cpuid: entry"),
	B("entries", 0, 40 + 28, 1, 4, "cpuid: entry"),
	B("entries", 0, 40 + 20, 0x85020021, 4, "feature"), /* VMX */
	B("entries", 0, 3 * 40 + 12, 0xe7, 4, "feature"),   /* AVX-512 */
	B("entries", 0, 5 * 40 + 12, 0x01000013, 4, "feature"),

	V('8', "cr0", 0, 0x80050032, "cr0"), /* PG without PE */
	V('8', "cr0", 0, 0xa0050033, "cr0"), /* NW without CD */
	V('8', "cr0", 0, 1ull << 32, "cr0"),
	V('8', "cr0", 0, 0x50033, "efer"), /* LMA without PG */
	V('8', "efer", 0, 0x1d01, "efer"), /* SVME */
	V('8', "efer", 0, 0x901, "efer"),  /* LME and PG without LMA */
	V('8', "efer", 0, 0xc01, "efer"),  /* LMA without LME */
	V('8', "efer", 1, 0x400, "efer"),
	V('8', "efer", 0, 1ull << 63, "efer"),
	V('8', "cr4", 0, 0x370690, "cr4"), /* long mode without PAE */
	V('8', "cr4", 0, 0x3726b0, "cr4"), /* VMXE */
	V('8', "cr4", 0, 0xb706b0, "cr4"), /* CET */
	V('8', "cr4", 0, 0x3716b0, "cr4"), /* LA57, which is not there */
	V('8', "cr4", 0, 0x7706b0, "cr4"), /* PKE, neither */
	V('8', "cr4", 1, 0x20000, "cr4"),  /* PCIDE outside long mode */
	V('8', "cr4", 0, 1ull << 40, "cr4"),
	V('8', "cr3", 0, 1ull << 40, "cr3"),
	V('8', "cr8", 0, 16, "cr8"),
	V('8', "apic_base", 0, 0xfee00800, "apic base"), /* not the BSP */
	V('8', "apic_base", 1, 0xfee00900, "apic base"),
	V('8', "apic_base", 0, 0xfee00500, "apic base"), /* x2APIC, off */
	V('8', "apic_base", 0, 0xfed00900, "apic base"),
	V('8', "apic_base", 0, 1ull << 52, "apic base"),

	V('1', "type", 0, 16, "segment"),
	V('1', "dpl", 2, 4, "segment"),
	V('1', "present", 7, 2, "segment"),
	V('1', "unusable", 9, 255, "segment"),
	V('8', "base", 0, 1ull << 32, "segment"),      /* cs */
	V('8', "base", 3, 1ull << 47, "segment"),      /* fs */
	V('8', "base", 6, 0x8000ull << 48, "segment"), /* tr */
	V('1', "l", 8, 1, "64 bit"), /* cs of vCPU 1, in real mode */
	V('1', "db", 0, 1, "64 bit"),
	V('8', "gdt.base", 0, 1ull << 47, "descriptor table"),
	V('8', "idt.base", 1, 1ull << 62, "descriptor table"),

	V('8', "rflags", 0, 0x244, "rflags"),
	V('8', "rflags", 0, 0x24e, "rflags"),
	V('8', "rflags", 0, 0x20246, "rflags"), /* VM86 in long mode */
	V('8', "rflags", 1, 1ull << 32 | 2, "rflags"),
	V('8', "rip", 0, 1ull << 47, "rip"),
	V('8', "dr6", 0, 1ull << 32, "debug"),
	V('8', "dr7", 1, 1ull << 63, "debug"),

	V('4', "xcrs", 0, 2, "xcrs"),
	V('8', "xcr0", 0, 6, "xcr0"),
	V('8', "xcr0", 0, 5, "xcr0"),
	V('8', "xcr0", 0, 0xe7, "xcr0"),
	V('8', "xcr0", 0, 1ull << 63 | 1, "xcr0"),
	B("xsave", 0, 512, 0xe7, 1, "xsave: features"),
	B("xsave", 0, 519, 0x80, 1, "xsave: features"),
	B("xsave", 1, 520, 1, 8, "xsave: header"), /* compacted */
	B("xsave", 0, 575, 1, 1, "xsave: header"),
	B("xsave", 0, 26, 1, 1, "mxcsr"),

	B("lapic", 0, 0x23, 1, 1, "lapic: id"),
	B("lapic", 1, 0x20, 1, 1, "lapic: id"),
	B("lapic", 0, 0x81, 1, 1, "lapic: reserved"),
	B("lapic", 0, 0xf2, 1, 1, "lapic: reserved"),
	B("lapic", 0, 0x323, 1, 1, "lapic: reserved"),
	B("lapic", 1, 0x3e0, 4, 1, "lapic: reserved"),

	V('4', "msrs", 0, X86_MSRS_MAX + 1, "msrs"),
	V('4', "msrs", 0, 100000, "msrs"),
	V('4', "msrs", 1, UINT32_MAX, "msrs"),
	V('4', "index", 0, 0x173, "msr not here"),
	V('4', "index", 1, 0x174, "msrs: order"),
	V('4', "index", 1, 0x10, "msrs: order"),
	V('4', "index", 8, 0xc0000103, "msr not here"),
	V('4', "index", 6, 0xc0000080, "msr not here"), /* EFER, twice */
	V('8', "value", 1, 1ull << 47, "msr: value"),
	V('8', "value", 2, 1ull << 63, "msr: value"),
	V('8', "value", 3, 0x407050600070102, "msr: value"), /* PAT */
	V('8', "value", 3, 0x807050600070106, "msr: value"),
	V('8', "value", 4, 0x1000, "msr: value"),
	V('8', "value", 7, 1ull << 48, "msr: value"),
	V('8', "value", 8, 0xffff7fffffffffff, "msr: value"),

	V('4', "mp_state", 0, KVM_MP_STATE_UNINITIALIZED, "mp state"),
	V('4', "mp_state", 1, KVM_MP_STATE_STOPPED, "mp state"),
	V('4', "mp_state", 1, UINT32_MAX, "mp state"),
	V('1', "smi.smm", 0, 1, "smm"),
	V('1', "smi.pending", 0, 1, "smm"),
	V('1', "smi.latched_init", 1, 1, "smm"),
	V('1', "interrupt.shadow", 0, 4, "shadow"),

	V('1', "priority_add", 0, 8, "pic"),
	V('1', "init_state", 1, 4, "pic"),
	V('1', "elcr_mask", 0, 0xde, "pic"),
	V('1', "elcr", 1, 1, "pic"),
	V('1', "poll", 0, 2, "pic"),
	V('8', "base_address", 0, 0xfee00000, "ioapic"),
	V('4', "ioregsel", 0, 256, "ioapic"),
	V('4', "id", 0, 16, "ioapic"),
	V('4', "irr", 0, 1u << 24, "ioapic"),
};

static void refuses_hostile_values(void **state)
{
	static uint8_t clean[MACHINE_FILE_MAX];

	memcpy(clean, file, file_bytes);
	for (size_t i = 0; i < ARRAY_LEN(pokes); i++) {
		const struct poke *p = &pokes[i];
		memcpy(file, clean, file_bytes);
		uint8_t *at = find(p->kind, p->name, p->nth) + p->offset;
		assert_memory_not_equal(at, &p->value, p->bytes);
		memcpy(at, &p->value, p->bytes);
		refused_with(-ERANGE, p->what);
	}
}

/* An exception needs two fields. */
static void refuses_an_exception_that_is_none(void **state)
{
	static const uint8_t vectors[] = { 2, 32, 255 };

	*find('1', "exception.injected", 0) = 1;
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		*find('1', "exception.nr", 0) = vectors[i];
		refused_with(-ERANGE, "exception");
	}
	*find('1', "exception.injected", 0) = 0;
	*find('1', "exception.pending", 0) = 1;
	refused_with(-ERANGE, "exception");
}

/* --- the table of a guest -------------------------------------------------- */

static void hides_what_cannot_move(void **state)
{
	static struct kvm_cpuid_table t, twice;
	static const struct {
		uint32_t function, index, reg, bit;
	} hidden[] = {
		{ 1, 0, 2, 5 },           { 7, 0, 2, 7 },
		{ 7, 0, 3, 20 },          { 7, 1, 0, 17 },
		{ 7, 1, 0, 26 },          { 0x40000001, 0, 0, 4 },
		{ 0x40000001, 0, 0, 14 }, { 0x80000001, 0, 2, 2 },
		{ 0x80000007, 0, 3, 8 },
	};
	const uint32_t functions[] = { 1,          7,          7,
				       0x40000001, 0x80000001, 0x80000007,
				       0x80000008 };

	memset(&t, 0, sizeof(t));
	for (size_t i = 0; i < ARRAY_LEN(functions); i++)
		t.entries[t.nent++] = (struct kvm_cpuid_entry2){
			.function = functions[i],
			.index = i == 2,
			.flags = functions[i] == 7,
			.eax = UINT32_MAX,
			.ebx = UINT32_MAX,
			.ecx = UINT32_MAX,
			.edx = UINT32_MAX,
		};
	cpuid_make(&t, 3, 4);
	twice = t;
	cpuid_make(&twice, 3, 4);
	assert_memory_equal(&t, &twice, sizeof(t));
	for (size_t i = 0; i < ARRAY_LEN(hidden); i++) {
		const struct kvm_cpuid_entry2 *e =
			cpuid_find(&t, hidden[i].function, hidden[i].index);
		assert_non_null(e);
		const uint32_t regs[] = { e->eax, e->ebx, e->ecx, e->edx };
		if (regs[hidden[i].reg] & 1u << hidden[i].bit)
			fail_msg("bit %u of leaf %#x", hidden[i].bit,
				 hidden[i].function);
	}
	assert_int_equal(cpuid_find(&t, 1, 0)->ebx >> 24, 3);
	assert_true(cpuid_find(&t, 1, 0)->ecx & 1u << 24);
	assert_null(cpuid_find(&t, 2, 0));
}

static void compares_tables(void **state)
{
	struct kvm_cpuid_table a, b;

	machine_cpuid(&a);
	b = a;
	assert_true(cpuid_equal(&a, &b));
	b.entries[1].ecx |= 1u << 27; /* OSXSAVE is the guest's own */
	assert_false(cpuid_equal(&a, &b));
	assert_null(cpuid_check(&b, &a));
	b.entries[1].ecx |= 1u << 5;
	assert_non_null(cpuid_check(&b, &a));
	b = a;
	b.nent--;
	assert_false(cpuid_equal(&a, &b));
	assert_null(cpuid_check(&b, &a));
	/* a leaf of features that is not here at all */
	b = a;
	b.entries[6].function = 2;
	assert_non_null(cpuid_check(&a, &b));
}

static int start(void **state)
{
	return x86_init(0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
	const struct CMUnitTest tests[] = {
		TEST(comes_back_as_it_was),
		TEST(keeps_a_smaller_cpuid),
		TEST(refuses_to_save),
		TEST(refuses_hostile_values),
		TEST(refuses_an_exception_that_is_none),
		TEST(hides_what_cannot_move),
		TEST(compares_tables),
	};

	return cmocka_run_group_tests_name("x86_state", tests, start, NULL);
}
