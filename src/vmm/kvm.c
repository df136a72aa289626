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

int kvm_run_vcpu(int vcpu_fd)
{
	return call_number(vcpu_fd, KVM_RUN, 0);
}
