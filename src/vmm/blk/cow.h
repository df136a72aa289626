/* cow.h - a disk made of a read-only base and a private sparse layer on top.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The disk is cut into blocks of 4 KiB. A block that was written lives in the
 * layer, at the same offset as on the disk; a bitmap says which those are.
 * Any other block is what the base holds there, and zero beyond its end.
 *
 *   disk    | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
 *   bitmap    0   1   0   0   0   1   0   0
 *   layer       | 1 |           | 5 |
 *   base    | 0 | 1 | 2 | 3 |~
 *
 * A block's bit is set only after all of the block is in the layer, so a
 * write that fails half way leaves each byte of its range as it was or as it
 * should become, and never shows what an earlier failure left in the layer.
 *
 * Nothing is allocated and nothing is locked: the caller serialises. Offsets
 * and lengths may come from a guest; they are checked against the disk's
 * size. Where the data goes must have been checked by gmem_iovec().
 */
#ifndef BRIG_VMM_BLK_COW_H
#define BRIG_VMM_BLK_COW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cc.h"

#define COW_BLOCK_BYTES 4096u

struct cow {
	int base_fd;           /* borrowed; regular file or block device */
	int layer_fd;          /* borrowed; empty file, read-write */
	uint64_t base_bytes;   /* at most disk_bytes */
	uint64_t disk_bytes;   /* a multiple of COW_BLOCK_BYTES */
	uint64_t *bitmap;      /* borrowed; cow_bitmap_bytes(), all zero */
	uint64_t layer_blocks; /* bits set */
};

/* Size of the bitmap of a disk. At most 8 MiB (BRIG_DISK_BYTES_MAX). */
size_t cow_bitmap_bytes(uint64_t disk_bytes);

/* Puts a disk together; borrows all. -EINVAL when the sizes break a rule
 * above or exceed BRIG_DISK_BYTES_MAX. */
must_check int cow_init(struct cow *c, int base_fd, uint64_t base_bytes,
			int layer_fd, uint64_t disk_bytes, uint64_t *bitmap);

/* Reads (writes) the disk from byte `at` into (from) the buffers, which are
 * used up: `iov` is changed. `count` is at most IOV_MAX. 0; -EINVAL beyond the
 * end, with nothing done; -EIO or what the files said, and then a read has
 * filled an unknown part. Blocks as long as the files do. */
must_check int cow_read(struct cow *c, uint64_t at, struct iovec *iov,
			int count);
must_check int cow_write(struct cow *c, uint64_t at, struct iovec *iov,
			 int count);

#endif
