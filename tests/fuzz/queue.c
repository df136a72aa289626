/* queue.c - any ring memory and any kicks; compared with the model.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first byte chooses the queue size, then operations follow, one byte and
 * its operands each:
 *   0  write: offset from the rings (2), length (1), bytes
 *   1  descriptor: index (1), address (8), length (4), flags (1), next (2)
 *   2  the same with a good address: index, offset (2), length (1), flags, next
 *   3  offer a head (1)
 *   4  set the available index (2)
 *   5  pop
 *   6  push a held chain (1), written (4)
 *   7  copy and map bytes of the last chain: offset (2), length (2), side (1)
 */
#include "../unit/model.h"
#include "script.h"

#define RING_AT 0x1000u
#define DATA_AT 0x4000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guest guest;
static struct ring ring;
static struct queue queue;
static struct queue_chain chain;
static struct model model;
static uint16_t held[QUEUE_SIZE_MAX];
static unsigned int nheld;

static void restart(void)
{
	if (ring_activate(&ring, &queue) != 0)
		abort();
	model = (struct model){ .ring = &ring };
	ring_set_avail_idx(&ring, 0);
	nheld = 0;
}

static void put_bytes(struct script *s)
{
	uint16_t at = script_u16(s) % 0x3000;
	uint8_t buf[256];
	uint8_t n = script_u8(s);

	script_take(s, buf, n);
	guest_put(&guest, RING_AT + at, buf, n);
}

static void put_desc(struct script *s, bool good)
{
	uint16_t i = script_u8(s) % ring.size;
	uint64_t addr = good ? DATA_AT + script_u16(s) % 0x8000 : script_u64(s);
	uint32_t len = good ? script_u8(s) : script_u32(s);
	uint16_t flags = script_u8(s);

	ring_desc(&ring, i, addr, len, flags, script_u16(s));
}

static void pop(void)
{
	guest.mem.reads = 0;
	switch (model_check_pop(&model, &queue, &chain)) {
	case 1:
		if (nheld >= ring.size ||
		    guest.mem.reads != 2u + chain.readable + chain.writable)
			abort();
		held[nheld++] = chain.head;
		break;
	case 0:
		break;
	default: /* the device would need a reset now */
		if (guest.mem.reads > ring.size + 2u)
			abort();
		restart();
		break;
	}
}

static void push(struct script *s)
{
	uint8_t pick = script_u8(s);
	uint32_t written = script_u32(s);
	uint16_t slot = queue.next_used;
	uint32_t id, len;

	if (nheld == 0) {
		if (queue_push(&queue, &guest.mem, 0, 0) == 0)
			abort();
		return;
	}
	pick = (uint8_t)(pick % nheld);
	model_check_push(&model, &queue, held[pick], written);
	ring_used(&ring, slot, &id, &len);
	if (id != held[pick] || len != written ||
	    ring_used_idx(&ring) != model.given)
		abort();
	held[pick] = held[--nheld];
	if (queue.in_flight != nheld)
		abort();
}

/* The bytes of one side, counted the slow way. */
static void use_chain(struct script *s)
{
	static uint8_t buf[65536];
	static struct iovec iov[QUEUE_SIZE_MAX];
	uint32_t offset = script_u16(s);
	uint32_t n = script_u16(s);
	bool writable = (script_u8(s) & 1) != 0;
	uint32_t bytes = writable ? chain.writable_bytes : chain.readable_bytes;
	uint32_t want = offset >= bytes ? 0 : bytes - offset;
	int64_t done;
	int r;

	if (want > n)
		want = n;
	done = writable ? queue_chain_write(&chain, &guest.mem, offset, buf, n)
			: queue_chain_read(&chain, &guest.mem, offset, buf, n);
	if (done != want)
		abort();
	r = queue_chain_iovec(&chain, &guest.mem, writable, offset, n, iov);
	if ((r < 0) != (want != n))
		abort();
	for (int i = 0; i < r; i++)
		want -= (uint32_t)iov[i].iov_len;
	if (r >= 0 && want != 0)
		abort();
}

static void operation(struct script *s)
{
	switch (script_u8(s) % 8) {
	case 0:
		put_bytes(s);
		break;
	case 1:
		put_desc(s, false);
		break;
	case 2:
		put_desc(s, true);
		break;
	case 3:
		ring_offer(&ring, script_u8(s));
		break;
	case 4:
		ring_set_avail_idx(&ring, script_u16(s));
		break;
	case 5:
		pop();
		break;
	case 6:
		push(s);
		break;
	default:
		use_chain(s);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = { data, size };

	if (guest.mem.count == 0)
		guest_init(&guest);
	ring_init(&ring, &guest, (uint16_t)(1u << script_u8(&s) % 9), RING_AT);
	memset(&chain, 0, sizeof(chain));
	restart();
	while (s.left > 0)
		operation(&s);
	return 0;
}
