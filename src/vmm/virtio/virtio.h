/* virtio.h - the device contract: what a device model gives to the transport
 * and what it may call.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   vCPU thread --MMIO exit--> mmio.c --(lock)--> model callbacks
 *   ioeventfd  --> device thread -----(lock)--> model->notify
 *   socket, file, timer --> device thread -(lock)--> model's own handler
 *
 * A device is inactive or active. It becomes active in mmio.c alone, when the
 * driver wrote DRIVER_OK after a legal sequence (virtio 1.2, 3.1.1) and every
 * enabled queue passed queue_activate(); from then on the features and queues
 * in this struct do not change until a reset. One lock for all devices,
 * vmm_lock, is held in every callback; InterruptStatus and InterruptACK alone
 * work without it.
 *
 * A model never allocates, never blocks (files apart) and never trusts: on
 * any error from queue.h it calls virtio_needs_reset() and returns.
 */
#ifndef BRIG_VMM_VIRTIO_VIRTIO_H
#define BRIG_VMM_VIRTIO_VIRTIO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../gmem.h"
#include "../state/stream.h"
#include "queue.h"

#define VIRTIO_QUEUES_MAX 3u

/* Device ids (virtio 1.2, 5). */
enum virtio_id {
	VIRTIO_ID_NONE = 0,
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLK = 2,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_BALLOON = 5,
	VIRTIO_ID_VSOCK = 19,
};

/* Transport feature that is always offered and must be accepted. */
#define VIRTIO_FEATURE_VERSION_1 (1ull << 32)

/* Register that the machine puts an ioeventfd on (virtio 1.2, 4.2.2). */
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x050u

struct virtio_dev;

/* Constants of a device kind: data first, callbacks only where they differ.
 * NULL callbacks mean "nothing to do". */
struct virtio_model {
	const char *name;
	uint32_t id;                           /* enum virtio_id */
	uint16_t queue_max[VIRTIO_QUEUES_MAX]; /* 0 ends the list */
	uint64_t features;                     /* offered, without VERSION_1 */

	/* Becomes active: features and queues are set. -errno refuses, and
	 * the device needs a reset; `reset` is not called for it. */
	int (*activate)(struct virtio_dev *d);

	/* The driver kicked queue `q`, which is in use. Serves at most a
	 * full ring: a driver that adds while we serve kicks again. */
	void (*notify)(struct virtio_dev *d, unsigned int q);

	/* From active back to inactive: drop everything in flight. After it
	 * returns no byte of guest memory is touched for the old rings
	 * (A-14). */
	void (*reset)(struct virtio_dev *d);
};

struct virtio_dev {
	const struct virtio_model *model;
	struct gmem *mem;      /* borrowed */
	void *self;            /* the model's own state; borrowed */
	const uint8_t *config; /* device configuration space, read only */
	uint16_t config_len;
	int irq_fd; /* non-blocking eventfd: KVM raises the slot's GSI */

	/* valid while active */
	bool active;
	uint64_t features; /* negotiated */
	struct queue queues[VIRTIO_QUEUES_MAX];

	/* transport registers, private to mmio.c */
	struct virtio_mmio {
		uint32_t status;
		uint32_t features_sel;
		uint32_t driver_features_sel;
		uint64_t driver_features;
		uint32_t queue_sel;
		struct {
			uint32_t num;
			uint32_t ready;
			uint64_t desc;
			uint64_t avail;
			uint64_t used;
		} queue[VIRTIO_QUEUES_MAX];
	} mmio;
	_Atomic uint32_t interrupt_status;

	/* counters of the monitor */
	uint32_t needs_reset_count;
};

/* --- what the machine calls (mmio.c) ------------------------------------- */

/* Prepares an inactive device. Borrows all it is given. */
void virtio_init(struct virtio_dev *d, const struct virtio_model *model,
		 struct gmem *mem, void *self, const uint8_t *config,
		 uint16_t config_len, int irq_fd);

/* A register access of the guest at `offset` (0..0xfff) into the slot (virtio
 * 1.2, 4.2.2); `len` is 1, 2, 4 or 8. A read always fills `data`; what has no
 * meaning reads 0 and is ignored when written. `d` may be NULL: an empty slot.
 * Called from vCPU threads without vmm_lock; takes it where it must. */
void virtio_mmio_read(struct virtio_dev *d, uint64_t offset, void *data,
		      uint32_t len);
void virtio_mmio_write(struct virtio_dev *d, uint64_t offset, const void *data,
		       uint32_t len);

/* The ioeventfd of queue `q` fired. Device thread; takes vmm_lock. */
void virtio_kick(struct virtio_dev *d, unsigned int q);

/* Saves, or loads, the transport of a device: what a driver has written and how
 * far the rings are. Called by the model's own X_state() while the vCPUs stand
 * still and no other thread is in the device; takes no lock. Saving changes
 * nothing. A chain that was popped and not pushed is saved as not popped, so
 * nothing may have been done with it yet.
 *
 * Loading resets the device first (the model's `reset` is called if it was
 * active), and accepts what a driver could have brought about and nothing
 * else: the queues pass queue_activate() and the model's `activate` is called
 * as for DRIVER_OK. Guest memory must be in place. A device that was refused
 * is as after a reset. Counters are neither saved nor changed. */
void virtio_state(struct state_stream *s, struct virtio_dev *d);

/* After everything was loaded, before the vCPUs run: interrupts the driver and
 * serves every queue once, since what was on its way in eventfds when the
 * machine was saved is lost. Takes vmm_lock. */
void virtio_restored(struct virtio_dev *d);

/* --- what a model calls --------------------------------------------------- */

/* Whether queue `q` is in use and the device neither needs a reset nor was
 * given up by its driver. */
bool virtio_usable(const struct virtio_dev *d, unsigned int q);

/* queue_pop: 1, 0 or negative; a negative result has already put the device
 * into "needs reset". 0 also when the queue may not be touched: the device is
 * inactive, needs a reset, its driver gave up, or `q` is not in use. */
must_check int virtio_pop(struct virtio_dev *d, unsigned int q,
			  struct queue_chain *ret);

/* queue_push: 0 or negative, likewise; -EPROTO when the queue may not be
 * touched, so that a completion that comes too late goes nowhere. Does not
 * interrupt. */
must_check int virtio_push(struct virtio_dev *d, unsigned int q, uint16_t head,
			   uint32_t written);

/* Interrupts the driver for queue `q` unless it asked us not to. Call once
 * after a batch of pushes. */
void virtio_interrupt(struct virtio_dev *d, unsigned int q);

/* The driver broke a rule, or the device cannot go on: sets
 * DEVICE_NEEDS_RESET, raises a configuration interrupt, counts, logs one line
 * (bounded per device). The device does nothing until the driver resets it. */
void virtio_needs_reset(struct virtio_dev *d, const char *why);

/* --- the lock -------------------------------------------------------------- */

void vmm_lock(void);
void vmm_unlock(void);

#endif
