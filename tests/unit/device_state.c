/* device_state.c - devices that go on elsewhere, and files that lie (C-15).
 * SPDX-License-Identifier: Apache-2.0
 *
 * A device is saved, the file is loaded into another one over the same guest
 * memory, and the driver goes on there. Then files with a good checksum that
 * no driver can have brought about: all must be refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "echo.h"
#include "src/vmm/dev/blk.h"
#include "src/vmm/dev/rng.h"
#include "src/vmm/dev/serial.h"
#include "statefile.h"

#define DATA_AT 0x8000u

enum {
	ACK = 1,
	DRIVER = 2,
	OK = 4,
	FEATURES_OK = 8,
	NEEDS_RESET = 64,
	FAILED = 128,
	RUNNING = ACK | DRIVER | OK | FEATURES_OK,
};

static struct guest guest;
static struct ring rings[2];
static struct echo from, to;
static uint8_t file[4096];
static char where[80]; /* of the last load */

static int set_up(void **state)
{
	guest_init(&guest);
	echo_init(&from, &guest.mem);
	echo_init(&to, &guest.mem);
	ring_init(&rings[0], &guest, 8, 0x1000);
	ring_init(&rings[1], &guest, 4, 0x2000);
	return 0;
}

static int tear_down(void **state)
{
	(void)close(from.irq_fd);
	(void)close(to.irq_fd);
	guest_fini(&guest);
	return 0;
}

static size_t save(struct echo *e)
{
	struct state_stream s;
	size_t n = 0;

	memset(file, 0xee, sizeof(file));
	state_save(&s, file, sizeof(file));
	virtio_state(&s, &e->dev);
	assert_int_equal(state_finish(&s, &n), 0);
	return n;
}

static int load(struct echo *e, size_t n)
{
	struct state_stream s;
	int r;

	state_load(&s, file, n);
	virtio_state(&s, &e->dev);
	r = state_finish(&s, NULL);
	memcpy(where, s.where, sizeof(s.where));
	return r;
}

static void bring_up(struct echo *e)
{
	assert_int_equal(reg_bring_up(&e->dev, 1u << 5, rings, 2), RUNNING);
}

static void offer(void)
{
	guest_put(&guest, DATA_AT, "ping....", 8);
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_NEXT, 1);
	ring_desc(&rings[0], 1, DATA_AT + 4, 4, DESC_WRITE, 0);
	ring_offer(&rings[0], 0);
}

static void check_reply(uint16_t used)
{
	assert_int_equal(ring_used_idx(&rings[0]), used);
	assert_memory_equal(guest_at(&guest, DATA_AT, 8), "pingping", 8);
}

/* Saves `from`, loads `to`; then both are the same to a driver, and to a
 * second save. */
static void move_over(void)
{
	uint8_t first[4096];
	size_t n = save(&from);

	memcpy(first, file, n);
	assert_int_equal(load(&to, n), 0);
	assert_int_equal(save(&to), n);
	assert_memory_equal(file, first, n);
	for (uint32_t at = 0; at < R_CONFIG; at += 4)
		assert_int_equal(reg_read(&to.dev, at),
				 reg_read(&from.dev, at));
	assert_int_equal(to.dev.active, from.dev.active);
	assert_int_equal(to.dev.features, from.dev.features);
	assert_int_equal(to.active, from.active);
}

/* --- what comes back ---------------------------------------------------------- */

static void a_running_device_goes_on(void **state)
{
	bring_up(&from);
	for (uint16_t i = 1; i <= 300; i++) {
		offer();
		virtio_kick(&from.dev, 0);
		check_reply(i);
	}
	move_over();
	assert_int_equal(to.activations, 1);
	offer();
	virtio_kick(&to.dev, 0);
	check_reply(301);
	reg_write(&to.dev, R_STATUS, 0);
	assert_int_equal(to.resets, 1);
}

