/* queue_model.c - queue.c against the model, exhaustively and at random.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All descriptor tables of sizes 1, 2 and 4 over a small alphabet, each
 * entered at each head; then random drivers that follow the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model.h"

#define RING_AT 0x1000u
#define DATA_AT 0x8000u

/* Fixed number of scripts, so that each run does the same work. */
#define SCRIPTS 1000000u

static struct guest guest;
static struct ring ring;
static struct queue queue;
static struct queue_chain chain;

static int set_up(void **state)
{
	guest_init(&guest);
	return 0;
}

static int tear_down(void **state)
{
	guest_fini(&guest);
	return 0;
}

/* --- every table ------------------------------------------------------------ */

struct letters {
	size_t count;
	struct model_desc at[1024];
};

static const struct {
	uint64_t addr;
	uint32_t len;
} buffers[] = {
	/* the first four are the short alphabet, for size 4 */
	{ DATA_AT, 1 },
	{ GUEST_LOW_BYTES - 1, 2 },
	{ DATA_AT, 0 },
	{ GUEST_HIGH + GUEST_HIGH_BYTES - 8, 8 },
	{ UINT64_MAX, 1 },
	{ GUEST_HIGH - 1, 2 },
	{ 0, 0xffffffff },
	{ 0, GUEST_LOW_BYTES },
	{ UINT64_MAX - 0x1000, 0x10000 },
	{ 0xd0000000, 16 },
};

static void add_letter(struct letters *l, size_t buffer, uint16_t flags,
		       uint16_t next)
{
	assert_true(l->count < ARRAY_LEN(l->at));
	l->at[l->count++] =
		(struct model_desc){ buffers[buffer].addr, buffers[buffer].len,
				     flags, next };
}

/* All flags; `next` counts only with NEXT, where it may leave the table. */
static void make_letters(struct letters *l, uint16_t size, size_t nbuffers)
{
	l->count = 0;
	for (size_t b = 0; b < nbuffers; b++) {
		for (uint16_t flags = 0; flags < 8; flags++) {
			bool odd = b > 0 && (flags & DESC_INDIRECT) != 0;

			if (odd && size == 4)
				continue; /* refused whatever the buffer is */
			if ((flags & DESC_NEXT) == 0) {
				add_letter(l, b, flags, 0);
				continue;
			}
			for (uint16_t next = 0; next <= size; next++)
				if (size < 4 || flags < 4 || next == 0)
					add_letter(l, b, flags, next);
		}
	}
}

static void check_heads(uint16_t size)
{
	for (uint16_t head = 0; head <= size; head++) {
		struct model m = { .ring = &ring };

		assert_int_equal(ring_activate(&ring, &queue), 0);
		guest_put(&guest, ring.avail + 4, &head, 2);
		guest_put(&guest, ring.used + 2, &m.given, 2);
		memset(guest_at(&guest, ring.used + 4, 8), 0, 8);
		if (model_check_pop(&m, &queue, &chain) == 1)
			model_check_push(&m, &queue, chain.head, 1 + head);
		if (memcmp(guest_at(&guest, ring.used + 4, 8), m.used, 8) ||
		    ring_used_idx(&ring) != m.given)
			fail();
	}
}

static uint64_t every_table(uint16_t size, size_t nbuffers)
{
	static struct letters l;
	size_t digits[4] = { 0 };
	uint64_t tables = 0;
	uint16_t i = 0;

	make_letters(&l, size, nbuffers);
	ring_init(&ring, &guest, size, RING_AT);
	ring_set_avail_idx(&ring, 1);
	for (uint16_t d = 0; d < size; d++)
		guest_put(&guest, ring.desc + 16u * d, &l.at[0], 16);
	do {
		check_heads(size);
		tables++;
		/* the next table: count up by one, in base l.count */
		for (i = 0; i < size; i++) {
			digits[i] = (digits[i] + 1) % l.count;
			guest_put(&guest, ring.desc + 16u * i, &l.at[digits[i]],
				  16);
			if (digits[i] != 0)
				break;
		}
	} while (i < size);
	return tables;
}

static void every_table_of_size_1(void **state)
{
	/* 10 buffers * (4 + 4 * 2) letters */
	assert_int_equal(every_table(1, ARRAY_LEN(buffers)), 120);
}

