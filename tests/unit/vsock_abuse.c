/* vsock_abuse.c - tests of the vsock device: credit, buffers, broken guests.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sys/resource.h>

#include "vsock_peer.h"

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

	int fd = open_peer(&p, GUEST_BUF); /* of a connection that exists */
	h = packet(&p, OP_RW);
	h.type = 2;
	h.len = 3;
	tx_send(&d, &h, "bad", 3);
	assert_true(rx_take(&d, &r, data));
	assert_int_equal(r.op, OP_RST);
	assert_int_equal(r.type, 2);
	send_data(&p, "good", 4);
	expect_bytes(fd, "good", 4);
	close(fd);
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

/* What is written, and what brigd reads, is ignored when there is nothing. */
static void odd_packets_do_no_harm(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct packet h = packet(&p, OP_RW);

	tx_send(&d, &h, NULL, 0); /* no data */
	h.op = OP_CREDIT_UPDATE;
	h.len = 77; /* means nothing here */
	tx_send(&d, &h, big, 77);
	send_op(&p, OP_SHUTDOWN, 0);
	virtio_kick(&d.v.dev, 2);
	virtio_kick(&d.v.dev, 3);
	expect_nothing();
	expect_empty(fd);
	send_data(&p, "alive", 5);
	expect_bytes(fd, "alive", 5);
	close(fd);
}

/* A guest that guesses the port of a connect it has not been told of. */
static void an_answer_before_the_question(void **state)
{
	struct peer p = { .guest_port = 9, .buf_alloc = GUEST_BUF };
	int fd = connect_to(9);

	p.host_port = d.v.conns[0].host_port;
	send_op(&p, OP_RESPONSE, 0);
	expect_eof(fd);
	rx_post(&d, RX_BUFS);
	expect(&p, OP_RST);
	expect_nothing();
	close(fd);
}

/* Between our decision to reset and the RST, packets are not looked at. */
static void a_reset_that_waits_ignores_packets(void **state)
{
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	struct packet h;

	while (d.rx_free < RX_BUFS) {
		if (!rx_take(&d, &h, data))
			send_op(&p, OP_CREDIT_REQUEST, 0);
	}
	send_op(&p, OP_REQUEST, 0); /* nonsense */
	for (uint16_t op = 0; op < 10; op++) {
		if (op != OP_RST)
			send_op(&p, op, 3);
	}
	rx_post(&d, RX_BUFS);
	expect(&p, OP_RST);
	expect_nothing();
	expect_eof(fd);
	assert_int_equal(d.v.violations, 1);
	close(fd);
}

/* A driver may give any size of buffers: one packet stays bounded. */
static void large_buffers_give_bounded_packets(void **state)
{
	struct ring *r = &d.rings[0];
	struct peer p;
	int fd = open_peer(&p, 0xffffffff);
	uint32_t id, len = 0;
	struct packet h;

	while (d.rx_free < RX_BUFS) {
		if (!rx_take(&d, &h, data))
			send_op(&p, OP_CREDIT_REQUEST, 0);
	}
	for (int i = 0; i < 20; i++)
		assert_int_equal(write(fd, big, 8192), 8192);
	driver_run(&d);
	ring_desc(r, 0, RX_AT, 1u << 20, DESC_WRITE, 0);
	ring_offer(r, 0);
	virtio_kick(&d.v.dev, 0);
	ring_used(r, (uint16_t)(ring_used_idx(r) - 1), &id, &len);
	assert_int_equal(id, 0);
	assert_int_equal(len, sizeof(struct packet) + 65536);
	close(fd);
}

static void a_host_without_descriptors_refuses(void **state)
{
	struct peer p = { .guest_port = 9, .host_port = BRIG_READY_PORT };
	struct rlimit had, none = { 0, 0 };
	int epoll_fd = d.v.epoll_fd;
	unsigned int fds = open_fds();

	rx_post(&d, RX_BUFS);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &had), 0);
	none.rlim_max = had.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(connect_to(9), -EMFILE);
	send_op(&p, OP_REQUEST, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &had), 0);
	expect(&p, OP_RST);

	d.v.epoll_fd = -1;
	assert_int_equal(connect_to(9), -EBADF);
	send_op(&p, OP_REQUEST, 0);
	d.v.epoll_fd = epoll_fd;
	expect(&p, OP_RST);
	assert_int_equal(conns_in_use(), 0);
	assert_int_equal(open_fds(), fds);
}

