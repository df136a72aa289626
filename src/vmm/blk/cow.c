/* cow.c - a disk made of a read-only base, sealed layers and one to write to.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A request is cut into runs: neighbouring blocks that come from the same
 * file. A run is one preadv or pwritev straight into or out of the guest's
 * memory, or a few where the file does less than it was asked. What a call
 * moved is taken off the front of the buffers at once, so that no byte of
 * them is moved twice.
 *
 * Saved, the map is cut into chunks of 16 MiB of disk. Most chunks are all
 * base and left out; another one is a list of runs or, where that would be
 * longer, the bytes themselves. So no pattern of writes makes the file much
 * larger than the map.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cow.h"
#include "fd.h"
#include "num.h"

/* Buffers of one system call. More take more calls. */
#define COW_IOV_BATCH 64

#define BASE 0u /* in the map */

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

static uint8_t top(const struct cow *c)
{
	return (uint8_t)(c->sealed + 1);
}

/* Reads `n` bytes that all lie in `layer`, of the map. The base is followed by
 * zeros. */
static int read_layer(struct cow *c, uint8_t layer, uint64_t at,
		      struct cursor *to, size_t n)
{
	size_t from_base = 0;

	if (layer == top(c))
		return transfer(preadv, c->top_fd, at, to, n);
	if (layer != BASE)
		return transfer(preadv, c->sealed_fds[layer - 1], at, to, n);
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

static void mark_in_top(struct cow *c, uint64_t first, uint64_t end)
{
	for (uint64_t b = first; b < end; b++) {
		if (c->map[b] == top(c))
			continue;
		c->map[b] = top(c);
		c->layer_blocks++;
	}
}

/* Writes a part of one block that is not in the top yet: the rest of the
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
	int r = read_layer(c, c->map[at / COW_BLOCK_BYTES], start,
			   &(struct cursor){ &whole, 1 }, sizeof(old));

	if (r == 0)
		r = transfer(pwritev, c->top_fd, start,
			     &(struct cursor){ &head, 1 }, head.iov_len);
	if (r == 0)
		r = transfer(pwritev, c->top_fd, at, from, n);
	if (r == 0)
		r = transfer(pwritev, c->top_fd, at + n,
			     &(struct cursor){ &tail, 1 }, tail.iov_len);
	return r;
}

/* --- the files ------------------------------------------------------------ */

size_t cow_map_bytes(uint64_t disk_bytes)
{
	return disk_bytes / COW_BLOCK_BYTES;
}

int cow_init(struct cow *c, uint64_t disk_bytes, uint8_t *map)
{
	if (disk_bytes == 0 || disk_bytes > BRIG_DISK_BYTES_MAX ||
	    !is_aligned(disk_bytes, COW_BLOCK_BYTES))
		return -EINVAL;
	*c = (struct cow){
		.base_fd = -1,
		.top_fd = -1,
		.disk_bytes = disk_bytes,
		.map = map,
	};
	/* One block that is written must not cost 2 MiB. */
	(void)madvise(map, cow_map_bytes(disk_bytes), MADV_NOHUGEPAGE);
	return 0;
}

static void close_all(struct cow *c)
{
	fd_close(&c->base_fd);
	fd_close(&c->top_fd);
	for (uint32_t i = 0; i < c->sealed; i++)
		fd_close(&c->sealed_fds[i]);
	c->sealed = 0;
}

int cow_open(struct cow *c, int base_fd, uint64_t base_bytes,
	     const int *sealed_fds, uint32_t n, int top_fd)
{
	if (base_bytes > c->disk_bytes)
		return -EINVAL;
	if (n > BRIG_LAYERS_MAX)
		return -E2BIG;
	if (madvise(c->map, cow_map_bytes(c->disk_bytes), MADV_DONTNEED) < 0)
		return -errno;
	close_all(c);
	c->base_fd = base_fd;
	c->base_bytes = base_bytes;
	for (uint32_t i = 0; i < n; i++)
		c->sealed_fds[i] = sealed_fds[i];
	c->sealed = n;
	c->top_fd = top_fd;
	c->layer_blocks = 0;
	return 0;
}

/* Marks the blocks of `fd` that have data as layer `index`. Each run begins
 * past the last, so this ends. */
static int mark_layer(struct cow *c, int fd, uint8_t index)
{
	uint64_t end = 0;

	while (end < c->disk_bytes) {
		off_t start = lseek(fd, (off_t)end, SEEK_DATA);
		if (start < 0)
			return errno == ENXIO ? 0 : -errno;
		off_t hole = lseek(fd, start, SEEK_HOLE);
		if (hole <= start)
			return -EIO;
		end = u64_min((uint64_t)hole, c->disk_bytes);
		uint64_t first = (uint64_t)start / COW_BLOCK_BYTES;
		uint64_t last =
			align_up(end, COW_BLOCK_BYTES) / COW_BLOCK_BYTES;
		if (first < last)
			memset(&c->map[first], index, last - first);
	}
	return 0;
}

int cow_find_blocks(struct cow *c)
{
	for (uint32_t i = 0; i < c->sealed; i++) {
		int r = mark_layer(c, c->sealed_fds[i], (uint8_t)(i + 1));
		if (r < 0)
			return r;
	}
	return 0;
}

int cow_seal(struct cow *c, int new_top_fd)
{
	if (c->layer_blocks == 0)
		return 0;
	if (c->sealed == BRIG_LAYERS_MAX)
		return -E2BIG;
	c->sealed_fds[c->sealed++] = c->top_fd;
	c->top_fd = new_top_fd;
	c->layer_blocks = 0;
	return 1;
}

/* --- saved state ---------------------------------------------------------- */

/* What stands for a run in a file: u16 number of blocks, u8 layer. */
#define RUN_BYTES 3u

static_assert(COW_CHUNK_BLOCKS <= UINT16_MAX, "a run is counted in 16 bits");
static_assert(BRIG_LAYERS_MAX + 1 <= UINT8_MAX, "a layer is one byte");

static uint64_t chunk_count(const struct cow *c)
{
	uint64_t blocks = cow_map_bytes(c->disk_bytes);

	return (blocks + COW_CHUNK_BLOCKS - 1) / COW_CHUNK_BLOCKS;
}

/* The part of the map that chunk `i` is; returns its length. */
static uint32_t chunk_find(const struct cow *c, uint64_t i, uint8_t **ret)
{
	uint64_t first = i * COW_CHUNK_BLOCKS;

	*ret = c->map + first;
	return (uint32_t)u64_min(COW_CHUNK_BLOCKS,
				 cow_map_bytes(c->disk_bytes) - first);
}

/* The first chunk from `i` on that is not all base; or the number of chunks. */
static uint64_t chunk_in_use(const struct cow *c, uint64_t i)
{
	for (; i < chunk_count(c); i++) {
		uint8_t *map;
		uint32_t n = chunk_find(c, i, &map);

		if (map[0] != BASE || memcmp(map, map + 1, n - 1) != 0)
			break;
	}
	return i;
}

/* Writes the runs of `n` blocks into `to`, which has room for `n` bytes.
 * Returns their bytes, or `n` if they do not take less than that. */
static uint32_t runs_encode(const uint8_t *map, uint32_t n, uint8_t *to)
{
	uint32_t used = 0;
	uint32_t end;

	for (uint32_t at = 0; at < n; at = end) {
		for (end = at + 1; end < n && map[end] == map[at];)
			end++;
		if (used + RUN_BYTES >= n)
			return n;
		uint16_t blocks = (uint16_t)(end - at);
		memcpy(to + used, &blocks, sizeof(blocks));
		to[used + sizeof(blocks)] = map[at];
		used += RUN_BYTES;
	}
	return used;
}

/* The reverse. False if they are not exactly `n` blocks. */
static bool runs_decode(const uint8_t *from, uint32_t bytes, uint8_t *map,
			uint32_t n)
{
	uint32_t done = 0;

	if (bytes % RUN_BYTES != 0)
		return false;
	for (; bytes > 0; bytes -= RUN_BYTES, from += RUN_BYTES) {
		uint32_t blocks = load_le16(from);
		if (blocks == 0 || blocks > n - done)
			return false;
		memset(map + done, from[sizeof(uint16_t)], blocks);
		done += blocks;
	}
	return done == n;
}

static bool are_sealed(const struct cow *c, const uint8_t *map, uint32_t n)
{
	uint8_t most = 0;

	for (uint32_t i = 0; i < n; i++)
		most = map[i] > most ? map[i] : most;
	return most <= c->sealed;
}

/* One chunk: its `n` blocks as they are, or fewer bytes of runs. */
static void chunk_state(struct state_stream *s, struct cow *c, uint64_t i)
{
	uint8_t runs[COW_CHUNK_BLOCKS];
	uint8_t *map;
	uint32_t n = chunk_find(c, i, &map);
	uint32_t bytes = n;

	if (!s->loading)
		bytes = runs_encode(map, n, runs);
	state_u32(s, "bytes", &bytes, 1, n);
	if (!state_ok(s))
		return;
	if (bytes == n) {
		state_bytes(s, "blocks", map, n);
	} else {
		state_bytes(s, "runs", runs, bytes);
		if (s->loading && state_ok(s) &&
		    !runs_decode(runs, bytes, map, n))
			state_fail(s, "runs");
	}
	if (state_ok(s) && !are_sealed(c, map, n))
		state_fail(s, "layer");
}

void cow_state(struct state_stream *s, struct cow *c)
{
	uint64_t disk_bytes = c->disk_bytes;
	uint64_t base_bytes = c->base_bytes;
	uint32_t sealed = c->sealed;
	uint32_t end = (uint32_t)chunk_count(c);
	uint32_t next = 0;

	ASSERT(c->layer_blocks == 0);
	state_begin(s, "disk", 1);
	state_u64(s, "disk_bytes", &disk_bytes, disk_bytes, disk_bytes);
	state_u64(s, "base_bytes", &base_bytes, base_bytes, base_bytes);
	state_u32(s, "layers", &sealed, sealed, sealed);
	/* chunks in ascending order; their number ends the list */
	while (state_ok(s)) {
		uint32_t chunk = end;

		if (!s->loading)
			chunk = (uint32_t)chunk_in_use(c, next);
		state_u32(s, "chunk", &chunk, next, end);
		if (!state_ok(s) || chunk == end)
			break;
		chunk_state(s, c, chunk);
		next = chunk + 1;
	}
	state_end(s);
}

/* --- requests ------------------------------------------------------------- */

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
		uint8_t layer = c->map[block];
		uint64_t n = COW_BLOCK_BYTES - at % COW_BLOCK_BYTES;
		while (n < left && c->map[++block] == layer)
			n += COW_BLOCK_BYTES;
		n = u64_min(n, left);
		int r = read_layer(c, layer, at, &to, n);
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
		int r = part && c->map[block] != top(c)
				? write_part(c, at, &from, n)
				: transfer(pwritev, c->top_fd, at, &from, n);
		if (r < 0)
			return r;
		mark_in_top(c, block,
			    block + (n + skip + COW_BLOCK_BYTES - 1) /
					    COW_BLOCK_BYTES);
		at += n;
		left -= n;
	}
	return 0;
}