static void every_table_of_size_2(void **state)
{
	/* 10 buffers * (4 + 4 * 3) letters */
	assert_int_equal(every_table(2, ARRAY_LEN(buffers)), 160 * 160);
}

static void every_table_of_size_4(void **state)
{
	/* 3 buffers * (2 + 2 * 5) letters, and 4 indirect ones */
	assert_int_equal(every_table(4, 3), 40 * 40 * 40 * 40);
}

/* --- random drivers (A-31) --------------------------------------------------- */

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t dice(uint32_t sides)
{
	seed ^= seed << 13; /* xorshift64 */
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % sides;
}

/* A driver that follows the rules: it owns a stack of free descriptors. */
struct driver {
	uint16_t free[8];
	unsigned int nfree;
	uint16_t chains[8][8]; /* descriptors of the chain with this head */
	unsigned int lengths[8];
	uint16_t seen_used;
};

static void driver_offer(struct driver *d)
{
	unsigned int n = 1 + dice(d->nfree);
	unsigned int readable = dice(n + 1);
	uint16_t ids[8];

	for (unsigned int i = 0; i < n; i++) {
		unsigned int pick = dice(d->nfree);

		ids[i] = d->free[pick];
		d->free[pick] = d->free[--d->nfree];
	}
	for (unsigned int i = 0; i < n; i++) {
		uint16_t flags = i + 1 < n ? DESC_NEXT : 0;

		if (i >= readable)
			flags |= DESC_WRITE;
		ring_desc(&ring, ids[i], DATA_AT + dice(4096), 1 + dice(4096),
			  flags,
			  i + 1 < n ? ids[i + 1] : (uint16_t)dice(65536));
	}
	memcpy(d->chains[ids[0]], ids, sizeof(ids));
	d->lengths[ids[0]] = n;
	ring_offer(&ring, ids[0]);
}

static void driver_reclaim(struct driver *d)
{
	while (d->seen_used != ring_used_idx(&ring)) {
		uint32_t id, len;

		ring_used(&ring, d->seen_used++, &id, &len);
		if (id >= 8 || d->lengths[id] == 0)
			fail();
		for (unsigned int i = 0; i < d->lengths[id]; i++)
			d->free[d->nfree++] = d->chains[id][i];
		d->lengths[id] = 0;
	}
}

/* The device holds some chains and gives them back in any order. */
struct device {
	struct model model;
	struct {
		uint16_t head;
		uint32_t room;
	} held[8];
	unsigned int nheld;
};

static void device_step(struct device *v)
{
	if (dice(2) == 0) {
		if (model_check_pop(&v->model, &queue, &chain) == 1) {
			v->held[v->nheld].head = chain.head;
			v->held[v->nheld++].room = chain.writable_bytes;
		}
	} else if (v->nheld > 0) {
		unsigned int pick = dice(v->nheld);

		model_check_push(&v->model, &queue, v->held[pick].head,
				 dice(v->held[pick].room + 1));
		v->held[pick] = v->held[--v->nheld];
	}
}

static void run_script(void)
{
	struct driver d = { .nfree = 1u << dice(4) };
	struct device v = { .model = { .ring = &ring } };
	uint16_t begin = (uint16_t)(65536 - dice(8)); /* near the wrap */

	for (uint16_t i = 0; i < d.nfree; i++)
		d.free[i] = i;
	ring_init(&ring, &guest, (uint16_t)d.nfree, RING_AT);
	if (ring_activate(&ring, &queue) != 0)
		fail();
	queue.next_avail = queue.next_used = begin;
	v.model.taken = v.model.given = d.seen_used = begin;
	ring_set_avail_idx(&ring, begin);
	guest_put(&guest, ring.used + 2, &begin, 2);

	for (unsigned int step = 2 + dice(12); step > 0; step--) {
		if (dice(3) == 0 && d.nfree > 0)
			driver_offer(&d);
		else if (dice(4) == 0)
			driver_reclaim(&d);
		else
			device_step(&v);
	}
	if (!model_used_is_same(&v.model) || queue.in_flight != v.nheld)
		fail();
}

static void a31_random_drivers_see_the_same_used_ring(void **state)
{
	for (unsigned int i = 0; i < SCRIPTS; i++)
		run_script();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_table_of_size_1),
		TEST(every_table_of_size_2),
		TEST(every_table_of_size_4),
		TEST(a31_random_drivers_see_the_same_used_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
