/* blk.h - virtio block device over a copy-on-write disk (virtio 1.2, 5.2).
 * SPDX-License-Identifier: Apache-2.0
 *
 * One queue, sectors of 512 bytes, requests IN, OUT, FLUSH and GET_ID. They
 * are done one after the other in the notify callback, so nothing is in
 * flight between callbacks and a reset finds nothing to wait for.
 *
 * The disk may be opened (cow_open) after blk_init(), before the guest runs.
 *
 * All fields belong to vmm_lock.
 */
#ifndef BRIG_VMM_DEV_BLK_H
#define BRIG_VMM_DEV_BLK_H

#include <stdint.h>

#include "../blk/cow.h"
#include "../virtio/virtio.h"

/* Config space up to seg_max (virtio 1.2, 5.2.4). */
#define BLK_CONFIG_BYTES 16u

struct blk {
	struct virtio_dev dev;
	struct cow *cow; /* borrowed */
	uint8_t config[BLK_CONFIG_BYTES];

	/* scratch of the request in hand */
	struct queue_chain chain;
	struct iovec iov[QUEUE_SIZE_MAX];

	/* requests that were done, for vmm_stats */
	uint64_t read_bytes;
	uint64_t write_bytes;
	uint32_t reads;
	uint32_t writes;
};

/* Prepares the device; borrows all it is given, allocates nothing. The machine
 * puts &b->dev into its slot. */
void blk_init(struct blk *b, struct cow *cow, struct gmem *mem, int irq_fd);

/* Saves or loads the device, as virtio_state() says. The disk behind it is
 * cow_state()'s. */
void blk_state(struct state_stream *s, struct blk *b);

/* Bytes that the guest's writes take in the top layer. */
uint64_t blk_layer_bytes(const struct blk *b);

#endif
