/* kvm.c - thin wrappers over ioctl(KVM_*).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <sys/ioctl.h>

#include "kvm.h"

static_assert(offsetof(struct kvm_cpuid_table, entries) ==
		      offsetof(struct kvm_cpuid2, entries),
	      "same layout");

static_assert(offsetof(struct kvm_msr_index_table, indices) ==
		      offsetof(struct kvm_msr_list, indices),
	      "same layout");
static_assert(offsetof(struct kvm_msr_table, entries) ==
		      offsetof(struct kvm_msrs, entries),
	      "same layout");
static_assert(KVM_XSAVE_BYTES == sizeof(struct kvm_xsave), "same layout");

static int call(int fd, unsigned long request, const void *arg)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

static int call_number(int fd, unsigned long request, unsigned long arg)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

int kvm_check_version(int kvm_fd)
{
	int r = call_number(kvm_fd, KVM_GET_API_VERSION, 0);

	if (r < 0)
		return r;
	return r == KVM_API_VERSION ? 0 : -ENOTSUP;
}

int kvm_create_vm(int kvm_fd)
{
	return call_number(kvm_fd, KVM_CREATE_VM, 0);
}

int kvm_vcpu_run_bytes(int kvm_fd)
{
	return call_number(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
}

int kvm_supported_cpuid(int kvm_fd, struct kvm_cpuid_table *ret)
{
	ret->nent = KVM_CPUID_MAX;
	return call(kvm_fd, KVM_GET_SUPPORTED_CPUID, ret);
}

int kvm_check(int kvm_fd, unsigned int capability)
{
	return call_number(kvm_fd, KVM_CHECK_EXTENSION, capability);
}

int kvm_msr_indexes(int kvm_fd, struct kvm_msr_index_table *ret)
{
	ret->nmsrs = KVM_MSR_INDEXES_MAX;
	return call(kvm_fd, KVM_GET_MSR_INDEX_LIST, ret);
}

int kvm_set_memory(int vm_fd, uint32_t slot, uint64_t gpa, uint64_t bytes,
		   void *host)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uint64_t)(uintptr_t)host,
	};

	return call(vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

int kvm_set_tss_addr(int vm_fd, uint64_t gpa)
{
	return call_number(vm_fd, KVM_SET_TSS_ADDR, gpa);
}

int kvm_create_irqchip(int vm_fd)
{
	return call_number(vm_fd, KVM_CREATE_IRQCHIP, 0);
}

int kvm_create_vcpu(int vm_fd, unsigned int id)
{
	return call_number(vm_fd, KVM_CREATE_VCPU, id);
}

int kvm_add_irqfd(int vm_fd, int event_fd, uint32_t gsi)
{
	struct kvm_irqfd irqfd = {
		.fd = (uint32_t)event_fd,
		.gsi = gsi,
	};

	return call(vm_fd, KVM_IRQFD, &irqfd);
}

int kvm_add_ioeventfd(int vm_fd, int event_fd, uint64_t at, uint32_t value)
{
	struct kvm_ioeventfd ioeventfd = {
		.datamatch = value,
		.addr = at,
		.len = 4,
		.fd = event_fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	return call(vm_fd, KVM_IOEVENTFD, &ioeventfd);
}

int kvm_set_cpuid(int vcpu_fd, const struct kvm_cpuid_table *table)
{
	return call(vcpu_fd, KVM_SET_CPUID2, table);
}

int kvm_get_sregs(int vcpu_fd, struct kvm_sregs *ret)
{
	return call(vcpu_fd, KVM_GET_SREGS, ret);
}

int kvm_set_sregs(int vcpu_fd, const struct kvm_sregs *sregs)
{
	return call(vcpu_fd, KVM_SET_SREGS, sregs);
}

int kvm_get_regs(int vcpu_fd, struct kvm_regs *ret)
{
	return call(vcpu_fd, KVM_GET_REGS, ret);
}

int kvm_set_regs(int vcpu_fd, const struct kvm_regs *regs)
{
	return call(vcpu_fd, KVM_SET_REGS, regs);
}

int kvm_get_mp_state(int vcpu_fd, struct kvm_mp_state *ret)
{
	return call(vcpu_fd, KVM_GET_MP_STATE, ret);
}

int kvm_set_mp_state(int vcpu_fd, const struct kvm_mp_state *state)
{
	return call(vcpu_fd, KVM_SET_MP_STATE, state);
}

int kvm_get_xsave(int vcpu_fd, uint8_t *ret)
{
	return call(vcpu_fd, KVM_GET_XSAVE, ret);
}

int kvm_set_xsave(int vcpu_fd, const uint8_t *xsave)
{
	return call(vcpu_fd, KVM_SET_XSAVE, xsave);
}

int kvm_get_xcrs(int vcpu_fd, struct kvm_xcrs *ret)
{
	return call(vcpu_fd, KVM_GET_XCRS, ret);
}

int kvm_set_xcrs(int vcpu_fd, const struct kvm_xcrs *xcrs)
{
	return call(vcpu_fd, KVM_SET_XCRS, xcrs);
}

int kvm_get_debugregs(int vcpu_fd, struct kvm_debugregs *ret)
{
	return call(vcpu_fd, KVM_GET_DEBUGREGS, ret);
}

int kvm_set_debugregs(int vcpu_fd, const struct kvm_debugregs *regs)
{
	return call(vcpu_fd, KVM_SET_DEBUGREGS, regs);
}

int kvm_get_lapic(int vcpu_fd, struct kvm_lapic_state *ret)
{
	return call(vcpu_fd, KVM_GET_LAPIC, ret);
}

int kvm_set_lapic(int vcpu_fd, const struct kvm_lapic_state *lapic)
{
	return call(vcpu_fd, KVM_SET_LAPIC, lapic);
}

int kvm_get_events(int vcpu_fd, struct kvm_vcpu_events *ret)
{
	return call(vcpu_fd, KVM_GET_VCPU_EVENTS, ret);
}

int kvm_set_events(int vcpu_fd, const struct kvm_vcpu_events *events)
{
	return call(vcpu_fd, KVM_SET_VCPU_EVENTS, events);
}

int kvm_get_msrs(int vcpu_fd, struct kvm_msr_table *table)
{
	return call(vcpu_fd, KVM_GET_MSRS, table);
}

int kvm_set_msrs(int vcpu_fd, const struct kvm_msr_table *table)
{
	return call(vcpu_fd, KVM_SET_MSRS, table);
}

/* The one attribute of a vCPU: `value` is read or written. */
static struct kvm_device_attr tsc_offset_attr(const uint64_t *value)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uint64_t)(uintptr_t)value,
	};
}

