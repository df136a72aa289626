/* queue.c - tests of the ring walk against drivers that break the rules.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "ring.h"

#define RING_AT 0x1000u
#define DATA_AT 0x8000u

static struct guest guest;
static struct ring ring;
static struct queue queue;
static struct queue_chain chain;

static void start(uint16_t size)
{
	ring_init(&ring, &guest, size, RING_AT);
	assert_int_equal(ring_activate(&ring, &queue), 0);
}

static int set_up(void **state)
{
	guest_init(&guest);
	start(8);
	return 0;
}

static int tear_down(void **state)
{
	guest_fini(&guest);
	return 0;
}

/* The pop must fail with `want`, hand nothing out and change nothing. */
static void refuse_pop(int want)
{
	struct queue before = queue;
	uint64_t hash = guest_hash(&guest, 0, 0);

	memset(&chain, 0xa5, sizeof(chain));
	guest.mem.reads = 0;
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), want);
	assert_int_equal(chain.readable, 0);
	assert_int_equal(chain.writable, 0);
	assert_int_equal(chain.readable_bytes, 0);
	assert_int_equal(chain.writable_bytes, 0);
	assert_memory_equal(&before, &queue, sizeof(queue));
	assert_true(guest_hash(&guest, 0, 0) == hash);
	assert_true(guest.mem.reads <= queue.size + 2u);
}

/* Offers the one descriptor 0 and expects the pop to fail. */
static void refuse_desc(uint64_t addr, uint32_t len, uint16_t flags, int want)
{
	start(8);
	ring_desc(&ring, 0, addr, len, flags, 1);
	ring_desc(&ring, 1, DATA_AT, 1, 0, 0);
	ring_offer(&ring, 0);
	refuse_pop(want);
}

static void pop_and_push_a_request(void **state)
{
	uint32_t id, len;

	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 0);
	ring_desc(&ring, 5, DATA_AT, 16, DESC_NEXT, 2);
	ring_desc(&ring, 2, GUEST_HIGH, 100, DESC_NEXT | DESC_WRITE, 7);
	ring_desc(&ring, 7, DATA_AT + 16, 1, DESC_WRITE, 5);
	ring_offer(&ring, 5);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
	assert_int_equal(chain.head, 5);
	assert_int_equal(chain.readable, 1);
	assert_int_equal(chain.writable, 2);
	assert_int_equal(chain.readable_bytes, 16);
	assert_int_equal(chain.writable_bytes, 101);
	assert_true(chain.segments[1].at.v == GUEST_HIGH);
	assert_int_equal(queue.in_flight, 1);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 0);

	assert_int_equal(queue_push(&queue, &guest.mem, 5, 101), 0);
	assert_int_equal(ring_used_idx(&ring), 1);
	ring_used(&ring, 0, &id, &len);
	assert_int_equal(id, 5);
	assert_int_equal(len, 101);
	assert_int_equal(queue.in_flight, 0);
}

static void push_needs_something_in_flight(void **state)
{
	uint64_t hash = guest_hash(&guest, 0, 0);

	assert_int_equal(queue_push(&queue, &guest.mem, 0, 0), -EPROTO);
	assert_true(guest_hash(&guest, 0, 0) == hash);
}

static void indices_wrap_at_65536(void **state)
{
	ring_desc(&ring, 3, DATA_AT, 4, DESC_WRITE, 0);
	for (uint32_t i = 0; i < 70000; i++) {
		uint32_t id, len;

		ring_offer(&ring, 3);
		assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
		assert_int_equal(queue_push(&queue, &guest.mem, 3, i), 0);
		assert_int_equal(ring_used_idx(&ring), (uint16_t)(i + 1));
		ring_used(&ring, (uint16_t)i, &id, &len);
		assert_int_equal(len, i);
	}
}

/* --- configuration ---------------------------------------------------------- */

