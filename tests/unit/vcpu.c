/* vcpu.c - vCPUs stand still when they should, and go on in another machine.
 * SPDX-License-Identifier: Apache-2.0
 *
 * On the real /dev/kvm, with a guest of a few instructions: vCPU 0 reads a
 * register of a device for ever, vCPU 1 sleeps in HLT, vCPU 2 never was
 * started. The bus is this test.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/vmm/stop.h"
#include "src/vmm/vcpu.h"
#include "src/vmm/x86/cpuid.h"
#include "src/vmm/x86/state.h"

#define VCPUS 3u
#define RAM_BYTES (64u << 10)
#define CODE 0x1000u
#define HALT 0x1800u
#define COUNTER 0x2000u
#define DEVICE 0xd0000000u

/* 32-bit code: each round reads the device into EAX and counts. */
static const uint8_t code[] = {
	0xa1, 0x00, 0x00, 0x00, 0xd0,       /* mov eax, [DEVICE] */
	0xff, 0x05, 0x00, 0x20, 0x00, 0x00, /* inc dword [COUNTER] */
	0xeb, 0xf3,                         /* jmp to the start */
};

static const uint8_t halt[] = { 0xf4, 0xeb, 0xfd }; /* hlt; jmp to it */

static atomic_uint reads; /* what the device says next */
static atomic_uint pace;  /* the device thinks so many us */

struct vm {
	int vm_fd;
	uint8_t *ram;
	int fds[VCPUS];
	struct vcpu vcpus[VCPUS];
};

static int kvm_fd;
static struct vm vm;
static struct bus bus;
static struct x86_machine saved;

/* --- the bus --------------------------------------------------------------- */

void bus_mmio_read(struct bus *b, uint64_t at, uint8_t *data, uint32_t len)
{
	uint32_t v = atomic_fetch_add(&reads, 1) + 1;

	assert_true(at == DEVICE && len == sizeof(v));
	if (atomic_load(&pace) > 0)
		usleep(atomic_load(&pace));
	memcpy(data, &v, sizeof(v));
}

void bus_mmio_write(struct bus *b, uint64_t at, const uint8_t *data,
		    uint32_t len)
{
	fail();
}

void bus_port_read(struct bus *b, uint16_t port, uint8_t *data, uint8_t size)
{
	fail();
}

void bus_port_write(struct bus *b, uint16_t port, const uint8_t *data,
		    uint8_t size)
{
	fail();
}

/* --- the machine ----------------------------------------------------------- */

static void start_at(int fd, uint32_t rip)
{
	struct kvm_sregs s;
	struct kvm_regs r = { .rip = rip, .rflags = 2 };
	struct kvm_segment flat = { .limit = UINT32_MAX,
				    .selector = 8,
				    .type = 11,
				    .present = 1,
				    .db = 1,
				    .s = 1,
				    .g = 1 };

	assert_int_equal(kvm_get_sregs(fd, &s), 0);
	s.cs = flat;
	flat.type = 3;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cr0 |= 1;
	assert_int_equal(kvm_set_sregs(fd, &s), 0);
	assert_int_equal(kvm_set_regs(fd, &r), 0);
}

static void build(struct vm *v)
{
	v->vm_fd = kvm_create_vm(kvm_fd);
	assert_true(v->vm_fd >= 0);
	v->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(v->ram != MAP_FAILED);
	assert_int_equal(kvm_set_memory(v->vm_fd, 0, 0, RAM_BYTES, v->ram), 0);
	assert_int_equal(kvm_set_tss_addr(v->vm_fd, 0xfffbd000), 0);
	assert_int_equal(kvm_create_irqchip(v->vm_fd), 0);
	for (uint32_t i = 0; i < VCPUS; i++) {
		assert_int_equal(vcpu_create(&v->vcpus[i], kvm_fd, v->vm_fd, i,
					     VCPUS, &bus),
				 0);
		v->fds[i] = v->vcpus[i].fd;
	}
}

static uint64_t now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint32_t counter(const struct vm *v)
{
	uint32_t n;

	memcpy(&n, v->ram + COUNTER, sizeof(n));
	return n;
}

/* Waits until the guest has counted some more. */
static void wait_for_rounds(const struct vm *v)
{
	uint32_t from = counter(v);
	uint64_t start = now_us();

	while (counter(v) - from < 3) {
		assert_true(now_us() - start < 10000000);
		usleep(100);
	}
}

