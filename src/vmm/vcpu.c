/* vcpu.c - one virtual processor: its thread and the loop around KVM_RUN.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All that a vCPU thread does is run the guest and hand its exits to the bus.
 * What the guest wrote into struct kvm_run is read once. An exit that we do
 * not know ends the machine with a reason: never a loop that spins.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "num.h"
#include "stop.h"
#include "vcpu.h"
#include "wire/vmm.h"
#include "x86/cpuid.h"

/* Stack of a vCPU thread: it calls a handful of small functions. */
#define VCPU_STACK_BYTES (64u << 10)

int vcpu_create(struct vcpu *v, int kvm_fd, int vm_fd, unsigned int id,
		unsigned int vcpus, struct bus *bus)
{
	static struct kvm_cpuid_table table;
	int bytes = kvm_vcpu_run_bytes(kvm_fd);

	if (bytes < 0)
		return bytes;
	v->id = id;
	v->bus = bus;
	v->fd = kvm_create_vcpu(vm_fd, id);
	if (v->fd < 0)
		return v->fd;
	v->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		      v->fd, 0);
	if (v->run == MAP_FAILED)
		return -errno;
	int r = kvm_supported_cpuid(kvm_fd, &table);
	if (r < 0)
		return r;
	cpuid_make(&table, id, vcpus);
	return kvm_set_cpuid(v->fd, &table);
}

/* Port I/O: `count` units of `size` bytes lie in the shared page; string
 * instructions give more than one. */
static void port_io(struct vcpu *v)
{
	uint8_t *data = (uint8_t *)v->run + v->run->io.data_offset;
	uint8_t size = v->run->io.size;
	uint32_t count = v->run->io.count;

	for (uint32_t i = 0; i < count; i++, data += size) {
		if (v->run->io.direction == KVM_EXIT_IO_OUT)
			bus_port_write(v->bus, v->run->io.port, data, size);
		else
			bus_port_read(v->bus, v->run->io.port, data, size);
	}
}

static void mmio(struct vcpu *v)
{
	uint64_t at = v->run->mmio.phys_addr;
	uint32_t len = v->run->mmio.len;

	if (v->run->mmio.is_write)
		bus_mmio_write(v->bus, at, v->run->mmio.data, len);
	else
		bus_mmio_read(v->bus, at, v->run->mmio.data, len);
}

static void handle_exit(struct vcpu *v)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		port_io(v);
		return;
	case KVM_EXIT_MMIO:
		mmio(v);
		return;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return;
	case KVM_EXIT_SHUTDOWN:
		stop_machine(VMM_STOP_TRIPLE_FAULT, v->id);
		return;
	case KVM_EXIT_SYSTEM_EVENT:
		stop_machine(VMM_STOP_RESET, v->run->system_event.type);
		return;
	default:
		stop_machine(VMM_STOP_INTERNAL_ERROR, v->run->exit_reason);
		return;
	}
}

static void *vcpu_loop(void *arg)
{
	struct vcpu *v = arg;

	for (;;) {
		int r = kvm_run_vcpu(v->fd);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r < 0) {
			stop_machine(VMM_STOP_INTERNAL_ERROR, (uint64_t)-r);
			break;
		}
		handle_exit(v);
		if (stop_requested())
			break;
	}
	return NULL;
}

int vcpu_start(struct vcpu *v)
{
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r == 0)
		r = pthread_attr_setstacksize(&attr, VCPU_STACK_BYTES);
	if (r == 0)
		r = pthread_create(&v->thread, &attr, vcpu_loop, v);
	return -r;
}