static void refuse_rings(uint16_t size, uint64_t desc, uint64_t avail,
			 uint64_t used, int want)
{
	struct queue q, before;

	memset(&q, 0x5a, sizeof(q));
	before = q;
	assert_int_equal(queue_activate(&guest.mem, size, 8, GPA(desc),
					GPA(avail), GPA(used), &q),
			 want);
	assert_memory_equal(&q, &before, sizeof(q));
}

static void a01_sizes_and_alignments_are_checked(void **state)
{
	static const uint16_t sizes[] = { 0, 3, 5, 6, 7, 9, 16, 256, 65535 };

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		refuse_rings(sizes[i], 0x1000, 0x2000, 0x3000, -EINVAL);
	for (uint64_t off = 1; off < 16; off++)
		refuse_rings(8, 0x1000 + off, 0x2000, 0x3000, -EINVAL);
	refuse_rings(8, 0x1000, 0x2001, 0x3000, -EINVAL);
	for (uint64_t off = 1; off < 4; off++)
		refuse_rings(8, 0x1000, 0x2000, 0x3000 + off, -EINVAL);
}

static void a06_each_ring_lies_in_memory(void **state)
{
	const uint64_t low = GUEST_LOW_BYTES;
	const uint64_t high = GUEST_HIGH + GUEST_HIGH_BYTES;
	struct queue q;

	/* 8 entries: 128, 22 and 70 bytes; exactly at the end is allowed */
	assert_int_equal(queue_activate(&guest.mem, 8, 8, GPA(low - 128),
					GPA(low - 22), GPA(high - 72), &q),
			 0);
	refuse_rings(8, low - 112, 0x2000, 0x3000, -EFAULT);
	refuse_rings(8, 0x1000, low - 20, 0x3000, -EFAULT);
	refuse_rings(8, 0x1000, 0x2000, low - 68, -EFAULT);
	refuse_rings(8, 0x1000, 0x2000, high - 68, -EFAULT);

	static const uint64_t bad[] = { GUEST_LOW_BYTES, 0xd0000000,
					GUEST_HIGH - 16, UINT64_MAX - 15,
					UINT64_MAX - 127 };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		refuse_rings(8, bad[i], 0x2000, 0x3000, -EFAULT);
		refuse_rings(8, 0x1000, bad[i], 0x3000, -EFAULT);
		refuse_rings(8, 0x1000, 0x2000, bad[i], -EFAULT);
	}
}

/* --- chains ------------------------------------------------------------------ */

static uint64_t cpu_ns(void)
{
	struct timespec t;

	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void a03_cycles_end_after_queue_size_steps(void **state)
{
	uint64_t began;

	start(256);
	ring_desc(&ring, 0, DATA_AT, 1, DESC_NEXT, 0); /* d0 -> d0 */
	ring_offer(&ring, 0);
	refuse_pop(-EPROTO);
	assert_int_equal(guest.mem.reads, 256 + 2);

	start(256);
	ring_desc(&ring, 0, DATA_AT, 1, DESC_NEXT, 1); /* d0 -> d1 -> d0 */
	ring_desc(&ring, 1, DATA_AT, 1, DESC_NEXT, 0);
	ring_offer(&ring, 0);
	refuse_pop(-EPROTO);

	start(256); /* 255 good ones, then back to each of them */
	for (uint16_t i = 0; i < 256; i++)
		ring_desc(&ring, i, DATA_AT, 1, DESC_NEXT, (i + 1) & 255);
	ring_offer(&ring, 0);
	for (uint16_t back = 0; back < 256; back++) {
		ring_desc(&ring, 255, DATA_AT, 1, DESC_NEXT, back);
		guest.mem.reads = 0;
		began = cpu_ns();
		assert_int_equal(queue_pop(&queue, &guest.mem, &chain),
				 -EPROTO);
		assert_true(cpu_ns() - began < 1000000); /* 1 ms */
		assert_int_equal(guest.mem.reads, 256 + 2);
	}
}

static void a04_available_index_cannot_jump(void **state)
{
	static const uint16_t jumps[] = { 9, 10, 255, 32768, 65535 };

	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		start(8);
		ring_desc(&ring, 0, DATA_AT, 1, 0, 0);
		ring_set_avail_idx(&ring, jumps[i]);
		refuse_pop(-EPROTO);
		assert_int_equal(guest.mem.reads, 1);
	}
}

