/* vsock.c - tests of the vsock device through its rings and sockets.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "vsock_driver.h"

#define GUEST_BUF (256u << 10) /* what Linux gives a connection */

static struct driver d;
static uint8_t data[RX_BUF_BYTES];
static uint8_t big[TX_BUF_BYTES];

/* One connection, seen from the guest. */
struct peer {
	uint32_t guest_port;
	uint32_t host_port;
	uint32_t tx_cnt;
	uint32_t dev_buf_alloc;
	uint32_t dev_fwd_cnt;
	uint32_t buf_alloc;
	uint32_t rx_cnt;
	uint32_t fwd_cnt;
};

static int set_up(void **state)
{
	driver_init(&d);
	return 0;
}

static int tear_down(void **state)
{
	driver_fini(&d);
	return 0;
}

static struct packet packet(const struct peer *p, uint16_t op)
{
	return (struct packet){
		.src_cid = BRIG_CID_GUEST,
		.dst_cid = BRIG_CID_HOST,
		.src_port = p->guest_port,
		.dst_port = p->host_port,
		.type = 1,
		.op = op,
		.buf_alloc = p->buf_alloc,
		.fwd_cnt = p->fwd_cnt,
	};
}

static void send_op(struct peer *p, uint16_t op, uint32_t flags)
{
	struct packet h = packet(p, op);

	h.flags = flags;
	tx_send(&d, &h, NULL, 0);
}

static void send_data(struct peer *p, const void *bytes, uint32_t n)
{
	struct packet h = packet(p, OP_RW);

	h.len = n;
	p->tx_cnt += n;
	tx_send(&d, &h, bytes, n);
}

/* The next packet, which must be this one, for this connection. */
static struct packet expect(struct peer *p, uint16_t op)
{
	struct packet h = { 0 };

	assert_true(rx_take(&d, &h, data));
	assert_int_equal(h.op, op);
	assert_int_equal(h.src_cid, BRIG_CID_HOST);
	assert_int_equal(h.dst_cid, BRIG_CID_GUEST);
	assert_int_equal(h.type, 1);
	assert_int_equal(h.src_port, p->host_port);
	assert_int_equal(h.dst_port, p->guest_port);
	p->dev_buf_alloc = h.buf_alloc;
	p->dev_fwd_cnt = h.fwd_cnt;
	return h;
}

static void expect_nothing(void)
{
	struct packet h;

	assert_false(rx_take(&d, &h, data));
}

static int connect_to(uint32_t port)
{
	int fd = -1;
	int r;

	vmm_lock();
	r = vsock_connect(&d.v, port, &fd);
	vmm_unlock();
	assert_true(r == 0 ? fd >= 0 : fd == -1);
	return r == 0 ? fd : r;
}

/* brigd connects and the guest accepts. */
static int open_peer(struct peer *p, uint32_t buf_alloc)
{
	struct packet h;
	int fd = connect_to(BRIG_AGENT_PORT);

	assert_true(fd >= 0);
	rx_post(&d, RX_BUFS);
	assert_true(rx_take(&d, &h, data));
	assert_int_equal(h.op, OP_REQUEST);
	assert_int_equal(h.dst_port, BRIG_AGENT_PORT);
	assert_int_equal(h.buf_alloc, VSOCK_RING_BYTES);
	*p = (struct peer){ .guest_port = h.dst_port,
			    .host_port = h.src_port,
			    .buf_alloc = buf_alloc,
			    .dev_buf_alloc = h.buf_alloc };
	send_op(p, OP_RESPONSE, 0);
	return fd;
}

static void expect_bytes(int fd, const void *want, size_t n)
{
	static uint8_t got[TX_BUF_BYTES + 1];

	driver_run(&d);
	assert_int_equal(read(fd, got, sizeof(got)), n);
	assert_memory_equal(got, want, n);
}

static void expect_empty(int fd)
{
	uint8_t c;

	driver_run(&d);
	assert_int_equal(read(fd, &c, 1), -1);
	assert_int_equal(errno, EAGAIN);
}

