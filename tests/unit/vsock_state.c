/* vsock_state.c - a vsock device that was saved: what the guest is told, and
 * when packets flow again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The file is loaded into the same device: its guest and brigd's ends are
 * still there, so the tests see what happens to both.
 */
#include "statefile.h"
#include "vsock_peer.h"

#define EVENT_AT 0xf0000u
#define EVENT_BUFS 8u

static uint8_t file[4096];
static uint16_t event_seen;

static size_t save(void)
{
	struct state_stream s;
	size_t n = 0;

	state_save(&s, file, sizeof(file));
	vsock_state(&s, &d.v);
	assert_int_equal(state_finish(&s, &n), 0);
	return n;
}

static void load(size_t n)
{
	struct state_stream s;

	state_load(&s, file, n);
	vsock_state(&s, &d.v);
	assert_int_equal(state_finish(&s, NULL), 0);
}

static void restore(void)
{
	load(save());
	virtio_restored(&d.v.dev);
}

/* As Linux does: one descriptor of four bytes for each event. */
static void post_events(uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		ring_desc(&d.rings[2], i, EVENT_AT + 4u * i, 4, DESC_WRITE, 0);
		ring_offer(&d.rings[2], i);
	}
	event_seen = 0;
	virtio_kick(&d.v.dev, 2);
}

/* The guest's event worker: takes each event, gives its buffer back, kicks. */
static unsigned int handle_events(void)
{
	struct ring *r = &d.rings[2];
	unsigned int handled = 0;

	while (event_seen != ring_used_idx(r)) {
		uint32_t head, len, id;

		ring_used(r, event_seen++, &head, &len);
		assert_int_equal(len, 4);
		memcpy(&id, guest_at(&d.guest, EVENT_AT + 4 * head, 4), 4);
		assert_int_equal(id,
				 0); /* VIRTIO_VSOCK_EVENT_TRANSPORT_RESET */
		ring_offer(r, (uint16_t)head);
		handled++;
	}
	virtio_kick(&d.v.dev, 2);
	return handled;
}

static uint64_t interrupts(void)
{
	uint64_t n = 0;

	return read(d.irq_fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void check_works(void)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	assert_int_equal(write(fd, "hello", 5), 5);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_RW).len, 5);
	send_data(&p, "world", 5);
	expect_bytes(fd, "world", 5);
	close(fd);
	driver_run(&d);
	expect(&p, OP_SHUTDOWN);
	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 0);
}

/* --- tests ---------------------------------------------------------------------- */

static void connections_end_and_new_ones_work(void **state)
{
	struct peer old, fresh;
	int was, fd;

	post_events(EVENT_BUFS);
	was = open_peer(&old, GUEST_BUF);
	assert_int_equal(write(was, "unread", 6), 6); /* both directions */
	use_ring(&old);
	restore();
	while (read(was, big, sizeof(big)) > 0)
		continue; /* what it got before */
	expect_eof(was);
	assert_int_equal(conns_in_use(), 0);
	assert_int_equal(d.v.gate.state, VSOCK_GATE_TOLD);
	assert_int_equal(handle_events(), 1);
	assert_int_equal(d.v.gate.state, VSOCK_GATE_OPEN);
	while (rx_take(&d, &(struct packet){ 0 }, data))
		continue; /* what was on its way before */

	fd = connect_to(BRIG_AGENT_PORT);
	expect_new(OP_REQUEST, &fresh);
	assert_true(fresh.host_port >> 8 > old.host_port >> 8);
	send_op(&old, OP_CREDIT_UPDATE, 0); /* of a connection that is gone */
	expect(&old, OP_RST);
	close(was);
	close(fd);
}

static void nothing_reaches_the_guest_before_the_event(void **state)
{
	struct peer p, ready = { .guest_port = 1055,
				 .host_port = BRIG_READY_PORT,
				 .buf_alloc = GUEST_BUF };
	int fd;

	rx_post(&d, RX_BUFS);
	restore(); /* the guest gave no event buffer yet */
	assert_int_equal(d.v.gate.state, VSOCK_GATE_UNTOLD);
	fd = connect_to(BRIG_AGENT_PORT);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "early", 5), 5);
	send_op(&ready, OP_REQUEST, 0);
	driver_run(&d);
	virtio_kick(&d.v.dev, 0);
	virtio_kick(&d.v.dev, 2);
	expect_nothing();
	assert_int_equal(ring_used_idx(&d.rings[2]), 0);

	(void)interrupts();
	post_events(1);
	assert_int_equal(ring_used_idx(&d.rings[2]), 1);
	assert_int_equal(interrupts(), 1);
	virtio_kick(&d.v.dev, 2); /* a kick without the buffer is no answer */
	virtio_kick(&d.v.dev, 0);
	driver_run(&d);
	expect_nothing();

	(void)interrupts();
	assert_int_equal(handle_events(), 1);
	assert_int_equal(interrupts(), 1);
	expect_new(OP_REQUEST, &p);
	expect(&ready, OP_RESPONSE);
	send_op(&p, OP_RESPONSE, 0);
	assert_int_equal(expect(&p, OP_RW).len, 5);
	assert_memory_equal(data, "early", 5);
	expect_nothing();
	assert_int_equal(ring_used_idx(&d.rings[2]), 1); /* told once */
	close(fd);
	driver_run(&d);
	send_op(&p, OP_RST, 0);
	send_op(&ready, OP_RST, 0);
	while (rx_take(&d, &(struct packet){ 0 }, data))
		continue;
	check_works();
}

