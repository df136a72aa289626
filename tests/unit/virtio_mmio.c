/* virtio_mmio.c - tests of the transport: registers, status, notifications.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "echo.h"

#define RING_AT 0x1000u
#define RING1_AT 0x2000u
#define DATA_AT 0x8000u

enum {
	ACK = 1,
	DRIVER = 2,
	DRIVER_OK = 4,
	FEATURES_OK = 8,
	NEEDS_RESET = 64,
	FAILED = 128,
	READY = ACK | DRIVER | FEATURES_OK, /* for queues to be set up */
	RUNNING = READY | DRIVER_OK,
};

static struct guest guest;
static struct echo echo;
static struct virtio_dev *dev = &echo.dev;
static struct ring rings[2];

static int set_up(void **state)
{
	guest_init(&guest);
	echo_init(&echo, &guest.mem);
	ring_init(&rings[0], &guest, 8, RING_AT);
	ring_init(&rings[1], &guest, 8, RING1_AT);
	return 0;
}

static int tear_down(void **state)
{
	assert_int_equal(close(echo.irq_fd), 0);
	guest_fini(&guest);
	return 0;
}

static void bring_up(void)
{
	ring_init(&rings[0], &guest, 8, RING_AT);
	ring_init(&rings[1], &guest, 8, RING1_AT);
	assert_int_equal(reg_bring_up(dev, 0, rings, 2), RUNNING);
	assert_true(dev->active);
}

/* Offers one request of 4 bytes and kicks; the reply must come. */
static void request_works(void)
{
	uint16_t before = ring_used_idx(&rings[0]);

	guest_put(&guest, DATA_AT, "ping....", 8);
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_NEXT, 1);
	ring_desc(&rings[0], 1, DATA_AT + 4, 4, DESC_WRITE, 0);
	ring_offer(&rings[0], 0);
	reg_write(dev, R_QUEUE_NOTIFY, 0);
	assert_int_equal(ring_used_idx(&rings[0]), (uint16_t)(before + 1));
	assert_memory_equal(guest_at(&guest, DATA_AT, 8), "pingping", 8);
}

/* Offers a chain that breaks a rule and kicks. */
static void break_ring(void)
{
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_INDIRECT, 0);
	ring_offer(&rings[0], 0);
	reg_write(dev, R_QUEUE_NOTIFY, 0);
}

/* --- registers --------------------------------------------------------------- */

static void identity_registers(void **state)
{
	assert_int_equal(reg_read(dev, R_MAGIC), 0x74726976);
	assert_int_equal(reg_read(dev, R_VERSION), 2);
	assert_int_equal(reg_read(dev, R_DEVICE_ID), VIRTIO_ID_RNG);
	assert_int_equal(reg_read(dev, R_VENDOR_ID), 0x67697262);
	assert_int_equal(reg_read(dev, R_STATUS), 0);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 0);
	assert_int_equal(reg_read(dev, R_CONFIG_GENERATION), 0);
	for (uint64_t at = R_SHM_LEN_LOW; at <= R_SHM_BASE_HIGH; at += 4)
		assert_int_equal(reg_read(dev, at), UINT32_MAX);
}

static void an_empty_slot_is_a_placeholder(void **state)
{
	for (uint64_t at = 0; at < 0x1000; at += 4) {
		uint32_t want = at == R_MAGIC     ? 0x74726976
				: at == R_VERSION ? 2
						  : 0;

		reg_write(NULL, at, UINT32_MAX);
		assert_int_equal(reg_read(NULL, at), want);
	}
}

