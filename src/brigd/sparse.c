/* sparse.c - files with holes: hashed, copied and merged block by block.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fd.h"
#include "num.h"
#include "snapio.h"
#include "sparse.h"
#include "worker.h"

#define BITS 64u

/* Blocks of a file that sparse_check() looks at: a huge page and more. */
#define CHECK_BLOCKS 1024u

int sparse_map_init(struct sparse_map *m, uint64_t bytes)
{
	m->blocks = bytes / SPARSE_BLOCK;
	m->bits = calloc(m->blocks / BITS + 1, sizeof(*m->bits));
	return m->bits == NULL ? -ENOMEM : 0;
}

void sparse_map_fini(struct sparse_map *m)
{
	free(m->bits);
	m->bits = NULL;
}

static bool is_marked(const struct sparse_map *m, uint64_t block)
{
	ASSERT(block < m->blocks);
	return (m->bits[block / BITS] >> (block % BITS) & 1) != 0;
}

static void mark(struct sparse_map *m, uint64_t block)
{
	ASSERT(block < m->blocks);
	m->bits[block / BITS] |= 1ull << (block % BITS);
}

/* The next run of blocks with data at or after `from`: 1, or 0 at the end. */
static int next_run(int fd, uint64_t from, uint64_t bytes, uint64_t *ret_at,
		    uint64_t *ret_end)
{
	if (from >= bytes)
		return 0;
	off_t at = lseek(fd, (off_t)from, SEEK_DATA);
	if (at < 0)
		return errno == ENXIO ? 0 : -errno;
	if ((uint64_t)at >= bytes)
		return 0;
	off_t end = lseek(fd, at, SEEK_HOLE);
	if (end < 0)
		return -errno;
	*ret_at = u64_max((uint64_t)at & ~(uint64_t)(SPARSE_BLOCK - 1), from);
	*ret_end = u64_min(align_up((uint64_t)end, SPARSE_BLOCK), bytes);
	/* A hole made meanwhile: the file is not immutable. */
	return *ret_end > *ret_at ? 1 : -EBADMSG;
}

int sparse_map_add(struct sparse_map *m, int fd)
{
	uint64_t at = 0;
	uint64_t end = 0;
	int r;

	while ((r = next_run(fd, end, m->blocks * SPARSE_BLOCK, &at, &end)) > 0)
		for (uint64_t b = at; b < end; b += SPARSE_BLOCK)
			mark(m, b / SPARSE_BLOCK);
	return r;
}

int sparse_each(int fd, uint64_t bytes,
		int (*take)(void *arg, uint64_t at, const uint8_t *data,
			    size_t n),
		void *arg)
{
	uint64_t at = 0;
	uint64_t end = 0;
	int r = 0;
	uint8_t *chunk = malloc(SPARSE_CHUNK);

	ASSERT(is_aligned(bytes, SPARSE_BLOCK));
	if (chunk == NULL)
		return -ENOMEM;
	while (r == 0 && (r = next_run(fd, end, bytes, &at, &end)) > 0) {
		for (r = 0; r == 0 && at < end;) {
			size_t n = u64_min(end - at, SPARSE_CHUNK);
			ssize_t got = fd_pread_all(fd, chunk, n, (off_t)at);
			if (worker_is_stopping())
				r = -ECANCELED;
			else if (got < 0)
				r = (int)got;
			else if ((size_t)got != n)
				r = -EBADMSG;
			else
				r = take(arg, at, chunk, n);
			at += n;
		}
	}
	free(chunk);
	return r;
}

int sparse_hash_start(gnutls_hash_hd_t *ret)
{
	return gnutls_hash_init(ret, GNUTLS_DIG_SHA256) < 0 ? -ENOMEM : 0;
}

int sparse_hash_add(gnutls_hash_hd_t hash, uint64_t at, const uint8_t *data,
		    size_t n)
{
	for (size_t i = 0; i < n; i += SPARSE_BLOCK) {
		uint64_t number = (at + i) / SPARSE_BLOCK;
		if (gnutls_hash(hash, &number, sizeof(number)) < 0 ||
		    gnutls_hash(hash, data + i, SPARSE_BLOCK) < 0)
			return -EIO;
	}
	return 0;
}

struct reading {
	gnutls_hash_hd_t hash;
	int out_fd;
	struct sparse_map *have; /* NULL: write all */
};

/* Writes those of `n` bytes whose blocks are not there yet. */
static int write_missing(struct reading *rd, uint64_t at, const uint8_t *data,
			 size_t n)
{
	size_t i = 0;

	while (i < n) {
		size_t from = i;
		while (i < n && !is_marked(rd->have, (at + i) / SPARSE_BLOCK)) {
			mark(rd->have, (at + i) / SPARSE_BLOCK);
			i += SPARSE_BLOCK;
		}
		if (i > from) {
			int r = snapio_write(rd->out_fd, at + from, data + from,
					     i - from);
			if (r < 0)
				return r;
		}
		while (i < n && is_marked(rd->have, (at + i) / SPARSE_BLOCK))
			i += SPARSE_BLOCK;
	}
	return 0;
}

static int take_chunk(void *arg, uint64_t at, const uint8_t *data, size_t n)
{
	struct reading *rd = arg;
	int r = sparse_hash_add(rd->hash, at, data, n);

	if (r < 0 || rd->out_fd < 0)
		return r;
	if (rd->have == NULL)
		return snapio_write(rd->out_fd, at, data, n);
	return write_missing(rd, at, data, n);
}

int sparse_read(int fd, uint64_t bytes, int out_fd, struct sparse_map *have,
		uint8_t ret_hash[SPARSE_HASH])
{
	struct reading rd = { .out_fd = out_fd, .have = have };
	int r = sparse_hash_start(&rd.hash);

	if (r < 0)
		return r;
	r = sparse_each(fd, bytes, take_chunk, &rd);
	gnutls_hash_deinit(rd.hash, ret_hash);
	return r;
}

bool sparse_check(int fd)
{
	static const uint8_t block[SPARSE_BLOCK] = { 1 };
	const uint64_t bytes = (uint64_t)CHECK_BLOCKS * SPARSE_BLOCK;
	uint64_t at = 0;
	uint64_t end = 0;

	if (snapio_resize(fd, bytes) < 0 ||
	    snapio_write(fd, SPARSE_BLOCK, block, sizeof(block)) < 0 ||
	    next_run(fd, 0, bytes, &at, &end) != 1)
		return false;
	return at == SPARSE_BLOCK && end == (uint64_t)2 * SPARSE_BLOCK &&
	       next_run(fd, end, bytes, &at, &end) == 0;
}
