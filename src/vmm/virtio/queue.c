/* queue.c - one split virtqueue, seen from the device (virtio 1.2, 2.7).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation. The driver owns three arrays in guest memory:
 *
 *   desc[size]    16 bytes each: { u64 addr, u32 len, u16 flags, u16 next }
 *   avail         { u16 flags, u16 idx, u16 ring[size], u16 unused }
 *   used          { u16 flags, u16 idx, { u32 id, u32 len } ring[size],
 *                   u16 unused }
 *
 * queue_pop() fetches in this order, each field once: avail.idx (acquire),
 * one avail.ring entry, then each descriptor of the chain as one copy of 16
 * bytes. A chain of n descriptors costs n + 2 fetches, which the unit tests
 * count. Whatever the driver changes later changes nothing here.
 *
 * A walk takes at most `size` steps: a chain that goes on after that visits a
 * descriptor twice, so it is a loop. Bytes are summed in 64 bits and capped.
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "num.h"
#include "queue.h"

/* virtio 1.2, 2.7.5 and 2.7.6 */
enum {
	DESC_F_NEXT = 1,
	DESC_F_WRITE = 2,
	DESC_F_INDIRECT = 4,
	AVAIL_F_NO_INTERRUPT = 1,
};

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
static_assert(sizeof(struct desc) == 16, "virtio 1.2, 2.7.5");

struct used_elem {
	uint32_t id;
	uint32_t len;
};
static_assert(sizeof(struct used_elem) == 8, "virtio 1.2, 2.7.8");

/* Both rings start with u16 flags, u16 idx. */
#define RING_IDX 2u
#define RING_ENTRIES 4u
/* ... and end with an event field, which we do not use (virtio 1.2, 2.7). */
#define RING_EVENT_BYTES 2u

static bool in_ram(struct gmem *g, gpa_t at, uint64_t n)
{
	struct iovec unused;

	return gmem_iovec(g, at, n, &unused) == 0;
}

int queue_activate(struct gmem *g, uint16_t size, uint16_t max, gpa_t desc,
		   gpa_t avail, gpa_t used, struct queue *ret)
{
	ASSERT(max <= QUEUE_SIZE_MAX);
	if (size == 0 || size > max || (size & (size - 1)) != 0)
		return -EINVAL;
	if (!is_aligned(desc.v, 16) || !is_aligned(avail.v, 2) ||
	    !is_aligned(used.v, 4))
		return -EINVAL;
	if (!in_ram(g, desc, sizeof(struct desc) * size))
		return -EFAULT;
	if (!in_ram(g, avail,
		    RING_ENTRIES + sizeof(uint16_t) * size + RING_EVENT_BYTES))
		return -EFAULT;
	if (!in_ram(g, used,
		    RING_ENTRIES + sizeof(struct used_elem) * size +
			    RING_EVENT_BYTES))
		return -EFAULT;
	*ret = (struct queue){
		.size = size, .desc = desc, .avail = avail, .used = used
	};
	return 0;
}

/* Checks one descriptor and appends it as segment `n` of the chain; the
 * caller made sure that there is room. */
static int add_segment(struct gmem *g, const struct desc *d, uint16_t n,
		       struct queue_chain *c)
{
	uint64_t total = (uint64_t)c->readable_bytes + c->writable_bytes;

	if ((d->flags & DESC_F_INDIRECT) != 0)
		return -EPROTO; /* never offered */
	if (d->len == 0 || total + d->len > QUEUE_CHAIN_BYTES_MAX)
		return -EPROTO;
	if ((d->flags & DESC_F_WRITE) == 0 && c->writable > 0)
		return -EPROTO; /* virtio 1.2, 2.7.4.2 */
	if (!in_ram(g, GPA(d->addr), d->len))
		return -EFAULT;

	c->segments[n] = (struct queue_segment){ GPA(d->addr), d->len };
	if ((d->flags & DESC_F_WRITE) != 0) {
		c->writable++;
		c->writable_bytes += d->len;
	} else {
		c->readable++;
		c->readable_bytes += d->len;
	}
	return 0;
}

/* Follows the chain from c->head; bounded by the queue size. */
static int walk(const struct queue *q, struct gmem *g, struct queue_chain *c)
{
	uint16_t at = c->head;

	for (uint16_t n = 0; n < q->size; n++) {
		struct desc d;
		int r;

		if (at >= q->size)
			return -EPROTO;
		r = gmem_read(g, GPA(q->desc.v + sizeof(d) * at), &d,
			      sizeof(d));
		if (r < 0)
			return r;
		r = add_segment(g, &d, n, c);
		if (r < 0)
			return r;
		if ((d.flags & DESC_F_NEXT) == 0)
			return 0;
		at = d.next;
	}
	return -EPROTO; /* a loop */
}

static void forget(struct queue_chain *c)
{
	c->head = 0;
	c->readable = 0;
	c->writable = 0;
	c->readable_bytes = 0;
	c->writable_bytes = 0;
}

int queue_avail_idx(struct queue *q, struct gmem *g, uint16_t *ret)
{
	return gmem_load_u16(g, GPA(q->avail.v + RING_IDX), ret);
}

