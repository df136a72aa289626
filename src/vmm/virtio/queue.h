/* queue.h - one split virtqueue, seen from the device (virtio 1.2, 2.7).
 * SPDX-License-Identifier: Apache-2.0
 *
 * The configuration is frozen when the driver sets DRIVER_OK; what the driver
 * writes to the registers later does not reach this struct. Every descriptor
 * is read once into private memory, checked, and used from there. Not
 * offered, hence refused: indirect descriptors, event index, packed rings.
 *
 * Any error (-EPROTO: the ring breaks a rule; -EFAULT: an address is not RAM)
 * means that the device needs a reset: the caller calls virtio_needs_reset()
 * and leaves the queue alone until then. All functions are called with the
 * device lock held.
 */
#ifndef BRIG_VMM_VIRTIO_QUEUE_H
#define BRIG_VMM_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../gmem.h"

/* Largest ring we offer, and so the longest chain. */
#define QUEUE_SIZE_MAX 256u

/* Most bytes one chain may describe: 16 MiB. Larger is -EPROTO. */
#define QUEUE_CHAIN_BYTES_MAX (16u << 20)

struct queue {
	uint16_t size; /* power of two, 1..QUEUE_SIZE_MAX; 0: not in use */
	gpa_t desc;    /* 16-aligned */
	gpa_t avail;   /* 2-aligned */
	gpa_t used;    /* 4-aligned */
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t in_flight; /* popped and not yet pushed */
};

struct queue_segment {
	gpa_t at;
	uint32_t len;
};

/* One popped chain: `readable` segments (driver to device) come first, then
 * `writable` ones, as virtio 1.2, 2.7.4.2 demands. Every segment lies in RAM
 * when it is popped. */
struct queue_chain {
	uint16_t head;
	uint16_t readable;
	uint16_t writable;
	uint32_t readable_bytes;
	uint32_t writable_bytes;
	struct queue_segment segments[QUEUE_SIZE_MAX];
};

/* Checks and freezes a configuration that a driver (or a snapshot) gave: size
 * a power of two within `max`, rings aligned and inside RAM. 0, -EINVAL or
 * -EFAULT; on failure *ret is untouched. */
must_check int queue_activate(struct gmem *g, uint16_t size, uint16_t max,
			      gpa_t desc, gpa_t avail, gpa_t used,
			      struct queue *ret);

/* Takes the next available chain. 1: *ret is filled; 0: none; or an error,
 * and then *ret is empty and the queue unchanged. Every popped chain must be
 * given back by queue_push. Refused with -EPROTO: more chains than the queue
 * can hold, a head or `next` outside the table, a loop, a writable descriptor
 * before a readable one, an indirect one, an empty one (drivers send none),
 * too many bytes. */
must_check int queue_pop(struct queue *q, struct gmem *g,
			 struct queue_chain *ret);

/* Gives a chain back with `written` bytes written to its writable segments.
 * 0, or -EFAULT, or -EPROTO if nothing is in flight. */
must_check int queue_push(struct queue *q, struct gmem *g, uint16_t head,
			  uint32_t written);

/* Reads the driver's available index: it moves when a chain is added. */
must_check int queue_avail_idx(struct queue *q, struct gmem *g, uint16_t *ret);

/* Whether the driver wants an interrupt (VIRTQ_AVAIL_F_NO_INTERRUPT). */
must_check int queue_wants_interrupt(struct queue *q, struct gmem *g,
				     bool *ret);

/* Copies up to `n` bytes from the readable (to the writable) segments of a
 * chain, starting `offset` bytes into them. Returns the number of bytes
 * copied, or -EFAULT. */
must_check int64_t queue_chain_read(const struct queue_chain *c, struct gmem *g,
				    uint32_t offset, void *to, uint32_t n);
must_check int64_t queue_chain_write(const struct queue_chain *c,
				     struct gmem *g, uint32_t offset,
				     const void *from, uint32_t n);

/* Fills iov (at least QUEUE_SIZE_MAX entries) with `n` bytes of the readable
 * or writable segments from `offset` on. Returns the number of entries, or
 * -EFAULT; -ERANGE if the chain holds fewer bytes. */
must_check int queue_chain_iovec(const struct queue_chain *c, struct gmem *g,
				 bool writable, uint32_t offset, uint32_t n,
				 struct iovec *iov);

#endif