static void a04_in_flight_chains_count(void **state)
{
	ring_desc(&ring, 0, DATA_AT, 1, 0, 0);
	ring_set_avail_idx(&ring, 8); /* the same head 8 times */
	for (int i = 0; i < 8; i++)
		assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 0);
	ring_set_avail_idx(&ring, 9);
	refuse_pop(-EPROTO);
	assert_int_equal(queue_push(&queue, &guest.mem, 0, 0), 0);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
}

static void a04_heads_and_next_stay_in_the_table(void **state)
{
	static const uint16_t bad[] = { 8, 9, 255, 256, 32768, 65535 };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		start(8);
		ring_offer(&ring, bad[i]);
		refuse_pop(-EPROTO);
		assert_int_equal(guest.mem.reads, 2);

		start(8);
		ring_desc(&ring, 0, DATA_AT, 1, DESC_NEXT, bad[i]);
		ring_offer(&ring, 0);
		refuse_pop(-EPROTO);
		assert_int_equal(guest.mem.reads, 3);
	}
}

static void a04_longest_chain_is_one_request(void **state)
{
	static struct iovec iov[QUEUE_SIZE_MAX];

	start(256);
	for (uint16_t i = 0; i < 256; i++)
		ring_desc(&ring, i, DATA_AT + i, 1, i < 255 ? DESC_NEXT : 0,
			  (i + 1) & 255);
	ring_offer(&ring, 0);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
	assert_int_equal(chain.readable, 256);
	assert_int_equal(chain.readable_bytes, 256);
	assert_int_equal(
		queue_chain_iovec(&chain, &guest.mem, false, 0, 256, iov), 256);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 0);
}

static void a06_segments_lie_in_memory(void **state)
{
	for (uint16_t w = 0; w <= DESC_WRITE; w += DESC_WRITE) {
		refuse_desc(UINT64_MAX, 1, w, -EFAULT); /* sum is 2^64 */
		refuse_desc(UINT64_MAX - 1, 4, w, -EFAULT);
		refuse_desc(GUEST_LOW_BYTES - 3, 4, w, -EFAULT);
		refuse_desc(GUEST_HIGH + GUEST_HIGH_BYTES - 3, 4, w, -EFAULT);
		refuse_desc(GUEST_HIGH - 1, 2, w, -EFAULT);
		refuse_desc(0xd0000000, 4, w, -EFAULT);
		refuse_desc(0, QUEUE_CHAIN_BYTES_MAX, w, -EFAULT);
		refuse_desc(0, QUEUE_CHAIN_BYTES_MAX + 1, w, -EPROTO);
		refuse_desc(0, 0xffffffff, w, -EPROTO);
		refuse_desc(DATA_AT, 0, w, -EPROTO);
		refuse_desc(UINT64_MAX, 0, w, -EPROTO);
	}
}

static void a06_a_bad_segment_anywhere_spoils_the_chain(void **state)
{
	for (uint16_t bad = 0; bad < 8; bad++) {
		start(8);
		for (uint16_t i = 0; i < 8; i++)
			ring_desc(&ring, i, i == bad ? GUEST_HIGH - 1 : DATA_AT,
				  2, i < 7 ? DESC_NEXT : 0, (i + 1) & 7);
		ring_offer(&ring, 0);
		refuse_pop(-EFAULT);
		assert_int_equal(guest.mem.reads, bad + 3u);
	}
}