int kvm_get_tsc_offset(int vcpu_fd, uint64_t *ret)
{
	struct kvm_device_attr attr = tsc_offset_attr(ret);

	return call(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr);
}

int kvm_set_tsc_offset(int vcpu_fd, uint64_t offset)
{
	struct kvm_device_attr attr = tsc_offset_attr(&offset);

	return call(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr);
}

int kvm_get_tsc_khz(int vcpu_fd)
{
	return call_number(vcpu_fd, KVM_GET_TSC_KHZ, 0);
}

int kvm_set_tsc_khz(int vcpu_fd, uint32_t khz)
{
	return call_number(vcpu_fd, KVM_SET_TSC_KHZ, khz);
}

int kvm_note_pause(int vcpu_fd)
{
	return call_number(vcpu_fd, KVM_KVMCLOCK_CTRL, 0);
}

int kvm_get_irqchip(int vm_fd, struct kvm_irqchip *ret)
{
	return call(vm_fd, KVM_GET_IRQCHIP, ret);
}

int kvm_set_irqchip(int vm_fd, const struct kvm_irqchip *chip)
{
	return call(vm_fd, KVM_SET_IRQCHIP, chip);
}

int kvm_get_clock(int vm_fd, struct kvm_clock_data *ret)
{
	return call(vm_fd, KVM_GET_CLOCK, ret);
}

int kvm_set_clock(int vm_fd, const struct kvm_clock_data *clock)
{
	return call(vm_fd, KVM_SET_CLOCK, clock);
}

int kvm_run_vcpu(int vcpu_fd)
{
	return call_number(vcpu_fd, KVM_RUN, 0);
}