static void registers_answer_only_to_32_bits(void **state)
{
	static const uint32_t widths[] = { 1, 2, 8 };

	bring_up();
	for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
		for (uint64_t at = 0; at < R_CONFIG; at++) {
			uint8_t data[9];
			static const uint8_t zero[8];

			memset(data, 0xee, sizeof(data));
			virtio_mmio_read(dev, at, data, widths[i]);
			assert_memory_equal(data, zero, widths[i]);
			assert_int_equal(data[widths[i]], 0xee);
			virtio_mmio_write(dev, at, zero, widths[i]);
		}
	}
	for (uint64_t at = 0; at < R_CONFIG; at++) {
		if (at % 4 == 0)
			continue;
		reg_write(dev, at, 0);
		assert_int_equal(reg_read(dev, at), 0);
	}
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING);
}

static void config_space_ends_where_it_ends(void **state)
{
	for (uint32_t len = 1; len <= 8; len *= 2) {
		for (uint64_t at = 0; at < 0x1000 - R_CONFIG; at++) {
			uint8_t got[8];
			uint64_t ones = UINT64_MAX;

			memset(got, 0xee, sizeof(got));
			virtio_mmio_write(dev, R_CONFIG + at, &ones, len);
			virtio_mmio_read(dev, R_CONFIG + at, got, len);
			for (uint32_t i = 0; i < len; i++)
				assert_int_equal(got[i],
						 at + i < ECHO_CONFIG_LEN
							 ? 0xc0 + at + i
							 : 0);
		}
	}
}

static void features_come_in_two_words(void **state)
{
	static const uint32_t sels[] = { 2, 3, 31, 32, 64, UINT32_MAX };

	reg_write(dev, R_DEVICE_FEATURES_SEL, 0);
	assert_int_equal(reg_read(dev, R_DEVICE_FEATURES), 1u << 5);
	reg_write(dev, R_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(reg_read(dev, R_DEVICE_FEATURES), 3);
	for (size_t i = 0; i < ARRAY_LEN(sels); i++) {
		reg_write(dev, R_DEVICE_FEATURES_SEL, sels[i]);
		assert_int_equal(reg_read(dev, R_DEVICE_FEATURES), 0);
	}

	reg_write(dev, R_STATUS, ACK);
	reg_set_features(dev, UINT64_MAX); /* too early: ignored */
	reg_write(dev, R_STATUS, ACK | DRIVER);
	reg_set_features(dev, VIRTIO_FEATURE_VERSION_1 | 1u << 5);
	for (size_t i = 0; i < ARRAY_LEN(sels); i++) {
		reg_write(dev, R_DRIVER_FEATURES_SEL, sels[i]);
		reg_write(dev, R_DRIVER_FEATURES, UINT32_MAX);
	}
	reg_write(dev, R_STATUS, READY);
	assert_int_equal(reg_read(dev, R_STATUS), READY);
	reg_write(dev, R_STATUS, RUNNING);
	assert_true(dev->features == (VIRTIO_FEATURE_VERSION_1 | 1u << 5));
}

static void features_must_be_offered_and_modern(void **state)
{
	static const uint64_t bad[] = { 0,
					1u << 5,
					1ull << 33,
					VIRTIO_FEATURE_VERSION_1 | 1,
					VIRTIO_FEATURE_VERSION_1 | 1ull << 34,
					VIRTIO_FEATURE_VERSION_1 | 1ull << 28,
					UINT64_MAX };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		reg_write(dev, R_STATUS, 0);
		reg_write(dev, R_STATUS, ACK);
		reg_write(dev, R_STATUS, ACK | DRIVER);
		reg_set_features(dev, bad[i]);
		reg_write(dev, R_STATUS, READY);
		assert_int_equal(reg_read(dev, R_STATUS), ACK | DRIVER);
	}
	/* the driver may come down with its wishes and try again */
	reg_set_features(dev, VIRTIO_FEATURE_VERSION_1);
	reg_write(dev, R_STATUS, READY);
	assert_int_equal(reg_read(dev, R_STATUS), READY);
}