int queue_pop(struct queue *q, struct gmem *g, struct queue_chain *ret)
{
	uint16_t idx, pending;
	int r;

	forget(ret);
	r = queue_avail_idx(q, g, &idx);
	if (r < 0)
		return r;
	pending = (uint16_t)(idx - q->next_avail);
	if (pending == 0)
		return 0;
	/* A descriptor is available or in flight or free, never two of them,
	 * so a driver that follows the rules stays within the size. */
	if (pending > q->size - q->in_flight)
		return -EPROTO;

	r = gmem_load_u16(g,
			  GPA(q->avail.v + RING_ENTRIES +
			      sizeof(uint16_t) * (q->next_avail % q->size)),
			  &ret->head);
	if (r == 0)
		r = walk(q, g, ret);
	if (r < 0) {
		forget(ret);
		return r;
	}
	q->next_avail++;
	q->in_flight++;
	return 1;
}

int queue_push(struct queue *q, struct gmem *g, uint16_t head, uint32_t written)
{
	struct used_elem e = { .id = head, .len = written };
	int r;

	if (q->in_flight == 0)
		return -EPROTO;
	r = gmem_write(g,
		       GPA(q->used.v + RING_ENTRIES +
			   sizeof(e) * (q->next_used % q->size)),
		       &e, sizeof(e));
	if (r < 0)
		return r;
	/* release: the element is visible before the index */
	r = gmem_store_u16(g, GPA(q->used.v + RING_IDX),
			   (uint16_t)(q->next_used + 1));
	if (r < 0)
		return r;
	q->next_used++;
	q->in_flight--;
	return 0;
}

int queue_wants_interrupt(struct queue *q, struct gmem *g, bool *ret)
{
	uint16_t flags;
	int r;

	/* The driver clears the flag, then looks at used.idx; we wrote
	 * used.idx and now look at the flag. Without a full barrier both
	 * could miss the other (virtio 1.2, 2.7.7.1). */
	atomic_thread_fence(memory_order_seq_cst);
	r = gmem_load_u16(g, q->avail, &flags);
	if (r < 0)
		return r;
	*ret = (flags & AVAIL_F_NO_INTERRUPT) == 0;
	return 0;
}

/* --- the bytes of a chain -------------------------------------------------- */

/* One part of a chain, and how far a caller got in it. */
struct cursor {
	const struct queue_segment *next;
	uint16_t left;   /* segments from `next` on */
	uint32_t offset; /* bytes to skip in `next` */
};

static struct cursor cursor_at(const struct queue_chain *c, bool writable,
			       uint32_t offset)
{
	struct cursor at = {
		.next = &c->segments[writable ? c->readable : 0],
		.left = writable ? c->writable : c->readable,
		.offset = offset,
	};

	while (at.left > 0 && at.offset >= at.next->len) {
		at.offset -= at.next->len;
		at.next++;
		at.left--;
	}
	return at;
}

/* The next piece, of at most `n` bytes; returns its length, 0 at the end. */
static uint32_t cursor_take(struct cursor *at, uint32_t n, gpa_t *ret)
{
	uint32_t piece;

	if (at->left == 0)
		return 0;
	/* inside a segment that was checked when it was popped: no wrap */
	*ret = GPA(at->next->at.v + at->offset);
	piece = (uint32_t)u64_min(n, at->next->len - at->offset);
	at->offset = 0;
	at->next++;
	at->left--;
	return piece;
}

int64_t queue_chain_read(const struct queue_chain *c, struct gmem *g,
			 uint32_t offset, void *to, uint32_t n)
{
	struct cursor at = cursor_at(c, false, offset);
	uint32_t done = 0;

	while (done < n) {
		gpa_t from;
		uint32_t piece = cursor_take(&at, n - done, &from);
		int r;

		if (piece == 0)
			break;
		r = gmem_read(g, from, (uint8_t *)to + done, piece);
		if (r < 0)
			return r;
		done += piece;
	}
	return done;
}

int64_t queue_chain_write(const struct queue_chain *c, struct gmem *g,
			  uint32_t offset, const void *from, uint32_t n)
{
	struct cursor at = cursor_at(c, true, offset);
	uint32_t done = 0;

	while (done < n) {
		gpa_t to;
		uint32_t piece = cursor_take(&at, n - done, &to);
		int r;

		if (piece == 0)
			break;
		r = gmem_write(g, to, (const uint8_t *)from + done, piece);
		if (r < 0)
			return r;
		done += piece;
	}
	return done;
}

int queue_chain_iovec(const struct queue_chain *c, struct gmem *g,
		      bool writable, uint32_t offset, uint32_t n,
		      struct iovec *iov)
{
	struct cursor at = cursor_at(c, writable, offset);
	int count = 0;

	while (n > 0) {
		gpa_t from;
		uint32_t piece = cursor_take(&at, n, &from);
		int r;

		if (piece == 0)
			return -ERANGE;
		r = gmem_iovec(g, from, piece, &iov[count]);
		if (r < 0)
			return r;
		count++; /* at most one for each segment */
		n -= piece;
	}
	return count;
}
