/* vsock.c - tests of the vsock device: connections, their ends, long streams.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "vsock_peer.h"

/* --- connections ------------------------------------------------------------- */

static void shows_its_cid_and_no_features(void **state)
{
	uint64_t cid;

	assert_int_equal(reg_read(&d.v.dev, R_DEVICE_ID), 19);
	virtio_mmio_read(&d.v.dev, R_CONFIG, &cid, 8);
	assert_int_equal(cid, BRIG_CID_GUEST);
	reg_write(&d.v.dev, R_DEVICE_FEATURES_SEL, 0);
	assert_int_equal(reg_read(&d.v.dev, R_DEVICE_FEATURES), 0);
}

static void carries_bytes_both_ways(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct packet h;

	expect_nothing();
	assert_int_equal(write(fd, "hello", 5), 5);
	driver_run(&d);
	h = expect(&p, OP_RW);
	assert_int_equal(h.len, 5);
	assert_memory_equal(data, "hello", 5);
	send_data(&p, "world!", 6);
	expect_bytes(fd, "world!", 6);
	assert_int_equal(d.v.tx_bytes, 5);
	assert_int_equal(d.v.rx_bytes, 6);
	for (unsigned int i = 0; i < VSOCK_WORK_WORDS; i++)
		assert_int_equal(d.v.work[i], 0); /* no read is tried again */
	expect_nothing();
	close(fd);
}

static void brigd_may_write_before_the_guest_accepts(void **state)
{
	struct peer p = { .guest_port = 7, .buf_alloc = GUEST_BUF };
	int fd = connect_to(7);
	struct packet h;

	assert_int_equal(write(fd, "early", 5), 5);
	driver_run(&d);
	rx_post(&d, RX_BUFS);
	assert_true(rx_take(&d, &h, data));
	assert_int_equal(h.op, OP_REQUEST);
	expect_nothing();
	p.host_port = h.src_port;
	send_op(&p, OP_RESPONSE, 0);
	assert_int_equal(expect(&p, OP_RW).len, 5);
	close(fd);
}

static void a_refused_connect_reads_eof(void **state)
{
	struct peer p = { .guest_port = 7 };
	int fd = connect_to(7);
	struct packet h;

	expect_empty(fd);
	rx_post(&d, RX_BUFS);
	assert_true(rx_take(&d, &h, data));
	p.host_port = h.src_port;
	send_op(&p, OP_RST, 0);
	expect_eof(fd);
	expect_nothing();
	assert_int_equal(conns_in_use(), 0);
	close(fd);
}

static void a_closed_connect_is_cancelled(void **state)
{
	struct peer p = { .guest_port = 7 };
	struct packet h;

	close(connect_to(7)); /* the guest has not heard of it */
	driver_run(&d);
	assert_int_equal(conns_in_use(), 0);
	rx_post(&d, RX_BUFS);
	expect_nothing();

	int fd = connect_to(7); /* it has */
	assert_true(rx_take(&d, &h, data));
	p.host_port = h.src_port;
	close(fd);
	driver_run(&d);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);
	send_op(&p, OP_RESPONSE, 0); /* crossed our RST */
	expect(&p, OP_RST);
}

static void connects_while_there_are_slots_and_a_driver(void **state)
{
	int fds[BRIG_VSOCK_CONNS_MAX];

	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++) {
		fds[i] = connect_to(BRIG_AGENT_PORT);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(connect_to(BRIG_AGENT_PORT), -EBUSY);
	close(fds[3]);
	driver_run(&d);
	fds[3] = connect_to(BRIG_AGENT_PORT);
	assert_true(fds[3] >= 0);
	reg_write(&d.v.dev, R_STATUS, 0);
	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++) {
		expect_eof(fds[i]);
		close(fds[i]);
	}
	assert_int_equal(connect_to(BRIG_AGENT_PORT), -ENOTCONN);
}

static void the_guest_reaches_the_ready_port(void **state)
{
	struct peer p = { .guest_port = 1055,
			  .host_port = BRIG_READY_PORT,
			  .buf_alloc = GUEST_BUF };

	rx_post(&d, RX_BUFS);
	send_op(&p, OP_REQUEST, 0);
	expect(&p, OP_RESPONSE);
	assert_int_equal(d.accepted_count, 1);
	assert_int_equal(d.accepted_port, BRIG_READY_PORT);
	send_data(&p, "ready", 5);
	expect_bytes(d.accepted[0], "ready", 5);

	d.refuse = true;
	p.guest_port = 1056;
	send_op(&p, OP_REQUEST, 0);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 1);
}

