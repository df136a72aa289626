/* ring.h - the driver's side for tests: guest memory, split rings, registers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Shared by unit tests and fuzz targets, so it aborts instead of asserting.
 * Guest memory is two regions around a hole, as in a real machine, with
 * inaccessible pages on both sides of each: a stray access dies.
 */
#ifndef BRIG_TESTS_RING_H
#define BRIG_TESTS_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/vmm/gmem.h"
#include "src/vmm/virtio/queue.h"
#include "src/vmm/virtio/virtio.h"

#define GUEST_PAGE 4096u
#define GUEST_LOW_BYTES (64u << 10)
#define GUEST_HIGH (4ull << 30)
#define GUEST_HIGH_BYTES (8u << 10)

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

struct guest {
	struct gmem mem;
};

static inline uint8_t *guest_map(size_t n)
{
	uint8_t *p = mmap(NULL, n + 2 * GUEST_PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED ||
	    mprotect(p + GUEST_PAGE, n, PROT_READ | PROT_WRITE) != 0)
		abort();
	return p + GUEST_PAGE;
}

static inline void guest_init(struct guest *gu)
{
	*gu = (struct guest){
		.mem = {
			.count = 2,
			.regions = {
				{ 0, GUEST_LOW_BYTES,
				  guest_map(GUEST_LOW_BYTES) },
				{ GUEST_HIGH, GUEST_HIGH_BYTES,
				  guest_map(GUEST_HIGH_BYTES) },
			},
		},
	};
}

static inline void guest_fini(struct guest *gu)
{
	for (unsigned int i = 0; i < gu->mem.count; i++) {
		struct gmem_region *r = &gu->mem.regions[i];

		if (munmap(r->host - GUEST_PAGE, r->size + 2 * GUEST_PAGE) != 0)
			abort();
	}
}

/* Tells, one byte after the other, what gmem.c must tell by arithmetic. */
static inline bool guest_has(const struct guest *gu, uint64_t at, uint64_t n)
{
	for (unsigned int i = 0; i < gu->mem.count; i++) {
		const struct gmem_region *r = &gu->mem.regions[i];
		unsigned __int128 end = (unsigned __int128)at + n;

		if (at >= r->start &&
		    at < (unsigned __int128)r->start + r->size &&
		    end <= (unsigned __int128)r->start + r->size)
			return true;
	}
	return false;
}

static inline uint8_t *guest_at(const struct guest *gu, uint64_t at, size_t n)
{
	if (!guest_has(gu, at, n))
		abort();
	return at >= GUEST_HIGH ? gu->mem.regions[1].host + (at - GUEST_HIGH)
				: gu->mem.regions[0].host + at;
}

static inline void guest_put(struct guest *gu, uint64_t at, const void *from,
			     size_t n)
{
	memcpy(guest_at(gu, at, n), from, n);
}

/* FNV-1a of all guest memory but [skip, skip + n): "nothing else changed". */
static inline uint64_t guest_hash(const struct guest *gu, uint64_t skip,
				  uint64_t n)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (unsigned int i = 0; i < gu->mem.count; i++) {
		const struct gmem_region *r = &gu->mem.regions[i];

		for (uint64_t at = 0; at < r->size; at++) {
			if (r->start + at >= skip && r->start + at - skip < n)
				continue;
			h = (h ^ r->host[at]) * 0x100000001b3u;
		}
	}
	return h;
}

/* --- one split ring --------------------------------------------------------- */

struct ring {
	struct guest *guest;
	uint16_t size;
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
	uint16_t avail_idx;
};

/* Lays an empty ring out at `base` (16-aligned). */
static inline void ring_init(struct ring *r, struct guest *gu, uint16_t size,
			     uint64_t base)
{
	uint64_t avail = base + 16u * size;
	uint64_t used = (avail + 6 + 2u * size + 3) & ~3ull;
	size_t bytes = (size_t)(used + 6 + 8u * size - base);

	*r = (struct ring){ gu, size, base, avail, used, 0 };
	memset(guest_at(gu, base, bytes), 0, bytes);
}

static inline void ring_desc(struct ring *r, uint16_t i, uint64_t addr,
			     uint32_t len, uint16_t flags, uint16_t next)
{
	uint64_t at = r->desc + 16u * i;

	guest_put(r->guest, at, &addr, 8);
	guest_put(r->guest, at + 8, &len, 4);
	guest_put(r->guest, at + 12, &flags, 2);
	guest_put(r->guest, at + 14, &next, 2);
}

static inline void ring_set_avail_idx(struct ring *r, uint16_t idx)
{
	r->avail_idx = idx;
	guest_put(r->guest, r->avail + 2, &idx, 2);
}

static inline void ring_set_avail_flags(struct ring *r, uint16_t flags)
{
	guest_put(r->guest, r->avail, &flags, 2);
}

