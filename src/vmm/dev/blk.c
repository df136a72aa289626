/* blk.c - virtio block device over a copy-on-write disk (virtio 1.2, 5.2).
 * SPDX-License-Identifier: Apache-2.0
 *
 *   readable                        writable
 *   | type | 0 | sector | data ...  | data ...  | status |
 *     4      4   8        OUT         IN          1, the last byte
 *
 * How the driver cuts this into descriptors means nothing (2.7.4).
 */
#include <errno.h>

#include "blk.h"
#include "num.h"

enum {
	BLK_T_IN = 0,
	BLK_T_OUT = 1,
	BLK_T_FLUSH = 4,
	BLK_T_GET_ID = 8,

	BLK_S_OK = 0,
	BLK_S_IOERR = 1,
	BLK_S_UNSUPP = 2,
};

#define BLK_F_SEG_MAX (1ull << 2)
#define BLK_F_FLUSH (1ull << 9)

#define BLK_SECTOR_BYTES 512u
#define BLK_HEADER_BYTES 16u
#define BLK_ID_BYTES 20u

/* Data segments of one request. Header and status take two descriptors; the
 * driver gets no more out of it than with QUEUE_SIZE_MAX - 2, but a request
 * then fills half the ring at most. */
#define BLK_SEG_MAX (QUEUE_SIZE_MAX / 2 - 2)

/* The same for all: the id names a kind of disk and no sandbox. */
static const char blk_id[BLK_ID_BYTES] = "brig-root";

/* Where a request's data ends up; the caller writes the status. */
struct outcome {
	uint8_t status;   /* BLK_S_* */
	uint32_t written; /* bytes put into the writable segments */
};

static struct outcome failed(uint8_t status)
{
	return (struct outcome){ .status = status };
}

/* Byte offset of a transfer of `n` bytes at `sector`; false if it is empty,
 * no whole sectors, or not on the disk. */
static bool blk_locate(const struct blk *b, uint64_t sector, uint32_t n,
		       uint64_t *ret)
{
	uint64_t at;

	if (n == 0 || n % BLK_SECTOR_BYTES != 0 ||
	    !u64_mul(sector, BLK_SECTOR_BYTES, &at))
		return false;
	if (at > b->cow->disk_bytes || n > b->cow->disk_bytes - at)
		return false;
	*ret = at;
	return true;
}

static struct outcome blk_read(struct blk *b, uint64_t sector)
{
	uint32_t n = b->chain.writable_bytes - 1;
	uint64_t at;

	if (!blk_locate(b, sector, n, &at))
		return failed(BLK_S_IOERR);
	int count =
		queue_chain_iovec(&b->chain, b->dev.mem, true, 0, n, b->iov);
	if (count < 0 || cow_read(b->cow, at, b->iov, count) < 0)
		return failed(BLK_S_IOERR);
	b->reads++;
	b->read_bytes += n;
	return (struct outcome){ .status = BLK_S_OK, .written = n };
}

static struct outcome blk_write(struct blk *b, uint64_t sector)
{
	uint32_t n = b->chain.readable_bytes - BLK_HEADER_BYTES;
	uint64_t at;

	if (!blk_locate(b, sector, n, &at))
		return failed(BLK_S_IOERR);
	int count = queue_chain_iovec(&b->chain, b->dev.mem, false,
				      BLK_HEADER_BYTES, n, b->iov);
	if (count < 0 || cow_write(b->cow, at, b->iov, count) < 0)
		return failed(BLK_S_IOERR);
	b->writes++;
	b->write_bytes += n;
	return (struct outcome){ .status = BLK_S_OK };
}

static struct outcome blk_get_id(struct blk *b)
{
	uint32_t n = b->chain.writable_bytes - 1;

	n = n < BLK_ID_BYTES ? n : BLK_ID_BYTES;
	if (queue_chain_write(&b->chain, b->dev.mem, 0, blk_id, n) < 0)
		return failed(BLK_S_IOERR);
	return (struct outcome){ .status = BLK_S_OK, .written = n };
}

static struct outcome blk_execute(struct blk *b)
{
	uint8_t header[BLK_HEADER_BYTES];

	if (queue_chain_read(&b->chain, b->dev.mem, 0, header,
			     sizeof(header)) != (int64_t)sizeof(header))
		return failed(BLK_S_IOERR);
	switch (load_le32(header)) {
	case BLK_T_IN:
		return blk_read(b, load_le64(header + 8));
	case BLK_T_OUT:
		return blk_write(b, load_le64(header + 8));
	case BLK_T_FLUSH:
		/* The top layer has no name and dies with this process:
		 * nothing that a flush makes durable could ever be read
		 * again. A layer that is sealed for a snapshot is synced by
		 * who keeps it. All the driver may expect is order, and
		 * requests before this one are done. */
		return (struct outcome){ .status = BLK_S_OK };
	case BLK_T_GET_ID:
		return blk_get_id(b);
	default:
		return failed(BLK_S_UNSUPP);
	}
}

/* Does the request in b->chain and gives its buffers back; false when the
 * device cannot go on. */
static bool blk_serve(struct blk *b)
{
	struct queue_chain *c = &b->chain;
	uint32_t written = 0;

	/* Without a byte to put the status in, the driver cannot be told. */
	if (c->writable_bytes > 0) {
		struct outcome o = blk_execute(b);
		if (queue_chain_write(c, b->dev.mem, c->writable_bytes - 1,
				      &o.status, 1) != 1) {
			virtio_needs_reset(&b->dev, "status not writable");
			return false;
		}
		written = o.written + 1;
	}
	return virtio_push(&b->dev, 0, c->head, written) == 0;
}

/* One round serves at most a full ring. The driver kicks after it adds, and a
 * kick that comes now fires the ioeventfd again: what this round leaves has
 * its own. */
static void blk_notify(struct virtio_dev *d, unsigned int q)
{
	struct blk *b = d->self;
	unsigned int served = 0;

	ASSERT(q == 0);
	while (served < d->queues[0].size && virtio_pop(d, 0, &b->chain) == 1) {
		if (!blk_serve(b))
			return;
		served++;
	}
	if (served > 0)
		virtio_interrupt(d, 0);
}

static const struct virtio_model blk_model = {
	.name = "blk",
	.id = VIRTIO_ID_BLK,
	.queue_max = { QUEUE_SIZE_MAX },
	.features = BLK_F_SEG_MAX | BLK_F_FLUSH,
	.notify = blk_notify,
};

void blk_init(struct blk *b, struct cow *cow, struct gmem *mem, int irq_fd)
{
	uint64_t sectors = cow->disk_bytes / BLK_SECTOR_BYTES;
	uint32_t seg_max = BLK_SEG_MAX;

	*b = (struct blk){ .cow = cow };
	memcpy(b->config, &sectors, sizeof(sectors));
	memcpy(b->config + 12, &seg_max, sizeof(seg_max));
	virtio_init(&b->dev, &blk_model, mem, b, b->config, sizeof(b->config),
		    irq_fd);
}

uint64_t blk_layer_bytes(const struct blk *b)
{
	return b->cow->layer_blocks * COW_BLOCK_BYTES;
}

void blk_state(struct state_stream *s, struct blk *b)
{
	state_begin(s, "blk", 1);
	virtio_state(s, &b->dev);
	state_end(s);
}