static void each_step_of_the_driver_can_be_saved(void **state)
{
	static const uint32_t steps[] = { 0, 1, 3, 11 };

	for (unsigned int failed = 0; failed < 2; failed++) {
		for (unsigned int last = 0; last < 4; last++) {
			reg_write(&from.dev, R_STATUS, 0);
			reg_write(&from.dev, R_QUEUE_SEL, 1);
			reg_write(&from.dev, R_DEVICE_FEATURES_SEL, 1);
			for (unsigned int i = 1; i <= last; i++) {
				reg_write(&from.dev, R_STATUS, steps[i]);
				if (steps[i] == 3)
					reg_set_features(&from.dev, 3ull << 32);
			}
			if (last == 3)
				reg_set_queue(&from.dev, 1, &rings[1]);
			if (failed)
				reg_write(&from.dev, R_STATUS,
					  steps[last] | FAILED);
			move_over();
			if (!failed && last == 3) {
				reg_write(&to.dev, R_STATUS, RUNNING);
				assert_int_equal(to.dev.queues[1].size, 4);
				assert_int_equal(to.dev.queues[0].size, 0);
			}
		}
	}
}

static void broken_devices_stay_broken(void **state)
{
	bring_up(&from);
	offer();
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_INDIRECT, 0);
	virtio_kick(&from.dev, 0);
	move_over();
	assert_int_equal(reg_read(&to.dev, R_STATUS), RUNNING | NEEDS_RESET);
	assert_int_equal(reg_read(&to.dev, R_INTERRUPT_STATUS), 2);
	virtio_restored(&to.dev);
	assert_int_equal(echo_interrupts(&to), 1);
	assert_int_equal(reg_read(&to.dev, R_INTERRUPT_STATUS), 2);
	assert_int_equal(ring_used_idx(&rings[0]), 0);
	assert_int_equal(to.kicks[0], 0);

	from.refuse_activate = true;
	assert_int_equal(reg_bring_up(&from.dev, 0, rings, 2),
			 RUNNING | NEEDS_RESET);
	move_over();
	assert_false(to.dev.active);
	bring_up(&to);
}

/* What was taken and not answered is taken again. */
static void a_chain_in_hand_is_taken_again(void **state)
{
	bring_up(&from);
	offer();
	assert_int_equal(virtio_pop(&from.dev, 0, &from.chain), 1);
	assert_int_equal(from.dev.queues[0].in_flight, 1);
	assert_int_equal(load(&to, save(&from)), 0);
	assert_int_equal(from.dev.queues[0].in_flight, 1); /* untouched */
	assert_int_equal(to.dev.queues[0].in_flight, 0);
	virtio_restored(&to.dev);
	check_reply(1);
}

static void lost_kicks_and_interrupts_are_made_up_for(void **state)
{
	bring_up(&from);
	offer(); /* its kick never arrives */
	assert_int_equal(load(&to, save(&from)), 0);
	assert_int_equal(ring_used_idx(&rings[0]), 0);
	virtio_restored(&to.dev);
	check_reply(1);
	assert_true(echo_interrupts(&to) >= 1);
	assert_int_equal(reg_read(&to.dev, R_INTERRUPT_STATUS) & 1, 1);
	assert_int_equal(to.kicks[0], 1);
	assert_int_equal(to.kicks[1], 1);
	/* a device that nobody drives stays silent */
	reg_write(&from.dev, R_STATUS, 0);
	assert_int_equal(load(&to, save(&from)), 0);
	virtio_restored(&to.dev);
	assert_int_equal(echo_interrupts(&to), 0);
	assert_int_equal(reg_read(&to.dev, R_INTERRUPT_STATUS), 0);
}

static void a_device_in_use_is_reset_first(void **state)
{
	bring_up(&from);
	bring_up(&to);
	move_over();
	assert_int_equal(to.resets, 1);
	assert_int_equal(to.activations, 2);
	offer();
	virtio_kick(&to.dev, 0);
	check_reply(1);
}