/* The value that was read last is in EAX: no exit is half done. */
static void assert_complete(const struct vm *v)
{
	struct kvm_regs r;

	assert_int_equal(kvm_get_regs(v->fds[0], &r), 0);
	assert_int_equal((uint32_t)r.rax, atomic_load(&reads));
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a;
	const uint64_t *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* --- tests, in this order: they share the machine -------------------------- */

static void starts_parked(void **state)
{
	build(&vm);
	memcpy(vm.ram + CODE, code, sizeof(code));
	memcpy(vm.ram + HALT, halt, sizeof(halt));
	for (uint32_t i = 0; i < VCPUS; i++)
		assert_int_equal(vcpu_start(&vm.vcpus[i]), 0);
	vcpu_pause_all(vm.vcpus, VCPUS);
	usleep(20000);
	assert_int_equal(atomic_load(&reads), 0);

	/* state is given to vCPUs whose threads wait already */
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	start_at(vm.fds[0], CODE);
	start_at(vm.fds[1], HALT);
	assert_int_equal(kvm_set_mp_state(vm.fds[1], &runnable), 0);
	vcpu_resume_all(vm.vcpus, VCPUS);
	wait_for_rounds(&vm);
}

static void pauses_at_any_time(void **state)
{
	static uint64_t us[500];

	for (size_t i = 0; i < ARRAY_LEN(us); i++) {
		usleep((useconds_t)(i * 37 % 400));
		uint64_t start = now_us();
		vcpu_pause_all(vm.vcpus, VCPUS);
		us[i] = now_us() - start;
		uint32_t at = counter(&vm);
		assert_complete(&vm);
		if (i % 50 == 0) {
			usleep(2000);
			vcpu_pause_all(vm.vcpus, VCPUS); /* no effect */
			assert_int_equal(counter(&vm), at);
		}
		vcpu_resume_all(vm.vcpus, VCPUS);
		vcpu_resume_all(vm.vcpus, VCPUS); /* no effect */
		if (i % 10 == 0)
			wait_for_rounds(&vm);
	}
	qsort(us, ARRAY_LEN(us), sizeof(us[0]), compare);
	print_message("pause of %u vCPUs: p50 %llu us, p99 %llu us\n", VCPUS,
		      (unsigned long long)us[ARRAY_LEN(us) / 2],
		      (unsigned long long)us[ARRAY_LEN(us) * 99 / 100]);
}

static void lets_a_device_finish(void **state)
{
	atomic_store(&pace, 50000);
	uint32_t before = atomic_load(&reads);
	while (atomic_load(&reads) == before)
		usleep(100);
	vcpu_pause_all(vm.vcpus, VCPUS);
	assert_complete(&vm);
	atomic_store(&pace, 0);
	vcpu_resume_all(vm.vcpus, VCPUS);
	wait_for_rounds(&vm);
}

/* A guest's TSC right after `fd` was read as `before`, `us` ago at most. */
static void assert_tsc_near(int fd, uint64_t before, uint32_t khz, uint64_t us)
{
	struct kvm_msr_table t = { .nmsrs = 1, .entries[0].index = 0x10 };

	assert_int_equal(kvm_get_msrs(fd, &t), 1);
	uint64_t passed = t.entries[0].data - before;
	assert_true(t.entries[0].data >= before);
	assert_true(passed / khz <= us / 1000 + 1);
}

/* Saved, through the file format, into the same machine and into a new one. */
static void goes_on_elsewhere(void **state)
{
	static uint8_t buf[256u << 10];
	static uint8_t ram[RAM_BYTES];
	static struct x86_machine loaded;
	static struct vm copy;
	struct state_stream s;
	size_t bytes;
	uint64_t start, us;

	assert_int_equal(x86_init(kvm_fd), 0);
	vcpu_pause_all(vm.vcpus, VCPUS);
	assert_int_equal(x86_get(&saved, vm.vm_fd, vm.fds, VCPUS), 0);
	start = now_us();
	assert_int_equal(x86_get(&saved, vm.vm_fd, vm.fds, VCPUS), 0);
	us = now_us() - start;
	memcpy(ram, vm.ram, RAM_BYTES);
	uint32_t counted = counter(&vm);
	uint32_t was_read = atomic_load(&reads);

	state_save(&s, buf, sizeof(buf));
	x86_state(&s, &saved, VCPUS, vcpu_cpuid());
	int r = state_finish(&s, &bytes);
	if (r != 0)
		fail_msg("%s: %s", s.where, strerrordesc_np(-r));
	state_load(&s, buf, bytes);
	x86_state(&s, &loaded, VCPUS, vcpu_cpuid());
	r = state_finish(&s, NULL);
	if (r != 0)
		fail_msg("%s: %s", s.where, strerrordesc_np(-r));
	assert_false(loaded.own_cpuid);

	/* back, while the guest would have run on */
	vcpu_resume_all(vm.vcpus, VCPUS);
	wait_for_rounds(&vm);
	vcpu_pause_all(vm.vcpus, VCPUS);
	memcpy(vm.ram, ram, RAM_BYTES);
	start = now_us();
	r = x86_set(&loaded, NULL, vm.vm_fd, vm.fds, VCPUS);
	print_message("get %llu us, set %llu us, file %zu bytes\n",
		      (unsigned long long)us,
		      (unsigned long long)(now_us() - start), bytes);
	assert_int_equal(r, 0);
	assert_int_equal(counter(&vm), counted);
	atomic_store(&reads, was_read);
	assert_complete(&vm);
	vcpu_resume_all(vm.vcpus, VCPUS);
	wait_for_rounds(&vm);
	vcpu_pause_all(vm.vcpus, VCPUS);
	assert_complete(&vm);

	build(&copy);
	memcpy(copy.ram, ram, RAM_BYTES);
	assert_int_equal(x86_set(&loaded, NULL, copy.vm_fd, copy.fds, VCPUS),
			 0);
	/* what KVM holds of it now is what was saved */
	static struct x86_machine again;
	assert_int_equal(x86_get(&again, copy.vm_fd, copy.fds, VCPUS), 0);
	for (uint32_t i = 0; i < VCPUS; i++) {
		struct x86_vcpu *a = &loaded.vcpu[i];
		struct x86_vcpu *b = &again.vcpu[i];
		assert_memory_equal(&a->regs, &b->regs, sizeof(a->regs));
		assert_memory_equal(&a->sregs, &b->sregs, sizeof(a->sregs));
		assert_memory_equal(a->xsave, b->xsave, sizeof(a->xsave));
		assert_memory_equal(&a->lapic, &b->lapic, sizeof(a->lapic));
		assert_memory_equal(&a->events, &b->events, sizeof(a->events));
		assert_int_equal(a->mp_state.mp_state, b->mp_state.mp_state);
		assert_int_equal(a->msr_count, b->msr_count);
	}
	atomic_store(&reads, was_read);
	for (uint32_t i = 0; i < VCPUS; i++)
		assert_int_equal(vcpu_start(&copy.vcpus[i]), 0);
	vcpu_resume_all(copy.vcpus, VCPUS);
	wait_for_rounds(&copy);
	vcpu_pause_all(copy.vcpus, VCPUS);
	assert_complete(&copy);
	assert_tsc_near(copy.fds[0], loaded.vcpu[0].tsc, loaded.tsc_khz,
			10000000);
	assert_false(stop_requested());
}

/* vCPUs that ended count as still. */
static void pauses_what_has_stopped(void **state)
{
	vcpu_resume_all(vm.vcpus, VCPUS);
	stop_machine(VMM_STOP_COMMAND, 0);
	vcpu_pause_all(vm.vcpus, VCPUS);
	uint32_t at = atomic_load(&reads);
	usleep(2000);
	assert_int_equal(atomic_load(&reads), at);
	vcpu_resume_all(vm.vcpus, VCPUS);
	usleep(2000);
	vcpu_pause_all(vm.vcpus, VCPUS);
}

static int set_up(void **state)
{
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	return kvm_fd < 0 || stop_init() < 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(starts_parked),
		cmocka_unit_test(pauses_at_any_time),
		cmocka_unit_test(lets_a_device_finish),
		cmocka_unit_test(goes_on_elsewhere),
		cmocka_unit_test(pauses_what_has_stopped),
	};

	return cmocka_run_group_tests_name("vcpu", tests, set_up, NULL);
}
