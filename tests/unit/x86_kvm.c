/* x86_kvm.c - in which order, and with what, KVM is asked for its state.
 * SPDX-License-Identifier: Apache-2.0
 *
 * KVM is a model here, which ioctl is wrapped for: it has MSRs that cannot be
 * read or written, vCPUs whose TSCs differ, and it writes down all requests.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include <cmocka.h>

#include "src/vmm/x86/state.h"

#define VM_FD 10
#define VCPUS 2u
#define TSC_OFFSET 1000u /* of vCPU 0; 500 more for vCPU 1 */

enum {
	MSR_TSC = 0x10,
	MSR_UNREADABLE = 0x11,
	MSR_FIXED = 0x12, /* cannot be written; reads as 7 */
	MSR_SOME = 0x277,
	MSR_DEADLINE = 0x6e0,
};

static const int fds[VCPUS] = { 0, 1 };

static struct {
	unsigned long requests[256];
	int on[256]; /* the descriptor of each */
	size_t count;
	int khz;
	int scaling;
	uint32_t lvt_timer;
	uint64_t deadline;
	uint64_t scale; /* of the host's TSC */
	uint32_t msrs_set;
	uint64_t offsets[VCPUS];
	uint64_t msr_some[VCPUS];
	uint64_t msr_deadline[VCPUS];
	struct kvm_clock_data clock;
	uint32_t apic_id[VCPUS];
} kvm;

static struct x86_machine x;

/* --- the model ------------------------------------------------------------- */

static uint64_t host_tsc(void)
{
	return __rdtsc() * kvm.scale;
}

static bool read_msr(int fd, uint32_t index, struct kvm_msr_entry *e)
{
	switch (index) {
	case MSR_UNREADABLE:
		return false;
	case MSR_TSC:
		e->data = host_tsc() + kvm.offsets[fd];
		return true;
	case MSR_FIXED:
		e->data = 7;
		return true;
	case MSR_DEADLINE:
		e->data = kvm.deadline;
		return true;
	default:
		e->data = kvm.msr_some[fd];
		return true;
	}
}

static int get_msrs(int fd, struct kvm_msrs *msrs)
{
	uint32_t i = 0;

	while (i < msrs->nmsrs &&
	       read_msr(fd, msrs->entries[i].index, &msrs->entries[i]))
		i++;
	return (int)i;
}

static int set_msrs(int fd, const struct kvm_msrs *msrs)
{
	kvm.msrs_set = msrs->nmsrs;
	for (uint32_t i = 0; i < msrs->nmsrs; i++) {
		const struct kvm_msr_entry *e = &msrs->entries[i];
		if (e->index == MSR_FIXED || e->index == MSR_UNREADABLE)
			return (int)i;
		assert_int_not_equal(e->index, MSR_TSC);
		if (e->index == MSR_DEADLINE)
			kvm.msr_deadline[fd] = e->data;
		if (e->index == MSR_SOME)
			kvm.msr_some[fd] = e->data;
	}
	return (int)msrs->nmsrs;
}

static int list_msrs(struct kvm_msr_list *list)
{
	static const uint32_t all[] = { MSR_DEADLINE, MSR_FIXED, MSR_TSC,
					MSR_UNREADABLE, MSR_SOME };

	list->nmsrs = ARRAY_LEN(all);
	memcpy(list->indices, all, sizeof(all));
	return 0;
}

static int offset_attr(int fd, const struct kvm_device_attr *attr, bool set)
{
	uint64_t *value = (uint64_t *)(uintptr_t)attr->addr;

	assert_true(attr->group == KVM_VCPU_TSC_CTRL &&
		    attr->attr == KVM_VCPU_TSC_OFFSET);
	if (set)
		kvm.offsets[fd] = *value;
	else
		*value = kvm.offsets[fd];
	return 0;
}

static int set_cpuid(int fd, const struct kvm_cpuid2 *table)
{
	kvm.apic_id[fd] = table->entries[1].ebx >> 24;
	return 0;
}

static void get_lapic(struct kvm_lapic_state *lapic)
{
	memset(lapic, 0, sizeof(*lapic));
	memcpy(&lapic->regs[0x320], &kvm.lvt_timer, sizeof(kvm.lvt_timer));
}