/* --- ends ---------------------------------------------------------------------- */

static void the_guest_closes(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	send_data(&p, "bye", 3);
	send_op(&p, OP_SHUTDOWN, 3);
	expect(&p, OP_RST);
	expect_bytes(fd, "bye", 3);
	expect_eof(fd);
	assert_int_equal(conns_in_use(), 0);
	close(fd);
}

static void brigd_closes(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	assert_int_equal(write(fd, "bye", 3), 3);
	close(fd);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_RW).len, 3);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
	expect_nothing();
	assert_int_equal(conns_in_use(), 1);
	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 0);

	for (uint16_t op = OP_SHUTDOWN; op <= OP_RW; op++) {
		struct packet h;

		fd = open_peer(&p, GUEST_BUF);
		close(fd);
		driver_run(&d);
		assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
		h = packet(&p, op);
		h.flags = op == OP_SHUTDOWN;
		h.len = 8;
		tx_send(&d, &h, "too late", 8);
		expect(&p, OP_RST);
		assert_int_equal(conns_in_use(), 0);
	}
}

static void brigd_closes_while_the_guest_sends(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	close(fd); /* and the guest sends before we look at the socket */
	send_data(&p, "x", 1);
	expect(&p, OP_RST);
	driver_run(&d);
	assert_int_equal(conns_in_use(), 0);

	fd = open_peer(&p, GUEST_BUF);
	send_data(&p, "unread", 6);
	close(fd); /* bytes are lost: ECONNRESET */
	driver_run(&d);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);
	expect_nothing();
}

static void halves_close_one_by_one(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	send_data(&p, "last", 4);
	send_op(&p, OP_SHUTDOWN, 2); /* the guest sends no more */
	expect_bytes(fd, "last", 4);
	expect_eof(fd);
	assert_int_equal(write(fd, "still", 5), 5);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_RW).len, 5);
	shutdown(fd, SHUT_WR); /* so does brigd: that was all */
	driver_run(&d);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
	send_op(&p, OP_SHUTDOWN, 1);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);
	close(fd);

	fd = open_peer(&p, GUEST_BUF); /* and the other way round */
	assert_int_equal(write(fd, "last", 4), 4);
	shutdown(fd, SHUT_WR);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_RW).len, 4);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 2);
	send_data(&p, "still", 5);
	expect_bytes(fd, "still", 5);
	send_op(&p, OP_SHUTDOWN, 2);
	expect_eof(fd);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 0);
	close(fd);

	fd = open_peer(&p, GUEST_BUF); /* brigd half, then altogether */
	shutdown(fd, SHUT_WR);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 2);
	close(fd);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 0);
}

static void a_guest_that_reads_no_more(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	send_op(&p, OP_SHUTDOWN, 1);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	send_data(&p, "tail", 4);
	expect_bytes(fd, "tail", 4);
	close(fd);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
}

static void data_after_shutdown_is_refused(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	send_op(&p, OP_SHUTDOWN, 2);
	send_data(&p, "x", 1);
	expect(&p, OP_RST);
	expect_eof(fd);
	close(fd);

	fd = open_peer(&p, GUEST_BUF); /* while the ring still waits */
	uint32_t sent = use_ring(&p);
	send_op(&p, OP_SHUTDOWN, 2);
	send_data(&p, "x", 1);
	expect(&p, OP_RST);
	drain(fd, sent);
	close(fd);
}