/* --- a fault after each read of guest memory (A-13) ------------------------------------ */

static uint64_t fault_at; /* number of the read after which all fails */
static bool fault_status; /* the driver gave up, rather than memory gone */

static void fault(struct gmem *g, gpa_t at, size_t n)
{
	if (g->reads < fault_at)
		return;
	if (fault_status)
		d.v.dev.mmio.status |= 128; /* FAILED */
	else
		g->count = 0;
}

/* As send_op and the like, but whatever comes of it is fine. */
static void try_send(struct packet *h, uint16_t op, uint32_t n)
{
	h->op = op;
	h->len = n;
	tx_put(&d, h, big, n);
	virtio_kick(&d.v.dev, 1);
	d.guest.mem.count = 1;
}

static void try_all(int *fd)
{
	struct packet h = { .src_cid = BRIG_CID_GUEST,
			    .dst_cid = BRIG_CID_HOST,
			    .src_port = 9,
			    .type = 1,
			    .buf_alloc = GUEST_BUF };
	struct packet r = { 0 };

	rx_post(&d, 20);
	d.guest.mem.count = 1;
	vmm_lock();
	if (vsock_connect(&d.v, 9, fd) < 0)
		*fd = -1;
	vmm_unlock();
	d.guest.mem.count = 1;
	h.dst_port = d.v.conns[0].host_port;
	try_send(&h, OP_RESPONSE, 0);
	try_send(&h, OP_RW, 60000);
	try_send(&h, OP_RW, 60000);
	try_send(&h, OP_RW, 60000);
	try_send(&h, OP_RW, 60000); /* the ring is in use */
	if (*fd >= 0)
		(void)!send(*fd, big, 20000, MSG_NOSIGNAL);
	driver_run(&d);
	d.guest.mem.count = 1;
	while (rx_take(&d, &r, data)) {
		rx_post(&d, 1);
		d.guest.mem.count = 1;
	}
	try_send(&h, OP_SHUTDOWN, 0);
	h.dst_port = 1;
	try_send(&h, OP_REQUEST, 0);
	h.dst_port = BRIG_READY_PORT;
	try_send(&h, OP_REQUEST, 0);
}

static void a13_any_fault_ends_in_a_clean_reset(void **state)
{
	unsigned int fds = open_fds();
	unsigned int stopped = 0;
	uint64_t last = 0;

	for (unsigned int i = 0; i < 400; i++) {
		int fd = -1;

		fault_status = i % 2 != 0;
		d.guest.mem.reads = 0;
		fault_at = i / 2;
		d.guest.mem.before_read = fault;
		try_all(&fd);
		last = d.guest.mem.reads;
		d.guest.mem.before_read = NULL;
		d.guest.mem.count = 1;
		stopped += (reg_read(&d.v.dev, R_STATUS) & (64 | 128)) != 0;
		reg_write(&d.v.dev, R_STATUS, 0);
		assert_int_equal(conns_in_use(), 0);
		while (d.accepted_count > 0)
			close(d.accepted[--d.accepted_count]);
		if (fd >= 0)
			close(fd);
		driver_start(&d);
	}
	/* Every read had its turn, and few were the last of a call. */
	assert_in_range(last, 50, 199);
	assert_in_range(stopped, 2 * last * 9 / 10, 2 * last);
	assert_int_equal(open_fds(), fds);
	struct peer p;
	int fd = open_peer(&p, GUEST_BUF);
	send_data(&p, "alive", 5);
	expect_bytes(fd, "alive", 5);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
		TEST(odd_packets_do_no_harm),
		TEST(an_answer_before_the_question),
		TEST(a_reset_that_waits_ignores_packets),
		TEST(large_buffers_give_bounded_packets),
		TEST(a_host_without_descriptors_refuses),
		TEST(a13_any_fault_ends_in_a_clean_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
