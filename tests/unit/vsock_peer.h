/* vsock_peer.h - one vsock connection seen from both ends, for the tests.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_TESTS_VSOCK_PEER_H
#define BRIG_TESTS_VSOCK_PEER_H

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

static inline int set_up(void **state)
{
	driver_init(&d);
	return 0;
}

static inline int tear_down(void **state)
{
	driver_fini(&d);
	return 0;
}

static inline struct packet packet(const struct peer *p, uint16_t op)
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

static inline void send_op(struct peer *p, uint16_t op, uint32_t flags)
{
	struct packet h = packet(p, op);

	h.flags = flags;
	tx_send(&d, &h, NULL, 0);
}

static inline void send_data(struct peer *p, const void *bytes, uint32_t n)
{
	struct packet h = packet(p, OP_RW);

	h.len = n;
	p->tx_cnt += n;
	tx_send(&d, &h, bytes, n);
}

/* The next packet, which must be this one, for this connection. */
static inline struct packet expect(struct peer *p, uint16_t op)
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

/* The same for a connection that is new; *p becomes the guest's side. */
static inline void expect_new(uint16_t op, struct peer *p)
{
	struct packet h = { 0 };

	assert_true(rx_take(&d, &h, data));
	assert_int_equal(h.op, op);
	*p = (struct peer){ .guest_port = h.dst_port,
			    .host_port = h.src_port,
			    .buf_alloc = GUEST_BUF,
			    .dev_buf_alloc = h.buf_alloc };
}

static inline void expect_nothing(void)
{
	struct packet h;

	assert_false(rx_take(&d, &h, data));
}

static inline int connect_to(uint32_t port)
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
static inline int open_peer(struct peer *p, uint32_t buf_alloc)
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

static inline void expect_bytes(int fd, const void *want, size_t n)
{
	static uint8_t got[TX_BUF_BYTES + 1];

	driver_run(&d);
	assert_int_equal(read(fd, got, sizeof(got)), n);
	assert_memory_equal(got, want, n);
}

static inline void expect_empty(int fd)
{
	uint8_t c;

	driver_run(&d);
	assert_int_equal(read(fd, &c, 1), -1);
	assert_int_equal(errno, EAGAIN);
}

static inline void expect_eof(int fd)
{
	uint8_t c;

	driver_run(&d);
	assert_int_equal(read(fd, &c, 1), 0);
}

static inline unsigned int conns_in_use(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++)
		n += d.v.conns[i].guest != VSOCK_GUEST_NONE ||
		     d.v.conns[i].fd >= 0;
	return n;
}

static inline unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

static inline uint8_t pattern(uint64_t i)
{
	return (uint8_t)((i * 2654435761u) >> 13 ^ i >> 16);
}

/* Sends what the credit allows, at most 5003 bytes; returns how much. */
static inline uint32_t send_some(struct peer *p)
{
	uint32_t room = p->dev_buf_alloc - (p->tx_cnt - p->dev_fwd_cnt);
	struct packet h;

	room = room < 5003 ? room : 5003;
	if (room == 0)
		return 0;
	for (uint32_t i = 0; i < room; i++)
		big[i] = pattern(p->tx_cnt + i);
	send_data(p, big, room);
	while (rx_take(&d, &h, data))
		p->dev_fwd_cnt = h.fwd_cnt;
	rx_post(&d, RX_BUFS);
	return room;
}

/* Sends until the socket and the ring are full; returns how much went in. */
static inline uint32_t fill_ring(struct peer *p)
{
	while (send_some(p) > 0)
		continue;
	return p->tx_cnt;
}

/* Sends until something is in the ring. */
static inline uint32_t use_ring(struct peer *p)
{
	const struct vsock_conn *c = &d.v.conns[p->host_port & 0xff];

	while (c->rx_cnt == c->fwd_cnt)
		assert_true(send_some(p) > 0);
	return p->tx_cnt;
}

/* Reads all of it at brigd's end, in odd pieces, then the end of file. */
static inline void drain(int fd, uint32_t want)
{
	uint8_t piece[4099];
	uint32_t got = 0;
	ssize_t n;

	while ((n = read(fd, piece, sizeof(piece))) != 0) {
		assert_true(n > 0 || errno == EAGAIN);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(piece[i], pattern(got++));
		driver_run(&d);
	}
	assert_int_equal(got, want);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

#endif