static void expect_eof(int fd)
{
	uint8_t c;

	driver_run(&d);
	assert_int_equal(read(fd, &c, 1), 0);
}

static unsigned int conns_in_use(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++)
		n += d.v.conns[i].guest != VSOCK_GUEST_NONE ||
		     d.v.conns[i].fd >= 0;
	return n;
}

static unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)((i * 2654435761u) >> 13 ^ i >> 16);
}

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

	fd = open_peer(&p, GUEST_BUF);
	close(fd);
	driver_run(&d);
	assert_int_equal(expect(&p, OP_SHUTDOWN).flags, 3);
	send_data(&p, "too late", 8);
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);
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
}

static void a_reset_cuts_everything(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	int waiting = connect_to(9);
	uint64_t before;

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
	fd = open_peer(&p, GUEST_BUF);
	assert_int_equal(p.host_port & 0xff, 0); /* the slot of before */
	vsock_event(&d.v, 0, EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLOUT);
	for (uint32_t i = 0; i < 1000; i++)
		vsock_event(&d.v, i * 4099, EPOLLHUP);
	expect_nothing();
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

/* A slow brigd still gets all bytes of a guest that went away with RST. */
static void a_guest_that_left_is_flushed(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	uint64_t sent = 0, got = 0;
	uint8_t piece[4096];
	struct packet h;
	ssize_t n;

	for (;;) { /* until the socket and the ring are full */
		uint32_t room = p.dev_buf_alloc - (p.tx_cnt - p.dev_fwd_cnt);

		if (room == 0)
			break;
		for (uint32_t i = 0; i < room; i++)
			big[i] = pattern(sent + i);
		send_data(&p, big, room);
		sent += room;
		while (rx_take(&d, &h, data))
			p.dev_fwd_cnt = h.fwd_cnt;
		rx_post(&d, RX_BUFS);
	}
	send_op(&p, OP_RST, 0);
	assert_int_equal(conns_in_use(), 1);
	while ((n = read(fd, piece, sizeof(piece))) != 0) {
		assert_true(n > 0 || errno == EAGAIN);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(piece[i], pattern(got++));
		driver_run(&d);
	}
	assert_int_equal(got, sent);
	assert_int_equal(conns_in_use(), 0);
	close(fd);
}

/* --- credit (A-19) ---------------------------------------------------------------- */

static void tells_credit_below_half_and_when_asked(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);

	send_data(&p, big, VSOCK_RING_BYTES / 2);
	expect_nothing();
	send_data(&p, big, 1);
	assert_int_equal(expect(&p, OP_CREDIT_UPDATE).fwd_cnt,
			 VSOCK_RING_BYTES / 2 + 1);
	send_data(&p, big, 10);
	expect_nothing();
	send_op(&p, OP_CREDIT_REQUEST, 0);
	assert_int_equal(expect(&p, OP_CREDIT_UPDATE).fwd_cnt,
			 VSOCK_RING_BYTES / 2 + 11);
	expect_nothing();
	close(fd);
}

static void a19_a_guest_beyond_its_credit_is_reset(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct packet h = packet(&p, OP_RW);

	send_data(&p, big, 100);
	h.len = VSOCK_RING_BYTES - 99; /* the guest was told of nothing yet */
	tx_send(&d, &h, big, TX_BUF_BYTES);
	expect(&p, OP_RST);
	assert_int_equal(d.v.violations, 1);
	expect_bytes(fd, big, 100);
	expect_eof(fd);
	assert_int_equal(conns_in_use(), 0);
	close(fd);

	fd = open_peer(&p, GUEST_BUF);
	h = packet(&p, OP_RW);
	h.len = 101; /* more than the buffer holds */
	tx_send(&d, &h, big, 100);
	expect(&p, OP_RST);
	assert_int_equal(d.v.violations, 2);
	expect_eof(fd);
	close(fd);
}