static void queues_that_do_not_exist(void **state)
{
	static const uint32_t sels[] = { 2, 3, 4, 255, UINT32_MAX };

	assert_int_equal(reg_bring_up(dev, 0, rings, 0), RUNNING);
	reg_write(dev, R_QUEUE_SEL, 1);
	assert_int_equal(reg_read(dev, R_QUEUE_NUM_MAX), 8);
	reg_write(dev, R_STATUS, 0);
	assert_int_equal(reg_read(dev, R_QUEUE_SEL), 0);

	reg_write(dev, R_STATUS, ACK);
	reg_write(dev, R_STATUS, ACK | DRIVER);
	reg_set_features(dev, VIRTIO_FEATURE_VERSION_1);
	reg_write(dev, R_STATUS, READY);
	for (size_t i = 0; i < ARRAY_LEN(sels); i++) {
		struct virtio_dev before = *dev;

		reg_set_queue(dev, sels[i], &rings[0]);
		assert_int_equal(reg_read(dev, R_QUEUE_NUM_MAX), 0);
		assert_int_equal(reg_read(dev, R_QUEUE_READY), 0);
		assert_memory_equal(before.mmio.queue, dev->mmio.queue,
				    sizeof(dev->mmio.queue));
	}
	reg_write(dev, R_STATUS, RUNNING);
	for (size_t i = 0; i < ARRAY_LEN(sels); i++)
		reg_write(dev, R_QUEUE_NOTIFY, sels[i]);
	assert_int_equal(echo.kicks[0] + echo.kicks[1], 0);
}

static void a_ready_queue_does_not_move(void **state)
{
	struct ring elsewhere = rings[0];

	reg_bring_up(dev, 0, rings, 0);
	reg_write(dev, R_STATUS, 0);
	reg_set_queue(dev, 0, &rings[0]); /* too early */
	assert_int_equal(reg_read(dev, R_QUEUE_READY), 0);
	reg_write(dev, R_STATUS, ACK);
	reg_write(dev, R_STATUS, ACK | DRIVER);
	reg_set_queue(dev, 0, &rings[0]); /* still too early */
	assert_int_equal(reg_read(dev, R_QUEUE_READY), 0);
	reg_set_features(dev, VIRTIO_FEATURE_VERSION_1);
	reg_write(dev, R_STATUS, READY);

	elsewhere.desc = elsewhere.avail = elsewhere.used = 0x123456789abcdef0;
	elsewhere.size = 4;
	reg_set_queue(dev, 0, &elsewhere);
	assert_int_equal(reg_read(dev, R_QUEUE_READY), 1);
	reg_set_queue(dev, 0, &rings[0]); /* ignored: it is ready */
	assert_true(dev->mmio.queue[0].desc == 0x123456789abcdef0);
	reg_write(dev, R_QUEUE_READY, 2); /* means nothing */
	assert_int_equal(reg_read(dev, R_QUEUE_READY), 1);
	reg_write(dev, R_QUEUE_READY, 0);
	assert_int_equal(reg_read(dev, R_QUEUE_READY), 0);
	reg_set_queue(dev, 0, &rings[0]); /* now it moves */
	reg_write(dev, R_STATUS, RUNNING);
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING);
	request_works();
}

static void a_queue_left_out_is_not_in_use(void **state)
{
	static struct queue_chain chain;

	assert_int_equal(reg_bring_up(dev, 0, rings, 1), RUNNING);
	reg_write(dev, R_QUEUE_NOTIFY, 1);
	assert_int_equal(echo.kicks[1], 0);
	assert_int_equal(virtio_pop(dev, 1, &chain), 0);
	assert_int_equal(virtio_push(dev, 1, 0, 0), -EPROTO);
	virtio_interrupt(dev, 1);
	assert_int_equal(echo_interrupts(&echo), 0);
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING);
	request_works();
}

/* --- status (A-01) ----------------------------------------------------------- */

/* The reference automaton. An input is a value written to the status register
 * or DEVICE_ERROR. */
#define DEVICE_ERROR 0x1000u