int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	assert_true(kvm.count < ARRAY_LEN(kvm.requests));
	kvm.requests[kvm.count] = request;
	kvm.on[kvm.count++] = fd;
	switch (request) {
	case KVM_CHECK_EXTENSION:
		return (uintptr_t)arg == KVM_CAP_TSC_CONTROL ? kvm.scaling : 0;
	case KVM_GET_MSR_INDEX_LIST:
		return list_msrs(arg);
	case KVM_GET_TSC_KHZ:
		return kvm.khz;
	case KVM_SET_TSC_KHZ:
		kvm.scale = 3;
		return 0;
	case KVM_GET_MSRS:
		return get_msrs(fd, arg);
	case KVM_SET_MSRS:
		return set_msrs(fd, arg);
	case KVM_GET_DEVICE_ATTR:
		return offset_attr(fd, arg, false);
	case KVM_SET_DEVICE_ATTR:
		return offset_attr(fd, arg, true);
	case KVM_GET_LAPIC:
		get_lapic(arg);
		return 0;
	case KVM_SET_CLOCK:
		kvm.clock = *(struct kvm_clock_data *)arg;
		return 0;
	case KVM_SET_CPUID2:
		return set_cpuid(fd, arg);
	default:
		return 0; /* the rest has no values here */
	}
}

/* Where in the list of requests the first one of that kind on `fd` is. */
static size_t when(int fd, unsigned long request)
{
	for (size_t i = 0; i < kvm.count; i++) {
		if (kvm.requests[i] == request && kvm.on[i] == fd)
			return i;
	}
	fail_msg("no request %#lx on %d", request, fd);
	return 0;
}

static unsigned int times(unsigned long request)
{
	unsigned int n = 0;

	for (size_t i = 0; i < kvm.count; i++)
		n += kvm.requests[i] == request;
	return n;
}

static uint64_t msr(const struct x86_vcpu *v, uint32_t index)
{
	for (uint32_t i = 0; i < v->msr_count; i++) {
		if (v->msrs[i].index == index)
			return v->msrs[i].value;
	}
	fail_msg("no msr %#x", index);
	return 0;
}

static int set_up(void **state)
{
	memset(&kvm, 0, sizeof(kvm));
	memset(&x, 0, sizeof(x));
	kvm.khz = 2400000;
	kvm.scale = 1;
	kvm.offsets[0] = TSC_OFFSET;
	kvm.offsets[1] = TSC_OFFSET + 500;
	kvm.deadline = 99;
	kvm.lvt_timer = 0x400ec; /* TSC deadline, vector 0xec */
	return x86_init(0);
}

static void get(void)
{
	kvm.count = 0;
	assert_int_equal(x86_get(&x, VM_FD, fds, VCPUS), 0);
}

/* --- reading --------------------------------------------------------------- */

static void reads_in_order(void **state)
{
	get();
	for (int fd = 0; fd < (int)VCPUS; fd++) {
		size_t first = when(fd, KVM_GET_MP_STATE);
		size_t last = when(fd, KVM_GET_VCPU_EVENTS);
		size_t msrs = when(fd, KVM_GET_MSRS);
		size_t lapic = when(fd, KVM_GET_LAPIC);
		assert_true(first < when(fd, KVM_GET_REGS));
		assert_true(msrs < lapic && lapic < last);
		assert_true(when(fd, KVM_GET_XSAVE) < last);
	}
	assert_int_equal(times(KVM_GET_IRQCHIP), 3);
	assert_int_equal(x.tsc_khz, 2400000);
	assert_false(x.own_cpuid);
}

static void drops_what_cannot_be_read(void **state)
{
	get();
	/* the first vCPU found out, the second did not have to */
	assert_int_equal(times(KVM_GET_MSRS), 3);
	get();
	assert_int_equal(times(KVM_GET_MSRS), 2);
	for (uint32_t i = 1; i < x.vcpu[0].msr_count; i++) {
		assert_true(x.vcpu[0].msrs[i - 1].index <
			    x.vcpu[0].msrs[i].index);
		assert_int_not_equal(x.vcpu[0].msrs[i].index, MSR_UNREADABLE);
	}
	assert_true(x86_knows_msr(MSR_UNREADABLE));
	assert_true(x86_knows_msr(0x2ff)); /* which was not listed */
	assert_false(x86_knows_msr(MSR_TSC));
	assert_false(x86_knows_msr(0xc0000080));
}

static void reads_one_time(void **state)
{
	get();
	assert_int_equal(x.vcpu[1].tsc - x.vcpu[0].tsc, 500);
}