static void a19_senseless_credit_is_no_credit(void **state)
{
	static const struct {
		uint32_t buf_alloc, fwd_cnt;
		uint32_t want; /* bytes that may come, of 100 */
	} cases[] = {
		{ 1000, 0, 0 }, /* 1000 are in flight */
		{ 999, 1, 0 },
		{ 0, 0, 0 },       /* shrunk to nothing */
		{ 500, 0, 0 },     /* shrunk below what is in flight */
		{ 1000, 1001, 0 }, /* more than was ever sent */
		{ 1000, 0x80000000, 0 },
		{ 1000, 0xffffffff, 0 }, /* backwards */
		{ 0xffffffff, 1001, 0 },
		{ 1007, 0, 7 },
		{ 0xffffffff, 0, 100 },
		{ 1, 1000, 1 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct peer p;
		int fd = open_peer(&p, 1000);
		uint32_t got = 0;
		struct packet h;

		assert_int_equal(write(fd, big, 1000), 1000);
		driver_run(&d);
		assert_int_equal(expect(&p, OP_RW).len, 1000);
		assert_int_equal(write(fd, big, 100), 100);
		driver_run(&d);
		expect_nothing();
		p.buf_alloc = cases[i].buf_alloc;
		p.fwd_cnt = cases[i].fwd_cnt;
		send_op(&p, OP_CREDIT_UPDATE, 0);
		driver_run(&d);
		while (rx_take(&d, &h, data))
			got += h.len;
		assert_int_equal(got, cases[i].want);
		p.buf_alloc = GUEST_BUF; /* and sense brings the rest */
		p.fwd_cnt = 1000;
		send_op(&p, OP_CREDIT_UPDATE, 0);
		while (rx_take(&d, &h, data))
			got += h.len;
		assert_int_equal(got, 100);
		send_op(&p, OP_RST, 0);
		close(fd);
	}
}

/* Counters that wrap at 2^32 are as good as others. */
static void credit_survives_the_wrap(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct vsock_conn *c = &d.v.conns[p.host_port & 0xff];
	struct packet h;
	uint32_t got = 0;

	c->rx_cnt = c->fwd_cnt = c->fwd_told = 0xffffff00;
	c->tx_cnt = 0xffffff00;
	p.fwd_cnt = 0xffffff00;
	p.buf_alloc = 1000;
	for (unsigned int i = 0; i < 10; i++) {
		send_data(&p, "0123456789", 10);
		send_data(&p, big, 100);
	}
	for (unsigned int i = 0; i < 10; i++) {
		assert_int_equal(read(fd, data, 10), 10);
		assert_memory_equal(data, "0123456789", 10);
		assert_int_equal(read(fd, data, 100), 100);
	}
	assert_int_equal(write(fd, big, 2000), 2000);
	driver_run(&d);
	while (rx_take(&d, &h, data))
		got += h.len;
	assert_int_equal(got, 1000);
	p.fwd_cnt += 1000;
	send_op(&p, OP_CREDIT_UPDATE, 0);
	while (rx_take(&d, &h, data))
		got += h.len;
	assert_int_equal(got, 2000);
	close(fd);
}

/* --- buffers ------------------------------------------------------------------------ */

static void waits_for_buffers_without_spinning(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	uint32_t before, got = 0;
	struct packet h;

	for (unsigned int i = 0; i < RX_BUFS; i++) /* use up all buffers */
		send_op(&p, OP_CREDIT_REQUEST, 0);
	while (rx_take(&d, &h, data))
		assert_int_equal(h.op, OP_CREDIT_UPDATE);
	assert_int_equal(write(fd, big, 30000), 30000);
	close(fd);
	driver_run(&d);
	before = d.wakeups;
	for (unsigned int i = 0; i < 1000; i++)
		driver_run(&d);
	assert_int_equal(d.wakeups, before);
	send_op(&p, OP_CREDIT_REQUEST, 0);
	expect_nothing();
	while (d.rx_free > 0) {
		rx_post(&d, 1);
		if (!rx_take(&d, &h, data))
			break;
		got += h.len;
		if (h.op == OP_SHUTDOWN)
			break;
		assert_int_equal(h.op, OP_RW);
	}
	assert_int_equal(h.op, OP_SHUTDOWN);
	assert_int_equal(got, 30000);
}

static uint64_t interrupts(void)
{
	uint64_t n = 0;

	return read(d.irq_fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void interrupts_once_for_a_batch(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct packet h;
	unsigned int n = 0;

	(void)interrupts();
	assert_int_equal(write(fd, big, 65536), 65536);
	driver_run(&d);
	assert_int_equal(interrupts(), 1);
	while (rx_take(&d, &h, data))
		n++;
	assert_int_equal(n, 16);
	for (unsigned int i = 0; i < TX_BUFS; i++) {
		h = packet(&p, OP_RW);
		h.len = 100;
		tx_put(&d, &h, big, 100);
	}
	tx_kick(&d);
	assert_int_equal(interrupts(), 1);
	close(fd);
}

static void connections_take_turns(void **state)
{
	struct peer a, b;
	int fds[2] = { open_peer(&a, GUEST_BUF), open_peer(&b, GUEST_BUF) };
	uint32_t got[2] = { 0, 0 };
	struct packet h;

	send_op(&a, OP_CREDIT_REQUEST, 0);
	while (d.rx_free < RX_BUFS) { /* no buffers while brigd writes */
		if (!rx_take(&d, &h, data))
			send_op(&a, OP_CREDIT_REQUEST, 0);
	}
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(write(fds[i], big, 65536), 65536);
	driver_run(&d);
	rx_post(&d, 10);
	while (rx_take(&d, &h, data))
		got[h.src_port == b.host_port] += h.len;
	assert_int_equal(got[0], got[1]);
	assert_int_equal(got[0], 5 * RX_BUF_BYTES);
	close(fds[0]);
	close(fds[1]);
}

static void refusals_wait_in_a_bounded_queue(void **state)
{
	struct peer p = { .host_port = 1 };

	for (uint32_t i = 0; i < 100; i++) {
		p.guest_port = i;
		send_op(&p, OP_REQUEST, 0);
	}
	assert_int_equal(d.v.refused, 100);
	assert_int_equal(d.v.rst_dropped, 100 - VSOCK_RSTS_MAX);
	rx_post(&d, RX_BUFS);
	for (uint32_t i = 0; i < VSOCK_RSTS_MAX; i++) {
		p.guest_port = i;
		expect(&p, OP_RST);
	}
	expect_nothing();
}

/* --- abuse (A-13, A-19) ----------------------------------------------------------- */

static size_t resident_bytes(void)
{
	unsigned long size, resident;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
	fclose(f);
	return resident * 4096;
}

static void take_all(uint16_t op, unsigned int *count)
{
	struct packet h;

	while (rx_take(&d, &h, data))
		*count += h.op == op;
	rx_post(&d, RX_BUFS);
}

static void a19_connects_without_end(void **state)
{
	struct peer p = { .host_port = BRIG_READY_PORT,
			  .buf_alloc = GUEST_BUF };
	unsigned int accepted = 0;
	size_t before;

	rx_post(&d, RX_BUFS);
	for (p.guest_port = 0; p.guest_port < 1000; p.guest_port++) {
		send_op(&p, OP_REQUEST, 0);
		take_all(OP_RESPONSE, &accepted);
	}
	before = resident_bytes();
	for (; p.guest_port < 100000; p.guest_port++) {
		send_op(&p, OP_REQUEST, 0);
		take_all(OP_RESPONSE, &accepted);
	}
	assert_int_equal(accepted, BRIG_VSOCK_CONNS_MAX);
	assert_int_equal(d.accepted_count, BRIG_VSOCK_CONNS_MAX);
	assert_int_equal(d.v.refused, 100000 - BRIG_VSOCK_CONNS_MAX);
	assert_int_equal(d.v.rst_dropped, 0);
	assert_in_range(resident_bytes(), 0, before + (1u << 20));
}

static void a19_only_the_ready_port_is_open(void **state)
{
	static const uint32_t high[] = { 0x10035,    0x40000000, 0x40000035,
					 0x7fffffff, 0x80000035, 0xffffffff };
	struct peer p = { .guest_port = 1024, .buf_alloc = GUEST_BUF };
	unsigned int resets = 0;

	rx_post(&d, RX_BUFS);
	for (p.host_port = 0; p.host_port < 65536; p.host_port++) {
		send_op(&p, OP_REQUEST, 0);
		take_all(OP_RST, &resets);
		assert_int_equal(d.accepted_count,
				 p.host_port >= BRIG_READY_PORT);
	}
	assert_int_equal(resets, 65535);
	for (size_t i = 0; i < ARRAY_LEN(high); i++) {
		p.host_port = high[i];
		send_op(&p, OP_REQUEST, 0);
		expect(&p, OP_RST);
	}
	assert_int_equal(d.accepted_count, 1);
}

static void a19_a_storm_of_resets(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct peer other = { .guest_port = p.guest_port + 1 };

	for (uint32_t i = 0; i < 100000; i++) {
		other.host_port = i * 2654435761u;
		send_op(&other, OP_RST, 0);
	}
	expect_nothing(); /* RST is never answered */
	send_data(&p, "alive", 5);
	expect_bytes(fd, "alive", 5);
	close(fd);
}

static void a19_a_pair_of_ports_is_used_again_and_again(void **state)
{
	struct peer p = { .guest_port = 1024,
			  .host_port = BRIG_READY_PORT,
			  .buf_alloc = GUEST_BUF };
	unsigned int fds;

	rx_post(&d, RX_BUFS);
	fds = open_fds();
	for (unsigned int i = 0; i < 10000; i++) {
		send_op(&p, OP_REQUEST, 0);
		expect(&p, OP_RESPONSE);
		send_data(&p, "x", 1);
		send_op(&p, i % 2 == 0 ? OP_SHUTDOWN : OP_RST, 3);
		if (i % 2 == 0)
			expect(&p, OP_RST);
		expect_bytes(d.accepted[0], "x", 1);
		expect_eof(d.accepted[0]);
		close(d.accepted[0]);
		d.accepted_count = 0;
		rx_post(&d, RX_BUFS);
	}
	assert_int_equal(conns_in_use(), 0);
	assert_int_equal(open_fds(), fds);
}

/* Packets that make no sense on a connection in this state. */
static void nonsense_resets_the_connection(void **state)
{
	static const uint16_t ops[] = { 0, OP_REQUEST, OP_RESPONSE, 8, 0xffff };

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		struct peer p;
		int fd = open_peer(&p, GUEST_BUF);

		send_op(&p, ops[i], 0);
		expect(&p, OP_RST);
		expect_eof(fd);
		close(fd);
		send_op(&p, ops[i], 0); /* and now there is none */
		expect(&p, OP_RST);
	}
	assert_int_equal(conns_in_use(), 0);

	for (uint16_t op = OP_SHUTDOWN; op <= OP_CREDIT_REQUEST; op++) {
		struct peer p = { .guest_port = 9 };
		int fd = connect_to(9); /* not accepted yet */
		struct packet h;

		assert_true(rx_take(&d, &h, data));
		p.host_port = h.src_port;
		send_op(&p, op, 0);
		expect(&p, OP_RST);
		expect_eof(fd);
		close(fd);
	}
}

static void other_addresses_and_types_are_not_served(void **state)
{
	struct peer p = { .guest_port = 1024,
			  .host_port = BRIG_READY_PORT,
			  .buf_alloc = GUEST_BUF };
	struct packet h = packet(&p, OP_REQUEST), r;

	rx_post(&d, RX_BUFS);
	h.src_cid = 4;
	tx_send(&d, &h, NULL, 0);
	h.src_cid = BRIG_CID_GUEST;
	h.dst_cid = 0x100000002;
	tx_send(&d, &h, NULL, 0);
	assert_int_equal(d.v.misaddressed, 2);
	expect_nothing();
	h.dst_cid = BRIG_CID_HOST;
	h.type = 2; /* SOCK_SEQPACKET, not offered */
	tx_send(&d, &h, NULL, 0);
	assert_true(rx_take(&d, &r, data));
	assert_int_equal(r.op, OP_RST);
	assert_int_equal(r.type, 2);
	assert_int_equal(d.accepted_count, 0);
}

/* Chains that cannot be a packet: the device asks for a reset, brigd sees all
 * its streams end, and after the reset everything works. */
static void a13_bad_chains_need_a_reset(void **state)
{
	for (unsigned int i = 0; i < 10000; i++) {
		bool rx = i % 4 < 2;
		struct ring *r = &d.rings[rx ? 0 : 1];
		struct peer p;
		int fd = open_peer(&p, GUEST_BUF);

		send_op(&p, OP_CREDIT_REQUEST, 0);
		expect(&p, OP_CREDIT_UPDATE);
		switch (i % 4) {
		case 0: /* no room for a byte after the header */
			reg_write(&d.v.dev, R_STATUS, 0);
			driver_start(&d);
			ring_desc(r, 0, RX_AT, 44, DESC_WRITE, 0);
			break;
		case 1: /* a receive buffer that begins readable */
			reg_write(&d.v.dev, R_STATUS, 0);
			driver_start(&d);
			ring_desc(r, 0, RX_AT, 44, DESC_NEXT, 1);
			ring_desc(r, 1, RX_AT, 4096, DESC_WRITE, 0);
			break;
		case 2: /* shorter than a header */
			ring_desc(r, 0, TX_AT, 43, 0, 0);
			break;
		default: /* a packet to send that is writable */
			ring_desc(r, 0, TX_AT, 44, DESC_NEXT, 1);
			ring_desc(r, 1, TX_AT, 44, DESC_WRITE, 0);
			break;
		}
		ring_offer(r, 0);
		int second = rx ? connect_to(5) : fd;
		if (!rx)
			virtio_kick(&d.v.dev, 1);
		assert_int_equal(reg_read(&d.v.dev, R_STATUS) & 64, 64);
		expect_eof(fd);
		assert_int_equal(conns_in_use(), 0);
		assert_int_equal(connect_to(5), -ENOTCONN);
		close(fd);
		if (rx) {
			expect_eof(second);
			close(second);
		}
		driver_start(&d);
	}
}

/* Everything that was taken from a ring was given back, one buffer apart that
 * is kept for the next packet. */
static void a13_gives_all_buffers_back(void **state)
{
	struct peer p = { .guest_port = 3 };
	struct packet h;

	rx_post(&d, RX_BUFS);
	for (uint32_t i = 0; i < 10000; i++) {
		p.host_port = i % 100;
		h = packet(&p, (uint16_t)(i % 9));
		h.src_cid = i % 7 == 0 ? 9 : BRIG_CID_GUEST;
		h.type = i % 5 == 0 ? 3 : 1;
		h.len = i;
		tx_send(&d, &h, big, i % 50);
		if (rx_take(&d, &h, data))
			rx_post(&d, RX_BUFS);
	}
	assert_int_equal(d.v.dev.queues[1].in_flight, 0);
	assert_in_range(d.v.dev.queues[0].in_flight, 0, 1);
	assert_int_equal(reg_read(&d.v.dev, R_STATUS), 15);
}

static void needs_its_queues(void **state)
{
	assert_int_equal(reg_bring_up(&d.v.dev, 0, d.rings, 1) & 64, 64);
	assert_int_equal(connect_to(5), -ENOTCONN);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

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
		TEST(a_guest_that_left_is_flushed),
		TEST(tells_credit_below_half_and_when_asked),
		TEST(a19_a_guest_beyond_its_credit_is_reset),
		TEST(a19_senseless_credit_is_no_credit),
		TEST(credit_survives_the_wrap),
		TEST(waits_for_buffers_without_spinning),
		TEST(interrupts_once_for_a_batch),
		TEST(connections_take_turns),
		TEST(refusals_wait_in_a_bounded_queue),
		TEST(a19_connects_without_end),
		TEST(a19_only_the_ready_port_is_open),
		TEST(a19_a_storm_of_resets),
		TEST(a19_a_pair_of_ports_is_used_again_and_again),
		TEST(nonsense_resets_the_connection),
		TEST(other_addresses_and_types_are_not_served),
		TEST(a13_bad_chains_need_a_reset),
		TEST(a13_gives_all_buffers_back),
		TEST(needs_its_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