struct world {
	bool good_features;
	bool good_rings;
};

struct ref {
	uint32_t status;
	bool active;
};

static struct ref ref_next(struct ref s, uint32_t input, struct world w)
{
	static const uint32_t order[] = { 0, 1, 3, 11, 15 };
	uint32_t driver = s.status & ~64u; /* the driver's own bits */
	uint32_t want = input & ~64u;

	if (input == DEVICE_ERROR)
		return (struct ref){ s.status | 64, s.active };
	if (input == 0)
		return (struct ref){ 0, false };
	if (want == (driver | 128))
		return (struct ref){ s.status | 128, s.active };
	if ((s.status & (64 | 128)) != 0)
		return s;
	for (int i = 0; i < 4; i++) {
		if (driver != order[i] || want != order[i + 1])
			continue;
		if (want == 11 && !w.good_features)
			return s;
		if (want == 15 && !w.good_rings)
			return (struct ref){ 15 | 64, false };
		return (struct ref){ want, want == 15 };
	}
	return s;
}

/* Drives the device through `path`, then compares it with the reference. */
static struct ref replay(const uint32_t *path, size_t n, struct world w)
{
	struct ref s = { 0, false };

	reg_write(dev, R_STATUS, 0);
	for (size_t i = 0; i < n; i++) {
		if (path[i] == DEVICE_ERROR) {
			vmm_lock();
			virtio_needs_reset(dev, "test");
			vmm_unlock();
		} else {
			reg_write(dev, R_STATUS, path[i]);
		}
		s = ref_next(s, path[i], w);
		assert_int_equal(reg_read(dev, R_STATUS), s.status);
		assert_int_equal(dev->active, s.active);
		assert_int_equal(echo.active, s.active);
		reg_set_features(dev, VIRTIO_FEATURE_VERSION_1 |
					      (w.good_features ? 0 : 1));
		reg_set_queue(dev, 0, &rings[0]);
	}
	return s;
}

struct place {
	struct ref at;
	uint32_t path[8];
	size_t steps;
};

static size_t known(const struct place *places, size_t n, struct ref s)
{
	for (size_t i = 0; i < n; i++)
		if (places[i].at.status == s.status &&
		    places[i].at.active == s.active)
			return i;
	return n;
}

/* Breadth first over all states that can be reached; each state times all
 * inputs is compared with the reference in replay(). */
static size_t explore(struct world w)
{
	static struct place places[64];
	size_t n = 1;

	memset(places, 0, sizeof(places));
	for (size_t i = 0; i < n; i++) {
		for (uint32_t v = 0; v <= 256 + 3; v++) {
			static const uint32_t extra[] = { DEVICE_ERROR, 0x100,
							  0x10f, 0xffffff00 };
			struct place p = places[i];

			p.path[p.steps++] = v < 256 ? v : extra[v - 256];
			p.at = replay(p.path, p.steps, w);
			if (known(places, n, p.at) < n)
				continue;
			assert_true(n < ARRAY_LEN(places));
			assert_true(p.steps < ARRAY_LEN(p.path));
			places[n++] = p;
		}
	}
	return n;
}

static void quiet(bool on)
{
	static int saved = -1;
	int null;

	if (on) {
		saved = dup(STDERR_FILENO);
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		assert_true(dup2(null, STDERR_FILENO) >= 0);
		close(null);
	} else {
		assert_true(dup2(saved, STDERR_FILENO) >= 0);
		close(saved);
	}
}

static void a01_every_state_and_value_equals_the_reference(void **state)
{
	const struct world good = { true, true };
	const struct world bad_features = { false, true };
	const struct world bad_rings = { true, false };

	/* {0, 1, 3, 11, 15} x {, NEEDS_RESET} x {, FAILED} */
	assert_int_equal(explore(good), 20);
	/* not 11 and 15 */
	assert_int_equal(explore(bad_features), 12);
	/* 15 only with NEEDS_RESET */
	rings[0].avail++;
	assert_int_equal(explore(bad_rings), 18);
}