static void keeps_the_timer(void **state)
{
	kvm.deadline = 0;
	get();
	assert_int_equal(msr(&x.vcpu[0], MSR_DEADLINE), x.vcpu[0].tsc);
	assert_int_not_equal(x.vcpu[0].tsc, 0);
	kvm.lvt_timer = 0x500ec; /* masked */
	get();
	assert_int_equal(msr(&x.vcpu[0], MSR_DEADLINE), 0);
	kvm.lvt_timer = 0x200ec; /* periodic */
	get();
	assert_int_equal(msr(&x.vcpu[0], MSR_DEADLINE), 0);
	kvm.lvt_timer = 0x400ec;
	kvm.deadline = 99;
	get();
	assert_int_equal(msr(&x.vcpu[0], MSR_DEADLINE), 99);
}

/* --- writing --------------------------------------------------------------- */

static int set_over(const struct x86_machine *have)
{
	kvm.count = 0;
	return x86_set(&x, have, VM_FD, fds, VCPUS);
}

static int set(void)
{
	return set_over(NULL);
}

static void writes_in_order(void **state)
{
	get();
	assert_int_equal(set(), 0);
	size_t clock = when(VM_FD, KVM_SET_CLOCK);
	size_t chips = when(VM_FD, KVM_SET_IRQCHIP);
	for (int fd = 0; fd < (int)VCPUS; fd++) {
		size_t events = when(fd, KVM_SET_VCPU_EVENTS);
		size_t msrs = when(fd, KVM_SET_MSRS);
		assert_true(clock < when(fd, KVM_SET_MP_STATE));
		assert_true(when(fd, KVM_SET_DEVICE_ATTR) < msrs);
		assert_true(when(fd, KVM_SET_SREGS) < when(fd, KVM_SET_LAPIC));
		assert_true(when(fd, KVM_SET_LAPIC) < msrs);
		assert_true(msrs < events && events < chips);
	}
	assert_int_equal(times(KVM_SET_IRQCHIP), 3);
	assert_int_equal(times(KVM_SET_CPUID2), 0);
	assert_int_equal(times(KVM_SET_TSC_KHZ), 0);
	assert_int_equal(kvm.clock.flags, 0);
}

static void continues_the_tsc(void **state)
{
	get();
	kvm.offsets[0] = kvm.offsets[1] = 0;
	x.vcpu[0].tsc -= 1000000000; /* on a host that runs for longer */
	x.vcpu[1].tsc -= 1000000000;
	uint64_t start = host_tsc();
	assert_int_equal(set(), 0);
	assert_true(start + kvm.offsets[0] <= x.vcpu[0].tsc);
	assert_true(host_tsc() + kvm.offsets[0] >= x.vcpu[0].tsc);
	assert_int_equal(times(KVM_GET_MSRS), 2); /* those of MSR_FIXED */
	assert_int_equal(kvm.offsets[1] - kvm.offsets[0], 500);
	assert_int_equal(kvm.msr_deadline[0], 99);
}

static void refuses_another_rate(void **state)
{
	get();
	x.tsc_khz += 600; /* 250 ppm */
	assert_int_equal(set(), 0);
	assert_int_equal(times(KVM_SET_TSC_KHZ), 0);
	x.tsc_khz += 1;
	assert_int_equal(set(), -ENOTSUP);
	assert_int_equal(kvm.count, 0);
	x.tsc_khz = 1;
	assert_int_equal(set(), -ENOTSUP);
	x.tsc_khz = UINT32_MAX;
	assert_int_equal(set(), -ENOTSUP);
	kvm.scaling = 1;
	assert_int_equal(x86_init(0), 0);
	assert_int_equal(set(), 0);
	assert_int_equal(times(KVM_SET_TSC_KHZ), VCPUS);

	/* from now on only KVM knows the TSC */
	uint64_t start = host_tsc();
	assert_int_equal(set(), 0);
	assert_int_equal(times(KVM_SET_TSC_KHZ), 0);
	assert_true(start + kvm.offsets[0] <= x.vcpu[0].tsc);
	assert_true(host_tsc() + kvm.offsets[0] >= x.vcpu[0].tsc);
}

/* What has changed in vCPU 1, and the one request that sets it there. */
static void sets_only(void *what, unsigned long request)
{
	static struct x86_machine have;

	have = x;
	*(uint8_t *)what ^= 1;
	assert_int_equal(set_over(&have), 0);
	/* besides the clock and the TSCs */
	assert_int_equal(kvm.count, 1 + VCPUS + 1);
	(void)when(request == KVM_SET_IRQCHIP ? VM_FD : 1, request);
}