/* Memory that is large enough for the cap: one region of 16 MiB. */
static void a09_sums_are_taken_in_64_bits(void **state)
{
	struct guest big = {
		.mem = { .count = 1,
			 .regions = { { 0, QUEUE_CHAIN_BYTES_MAX,
					guest_map(QUEUE_CHAIN_BYTES_MAX) } } },
	};

	ring_init(&ring, &big, 16, RING_AT);
	assert_int_equal(ring_activate(&ring, &queue), 0);
	for (uint16_t i = 0; i < 16; i++) /* 16 * 0x10000001 is 16 mod 2^32 */
		ring_desc(&ring, i, 0, 0x10000001, i < 15 ? DESC_NEXT : 0,
			  (i + 1) & 15);
	ring_offer(&ring, 0);
	assert_int_equal(queue_pop(&queue, &big.mem, &chain), -EPROTO);

	for (uint16_t i = 0; i < 16; i++) /* exactly the cap */
		ring_desc(&ring, i, 0, QUEUE_CHAIN_BYTES_MAX / 16,
			  (i < 15 ? DESC_NEXT : 0) | (i > 7 ? DESC_WRITE : 0),
			  (i + 1) & 15);
	assert_int_equal(queue_pop(&queue, &big.mem, &chain), 1);
	assert_int_equal(chain.readable_bytes + chain.writable_bytes,
			 QUEUE_CHAIN_BYTES_MAX);

	ring_desc(&ring, 15, 0, QUEUE_CHAIN_BYTES_MAX / 16 + 1, DESC_WRITE, 0);
	ring_offer(&ring, 0); /* one byte more */
	assert_int_equal(queue_pop(&queue, &big.mem, &chain), -EPROTO);
	guest_fini(&big);
}

static void a10_indirect_descriptors_are_refused(void **state)
{
	static const uint16_t flags[] = { 0, DESC_NEXT, DESC_WRITE,
					  DESC_NEXT | DESC_WRITE };

	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		refuse_desc(DATA_AT, 16, flags[i] | DESC_INDIRECT, -EPROTO);
		refuse_desc(DATA_AT, 15, flags[i] | DESC_INDIRECT, -EPROTO);
		refuse_desc(RING_AT, 32, flags[i] | DESC_INDIRECT, -EPROTO);

		start(8); /* second one fails after the first succeeded */
		ring_desc(&ring, 0, DATA_AT, 16, DESC_NEXT, 1);
		ring_desc(&ring, 1, DATA_AT, 16, flags[i] | DESC_INDIRECT, 2);
		ring_desc(&ring, 2, DATA_AT, 16, DESC_WRITE, 0);
		ring_offer(&ring, 0);
		refuse_pop(-EPROTO);
	}
}

static void a11_readable_comes_before_writable(void **state)
{
	for (unsigned int mask = 0; mask < 16; mask++) {
		bool legal = true;

		start(4);
		for (uint16_t i = 0; i < 4; i++) {
			uint16_t w = (mask >> i & 1) ? DESC_WRITE : 0;

			ring_desc(&ring, i, DATA_AT, 4,
				  (i < 3 ? DESC_NEXT : 0) | w, (i + 1) & 3);
			if (i > 0 && w == 0 && (mask >> (i - 1) & 1))
				legal = false;
		}
		ring_offer(&ring, 0);
		if (!legal) {
			refuse_pop(-EPROTO);
			continue;
		}
		assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
		assert_int_equal(chain.readable + chain.writable, 4);
		assert_int_equal(chain.writable, __builtin_popcount(mask));
	}
}