static void a01_a_bad_ring_is_not_activated(void **state)
{
	const struct ring good = rings[0];
	struct ring bad[12];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		bad[i] = good;
	bad[n++].desc += 8;
	bad[n++].avail += 1;
	bad[n++].used += 2;
	bad[n++].size = 0;
	bad[n++].size = 3;
	bad[n++].size = 16; /* above QueueNumMax */
	bad[n++].size = 65535;
	bad[n++].desc = GUEST_LOW_BYTES - 16;
	bad[n++].avail = GUEST_LOW_BYTES - 2;
	bad[n++].used = GUEST_HIGH - 4;
	bad[n++].used = UINT64_MAX - 3;
	bad[n++].desc = 0xd0000000;
	assert_int_equal(n, ARRAY_LEN(bad));

	for (size_t i = 0; i < n; i++) {
		struct ring both[2] = { rings[1], bad[i] };

		assert_int_equal(reg_bring_up(dev, 0, both, 2),
				 RUNNING | NEEDS_RESET);
		assert_false(dev->active);
		assert_int_equal(dev->queues[0].size, 0);
		reg_write(dev, R_QUEUE_NOTIFY, 0);
		assert_int_equal(echo.kicks[0], 0);
		assert_int_equal(echo.activations, 0);
	}
	assert_int_equal(echo.resets, 0);
	bring_up();
	request_works();
}

static void a01_queue_num_is_not_truncated(void **state)
{
	assert_int_equal(reg_bring_up(dev, 0, rings, 0), RUNNING);
	reg_write(dev, R_STATUS, 0);
	reg_write(dev, R_STATUS, ACK);
	reg_write(dev, R_STATUS, ACK | DRIVER);
	reg_set_features(dev, VIRTIO_FEATURE_VERSION_1);
	reg_write(dev, R_STATUS, READY);
	reg_set_queue(dev, 0, &rings[0]);
	reg_write(dev, R_QUEUE_READY, 0);
	reg_write(dev, R_QUEUE_NUM, 0x10008); /* 8 in its low half */
	reg_write(dev, R_QUEUE_READY, 1);
	reg_write(dev, R_STATUS, RUNNING);
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING | NEEDS_RESET);
	assert_false(dev->active);
}

static void a_model_may_refuse_to_activate(void **state)
{
	echo.refuse_activate = true;
	assert_int_equal(reg_bring_up(dev, 0, rings, 2), RUNNING | NEEDS_RESET);
	assert_false(dev->active);
	reg_write(dev, R_QUEUE_NOTIFY, 0);
	assert_int_equal(echo.kicks[0], 0);
	echo.refuse_activate = false;
	bring_up();
	assert_int_equal(echo.resets, 0);
	request_works();
}

static void failed_stops_an_active_device(void **state)
{
	bring_up();
	reg_write(dev, R_STATUS, RUNNING | FAILED);
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_WRITE, 0);
	ring_offer(&rings[0], 0);
	reg_write(dev, R_QUEUE_NOTIFY, 0);
	assert_int_equal(echo.kicks[0], 0);
	assert_int_equal(ring_used_idx(&rings[0]), 0);
	reg_write(dev, R_STATUS, 0);
	assert_int_equal(echo.resets, 1);
}

/* --- after DRIVER_OK (A-02) -------------------------------------------------- */

