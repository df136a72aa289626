/* device.h - a script that plays the driver of a device with one queue.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first byte chooses the queue size, then operations follow, one byte and
 * its operands each:
 *   0  write: offset into low memory (2), length (1), bytes
 *   1  descriptor: index (1), address (8), length (4), flags (1), next (2)
 *   2  the same with a good address: index, offset (2), length (2), flags, next
 *   3  offer a head (1)
 *   4  set the available index (2)
 *   5  kick
 *   6  a request header at offset (2): type (1), sector (2)
 *   7  reset and bring up
 */
#ifndef BRIG_TESTS_DEVICE_H
#define BRIG_TESTS_DEVICE_H

#include "../unit/ring.h"
#include "script.h"

#define DEVICE_DATA_AT 0x4000u

struct device_fuzz {
	struct guest guest;
	struct ring ring;
	struct virtio_dev *dev;
};

static inline void device_restart(struct device_fuzz *f)
{
	ring_init(&f->ring, &f->guest, f->ring.size, 0);
	if (reg_bring_up(f->dev, 0, &f->ring, 1) != 15)
		abort();
}

/* The device is still there and owes nothing, or it needs a reset. */
static inline void device_kick(struct device_fuzz *f)
{
	const struct queue *q = &f->dev->queues[0];

	virtio_kick(f->dev, 0);
	if ((reg_read(f->dev, R_STATUS) & 64) != 0) {
		device_restart(f);
		return;
	}
	if (q->in_flight != 0 || q->next_used != q->next_avail ||
	    ring_used_idx(&f->ring) != q->next_used)
		abort();
}

static inline void device_put_desc(struct device_fuzz *f, struct script *s,
				   bool good)
{
	uint16_t i = script_u8(s) % f->ring.size;
	uint64_t addr =
		good ? DEVICE_DATA_AT + script_u16(s) % 0x8000 : script_u64(s);
	uint32_t len = good ? script_u16(s) % 0x4000 : script_u32(s);
	uint16_t flags = script_u8(s);

	ring_desc(&f->ring, i, addr, len, flags, script_u16(s));
}

static inline void device_put_header(struct device_fuzz *f, struct script *s)
{
	uint64_t at = DEVICE_DATA_AT + script_u16(s) % 0x8000;
	uint32_t words[4] = { 0 };

	words[0] = script_u8(s);
	words[2] = script_u16(s);
	guest_put(&f->guest, at, words, sizeof(words));
}

static inline void device_put_bytes(struct device_fuzz *f, struct script *s)
{
	uint64_t at = script_u16(s) % (GUEST_LOW_BYTES - 256);
	uint8_t buf[256];
	uint8_t n = script_u8(s);

	script_take(s, buf, n);
	guest_put(&f->guest, at, buf, n);
	/* keeps the used ring ours, so that it can be checked */
	const uint16_t given = f->dev->queues[0].next_used;
	guest_put(&f->guest, f->ring.used + 2, &given, 2);
}

static inline void device_operation(struct device_fuzz *f, struct script *s)
{
	switch (script_u8(s) % 8) {
	case 0:
		device_put_bytes(f, s);
		break;
	case 1:
		device_put_desc(f, s, false);
		break;
	case 2:
		device_put_desc(f, s, true);
		break;
	case 3:
		ring_offer(&f->ring, script_u8(s));
		break;
	case 4:
		ring_set_avail_idx(&f->ring, script_u16(s));
		break;
	case 5:
		device_kick(f);
		break;
	case 6:
		device_put_header(f, s);
		break;
	default:
		device_restart(f);
		break;
	}
}

static inline void device_run(struct device_fuzz *f, const uint8_t *data,
			      size_t size)
{
	struct script s = { data, size };

	f->ring.size = (uint16_t)(1u << script_u8(&s) % 9);
	device_restart(f);
	while (s.left > 0)
		device_operation(f, &s);
	device_kick(f);
}

#endif