static void a11_writes_touch_writable_segments_only(void **state)
{
	static uint8_t ones[4096];
	uint64_t before;

	memset(ones, 0xff, sizeof(ones));
	ring_desc(&ring, 0, DATA_AT, 64, DESC_NEXT, 1);
	ring_desc(&ring, 1, DATA_AT + 1000, 10, DESC_NEXT | DESC_WRITE, 2);
	ring_desc(&ring, 2, DATA_AT + 1010, 7, DESC_WRITE, 0);
	ring_offer(&ring, 0);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
	before = guest_hash(&guest, DATA_AT + 1000, 17);
	assert_int_equal(
		queue_chain_write(&chain, &guest.mem, 0, ones, sizeof(ones)),
		17);
	assert_true(guest_hash(&guest, DATA_AT + 1000, 17) == before);
	assert_memory_equal(guest_at(&guest, DATA_AT + 1000, 17), ones, 17);

	ring_desc(&ring, 0, DATA_AT, 64, 0, 0); /* nothing to write to */
	ring_offer(&ring, 0);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
	before = guest_hash(&guest, 0, 0);
	assert_int_equal(queue_chain_write(&chain, &guest.mem, 0, ones, 64), 0);
	assert_int_equal(
		queue_chain_iovec(&chain, &guest.mem, true, 0, 1, NULL),
		-ERANGE);
	assert_true(guest_hash(&guest, 0, 0) == before);
}

/* A guest that breaks the ring in every way we know, 10,000 times over: the
 * queue accepts nothing, loses nothing, and works at once when it is mended. */
static void a13_failed_pops_lose_no_descriptor(void **state)
{
	for (unsigned int round = 0; round < 10000; round++) {
		ring_desc(&ring, 0, DATA_AT, 4, DESC_NEXT, 1);
		ring_desc(&ring, 1, DATA_AT, 4, DESC_WRITE, 0);
		ring_offer(&ring, 0);
		switch (round % 6) {
		case 0:
			ring_desc(&ring, 1, DATA_AT, 4, DESC_NEXT, 0);
			break;
		case 1:
			ring_desc(&ring, 1, GUEST_HIGH - 1, 4, 0, 0);
			break;
		case 2:
			ring_desc(&ring, 1, DATA_AT, 4, DESC_INDIRECT, 0);
			break;
		case 3:
			ring_desc(&ring, 1, DATA_AT, 0, 0, 0);
			break;
		case 4:
			ring_desc(&ring, 0, DATA_AT, 4, DESC_NEXT | DESC_WRITE,
				  1);
			ring_desc(&ring, 1, DATA_AT, 4, 0, 0);
			break;
		default:
			ring_desc(&ring, 0, DATA_AT, 4, DESC_NEXT, 8);
			break;
		}
		assert_true(queue_pop(&queue, &guest.mem, &chain) < 0);
		ring_desc(&ring, 0, DATA_AT, 4, DESC_NEXT, 1);
		ring_desc(&ring, 1, DATA_AT, 4, DESC_WRITE, 0);
		assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
		assert_int_equal(queue_push(&queue, &guest.mem, 0, 4), 0);
		assert_int_equal(queue.in_flight, 0);
		assert_int_equal(ring_used_idx(&ring), (uint16_t)(round + 1));
	}
}

/* Rings that are not memory cannot be activated; should they come to be, all
 * functions report it and the queue stays as it is. */
static void a13_every_access_can_fail(void **state)
{
	const struct queue good = queue;
	uint8_t byte = 0;
	struct iovec iov;
	bool wanted;

	ring_desc(&ring, 0, DATA_AT, 4, DESC_NEXT, 1);
	ring_desc(&ring, 1, DATA_AT, 4, DESC_WRITE, 0);
	ring_offer(&ring, 0);
	queue.desc = GPA(GUEST_LOW_BYTES);
	refuse_pop(-EFAULT);
	queue = good;
	queue.avail = GPA(GUEST_LOW_BYTES - 4); /* the index, not the entry */
	guest_put(&guest, GUEST_LOW_BYTES - 2, &(uint16_t){ 1 }, 2);
	refuse_pop(-EFAULT);
	queue.avail = GPA(GUEST_LOW_BYTES);
	refuse_pop(-EFAULT);
	assert_int_equal(queue_wants_interrupt(&queue, &guest.mem, &wanted),
			 -EFAULT);

	queue = good;
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
	queue.used = GPA(GUEST_LOW_BYTES);
	assert_int_equal(queue_push(&queue, &guest.mem, 0, 0), -EFAULT);
	queue.used = GPA(good.used.v + 1); /* the index is misaligned */
	assert_int_equal(queue_push(&queue, &guest.mem, 0, 0), -EFAULT);
	assert_int_equal(queue.in_flight, 1);
	assert_int_equal(queue.next_used, 0);

	chain.segments[0].at = chain.segments[1].at = GPA(GUEST_HIGH - 1);
	assert_int_equal(queue_chain_read(&chain, &guest.mem, 0, &byte, 1),
			 -EFAULT);
	assert_int_equal(queue_chain_write(&chain, &guest.mem, 0, &byte, 1),
			 -EFAULT);
	assert_int_equal(
		queue_chain_iovec(&chain, &guest.mem, false, 0, 1, &iov),
		-EFAULT);
}

