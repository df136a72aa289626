/* vcpu.h - one virtual processor: its thread and the loop around KVM_RUN.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_VCPU_H
#define BRIG_VMM_VCPU_H

#include <pthread.h>
#include <stdint.h>

#include "bus.h"
#include "kvm.h"
#include "x86/boot.h"

struct vcpu {
	unsigned int id;
	int fd;              /* owned */
	struct kvm_run *run; /* owned mapping, shared with KVM */
	struct bus *bus;     /* borrowed */
	pthread_t thread;
};

/* Creates vCPU `id` of `vcpus` and sets its CPUID. The irqchip must exist,
 * and no ioeventfd yet. 0 or -errno. */
must_check int vcpu_create(struct vcpu *v, int kvm_fd, int vm_fd,
			   unsigned int id, unsigned int vcpus,
			   struct bus *bus);

/* Starts the thread, which runs until the process ends. 0 or -errno. */
must_check int vcpu_start(struct vcpu *v);

#endif