static void a02_nothing_moves_after_driver_ok(void **state)
{
	static const uint32_t values[] = { 0,  1,     3,          4,
					   16, 65535, 0xd0000000, UINT32_MAX };
	struct queue before[VIRTIO_QUEUES_MAX];
	uint64_t features;
	uint64_t hash;

	bring_up();
	memcpy(before, dev->queues, sizeof(before));
	features = dev->features;
	hash = guest_hash(&guest, 0, 0);
	for (uint64_t at = 0; at < R_CONFIG; at += 4) {
		if (at == R_STATUS || at == R_QUEUE_NOTIFY)
			continue;
		for (size_t i = 0; i < ARRAY_LEN(values); i++) {
			reg_write(dev, R_QUEUE_SEL, i % 3);
			reg_write(dev, at, values[i]);
			assert_memory_equal(before, dev->queues,
					    sizeof(before));
			assert_true(dev->features == features);
			assert_true(dev->active);
		}
	}
	assert_true(guest_hash(&guest, 0, 0) == hash);
	reg_write(dev, R_QUEUE_SEL, 0);
	assert_int_equal(reg_read(dev, R_QUEUE_READY), 1);
	request_works();
}

/* --- kicks ------------------------------------------------------------------- */

static void kicks_come_by_register_and_by_eventfd(void **state)
{
	reg_write(dev, R_QUEUE_NOTIFY, 0); /* inactive: nothing */
	virtio_kick(dev, 0);
	assert_int_equal(echo.kicks[0], 0);
	bring_up();
	reg_write(dev, R_QUEUE_NOTIFY, 0);
	reg_write(dev, R_QUEUE_NOTIFY, 1);
	virtio_kick(dev, 0);
	virtio_kick(dev, 3);
	virtio_kick(dev, UINT32_MAX);
	assert_int_equal(echo.kicks[0], 2);
	assert_int_equal(echo.kicks[1], 1);
	request_works();
}

static uint16_t always;

/* A driver on another vCPU that adds a chain whenever the device looks. */
static void keep_adding(struct gmem *g, gpa_t at, size_t n)
{
	if (at.v == rings[0].avail + 2 && always > 0) {
		always--;
		ring_offer(&rings[0], 0);
	}
}

static void a04_a_kick_pops_at_most_one_ring(void **state)
{
	bring_up();
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_WRITE, 0);
	always = 100;
	guest.mem.before_read = keep_adding;
	reg_write(dev, R_QUEUE_NOTIFY, 0);
	assert_int_equal(echo.pops_once, 8);
	while (echo.popped < 100)
		reg_write(dev, R_QUEUE_NOTIFY, 0);
	guest.mem.before_read = NULL;
	assert_int_equal(echo.pops_once, 8);
	assert_int_equal(ring_used_idx(&rings[0]), 100);
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING);
}

/* --- interrupts -------------------------------------------------------------- */

static void interrupts_are_raised_and_acknowledged(void **state)
{
	bring_up();
	request_works();
	assert_int_equal(echo_interrupts(&echo), 1);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 1);
	reg_write(dev, R_INTERRUPT_ACK, 2);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 1);
	reg_write(dev, R_INTERRUPT_ACK, 1);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 0);

	ring_set_avail_flags(&rings[0], 1); /* NO_INTERRUPT */
	request_works();
	assert_int_equal(echo_interrupts(&echo), 0);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 0);

	break_ring(); /* that one cannot be suppressed */
	assert_int_equal(echo_interrupts(&echo), 1);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 2);
	reg_write(dev, R_STATUS, 0);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 0);
}

static void interrupt_registers_work_without_the_lock(void **state)
{
	bring_up();
	request_works();
	alarm(5); /* a deadlock would be the failure */
	vmm_lock();
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 1);
	reg_write(dev, R_INTERRUPT_ACK, 1);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 0);
	vmm_unlock();
	alarm(0);
}

static void a33_a_full_eventfd_does_not_block(void **state)
{
	uint64_t full = UINT64_MAX - 1;

	bring_up();
	assert_int_equal(write(echo.irq_fd, &full, 8), 8);
	alarm(5);
	for (int i = 0; i < 1000; i++)
		request_works();
	alarm(0);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 1);
}

/* --- needs reset, and reset -------------------------------------------------- */