/* --- the bytes of a chain ---------------------------------------------------- */

/* A chain of 4 readable and 4 writable segments of 1, 2, 3 and 4 bytes. */
static void pop_pieces(void)
{
	for (uint16_t i = 0; i < 8; i++)
		ring_desc(&ring, i, DATA_AT + 16u * i, 1 + i % 4,
			  (i < 7 ? DESC_NEXT : 0) | (i > 3 ? DESC_WRITE : 0),
			  (i + 1) & 7);
	ring_offer(&ring, 0);
	assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
}

static void copies_start_and_end_anywhere(void **state)
{
	static const uint8_t data[] = "0123456789";

	pop_pieces();
	for (uint32_t i = 0, at = 0; i < 4; at += i + 1, i++)
		guest_put(&guest, DATA_AT + 16 * i, data + at, i + 1);

	for (uint32_t from = 0; from < 13; from++) {
		for (uint32_t n = 0; n < 13; n++) {
			uint32_t want = from > 10 ? 0 : 10 - from;
			uint8_t got[13];

			want = want < n ? want : n;
			assert_int_equal(queue_chain_read(&chain, &guest.mem,
							  from, got, n),
					 want);
			assert_memory_equal(got, data + (want ? from : 0),
					    want);
			assert_int_equal(queue_chain_write(&chain, &guest.mem,
							   from, data, n),
					 want);
			for (uint32_t i = 0; i < want; i++) {
				uint32_t at = from + i;
				uint32_t seg = at < 1   ? 0
					       : at < 3 ? 1
					       : at < 6 ? 2
							: 3;
				uint32_t first = seg * (seg + 1) / 2;

				assert_int_equal(
					*guest_at(&guest,
						  DATA_AT + 16 * (4 + seg) +
							  at - first,
						  1),
					data[i]);
			}
		}
	}
	assert_int_equal(queue_chain_read(&chain, &guest.mem, UINT32_MAX, NULL,
					  UINT32_MAX),
			 0);
}

static void iovecs_cover_exactly_what_was_asked(void **state)
{
	struct iovec iov[QUEUE_SIZE_MAX];

	pop_pieces();
	for (uint32_t from = 0; from < 12; from++) {
		for (uint32_t n = 0; n < 12; n++) {
			int r = queue_chain_iovec(&chain, &guest.mem, true,
						  from, n, iov);
			size_t sum = 0;

			if (n > 0 && from + n > 10) {
				assert_int_equal(r, -ERANGE);
				continue;
			}
			assert_in_range(r, 0, 4);
			for (int i = 0; i < r; i++)
				sum += iov[i].iov_len;
			assert_int_equal(sum, n);
			if (from == 4 && n == 5) {
				assert_int_equal(r, 2);
				assert_ptr_equal(
					iov[0].iov_base,
					guest_at(&guest, DATA_AT + 97, 1));
			}
		}
	}
}

static void interrupt_wish_is_bit_0_of_the_flags(void **state)
{
	bool wanted = false;

	assert_int_equal(queue_wants_interrupt(&queue, &guest.mem, &wanted), 0);
	assert_true(wanted);
	ring_set_avail_flags(&ring, 1);
	assert_int_equal(queue_wants_interrupt(&queue, &guest.mem, &wanted), 0);
	assert_false(wanted);
	ring_set_avail_flags(&ring, 0xfffe);
	assert_int_equal(queue_wants_interrupt(&queue, &guest.mem, &wanted), 0);
	assert_true(wanted);
}

