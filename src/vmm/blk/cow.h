/* cow.h - a disk made of a read-only base, sealed layers and one to write to.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The disk is cut into blocks of 4 KiB. A block that was written lives in a
 * layer, at the same offset as on the disk; a map with one byte for each block
 * says in which: 0 the base (and zero beyond its end), 1..n the sealed layers,
 * oldest first, n + 1 the top, which alone is written to.
 *
 *   disk    | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
 *   map       0   2   0   0   1   2   0   0
 *   top         | 1 |           | 5 |           layer 2
 *   sealed      | 1 |       | 4 |               layer 1
 *   base    | 0 | 1 | 2 | 3 |~
 *
 * Sealing the top (for a snapshot) gives it to the sealed ones and puts an
 * empty file on top: the map stays as it is.
 *
 * A block's byte is set only after all of the block is in the top, so a write
 * that fails half way leaves each byte of its range as it was or as it should
 * become, and never shows what an earlier failure left in the top.
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

#include "../state/stream.h"
#include "cc.h"
#include "wire/limits.h"

#define COW_BLOCK_BYTES 4096u

struct cow {
	int base_fd; /* owned; regular file or block device; -1: not open */
	int top_fd;  /* owned; read-write */
	int sealed_fds[BRIG_LAYERS_MAX]; /* owned; oldest first */
	uint32_t sealed;                 /* how many */
	uint64_t base_bytes;             /* at most disk_bytes */
	uint64_t disk_bytes;             /* a multiple of COW_BLOCK_BYTES */
	uint8_t *map;                    /* borrowed */
	uint64_t layer_blocks;           /* blocks in the top */
};

/* Size of the map of a disk. At most 64 MiB (BRIG_DISK_BYTES_MAX). */
size_t cow_map_bytes(uint64_t disk_bytes);

/* Prepares a disk without files. `map` is a private anonymous mapping of
 * cow_map_bytes(), of which only what is in use takes memory; borrowed.
 * -EINVAL when the size breaks a rule above or exceeds BRIG_DISK_BYTES_MAX. */
must_check int cow_init(struct cow *c, uint64_t disk_bytes, uint8_t *map);

/* Gives the disk its files: the base, `n` sealed layers, oldest first, and an
 * empty top. Takes all descriptors and clears the map. May be called again (a
 * reset): the files that were open are closed. -EINVAL when base_bytes exceeds
 * the disk, -E2BIG when n exceeds BRIG_LAYERS_MAX: then nothing is taken and
 * nothing changes. */
must_check int cow_open(struct cow *c, int base_fd, uint64_t base_bytes,
			const int *sealed_fds, uint32_t n, int top_fd);

/* Makes the map of a disk that was just opened from the layers themselves: a
 * block with data in a layer (SEEK_DATA) stands for what is below. 0, or
 * -errno of a file that cannot tell. */
must_check int cow_find_blocks(struct cow *c);

/* Makes the top a sealed layer and takes the empty file `new_top_fd` as the
 * new one: 1. If nothing was written to the top it stays, and new_top_fd is
 * the caller's to close: 0. -E2BIG: BRIG_LAYERS_MAX are sealed already; the
 * disk goes on as it was and new_top_fd is the caller's. Nothing is synced:
 * the layer is durable when whoever keeps it has made it so. */
must_check int cow_seal(struct cow *c, int new_top_fd);

/* Saves or loads the map. To be saved the top must be empty, so cow_seal()
 * comes first; what is saved then names sealed layers only. To be loaded the
 * disk must be open, freshly, with the same size, base and number of layers:
 * any other is refused. The file takes, and costs time for, at most
 * COW_STATE_BYTES(disk_bytes); most disks take a few hundred bytes. A map
 * that was refused is unusable until cow_open(). */
void cow_state(struct state_stream *s, struct cow *c);

/* Room that cow_state() may need in a file: a byte for each block, and field
 * names for each chunk of COW_CHUNK_BLOCKS. */
#define COW_CHUNK_BLOCKS 4096u
#define COW_STATE_BYTES(disk_bytes)             \
	(256 + (disk_bytes) / COW_BLOCK_BYTES + \
	 64 * ((disk_bytes) / COW_BLOCK_BYTES / COW_CHUNK_BLOCKS + 1))

/* Reads (writes) the disk from byte `at` into (from) the buffers, which are
 * used up: `iov` is changed. `count` is at most IOV_MAX. 0; -EINVAL beyond the
 * end, with nothing done; -EIO or what the files said, and then a read has
 * filled an unknown part. Blocks as long as the files do. */
must_check int cow_read(struct cow *c, uint64_t at, struct iovec *iov,
			int count);
must_check int cow_write(struct cow *c, uint64_t at, struct iovec *iov,
			 int count);

#endif
