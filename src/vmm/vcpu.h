/* vcpu.h - one virtual processor: its thread and the loop around KVM_RUN.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The vCPUs of the process are paused or run, all together. Parked, a vCPU's
 * thread waits outside KVM, and what its last exit asked for is done: its
 * state is complete and may be read and written. At first they are paused, so
 * that a shell can start the threads before there is a guest:
 *
 *   vcpu_create() --> vcpu_start() --> state is set --> vcpu_resume_all()
 *                                           ^                 |
 *                                           +- vcpu_pause_all()
 *
 * All functions: device thread only.
 */
#ifndef BRIG_VMM_VCPU_H
#define BRIG_VMM_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bus.h"
#include "kvm.h"
#include "x86/boot.h"

struct vcpu {
	unsigned int id;
	int fd;              /* owned */
	struct kvm_run *run; /* owned mapping, shared with KVM */
	struct bus *bus;     /* borrowed */
	bool started;
	pthread_t thread; /* valid when started */
};

/* What KVM_GET_SUPPORTED_CPUID says, where that is known: to ask takes KVM
 * some 80 CPUID instructions, which are slow in a virtual machine. Before
 * vcpu_create(). */
void vcpu_supports(const struct kvm_cpuid_table *table);

/* Creates vCPU `id` of `vcpus` and sets its CPUID. The irqchip must exist,
 * and no ioeventfd yet. 0 or -errno. */
must_check int vcpu_create(struct vcpu *v, int kvm_fd, int vm_fd,
			   unsigned int id, unsigned int vcpus,
			   struct bus *bus);

/* The CPUID table that vcpu_create() gave to vCPU 0. */
const struct kvm_cpuid_table *vcpu_cpuid(void);

/* Starts the thread, which runs until the process ends; it parks while the
 * vCPUs are paused (vcpu_pause_all() waits for that). 0 or -errno. */
must_check int vcpu_start(struct vcpu *v);

/* Tells all `n` vCPUs to park and does not wait for it. */
void vcpu_stop_all(struct vcpu *vcpus, unsigned int n);

/* Returns when all `n` vCPUs stand still: those that were started are parked,
 * or have ended because the machine stops. A vCPU that is in a device's
 * callback finishes it first: so never call this with vmm_lock held. */
void vcpu_pause_all(struct vcpu *vcpus, unsigned int n);

/* Lets them run, after telling the guest's watchdogs that it stood still.
 * Does nothing when they are running. */
void vcpu_resume_all(struct vcpu *vcpus, unsigned int n);

#endif