/* --- a driver that changes its mind ------------------------------------------ */

static void a07_each_descriptor_is_fetched_once(void **state)
{
	for (uint16_t n = 1; n <= 8; n++) {
		start(8);
		for (uint16_t i = 0; i < n; i++)
			ring_desc(&ring, i, DATA_AT, 1,
				  i + 1 < n ? DESC_NEXT : 0, i + 1);
		ring_offer(&ring, 0);
		guest.mem.reads = 0;
		assert_int_equal(queue_pop(&queue, &guest.mem, &chain), 1);
		assert_int_equal(guest.mem.reads, n + 2u);
		assert_int_equal(queue_push(&queue, &guest.mem, 0, 0), 0);
		assert_int_equal(guest.mem.reads, n + 2u);
	}
}

/* Which fields differ between version 0 and 1 of the table. */
enum {
	FLIP_ADDR = 1,
	FLIP_LEN = 2,
	FLIP_FLAGS = 4,
	FLIP_NEXT = 8
};

static unsigned int flips;
static unsigned int flip_at;
static unsigned int fetches;

/* Descriptor i in version v says who and which it is, in each field. Table:
 * 0 -> 1 -> 2 -> 3 (end), and by NEXT flipped 0 -> 2, 1 -> 3. */
static void write_desc(uint16_t i, unsigned int v)
{
	unsigned int on = v ? flips : 0;
	uint16_t next = i + ((on & FLIP_NEXT) ? 2 : 1);
	uint16_t flags = next < 4 ? DESC_NEXT : 0;

	if ((on & FLIP_FLAGS) != 0)
		flags |= i == 3 ? DESC_WRITE : DESC_INDIRECT;
	ring_desc(&ring, i, DATA_AT + i * 256u + ((on & FLIP_ADDR) ? 16 : 0),
		  1 + i * 16u + ((on & FLIP_LEN) ? 1 : 0), flags, next);
}

static void flip(struct gmem *g, gpa_t at, size_t n)
{
	if (fetches++ != flip_at)
		return;
	for (uint16_t i = 0; i < 4; i++)
		write_desc(i, 1);
}

/* A segment must be version 0 or version 1 of one descriptor, whole. */
static void check_segment(const struct queue_segment *s, bool writable)
{
	uint64_t i = (s->at.v - DATA_AT) / 256;
	unsigned int seen = 0;

	assert_in_range(i, 0, 3);
	if (s->at.v - DATA_AT - i * 256 == 16)
		seen |= FLIP_ADDR;
	if (s->len == 1 + i * 16 + 1)
		seen |= FLIP_LEN;
	else
		assert_int_equal(s->len, 1 + i * 16);
	if (writable)
		seen |= FLIP_FLAGS;
	if (seen != 0) /* NEXT cannot be seen in a segment, nor INDIRECT */
		assert_int_equal(seen, flips & (FLIP_ADDR | FLIP_LEN |
						(i == 3 ? FLIP_FLAGS : 0)));
}

static void a07_flips_never_mix_two_versions(void **state)
{
	for (flips = 1; flips < 16; flips++) {
		for (flip_at = 0; flip_at < 64; flip_at++) {
			int r;

			start(8);
			for (uint16_t i = 0; i < 4; i++)
				write_desc(i, 0);
			ring_offer(&ring, 0);
			fetches = 0;
			guest.mem.before_read = flip;
			r = queue_pop(&queue, &guest.mem, &chain);
			guest.mem.before_read = NULL;
			if ((flips & FLIP_FLAGS) == 0)
				assert_int_equal(r, 1);
			if (r != 1)
				continue;
			for (unsigned int i = 0; i < chain.readable; i++)
				check_segment(&chain.segments[i], false);
			for (unsigned int i = 0; i < chain.writable; i++)
				check_segment(
					&chain.segments[chain.readable + i],
					true);
		}
	}
}