/* A receive buffer that was taken and not used yet must not be lost. */
static void a_receive_buffer_in_hand_comes_back(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct packet h;

	assert_int_equal(write(fd, "x", 1), 1);
	driver_run(&d); /* reads until EAGAIN, with a buffer in hand */
	expect(&p, OP_RW);
	assert_true(d.v.rx_ready);
	assert_int_equal(d.v.dev.queues[0].in_flight, 1);
	size_t n = save();
	assert_true(d.v.rx_ready); /* saving changes nothing */
	load(n);
	assert_int_equal(d.v.dev.queues[0].in_flight, 0);
	virtio_restored(&d.v.dev);
	post_events(1);
	assert_int_equal(handle_events(), 1);
	rx_post(&d, RX_BUFS);
	/* every buffer can be used: one RST each */
	for (unsigned int i = 0; i < 4 * RX_BUFS; i++) {
		send_op(&p, OP_CREDIT_UPDATE, 0);
		assert_true(rx_take(&d, &h, data));
		assert_int_equal(h.op, OP_RST);
		rx_post(&d, RX_BUFS);
	}
	close(fd);
}

static void a_save_while_the_gate_is_closed(void **state)
{
	post_events(EVENT_BUFS);
	restore();
	assert_int_equal(d.v.gate.state, VSOCK_GATE_TOLD);
	restore(); /* before the guest ran */
	assert_int_equal(d.v.gate.state, VSOCK_GATE_TOLD);
	assert_int_equal(ring_used_idx(&d.rings[2]), 2);
	assert_int_equal(handle_events(), 2);
	assert_int_equal(d.v.gate.state, VSOCK_GATE_OPEN);
	check_works();
}

static void a_hundred_restores_in_a_row(void **state)
{
	unsigned int fds = open_fds();

	post_events(EVENT_BUFS);
	for (int i = 0; i < 100; i++) {
		struct peer p;
		int fd = open_peer(&p, GUEST_BUF);

		restore();
		expect_eof(fd);
		close(fd);
		assert_int_equal(handle_events(), 1);
		check_works();
	}
	assert_int_equal(open_fds(), fds);
}

/* Such a guest cannot be told; its old connections are reset one by one. */
static void a_driver_without_an_event_queue(void **state)
{
	struct peer p;
	int fd;

	reg_write(&d.v.dev, R_STATUS, 0);
	for (unsigned int i = 0; i < 3; i++)
		ring_init(&d.rings[i], &d.guest, 256, 0x2000 * i);
	assert_int_equal(reg_bring_up(&d.v.dev, 0, d.rings, 2), 15);
	fd = open_peer(&p, GUEST_BUF);
	restore();
	assert_int_equal(d.v.gate.state, VSOCK_GATE_OPEN);
	send_data(&p, "x", 1);
	expect(&p, OP_RST);
	check_works();
	close(fd);
}

static void a_driver_that_starts_anew_needs_no_event(void **state)
{
	restore();
	assert_int_equal(d.v.gate.state, VSOCK_GATE_UNTOLD);
	driver_start(&d);
	assert_int_equal(d.v.gate.state, VSOCK_GATE_OPEN);
	check_works();
}

static void an_event_buffer_that_holds_no_event(void **state)
{
	static const struct {
		uint32_t len;
		uint16_t flags;
	} bad[] = { { 3, DESC_WRITE }, { 4, 0 }, { 4, DESC_INDIRECT } };

	for (unsigned int i = 0; i < ARRAY_LEN(bad); i++) {
		driver_start(&d);
		restore();
		int fd = connect_to(BRIG_AGENT_PORT);
		ring_desc(&d.rings[2], 0, EVENT_AT, bad[i].len, bad[i].flags,
			  0);
		ring_offer(&d.rings[2], 0);
		virtio_kick(&d.v.dev, 2);
		assert_int_equal(reg_read(&d.v.dev, R_STATUS), 15 | 64);
		expect_eof(fd);
		assert_int_equal(connect_to(BRIG_AGENT_PORT), -ENOTCONN);
		close(fd);

		/* and stays so over a restore */
		restore();
		assert_int_equal(reg_read(&d.v.dev, R_STATUS), 15 | 64);
		assert_int_equal(connect_to(BRIG_AGENT_PORT), -ENOTCONN);
	}
	driver_start(&d);
	check_works();
}

static void a_device_without_a_driver(void **state)
{
	reg_write(&d.v.dev, R_STATUS, 0);
	restore();
	assert_int_equal(connect_to(BRIG_AGENT_PORT), -ENOTCONN);
	driver_start(&d);
	check_works();
}

/* A model that needs both queues refuses a file without one. */
static void a_file_without_a_receive_queue(void **state)
{
	struct state_stream s;
	size_t n = save();

	assert_true(statefile_set(file, n, "ready", 0, 0));
	state_load(&s, file, n);
	vsock_state(&s, &d.v);
	assert_int_equal(state_finish(&s, NULL), -ERANGE);
	assert_int_equal(connect_to(BRIG_AGENT_PORT), -ENOTCONN);
	driver_start(&d);
	check_works();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connections_end_and_new_ones_work),
		TEST(nothing_reaches_the_guest_before_the_event),
		TEST(a_receive_buffer_in_hand_comes_back),
		TEST(a_save_while_the_gate_is_closed),
		TEST(a_hundred_restores_in_a_row),
		TEST(a_driver_without_an_event_queue),
		TEST(a_driver_that_starts_anew_needs_no_event),
		TEST(an_event_buffer_that_holds_no_event),
		TEST(a_device_without_a_driver),
		TEST(a_file_without_a_receive_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
