/* machine.h - one microVM: what it is made of, in guest-visible order.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_MACHINE_H
#define BRIG_VMM_MACHINE_H

#include <stdint.h>
#include <sys/types.h>

#include "bus.h"
#include "dev/blk.h"
#include "dev/rng.h"
#include "dev/serial.h"
#include "dev/vsock.h"
#include "gmem.h"
#include "memory.h"
#include "save.h"
#include "vcpu.h"
#include "wire/vmm.h"
#include "x86/state.h"

enum machine_state {
	MACHINE_SHELL,   /* built; nobody has claimed it */
	MACHINE_RUNNING, /* vCPUs run */
	MACHINE_PAUSED,  /* vCPUs stand still */
};

/* There is one, static: nothing of it is allocated after machine_build(). */
struct machine {
	struct vmm_config config;
	enum machine_state state; /* device thread */
	struct memory memory;
	struct gmem mem;
	int vm_fd;
	int epoll_fd;
	struct bus bus;
	struct vcpu vcpus[BRIG_VCPUS_MAX];

	struct serial serial;
	dev_t console_dev; /* what serial.console is mapped from */
	ino_t console_ino;
	struct cow disk;
	struct blk blk;
	struct vsock vsock;
	struct rng rng;
	int kick_fds[BRIG_MMIO_SLOTS][VIRTIO_QUEUES_MAX]; /* ioeventfds */
	struct save save;

	struct x86_machine x86; /* scratch of a claim or a save */

	bool fresh_known; /* fresh is what the vCPUs of a shell hold */
	struct x86_machine fresh;
};

/* What woke the device thread: epoll_data.u64 is kind << 32 | index. */
enum machine_event {
	MACHINE_STOP = 1,    /* stop_machine() was called */
	MACHINE_CONTROL = 2, /* a packet from brigd */
	MACHINE_KICK = 3,    /* index: slot * VIRTIO_QUEUES_MAX + queue */
	MACHINE_VSOCK = 4,   /* index: connection */
	MACHINE_SAVED = 5,   /* the child that writes a save has ended */
};

/* Builds a shell: memory range, slots, irqchip, vCPUs, devices, in the order
 * that KVM wants, and tells brigd. Dies with a log line when something is
 * wrong: without a guest the process is the cleanup. */
void machine_build(struct machine *m, const struct vmm_config *config);

/* Serves brigd, and devices once there is a guest, until the machine stops.
 * Tells brigd the reason and returns. */
void machine_run(struct machine *m);

/* Watches `fd` in the device thread. 0 or -errno. */
must_check int machine_watch(struct machine *m, int fd, enum machine_event kind,
			     uint32_t index);

#endif