static _Atomic bool racing;

/* A second vCPU: rewrites descriptors 0 and 1 as fast as it can. */
static void *second_vcpu(void *arg)
{
	uint64_t *d0 = (void *)guest_at(&guest, ring.desc, 16);
	uint64_t *d1 = (void *)guest_at(&guest, ring.desc + 16, 16);
	/* len, flags and next of a descriptor as one number */
	static const uint64_t tails[] = {
		0x40 | (uint64_t)DESC_NEXT << 32 | 1ull << 48,
		0xffffffff,
		0x40 | (uint64_t)DESC_NEXT << 32,
		0x40 | (uint64_t)(DESC_NEXT | DESC_WRITE) << 32 | 9ull << 48,
		0x40 | (uint64_t)DESC_WRITE << 32,
		0,
		0x40 | (uint64_t)DESC_INDIRECT << 32,
		0x40,
	};
	static const uint64_t addrs[] = { DATA_AT, UINT64_MAX - 8,
					  GUEST_HIGH - 1, GUEST_HIGH };

	for (unsigned int i = 0; racing; i++) {
		__atomic_store_n(d0, addrs[i / 5 % 4], __ATOMIC_RELAXED);
		__atomic_store_n(d0 + 1, tails[i % 8], __ATOMIC_RELAXED);
		__atomic_store_n(d1, addrs[i / 3 % 4], __ATOMIC_RELAXED);
		__atomic_store_n(d1 + 1, tails[i / 7 % 8], __ATOMIC_RELAXED);
	}
	return NULL;
}

static void a07_a_racing_vcpu_gets_nothing_past_the_checks(void **state)
{
	pthread_t other;
	unsigned int popped = 0, refused = 0;

	alarm(60);
	racing = true;
	assert_int_equal(pthread_create(&other, NULL, second_vcpu, NULL), 0);
	while (popped < 20000 || refused < 20000) {
		ring_offer(&ring, 0);
		if (queue_pop(&queue, &guest.mem, &chain) != 1) {
			refused++;
			ring_set_avail_idx(&ring, queue.next_avail);
			continue;
		}
		popped++;
		assert_in_range(chain.readable + chain.writable, 1, 8);
		for (int i = 0; i < chain.readable + chain.writable; i++)
			assert_true(guest_has(&guest, chain.segments[i].at.v,
					      chain.segments[i].len));
		assert_int_equal(queue_push(&queue, &guest.mem, chain.head, 0),
				 0);
	}
	racing = false;
	assert_int_equal(pthread_join(other, NULL), 0);
	alarm(0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pop_and_push_a_request),
		TEST(push_needs_something_in_flight),
		TEST(indices_wrap_at_65536),
		TEST(a01_sizes_and_alignments_are_checked),
		TEST(a06_each_ring_lies_in_memory),
		TEST(a03_cycles_end_after_queue_size_steps),
		TEST(a04_available_index_cannot_jump),
		TEST(a04_in_flight_chains_count),
		TEST(a04_heads_and_next_stay_in_the_table),
		TEST(a04_longest_chain_is_one_request),
		TEST(a06_segments_lie_in_memory),
		TEST(a06_a_bad_segment_anywhere_spoils_the_chain),
		TEST(a09_sums_are_taken_in_64_bits),
		TEST(a10_indirect_descriptors_are_refused),
		TEST(a11_readable_comes_before_writable),
		TEST(a11_writes_touch_writable_segments_only),
		TEST(a13_failed_pops_lose_no_descriptor),
		TEST(a13_every_access_can_fail),
		TEST(copies_start_and_end_anywhere),
		TEST(iovecs_cover_exactly_what_was_asked),
		TEST(interrupt_wish_is_bit_0_of_the_flags),
		TEST(a07_each_descriptor_is_fetched_once),
		TEST(a07_flips_never_mix_two_versions),
		TEST(a07_a_racing_vcpu_gets_nothing_past_the_checks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