/* --- what is refused ------------------------------------------------------------ */

/* The device is as after a reset, and can be used. */
static void check_reset(struct echo *e)
{
	assert_false(e->dev.active);
	assert_false(e->active);
	assert_int_equal(reg_read(&e->dev, R_STATUS), 0);
	assert_int_equal(e->dev.features, 0);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		assert_int_equal(e->dev.queues[i].size, 0);
}

struct change {
	const char *name;
	unsigned int nth;
	uint64_t value;
};

static void check_refused(const struct change *c, int error)
{
	size_t n = save(&from);

	assert_true(statefile_set(file, n, c->name, c->nth, c->value));
	assert_int_equal(load(&to, n), error);
	check_reset(&to);
}

static void hostile_running_state(void **state)
{
	static const struct change bad[] = {
		{ "num", 0, 0 },
		{ "num", 0, 3 },
		{ "num", 0, 16 }, /* beyond the model's maximum */
		{ "num", 0, 0x10008 },
		{ "num", 1, UINT32_MAX },
		{ "ready", 0, 2 },
		{ "ready", 0, 0 }, /* yet its ring has moved */
		{ "desc", 0, 0x1008 },
		{ "desc", 0, GUEST_LOW_BYTES },
		{ "desc", 0, GUEST_LOW_BYTES - 64 }, /* its end is outside */
		{ "desc", 0, UINT64_MAX - 15 },
		{ "avail", 0, 0x1001 },
		{ "avail", 0, 0xd0000000 },
		{ "used", 0, 0x1002 },
		{ "used", 0, GUEST_HIGH + GUEST_HIGH_BYTES },
		{ "used", 1, GUEST_HIGH - 4 },
		{ "driver_features", 0, 1ull << 5 }, /* no VERSION_1 */
		{ "driver_features", 0, 1ull << 32 | 1ull << 6 },
		{ "driver_features", 0, UINT64_MAX },
		{ "device_id", 0, VIRTIO_ID_BLK },
		{ "interrupt_status", 0, 2 }, /* without NEEDS_RESET */
		{ "interrupt_status", 0, 4 },
		{ "interrupt_status", 0, UINT32_MAX },
		{ "active", 0, 0 },
		{ "active", 0, 2 },
		{ "status", 0, RUNNING | 16 },
		{ "status", 0, RUNNING | 0x100 },
	};

	bring_up(&from);
	offer();
	virtio_kick(&from.dev, 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_refused(&bad[i], -ERANGE);
	move_over(); /* not all is refused */
}

/* Every status and flag: accepted if and only if a driver gets there with the
 * registers of a running device, or of one that is not brought up. */
static void only_reachable_status_is_accepted(void **state)
{
	for (unsigned int up = 0; up < 2; up++) {
		if (up)
			bring_up(&from);
		for (unsigned int v = 0; v < 512; v++) {
			uint32_t status = v & 0xff;
			uint32_t base = status & ~(NEEDS_RESET | FAILED);
			bool active = v >> 8;
			bool reachable;
			size_t n = save(&from);

			if (up) /* queues are set: FEATURES_OK came first */
				reachable =
					base == RUNNING
						? active || status & NEEDS_RESET
						: base == (RUNNING & ~OK) &&
							  !active &&
							  !(status &
							    NEEDS_RESET);
			else /* no features: no FEATURES_OK */
				reachable = !active &&
					    !(status & NEEDS_RESET) &&
					    (base == 0 || base == ACK ||
					     base == (ACK | DRIVER));
			statefile_set(file, n, "status", 0, status);
			statefile_set(file, n, "active", 0, active);
			int r = load(&to, n);
			assert_int_equal(r, reachable ? 0 : -ERANGE);
			if (r < 0)
				check_reset(&to);
			else
				reg_write(&to.dev, R_STATUS, 0);
		}
	}
}

static void hostile_idle_state(void **state)
{
	static const struct change bad[] = {
		{ "driver_features", 0, 1ull << 32 },
		{ "num", 0, 8 },
		{ "ready", 1, 1 },
		{ "desc", 1, 0x1000 },
		{ "avail", 0, 1 },
		{ "used", 0, 1 },
		{ "next", 0, 1 },
		{ "interrupt_status", 0, 1 },
		{ "interrupt_status", 0, 2 },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_refused(&bad[i], -ERANGE);
	reg_write(&from.dev, R_STATUS, 1);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		check_refused(&bad[i], -ERANGE);
}

/* A model may refuse what the transport would accept. */
static void a_model_may_refuse(void **state)
{
	bring_up(&from);
	to.refuse_activate = true;
	assert_int_equal(load(&to, save(&from)), -ERANGE);
	check_reset(&to);
	to.refuse_activate = false;
	assert_int_equal(load(&to, save(&from)), 0);
}

/* Any index is a driver's: a ring that does not fit needs a reset when it is
 * served, as it would without a file. */
static void an_index_that_does_not_fit_the_ring(void **state)
{
	size_t n;

	bring_up(&from);
	n = save(&from);
	assert_true(statefile_set(file, n, "next", 0, 12345));
	assert_int_equal(load(&to, n), 0);
	uint64_t before = guest_hash(&guest, 0, 0);
	virtio_restored(&to.dev);
	assert_int_equal(reg_read(&to.dev, R_STATUS), RUNNING | NEEDS_RESET);
	assert_int_equal(guest_hash(&guest, 0, 0), before);
}

/* --- serial ---------------------------------------------------------------------- */

static size_t serial_save(struct serial *p)
{
	struct state_stream s;
	size_t n = 0;

	state_save(&s, file, sizeof(file));
	serial_state(&s, p);
	assert_int_equal(state_finish(&s, &n), 0);
	return n;
}

static int serial_load(struct serial *p, size_t n)
{
	struct state_stream s;

	state_load(&s, file, n);
	serial_state(&s, p);
	return state_finish(&s, NULL);
}

static void a_serial_port_goes_on(void **state)
{
	static struct vmm_console consoles[2];
	struct serial a, b;
	size_t n;

	serial_init(&a, from.irq_fd);
	serial_set_console(&a, &consoles[0]);
	serial_init(&b, to.irq_fd);
	serial_write(&a, 3, 0x83); /* divisor latch */
	serial_write(&a, 0, 12);
	serial_write(&a, 1, 34);
	serial_write(&a, 3, 0x1b);
	serial_write(&a, 2, 1);
	serial_write(&a, 4, 0x0b);
	serial_write(&a, 7, 77);
	serial_write(&a, 1, 2); /* raises THR empty */
	serial_write(&a, 0, 'x');
	n = serial_save(&a);

	serial_set_console(&b, &consoles[1]);
	assert_int_equal(serial_load(&b, n), 0);
	serial_restored(&b);
	assert_int_equal(echo_interrupts(&to), 1);
	for (uint16_t r = 1; r < 8; r++)
		assert_int_equal(serial_read(&b, r), serial_read(&a, r));
	serial_restored(&b); /* it was acknowledged just now */
	assert_int_equal(echo_interrupts(&to), 0);
	serial_write(&b, 0, 'y');
	assert_int_equal(echo_interrupts(&to), 1);
	assert_int_equal(consoles[1].written, 1);
	assert_int_equal(consoles[1].data[0], 'y');
	serial_write(&b, 3, 0x80);
	assert_int_equal(serial_read(&b, 0), 12);
	assert_int_equal(serial_read(&b, 1), 34);

	/* the same console again: it goes on behind what is there */
	serial_set_console(&b, &consoles[1]);
	serial_write(&b, 3, 0);
	serial_write(&b, 0, 'z');
	assert_int_equal(consoles[1].written, 2);
	assert_int_equal(consoles[1].data[1], 'z');
}

static void hostile_serial_state(void **state)
{
	static const struct change bad[] = {
		{ "ier", 0, 0x10 },
		{ "ier", 0, 0 }, /* yet its interrupt is pending */
		{ "mcr", 0, 0x20 },
		{ "thr_pending", 0, 2 },
	};
	struct serial a, b;

	serial_init(&a, from.irq_fd);
	serial_write(&a, 1, 2);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		size_t n = serial_save(&a);

		serial_init(&b, to.irq_fd);
		assert_true(statefile_set(file, n, bad[i].name, bad[i].nth,
					  bad[i].value));
		assert_int_equal(serial_load(&b, n), -ERANGE);
		assert_int_equal(b.ier, 0);
		assert_false(b.thr_pending);
	}
}

/* --- rng and blk ------------------------------------------------------------------ */

static void the_bucket_of_rng_is_kept(void **state)
{
	struct rng a, b;
	struct state_stream s;
	size_t n;

	rng_init(&a, &guest.mem, from.irq_fd);
	rng_init(&b, &guest.mem, to.irq_fd);
	assert_int_equal(reg_bring_up(&a.dev, 0, rings, 1), RUNNING);
	a.tokens = 1234;
	state_save(&s, file, sizeof(file));
	rng_state(&s, &a);
	assert_int_equal(state_finish(&s, &n), 0);

	b.filled_ns = 1; /* long ago: would fill the bucket */
	state_load(&s, file, n);
	rng_state(&s, &b);
	assert_int_equal(state_finish(&s, NULL), 0);
	assert_int_equal(b.tokens, 1234);
	assert_true(b.filled_ns >= a.filled_ns);
	assert_true(b.dev.active);

	statefile_set(file, n, "tokens", 0, RNG_BURST_BYTES + 1);
	state_load(&s, file, n);
	rng_state(&s, &b);
	assert_int_equal(state_finish(&s, NULL), -ERANGE);
	assert_true(b.tokens <= RNG_BURST_BYTES);
}

static void a_block_device_is_no_entropy_device(void **state)
{
	struct cow cow = { .disk_bytes = 1u << 20 };
	struct rng r;
	struct blk a, b;
	struct state_stream s;
	size_t n;

	blk_init(&a, &cow, &guest.mem, from.irq_fd);
	blk_init(&b, &cow, &guest.mem, to.irq_fd);
	assert_int_equal(reg_bring_up(&a.dev, 0, rings, 1), RUNNING);
	state_save(&s, file, sizeof(file));
	blk_state(&s, &a);
	assert_int_equal(state_finish(&s, &n), 0);
	state_load(&s, file, n);
	blk_state(&s, &b);
	assert_int_equal(state_finish(&s, NULL), 0);
	assert_int_equal(b.dev.queues[0].size, 8);

	rng_init(&r, &guest.mem, to.irq_fd);
	state_load(&s, file, n);
	rng_state(&s, &r);
	assert_int_equal(state_finish(&s, NULL), -EPROTO);
	assert_false(r.dev.active);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_running_device_goes_on),
		TEST(each_step_of_the_driver_can_be_saved),
		TEST(broken_devices_stay_broken),
		TEST(a_chain_in_hand_is_taken_again),
		TEST(lost_kicks_and_interrupts_are_made_up_for),
		TEST(a_device_in_use_is_reset_first),
		TEST(hostile_running_state),
		TEST(only_reachable_status_is_accepted),
		TEST(hostile_idle_state),
		TEST(a_model_may_refuse),
		TEST(an_index_that_does_not_fit_the_ring),
		TEST(a_serial_port_goes_on),
		TEST(hostile_serial_state),
		TEST(the_bucket_of_rng_is_kept),
		TEST(a_block_device_is_no_entropy_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