static void a_broken_ring_stops_the_device_until_reset(void **state)
{
	static struct queue_chain chain;
	struct queue before;

	bring_up();
	request_works();
	break_ring();
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING | NEEDS_RESET);
	assert_int_equal(dev->needs_reset_count, 1);

	/* neither the driver nor the model gets further now */
	before = dev->queues[0];
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_WRITE, 0);
	reg_write(dev, R_QUEUE_NOTIFY, 0);
	reg_write(dev, R_STATUS, RUNNING);
	assert_int_equal(virtio_pop(dev, 0, &chain), 0);
	assert_int_equal(virtio_push(dev, 0, 0, 0), -EPROTO);
	(void)echo_interrupts(&echo);
	virtio_interrupt(dev, 0);
	virtio_needs_reset(dev, "again");
	assert_int_equal(echo_interrupts(&echo), 0);
	assert_int_equal(dev->needs_reset_count, 1);
	assert_memory_equal(&before, &dev->queues[0], sizeof(before));
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING | NEEDS_RESET);

	reg_write(dev, R_STATUS, 0);
	assert_int_equal(echo.resets, 1);
	assert_int_equal(reg_read(dev, R_STATUS), 0);
	bring_up();
	request_works();
}

static void reset_forgets_everything(void **state)
{
	static const struct virtio_mmio zero;
	static const struct queue no_queues[VIRTIO_QUEUES_MAX];

	bring_up();
	request_works();
	reg_write(dev, R_DEVICE_FEATURES_SEL, 1);
	reg_write(dev, R_QUEUE_SEL, 1);
	reg_write(dev, R_STATUS, 0);
	assert_memory_equal(&dev->mmio, &zero, sizeof(zero));
	assert_memory_equal(dev->queues, no_queues, sizeof(no_queues));
	assert_true(dev->features == 0);
	assert_false(dev->active);
	assert_int_equal(echo.resets, 1);
	reg_write(dev, R_STATUS, 0); /* inactive: nothing to drop */
	assert_int_equal(echo.resets, 1);
}

static void a14_a_late_push_after_reset_writes_nothing(void **state)
{
	static struct queue_chain chain;
	uint64_t hash;

	bring_up();
	ring_desc(&rings[0], 0, DATA_AT, 4, DESC_WRITE, 0);
	ring_offer(&rings[0], 0);
	vmm_lock();
	assert_int_equal(virtio_pop(dev, 0, &chain), 1);
	vmm_unlock();
	reg_write(dev, R_STATUS, 0);
	hash = guest_hash(&guest, 0, 0);
	vmm_lock();
	assert_int_equal(virtio_push(dev, 0, chain.head, 4), -EPROTO);
	virtio_interrupt(dev, 0);
	vmm_unlock();
	assert_true(guest_hash(&guest, 0, 0) == hash);
	assert_int_equal(echo_interrupts(&echo), 0);
	assert_int_equal(reg_read(dev, R_STATUS), 0);
}

/* A push that the model makes up: the transport notices. */
static void a_push_of_nothing_needs_a_reset(void **state)
{
	bring_up();
	assert_int_equal(virtio_push(dev, 0, 0, 0), -EPROTO);
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING | NEEDS_RESET);
	assert_int_equal(ring_used_idx(&rings[0]), 0);
}

static void a13_interrupts_need_the_available_ring(void **state)
{
	bring_up();
	dev->queues[0].avail = GPA(GUEST_LOW_BYTES);
	virtio_interrupt(dev, 0);
	assert_int_equal(reg_read(dev, R_STATUS), RUNNING | NEEDS_RESET);
	assert_int_equal(reg_read(dev, R_INTERRUPT_STATUS), 2);
}

