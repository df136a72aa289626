/* mmio.c - any sequence of register accesses and memory writes of a guest.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Operations, one byte and its operands each:
 *   0  register write: register (1, times 4), value (4)
 *   1  access of any width: offset (2), width and direction (1), value (8)
 *   2  write memory: address (2), length (1), bytes
 *   3  bring the device up with good rings
 *   4  descriptor with a good address: ring and index (1), offset (2),
 *      length (2), flags (1), next (1)
 *   5  offer a head: ring (1), head (1)
 *   6  eventfd kick (1)
 *   7  status write (1)
 */
#include "../unit/echo.h"
#include "script.h"

#define RING_AT(q) (0x1000u + (q)*0x1000u)
#define DATA_AT 0x4000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guest guest;
static struct echo echo;
static struct ring rings[2];

static void any_access(struct script *s)
{
	uint16_t offset = script_u16(s) % 0x1000;
	uint8_t how = script_u8(s);
	uint32_t len = 1u << (how & 3);
	uint64_t v = script_u64(s);

	if ((how & 4) != 0)
		virtio_mmio_write(&echo.dev, offset, &v, len);
	else
		virtio_mmio_read(&echo.dev, offset, &v, len);
}

static void put_bytes(struct script *s)
{
	uint16_t at = script_u16(s) % (GUEST_LOW_BYTES - 256);
	uint8_t buf[256];
	uint8_t n = script_u8(s);

	script_take(s, buf, n);
	guest_put(&guest, at, buf, n);
}

static void put_desc(struct script *s)
{
	uint8_t i = script_u8(s);
	uint64_t addr = DATA_AT + script_u16(s) % 0x8000;
	uint32_t len = script_u16(s) % 0x4000;
	uint16_t flags = script_u8(s);

	ring_desc(&rings[i >> 7], i % 8, addr, len, flags, script_u8(s));
}

static void status_write(struct script *s)
{
	uint32_t before = reg_read(&echo.dev, R_STATUS);
	uint32_t v = script_u8(s);
	uint32_t after;

	reg_write(&echo.dev, R_STATUS, v);
	after = reg_read(&echo.dev, R_STATUS);
	if (v == 0 ? after != 0 : (after & before) != before)
		abort(); /* bits were lost */
}

static void operation(struct script *s)
{
	uint8_t v;

	switch (script_u8(s) % 8) {
	case 0:
		v = script_u8(s);
		reg_write(&echo.dev, v % 64 * 4u, script_u32(s));
		break;
	case 1:
		any_access(s);
		break;
	case 2:
		put_bytes(s);
		break;
	case 3:
		for (uint32_t i = 0; i < 2; i++)
			ring_init(&rings[i], &guest, 8, RING_AT(i));
		(void)reg_bring_up(&echo.dev, 0, rings, 2);
		if (!echo.active)
			abort();
		break;
	case 4:
		put_desc(s);
		break;
	case 5:
		v = script_u8(s);
		ring_offer(&rings[v & 1], script_u8(s));
		break;
	case 6:
		virtio_kick(&echo.dev, script_u8(s));
		break;
	default:
		status_write(s);
		break;
	}
}

/* What holds between any two operations. */
static void check(const struct virtio_dev *d)
{
	if (d->active != echo.active || (d->mmio.status & ~0xcfu) != 0)
		abort();
	if (d->active &&
	    ((d->mmio.status & 15) != 15 ||
	     (d->features & VIRTIO_FEATURE_VERSION_1) == 0 ||
	     (d->features & ~(ECHO_FEATURES | VIRTIO_FEATURE_VERSION_1)) != 0))
		abort();
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		const struct queue *q = &d->queues[i];

		if (q->size == 0)
			continue;
		if (!d->active || i > 1 || q->size > 8 || q->in_flight > 1 ||
		    !guest_has(&guest, q->desc.v, 16u * q->size) ||
		    !guest_has(&guest, q->avail.v, 6 + 2u * q->size) ||
		    !guest_has(&guest, q->used.v, 6 + 8u * q->size))
			abort();
	}
	if (echo.pops_once > 8)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = { data, size };

	if (guest.mem.count == 0)
		guest_init(&guest);
	for (uint32_t i = 0; i < 2; i++)
		ring_init(&rings[i], &guest, 8, RING_AT(i));
	echo_init(&echo, &guest.mem);
	echo.dev.needs_reset_count = 1000; /* past the lines it may log */
	while (s.left > 0) {
		operation(&s);
		check(&echo.dev);
	}
	reg_write(&echo.dev, R_STATUS, 0);
	if (echo.active || echo.resets != echo.activations)
		abort();
	if (close(echo.irq_fd) != 0)
		abort();
	return 0;
}