static void sets_what_is_not_there(void **state)
{
	static struct x86_machine have;
	struct x86_vcpu *v = &x.vcpu[1];

	kvm.msr_some[0] = kvm.msr_some[1] = 5;
	get();
	v->xcrs.nr_xcrs = 1;
	have = x;
	assert_int_equal(set_over(&have), 0);
	assert_int_equal(kvm.count, 1 + VCPUS);
	sets_only(&v->mp_state, KVM_SET_MP_STATE);
	sets_only(&v->regs.rip, KVM_SET_REGS);
	sets_only(&v->sregs.cr3, KVM_SET_SREGS);
	sets_only(&v->xsave[sizeof(v->xsave) - 1], KVM_SET_XSAVE);
	sets_only(&v->xcrs.xcrs[0].value, KVM_SET_XCRS);
	sets_only(&v->debugregs.dr7, KVM_SET_DEBUGREGS);
	sets_only(&v->lapic.regs[0x320], KVM_SET_LAPIC);
	sets_only(&v->events.nmi.pending, KVM_SET_VCPU_EVENTS);
	sets_only(&x.pic[1].chip.pic.imr, KVM_SET_IRQCHIP);
	sets_only(&x.ioapic.chip.ioapic.redirtbl[23], KVM_SET_IRQCHIP);
	for (uint32_t i = 0; i < v->msr_count; i++) {
		if (v->msrs[i].index == MSR_SOME)
			sets_only(&v->msrs[i].value, KVM_SET_MSRS);
	}
	assert_int_equal(kvm.msr_some[1], 4);
	assert_int_equal(kvm.msrs_set, 1);

	/* in another mode the APIC has other registers */
	have = x;
	v->sregs.apic_base ^= 0x400;
	assert_int_equal(set_over(&have), 0);
	assert_true(when(1, KVM_SET_SREGS) < when(1, KVM_SET_LAPIC));

	/* MSRs that it has and that nobody knew it to have */
	have = x;
	have.vcpu[1].msr_count = 1;
	assert_int_equal(set_over(&have), 0);
	assert_true(kvm.msrs_set > 1);
}

static void skips_only_what_is_harmless(void **state)
{
	struct x86_msr *m = x.vcpu[0].msrs;

	get();
	kvm.msr_some[0] = 5;
	get();
	kvm.msr_some[0] = 0;
	/* MSR_FIXED cannot be written, but is what it should be */
	assert_int_equal(set(), 0);
	assert_int_equal(kvm.msr_some[0], 5); /* which comes after it */

	while (m->index != MSR_FIXED)
		m++;
	m->value = 8;
	assert_int_equal(set(), -EINVAL);
	m->value = 7;
	/* from a host where it could be read */
	memmove(x.vcpu[0].msrs + 1, x.vcpu[0].msrs,
		x.vcpu[0].msr_count * sizeof(*m));
	x.vcpu[0].msr_count++;
	x.vcpu[0].msrs[0] = (struct x86_msr){ MSR_UNREADABLE, 0 };
	assert_int_equal(set(), 0);
	x.vcpu[0].msrs[0].value = 1;
	assert_int_equal(set(), -EINVAL);
}

/* Last: the process remembers what its vCPUs were given. */
static void gives_the_cpuid_of_the_file(void **state)
{
	get();
	x.own_cpuid = true;
	x.cpuid.nent = 2;
	x.cpuid.entries[1].function = 1;
	/* and nothing of what was there counts */
	static struct x86_machine have;
	have = x;
	assert_int_equal(set_over(&have), 0);
	(void)when(1, KVM_SET_REGS);
	assert_int_equal(times(KVM_SET_CPUID2), VCPUS);
	assert_true(when(0, KVM_SET_CPUID2) < when(0, KVM_SET_SREGS));
	assert_int_equal(kvm.apic_id[1], 1);
	get();
	assert_true(x.own_cpuid);
	assert_int_equal(x.cpuid.nent, 2);
	x.own_cpuid = false;
	assert_int_equal(set(), -EINVAL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
	const struct CMUnitTest tests[] = {
		TEST(reads_in_order),
		TEST(drops_what_cannot_be_read),
		TEST(reads_one_time),
		TEST(keeps_the_timer),
		TEST(writes_in_order),
		TEST(continues_the_tsc),
		TEST(refuses_another_rate),
		TEST(sets_what_is_not_there),
		TEST(skips_only_what_is_harmless),
		TEST(gives_the_cpuid_of_the_file),
	};

	return cmocka_run_group_tests_name("x86_kvm", tests, NULL, NULL);
}