static void a_reset_cuts_everything(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	int waiting = connect_to(9);
	uint64_t before;

	assert_int_equal(write(fd, "kept", 4), 4);
	driver_run(&d);
	assert_true(d.v.rx_ready); /* a buffer is held for what comes next */
	assert_int_equal(write(fd, "never seen", 10), 10);
	reg_write(&d.v.dev, R_STATUS, 0);
	before = guest_hash(&d.guest, 0, 0);
	expect_eof(waiting);
	assert_int_equal(read(fd, data, 1), -1); /* its bytes are lost */
	assert_int_equal(errno, ECONNRESET);
	expect_eof(fd);
	assert_int_equal(connect_to(9), -ENOTCONN);
	virtio_kick(&d.v.dev, 0);
	virtio_kick(&d.v.dev, 1);
	assert_true(guest_hash(&d.guest, 0, 0) == before);
	assert_int_equal(conns_in_use(), 0);
	close(fd);
	close(waiting);

	driver_start(&d);
	p.host_port = 1; /* a refusal, which the next reset forgets */
	send_op(&p, OP_REQUEST, 0);
	assert_int_equal(reg_read(&d.v.dev, R_STATUS), 15);
	assert_int_equal(ring_used_idx(&d.rings[0]), 0);
	reg_write(&d.v.dev, R_STATUS, 0);
	driver_start(&d);
	fd = connect_to(9);
	assert_int_equal(ring_used_idx(&d.rings[0]), 0);
	close(fd);
	driver_run(&d);
	rx_post(&d, RX_BUFS);
	expect_nothing();
	fd = open_peer(&p, GUEST_BUF);
	send_data(&p, "again", 5);
	expect_bytes(fd, "again", 5);
	close(fd);
}

static void stale_events_do_nothing(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	send_op(&p, OP_RST, 0);
	close(fd);
	fd = connect_to(9);
	expect_new(OP_REQUEST, &p); /* in the slot of before */
	assert_int_equal(p.host_port & 0xff, 0);
	vsock_event(&d.v, 0, EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLOUT);
	for (uint32_t i = 2; i < 1000; i++)
		vsock_event(&d.v, i << 8, EPOLLHUP);
	vsock_event(&d.v, 1 << 8 | 1, EPOLLHUP); /* a free slot */
	expect_nothing();
	send_op(&p, OP_RESPONSE, 0);
	send_data(&p, "alive", 5);
	expect_bytes(fd, "alive", 5);
	close(fd);
}

/* --- streams longer than all buffers -------------------------------------------- */

#define LONG_BYTES (3u << 20)

/* The guest sends as fast as its credit allows; brigd reads in odd pieces. */
static void a_long_stream_reaches_brigd_in_order(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	uint8_t piece[7919];
	uint64_t sent = 0, got = 0;
	bool shut = false;
	ssize_t n;

	do {
		uint32_t room = p.dev_buf_alloc - (p.tx_cnt - p.dev_fwd_cnt);
		uint32_t want = (uint32_t)(LONG_BYTES - sent);
		struct packet h;

		want = want < room ? want : room;
		want = want < 30011 ? want : 30011;
		for (uint32_t i = 0; i < want; i++)
			big[i] = pattern(sent + i);
		if (want > 0)
			send_data(&p, big, want);
		sent += want;
		if (sent == LONG_BYTES && !shut) {
			send_op(&p, OP_SHUTDOWN, 3);
			shut = true;
		}
		driver_run(&d);
		while (rx_take(&d, &h, data)) {
			assert_true(h.op == OP_CREDIT_UPDATE ||
				    (shut && h.op == OP_RST));
			p.dev_fwd_cnt = h.fwd_cnt;
		}
		rx_post(&d, RX_BUFS);
		n = read(fd, piece, sizeof(piece));
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(piece[i], pattern(got++));
		assert_true(n >= 0 || errno == EAGAIN);
	} while (n != 0);
	assert_int_equal(got, LONG_BYTES);
	assert_int_equal(d.v.rx_bytes, LONG_BYTES);
	assert_int_equal(conns_in_use(), 0);
	for (uint32_t i = 0; i < VSOCK_RING_BYTES; i++)
		assert_int_equal(d.buffers[i], 0); /* given back */
	close(fd);
}

/* brigd writes all it can and closes; the guest has few buffers, little
 * credit, and reads in odd pieces. */