static void a13_ten_thousand_breaks_and_resets(void **state)
{
	quiet(true);
	for (unsigned int i = 0; i < 10000; i++) {
		bring_up();
		request_works();
		break_ring();
		assert_int_equal(reg_read(dev, R_STATUS),
				 RUNNING | NEEDS_RESET);
		assert_int_equal(dev->queues[0].in_flight, 0);
		assert_int_equal(ring_used_idx(&rings[0]), 1);
	}
	quiet(false);
	assert_int_equal(dev->needs_reset_count, 10000);
	assert_int_equal(echo.popped, 10000);
	assert_int_equal(echo.resets, 9999);
	bring_up();
	request_works();
}

static void a_guest_cannot_flood_the_log(void **state)
{
	int saved = dup(STDERR_FILENO);
	char text[4096];
	unsigned int lines = 0;
	int fds[2];
	ssize_t n;

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	for (unsigned int i = 0; i < 100; i++) {
		bring_up();
		break_ring();
	}
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	n = read(fds[0], text, sizeof(text));
	for (ssize_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	assert_in_range(lines, 1, 4);
	assert_int_equal(dev->needs_reset_count, 100);
	close(saved);
	close(fds[0]);
	close(fds[1]);
}

/* --- two vCPUs --------------------------------------------------------------- */

static _Atomic bool racing;
static _Atomic unsigned int noises;

static void *other_vcpu(void *arg)
{
	uint32_t seed = 1;

	while (racing) {
		seed = seed * 1103515245 + 12345;
		reg_write(dev, (seed >> 8) & 0xfc, seed >> 16 & 0xff);
		(void)reg_read(dev, (seed >> 12) & 0xfc);
		noises++;
	}
	return NULL;
}

/* One vCPU brings the device up and breaks it, the other writes noise into
 * all registers: the model must never see an impossible order (it aborts). */
static void vcpus_that_race_for_a_device(void **state)
{
	pthread_t other;

	alarm(60);
	quiet(true);
	racing = true;
	assert_int_equal(pthread_create(&other, NULL, other_vcpu, NULL), 0);
	for (unsigned int i = 0; i < 20000 || noises < 20000; i++) {
		(void)reg_bring_up(dev, 0, rings, 2);
		ring_desc(&rings[0], 0, DATA_AT, 4, i % 7, 0);
		ring_offer(&rings[0], 0);
		virtio_kick(dev, 0);
	}
	racing = false;
	assert_int_equal(pthread_join(other, NULL), 0);
	quiet(false);
	alarm(0);
	assert_true(echo.activations > 0);
	bring_up();
	request_works();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(identity_registers),
		TEST(an_empty_slot_is_a_placeholder),
		TEST(registers_answer_only_to_32_bits),
		TEST(config_space_ends_where_it_ends),
		TEST(features_come_in_two_words),
		TEST(features_must_be_offered_and_modern),
		TEST(queues_that_do_not_exist),
		TEST(a_ready_queue_does_not_move),
		TEST(a_queue_left_out_is_not_in_use),
		TEST(a01_every_state_and_value_equals_the_reference),
		TEST(a01_a_bad_ring_is_not_activated),
		TEST(a01_queue_num_is_not_truncated),
		TEST(a_model_may_refuse_to_activate),
		TEST(failed_stops_an_active_device),
		TEST(a02_nothing_moves_after_driver_ok),
		TEST(kicks_come_by_register_and_by_eventfd),
		TEST(a04_a_kick_pops_at_most_one_ring),
		TEST(interrupts_are_raised_and_acknowledged),
		TEST(interrupt_registers_work_without_the_lock),
		TEST(a33_a_full_eventfd_does_not_block),
		TEST(a_broken_ring_stops_the_device_until_reset),
		TEST(reset_forgets_everything),
		TEST(a14_a_late_push_after_reset_writes_nothing),
		TEST(a_push_of_nothing_needs_a_reset),
		TEST(a13_interrupts_need_the_available_ring),
		TEST(a13_ten_thousand_breaks_and_resets),
		TEST(a_guest_cannot_flood_the_log),
		TEST(vcpus_that_race_for_a_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