static inline void ring_offer(struct ring *r, uint16_t head)
{
	uint16_t slot = r->avail_idx % r->size;

	guest_put(r->guest, r->avail + 4 + 2u * slot, &head, 2);
	ring_set_avail_idx(r, (uint16_t)(r->avail_idx + 1));
}

static inline uint16_t ring_used_idx(const struct ring *r)
{
	uint16_t idx;

	memcpy(&idx, guest_at(r->guest, r->used + 2, 2), 2);
	return idx;
}

static inline void ring_used(const struct ring *r, uint16_t i, uint32_t *id,
			     uint32_t *len)
{
	const uint8_t *e =
		guest_at(r->guest, r->used + 4 + 8u * (i % r->size), 8);

	memcpy(id, e, 4);
	memcpy(len, e + 4, 4);
}

static inline int ring_activate(const struct ring *r, struct queue *q)
{
	return queue_activate(&r->guest->mem, r->size, QUEUE_SIZE_MAX,
			      GPA(r->desc), GPA(r->avail), GPA(r->used), q);
}

/* --- the registers of virtio-mmio ------------------------------------------- */

enum {
	R_MAGIC = 0x00,
	R_VERSION = 0x04,
	R_DEVICE_ID = 0x08,
	R_VENDOR_ID = 0x0c,
	R_DEVICE_FEATURES = 0x10,
	R_DEVICE_FEATURES_SEL = 0x14,
	R_DRIVER_FEATURES = 0x20,
	R_DRIVER_FEATURES_SEL = 0x24,
	R_QUEUE_SEL = 0x30,
	R_QUEUE_NUM_MAX = 0x34,
	R_QUEUE_NUM = 0x38,
	R_QUEUE_READY = 0x44,
	R_QUEUE_NOTIFY = 0x50,
	R_INTERRUPT_STATUS = 0x60,
	R_INTERRUPT_ACK = 0x64,
	R_STATUS = 0x70,
	R_QUEUE_DESC_LOW = 0x80,
	R_QUEUE_DESC_HIGH = 0x84,
	R_QUEUE_AVAIL_LOW = 0x90,
	R_QUEUE_AVAIL_HIGH = 0x94,
	R_QUEUE_USED_LOW = 0xa0,
	R_QUEUE_USED_HIGH = 0xa4,
	R_SHM_LEN_LOW = 0xb0,
	R_SHM_BASE_HIGH = 0xbc,
	R_CONFIG_GENERATION = 0xfc,
	R_CONFIG = 0x100,
};

static inline uint32_t reg_read(struct virtio_dev *d, uint64_t offset)
{
	uint32_t v;

	virtio_mmio_read(d, offset, &v, sizeof(v));
	return v;
}

static inline void reg_write(struct virtio_dev *d, uint64_t offset, uint32_t v)
{
	virtio_mmio_write(d, offset, &v, sizeof(v));
}

static inline void reg_set_features(struct virtio_dev *d, uint64_t features)
{
	reg_write(d, R_DRIVER_FEATURES_SEL, 0);
	reg_write(d, R_DRIVER_FEATURES, (uint32_t)features);
	reg_write(d, R_DRIVER_FEATURES_SEL, 1);
	reg_write(d, R_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

static inline void reg_set_queue(struct virtio_dev *d, uint32_t q,
				 const struct ring *r)
{
	reg_write(d, R_QUEUE_SEL, q);
	reg_write(d, R_QUEUE_NUM, r->size);
	reg_write(d, R_QUEUE_DESC_LOW, (uint32_t)r->desc);
	reg_write(d, R_QUEUE_DESC_HIGH, (uint32_t)(r->desc >> 32));
	reg_write(d, R_QUEUE_AVAIL_LOW, (uint32_t)r->avail);
	reg_write(d, R_QUEUE_AVAIL_HIGH, (uint32_t)(r->avail >> 32));
	reg_write(d, R_QUEUE_USED_LOW, (uint32_t)r->used);
	reg_write(d, R_QUEUE_USED_HIGH, (uint32_t)(r->used >> 32));
	reg_write(d, R_QUEUE_READY, 1);
}

/* Resets, negotiates `features` and VERSION_1, sets up `n` rings, and goes
 * to DRIVER_OK, as Linux does. Returns the last status. */
static inline uint32_t reg_bring_up(struct virtio_dev *d, uint64_t features,
				    const struct ring *rings, uint32_t n)
{
	reg_write(d, R_STATUS, 0);
	reg_write(d, R_STATUS, 1);
	reg_write(d, R_STATUS, 1 | 2);
	reg_set_features(d, features | VIRTIO_FEATURE_VERSION_1);
	reg_write(d, R_STATUS, 1 | 2 | 8);
	for (uint32_t i = 0; i < n; i++)
		reg_set_queue(d, i, &rings[i]);
	reg_write(d, R_STATUS, 1 | 2 | 8 | 4);
	return reg_read(d, R_STATUS);
}

#endif
