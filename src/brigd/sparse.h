/* sparse.h - files with holes: hashed, copied and merged block by block.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A block is 4 KiB. It has data if SEEK_DATA says so of any of its bytes: the
 * same on every file system that tells holes in units of at most one block
 * (sparse_check()). The hash of a file is SHA-256 over number (u64
 * little-endian) and bytes of each block that has data, in order; the size is
 * not part of it. Functions return 0 or -errno; any thread. Offsets of the
 * descriptors move.
 */
#ifndef BRIGD_SPARSE_H
#define BRIGD_SPARSE_H

#include <gnutls/crypto.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cc.h"

#define SPARSE_BLOCK 4096u
#define SPARSE_HASH 32u
#define SPARSE_CHUNK (256u << 10) /* read and written at once */

/* One bit for each block of a file. */
struct sparse_map {
	uint64_t *bits; /* owned */
	uint64_t blocks;
};

must_check int sparse_map_init(struct sparse_map *m, uint64_t bytes);
void sparse_map_fini(struct sparse_map *m);

/* Marks all blocks of `fd` that have data. */
must_check int sparse_map_add(struct sparse_map *m, int fd);

/* Calls `take` with the data of a file of `bytes` (a multiple of the block),
 * in order, in whole blocks, at most SPARSE_CHUNK at once; ends at the first
 * that returns not 0, and returns that. -EBADMSG: the file is shorter;
 * -ECANCELED: worker_is_stopping(). */
must_check int sparse_each(int fd, uint64_t bytes,
			   int (*take)(void *arg, uint64_t at,
				       const uint8_t *data, size_t n),
			   void *arg);

/* The hash as it grows. */
must_check int sparse_hash_start(gnutls_hash_hd_t *ret);
must_check int sparse_hash_add(gnutls_hash_hd_t hash, uint64_t at,
			       const uint8_t *data, size_t n);

/* Reads a file of `bytes` once: hashes it and, unless out_fd is -1, writes its
 * data at the same place there. With `have` only blocks that are not marked
 * are written, and all are marked then. What is hashed is what is written. */
must_check int sparse_read(int fd, uint64_t bytes, int out_fd,
			   struct sparse_map *have,
			   uint8_t ret_hash[SPARSE_HASH]);

/* True if `fd`, an empty file, tells a hole of one block from data next to
 * it. Leaves the file as it likes. */
must_check bool sparse_check(int fd);

#endif
