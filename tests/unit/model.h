/* model.h - a second opinion on the split ring, written from the text.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An independent reading of virtio 1.2, 2.7, that shares no code with
 * queue.c and takes other ways where it can: it collects the whole chain
 * first and judges afterwards, finds loops by marking what it has seen, adds
 * in 128 bits, and keeps its own used ring. Slow and plain on purpose.
 */
#ifndef BRIG_TESTS_MODEL_H
#define BRIG_TESTS_MODEL_H

#include "ring.h"

struct model_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct model_chain {
	uint16_t head;
	unsigned int count;
	struct model_desc at[QUEUE_SIZE_MAX];
};

struct model {
	const struct ring *ring; /* where things are; its index is not used */
	uint16_t taken;          /* chains taken, modulo 2^16 */
	unsigned int held;       /* taken and not given back */
	uint16_t given;          /* chains given back, modulo 2^16 */
	struct {
		uint32_t id;
		uint32_t len;
	} used[QUEUE_SIZE_MAX];
};

static inline uint16_t model_u16(const struct model *m, uint64_t at)
{
	uint16_t v;

	memcpy(&v, guest_at(m->ring->guest, at, 2), 2);
	return v;
}

/* Every rule for one chain at once. */
static inline bool model_chain_is_legal(const struct model *m,
					const struct model_chain *c)
{
	unsigned __int128 sum = 0;
	bool saw_writable = false;

	for (unsigned int i = 0; i < c->count; i++) {
		const struct model_desc *d = &c->at[i];
		bool writable = (d->flags & DESC_WRITE) != 0;

		if ((d->flags & DESC_INDIRECT) != 0 || d->len == 0)
			return false;
		if (saw_writable && !writable)
			return false;
		if (!guest_has(m->ring->guest, d->addr, d->len))
			return false;
		saw_writable = saw_writable || writable;
		sum += d->len;
	}
	return sum <= QUEUE_CHAIN_BYTES_MAX;
}

static inline bool model_collect(const struct model *m, uint16_t head,
				 struct model_chain *c)
{
	bool seen[QUEUE_SIZE_MAX] = { false };
	uint16_t at = head;

	c->head = head;
	c->count = 0;
	for (;;) {
		struct model_desc *d = &c->at[c->count];

		if (at >= m->ring->size || seen[at])
			return false;
		seen[at] = true;
		memcpy(d,
		       guest_at(m->ring->guest, m->ring->desc + at * 16u, 16),
		       16);
		c->count++;
		if ((d->flags & DESC_NEXT) == 0)
			return true;
		at = d->next;
	}
}

/* 1: a chain; 0: none; -1: the driver broke a rule. */
static inline int model_pop(struct model *m, struct model_chain *c)
{
	unsigned int idx = model_u16(m, m->ring->avail + 2);
	unsigned int waiting = (idx + 0x10000 - m->taken) % 0x10000;
	uint64_t slot = m->ring->avail + 4 + 2u * (m->taken % m->ring->size);

	if (waiting == 0)
		return 0;
	if (waiting + m->held > m->ring->size)
		return -1;
	if (!model_collect(m, model_u16(m, slot), c) ||
	    !model_chain_is_legal(m, c))
		return -1;
	m->taken++;
	m->held++;
	return 1;
}

static inline void model_push(struct model *m, uint16_t head, uint32_t written)
{
	m->used[m->given % m->ring->size].id = head;
	m->used[m->given % m->ring->size].len = written;
	m->given++;
	m->held--;
}

/* Whether the used ring in guest memory is the one the model expects. */
static inline bool model_used_is_same(const struct model *m)
{
	const uint8_t *ring =
		guest_at(m->ring->guest, m->ring->used, 4 + 8u * m->ring->size);

	return model_u16(m, m->ring->used + 2) == m->given &&
	       memcmp(ring + 4, m->used, 8u * m->ring->size) == 0;
}

/* Whether queue.c found the same segments. */
static inline bool model_chain_is_same(const struct model_chain *c,
				       const struct queue_chain *got)
{
	uint64_t bytes[2] = { 0, 0 };
	unsigned int count[2] = { 0, 0 };

	for (unsigned int i = 0; i < c->count; i++) {
		bool w = (c->at[i].flags & DESC_WRITE) != 0;

		if (c->at[i].addr != got->segments[i].at.v ||
		    c->at[i].len != got->segments[i].len)
			return false;
		count[w]++;
		bytes[w] += c->at[i].len;
	}
	return c->head == got->head && count[0] == got->readable &&
	       count[1] == got->writable && bytes[0] == got->readable_bytes &&
	       bytes[1] == got->writable_bytes;
}

/* Pops from both sides and compares; the common result, or abort. */
static inline int model_check_pop(struct model *m, struct queue *q,
				  struct queue_chain *got)
{
	static struct model_chain expected;
	struct queue before = *q;
	int r = queue_pop(q, &m->ring->guest->mem, got);
	int want = model_pop(m, &expected);

	if ((r < 0 ? -1 : r) != want)
		abort();
	if (r == 1) {
		if (!model_chain_is_same(&expected, got))
			abort();
		return r;
	}
	if (memcmp(&before, q, sizeof(before)) != 0 || got->readable != 0 ||
	    got->writable != 0 || got->readable_bytes != 0 ||
	    got->writable_bytes != 0)
		abort();
	return r;
}

/* Gives a chain back on both sides. */
static inline void model_check_push(struct model *m, struct queue *q,
				    uint16_t head, uint32_t written)
{
	if (queue_push(q, &m->ring->guest->mem, head, written) != 0)
		abort();
	model_push(m, head, written);
}

#endif