static void a_long_stream_reaches_the_guest_in_order(void **state)
{
	struct peer p;
	int fd = open_peer(&p, 10000);
	uint64_t sent = 0, got = 0;
	bool closed = false, shut = false;
	struct packet h;

	while (!shut) {
		uint8_t piece[5003];
		ssize_t n = 0;

		for (size_t i = 0; i < sizeof(piece); i++)
			piece[i] = pattern(sent + i);
		if (sent < LONG_BYTES)
			n = write(fd, piece, sizeof(piece));
		sent += n > 0 ? (uint64_t)n : 0;
		if (sent >= LONG_BYTES && !closed) {
			close(fd);
			closed = true;
		}
		driver_run(&d);
		while (rx_take(&d, &h, data)) {
			assert_false(shut);
			shut = h.op == OP_SHUTDOWN;
			assert_true(shut || h.op == OP_RW);
			p.rx_cnt += h.len;
			assert_in_range(p.rx_cnt - p.fwd_cnt, 0, p.buf_alloc);
			for (uint32_t i = 0; i < h.len; i++)
				assert_int_equal(data[i], pattern(got++));
		}
		rx_post(&d, 2);
		p.fwd_cnt += p.rx_cnt - p.fwd_cnt > 3001 ? 3001
							 : p.rx_cnt - p.fwd_cnt;
		send_op(&p, OP_CREDIT_UPDATE, 0);
	}
	assert_int_equal(got, sent);
	assert_int_equal(d.v.tx_bytes, sent);
	assert_int_equal(h.flags, 3);
	assert_true(closed);
	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 0);
}

/* What is in the ring now and then is less than all of it. */
static void a_ring_that_is_not_full(void **state)
{
	for (unsigned int i = 0; i < 20; i++) {
		struct peer p;
		int fd = open_peer(&p, GUEST_BUF);
		uint32_t sent = use_ring(&p);

		assert_true(d.v.conns[0].rx_cnt - d.v.conns[0].fwd_cnt <
			    VSOCK_RING_BYTES);
		send_op(&p, OP_SHUTDOWN, 3);
		expect(&p, OP_RST);
		drain(fd, sent);
		assert_int_equal(conns_in_use(), 0);
		close(fd);
	}
}

/* A slow brigd still gets all bytes of a guest that went away with RST. */
static void a_guest_that_left_is_flushed(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	uint32_t sent = fill_ring(&p);

	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 1);
	drain(fd, sent);
	assert_int_equal(conns_in_use(), 0);
	close(fd);
}

static void a_half_close_waits_for_the_ring(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	uint32_t sent = fill_ring(&p);

	send_op(&p, OP_SHUTDOWN, 2);
	assert_int_equal(write(fd, "x", 1), 1); /* the other half lives */
	driver_run(&d);
	expect(&p, OP_RW);
	drain(fd, sent);
	assert_int_equal(conns_in_use(), 1);
	close(fd);
}

/* brigd leaves bytes behind that the guest was told are taken in charge. */
static void a_brigd_that_left_the_ring_full(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	(void)fill_ring(&p);
	close(fd);
	driver_run(&d);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);

	fd = open_peer(&p, GUEST_BUF);
	shutdown(fd, SHUT_WR);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 2);
	(void)fill_ring(&p);
	close(fd);
	driver_run(&d);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);

	fd = open_peer(&p, GUEST_BUF); /* the guest left before */
	(void)fill_ring(&p);
	send_op(&p, OP_RST, 0);
	close(fd);
	driver_run(&d);
	expect_nothing();
	assert_int_equal(conns_in_use(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(shows_its_cid_and_no_features),
		TEST(carries_bytes_both_ways),
		TEST(brigd_may_write_before_the_guest_accepts),
		TEST(a_refused_connect_reads_eof),
		TEST(a_closed_connect_is_cancelled),
		TEST(connects_while_there_are_slots_and_a_driver),
		TEST(the_guest_reaches_the_ready_port),
		TEST(the_guest_closes),
		TEST(brigd_closes),
		TEST(brigd_closes_while_the_guest_sends),
		TEST(halves_close_one_by_one),
		TEST(a_guest_that_reads_no_more),
		TEST(data_after_shutdown_is_refused),
		TEST(a_reset_cuts_everything),
		TEST(stale_events_do_nothing),
		TEST(a_long_stream_reaches_brigd_in_order),
		TEST(a_long_stream_reaches_the_guest_in_order),
		TEST(a_ring_that_is_not_full),
		TEST(a_guest_that_left_is_flushed),
		TEST(a_half_close_waits_for_the_ring),
		TEST(a_brigd_that_left_the_ring_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
