/* cow.c - a disk made of a read-only base and a private sparse layer on top.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A request is cut into runs: neighbouring blocks that come from the same
 * file. A run is one preadv or pwritev straight into or out of the guest's
 * memory, or a few where the file does less than it was asked. What a call
 * moved is taken off the front of the buffers at once, so that no byte of
 * them is moved twice.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cow.h"
#include "num.h"
#include "wire/limits.h"

/* Buffers of one system call. More take more calls. */
#define COW_IOV_BATCH 64

#define BITS_PER_WORD 64u

/* --- the buffers of a request --------------------------------------------- */

struct cursor {
	struct iovec *iov;
	int count;
};

static uint64_t cursor_bytes(const struct iovec *iov, int count)
{
	uint64_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* Takes `n` bytes off the front; there are that many. */
static void cursor_advance(struct cursor *c, size_t n)
{
	while (n > 0) {
		ASSERT(c->count > 0);
		size_t here = u64_min(n, c->iov->iov_len);
		c->iov->iov_base = (uint8_t *)c->iov->iov_base + here;
		c->iov->iov_len -= here;
		n -= here;
		if (c->iov->iov_len == 0) {
			c->iov++;
			c->count--;
		}
	}
}

/* Describes the next bytes, at most `n`, by at most COW_IOV_BATCH buffers. */
static int cursor_front(const struct cursor *c, size_t n, struct iovec *ret)
{
	int used = 0;

	while (n > 0 && used < c->count && used < COW_IOV_BATCH) {
		ret[used] = c->iov[used];
		if (ret[used].iov_len > n)
			ret[used].iov_len = n;
		n -= ret[used].iov_len;
		used++;
	}
	return used;
}

static void cursor_zero(struct cursor *c, size_t n)
{
	while (n > 0) {
		size_t here = u64_min(n, c->iov->iov_len);
		memset(c->iov->iov_base, 0, here);
		cursor_advance(c, here);
		n -= here;
	}
}

/* --- one run -------------------------------------------------------------- */

typedef ssize_t transfer_fn(int fd, const struct iovec *iov, int count,
			    off_t at);

/* Moves `n` bytes between `fd` and the front of the buffers. A call that moves
 * nothing is an end of file where there must be none: -EIO. */
static int transfer(transfer_fn *move, int fd, uint64_t at, struct cursor *c,
		    size_t n)
{
	struct iovec batch[COW_IOV_BATCH];

	while (n > 0) {
		int used = cursor_front(c, n, batch);
		ssize_t done = move(fd, batch, used, (off_t)at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (done == 0)
			return -EIO;
		cursor_advance(c, (size_t)done);
		at += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

/* Reads what no layer block covers: the base, and zeros behind its end. */
static int read_below(struct cow *c, uint64_t at, struct cursor *to, size_t n)
{
	size_t from_base = 0;

	if (at < c->base_bytes)
		from_base = u64_min(n, c->base_bytes - at);
	if (from_base > 0) {
		int r = transfer(preadv, c->base_fd, at, to, from_base);
		if (r < 0)
			return r;
	}
	cursor_zero(to, n - from_base);
	return 0;
}

static bool is_in_layer(const struct cow *c, uint64_t block)
{
	return c->bitmap[block / BITS_PER_WORD] >> (block % BITS_PER_WORD) & 1;
}

static void mark_in_layer(struct cow *c, uint64_t first, uint64_t end)
{
	for (uint64_t b = first; b < end; b++) {
		if (is_in_layer(c, b))
			continue;
		c->bitmap[b / BITS_PER_WORD] |= 1ull << (b % BITS_PER_WORD);
		c->layer_blocks++;
	}
}

/* Writes a part of one block that is not in the layer yet: the rest of the
 * block comes up from below first. */
static int write_part(struct cow *c, uint64_t at, struct cursor *from, size_t n)
{
	uint8_t old[COW_BLOCK_BYTES];
	size_t skip = at % COW_BLOCK_BYTES;
	uint64_t start = at - skip;
	struct iovec whole = { .iov_base = old, .iov_len = sizeof(old) };
	struct iovec head = { .iov_base = old, .iov_len = skip };
	struct iovec tail = { .iov_base = old + skip + n,
			      .iov_len = sizeof(old) - skip - n };
	int r = read_below(c, start, &(struct cursor){ &whole, 1 },
			   sizeof(old));

	if (r == 0)
		r = transfer(pwritev, c->layer_fd, start,
			     &(struct cursor){ &head, 1 }, head.iov_len);
	if (r == 0)
		r = transfer(pwritev, c->layer_fd, at, from, n);
	if (r == 0)
		r = transfer(pwritev, c->layer_fd, at + n,
			     &(struct cursor){ &tail, 1 }, tail.iov_len);
	return r;
}

/* --- public --------------------------------------------------------------- */

size_t cow_bitmap_bytes(uint64_t disk_bytes)
{
	uint64_t per_word = (uint64_t)COW_BLOCK_BYTES * BITS_PER_WORD;

	return align_up(disk_bytes, per_word) / per_word * sizeof(uint64_t);
}

int cow_init(struct cow *c, int base_fd, uint64_t base_bytes, int layer_fd,
	     uint64_t disk_bytes, uint64_t *bitmap)
{
	if (disk_bytes == 0 || disk_bytes > BRIG_DISK_BYTES_MAX ||
	    !is_aligned(disk_bytes, COW_BLOCK_BYTES) || base_bytes > disk_bytes)
		return -EINVAL;
	*c = (struct cow){
		.base_fd = base_fd,
		.layer_fd = layer_fd,
		.base_bytes = base_bytes,
		.disk_bytes = disk_bytes,
	};
	c->bitmap = bitmap;
	return 0;
}

static bool is_on_disk(const struct cow *c, uint64_t at, uint64_t n)
{
	return at <= c->disk_bytes && n <= c->disk_bytes - at;
}

int cow_read(struct cow *c, uint64_t at, struct iovec *iov, int count)
{
	struct cursor to = { iov, count };
	uint64_t left = cursor_bytes(iov, count);

	if (!is_on_disk(c, at, left))
		return -EINVAL;
	while (left > 0) {
		uint64_t block = at / COW_BLOCK_BYTES;
		bool in_layer = is_in_layer(c, block);
		uint64_t n = COW_BLOCK_BYTES - at % COW_BLOCK_BYTES;
		while (n < left && is_in_layer(c, ++block) == in_layer)
			n += COW_BLOCK_BYTES;
		n = u64_min(n, left);
		int r = in_layer ? transfer(preadv, c->layer_fd, at, &to, n)
				 : read_below(c, at, &to, n);
		if (r < 0)
			return r;
		at += n;
		left -= n;
	}
	return 0;
}

int cow_write(struct cow *c, uint64_t at, struct iovec *iov, int count)
{
	struct cursor from = { iov, count };
	uint64_t left = cursor_bytes(iov, count);

	if (!is_on_disk(c, at, left))
		return -EINVAL;
	while (left > 0) {
		uint64_t block = at / COW_BLOCK_BYTES;
		size_t skip = at % COW_BLOCK_BYTES;
		bool part = skip != 0 || left < COW_BLOCK_BYTES;
		uint64_t n = part ? u64_min(left, COW_BLOCK_BYTES - skip)
				  : left - left % COW_BLOCK_BYTES;
		int r = part && !is_in_layer(c, block)
				? write_part(c, at, &from, n)
				: transfer(pwritev, c->layer_fd, at, &from, n);
		if (r < 0)
			return r;
		mark_in_layer(c, block,
			      block + (n + skip + COW_BLOCK_BYTES - 1) /
					      COW_BLOCK_BYTES);
		at += n;
		left -= n;
	}
	return 0;
}
