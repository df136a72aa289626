/* machine.h - one microVM: what it is made of, in guest-visible order.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_MACHINE_H
#define BRIG_VMM_MACHINE_H

#include <stdint.h>

#include "bus.h"
#include "dev/blk.h"
#include "dev/rng.h"
#include "dev/serial.h"
#include "dev/vsock.h"
#include "gmem.h"
#include "vcpu.h"
#include "wire/vmm.h"

/* There is one, static: nothing of it is allocated after machine_build(). */
struct machine {
	struct vmm_config config;
	struct gmem mem;
	int vm_fd;
	int epoll_fd;
	struct bus bus;
	struct vcpu vcpus[BRIG_VCPUS_MAX];

	struct serial serial;
	struct cow disk;
	struct blk blk;
	struct vsock vsock;
	struct rng rng;
	int kick_fds[BRIG_MMIO_SLOTS][VIRTIO_QUEUES_MAX]; /* ioeventfds */
};

/* What woke the device thread: epoll_data.u64 is kind << 32 | index. */
enum machine_event {
	MACHINE_STOP = 1,    /* stop_machine() was called */
	MACHINE_CONTROL = 2, /* a packet from brigd */
	MACHINE_KICK = 3,    /* index: slot * VIRTIO_QUEUES_MAX + queue */
	MACHINE_VSOCK = 4,   /* index: connection */
};

/* Builds the machine from the descriptors of wire/vmm.h: memory, files in
 * memory, slots, irqchip, vCPUs, devices, in the order that KVM wants. Dies
 * with a log line when something is wrong: before the guest runs the process
 * is the cleanup. */
void machine_build(struct machine *m, const struct vmm_config *config);

/* Starts the vCPUs and serves devices and brigd until the machine stops.
 * Tells brigd the reason and returns. */
void machine_run(struct machine *m);

#endif
