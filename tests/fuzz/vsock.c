/* vsock.c - any driver and any brigd against the vsock device.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The input is a script of steps of one byte and its arguments: packets of
 * the guest, buffers, kicks, descriptors of any content, resets, and what
 * brigd does with its sockets. Checked after each step: counters stay within
 * the ring, the bits of work tell the truth, a free slot holds nothing. As
 * long as the descriptors are sane: what one side reads is what the other
 * wrote, in order, never more than the credit.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

#include "../unit/vsock_driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define STREAMS 8u
#define WRITE_MAX 8192u

/* One stream, at brigd's end. */
struct stream {
	int fd; /* -1: not in use */
	uint32_t host_port;
	uint32_t guest_port;
	uint32_t guest_wrote; /* bytes that the device took */
	uint32_t brigd_read;
	uint32_t brigd_wrote;
	uint32_t guest_read;
	uint32_t fwd_cnt; /* what the guest says next */
	uint32_t buf_alloc;
	uint64_t limit; /* of brigd's bytes that the guest ever allowed */
};

static struct driver d;
static struct stream streams[STREAMS];
static bool wild; /* rings hold anything: only survival is checked */
static const uint8_t *input;
static size_t left;

static uint32_t take(unsigned int n)
{
	uint32_t v = 0;

	for (; n > 0 && left > 0; n--, left--)
		v = v << 8 | *input++;
	return v;
}

static uint8_t pattern(const struct stream *s, bool from_guest, uint32_t i)
{
	return (uint8_t)(s->guest_port * 31 + from_guest * 101 + i * 7 +
			 (i >> 8) * 13);
}

/* --- the guest ----------------------------------------------------------------- */

static struct stream *by_ports(uint32_t host_port, uint32_t guest_port)
{
	for (unsigned int i = 0; i < STREAMS; i++)
		if (streams[i].fd >= 0 && streams[i].host_port == host_port &&
		    streams[i].guest_port == guest_port)
			return &streams[i];
	return NULL;
}

static void guest_receive(void)
{
	static uint8_t data[RX_BUF_BYTES];
	struct packet p;

	while (!wild && rx_take(&d, &p, data)) {
		struct stream *s = by_ports(p.src_port, p.dst_port);

		ASSERT(p.src_cid == BRIG_CID_HOST &&
		       p.dst_cid == BRIG_CID_GUEST);
		ASSERT(p.op >= OP_REQUEST && p.op <= OP_CREDIT_UPDATE);
		ASSERT(p.len == 0 || p.op == OP_RW);
		if (s == NULL)
			continue;
		for (uint32_t i = 0; i < p.len; i++)
			ASSERT(data[i] == pattern(s, false, s->guest_read + i));
		s->guest_read += p.len;
		ASSERT(s->guest_read <= s->limit);
	}
}

/* What brigd is asked to accept. */
static void learn_accepted(uint32_t guest_port, uint64_t limit)
{
	while (d.accepted_count > 0) {
		int fd = d.accepted[--d.accepted_count];
		unsigned int i = 0;

		while (i < STREAMS && streams[i].fd >= 0)
			i++;
		if (i == STREAMS) {
			close(fd);
			continue;
		}
		streams[i] = (struct stream){ .fd = fd,
					      .host_port = BRIG_READY_PORT,
					      .guest_port = guest_port,
					      .limit = limit };
	}
}

static void guest_send(void)
{
	static uint8_t data[TX_BUF_BYTES];
	struct stream *s = &streams[take(1) % STREAMS];
	uint32_t kind = take(1);
	struct packet p = {
		.src_cid = BRIG_CID_GUEST,
		.dst_cid = BRIG_CID_HOST,
		.src_port = s->fd >= 0 ? s->guest_port : take(1),
		.dst_port = s->fd >= 0 ? s->host_port : 50 + take(1) % 8,
		.type = 1,
		.op = kind % 9,
	};
	uint64_t before = d.v.rx_bytes;
	uint64_t limit;
	uint32_t n = 0;

	if (kind & 0x80) { /* the credit of a guest that lies */
		s->buf_alloc = take(4);
		s->fwd_cnt = take(4);
	} else {
		s->buf_alloc = 1u << take(1) % 20;
		s->fwd_cnt = s->guest_read;
	}
	p.buf_alloc = s->buf_alloc;
	p.fwd_cnt = s->fwd_cnt;
	limit = (uint64_t)p.fwd_cnt + p.buf_alloc;
	if (kind & 0x40) {
		p.flags = take(1);
		p.src_port ^= take(1) & 1;
		p.type ^= take(1) & 1;
		p.src_cid ^= take(1) & 1;
	}
	if (p.op == OP_RW) {
		n = take(2);
		p.len = kind & 0x20 ? take(4) : n;
		p.flags = 0;
	} else if (p.op == OP_SHUTDOWN) {
		p.flags = take(1) & 3;
	}
	s = by_ports(p.dst_port, p.src_port);
	if (s != NULL && s->limit < limit)
		s->limit = limit;
	for (uint32_t i = 0; i < n && s != NULL; i++)
		data[i] = pattern(s, true, s->guest_wrote + i);
	tx_put(&d, &p, data, n);
	virtio_kick(&d.v.dev, 1);
	if (s != NULL)
		s->guest_wrote += (uint32_t)(d.v.rx_bytes - before);
	else
		ASSERT(wild || d.v.rx_bytes == before);
	learn_accepted(p.src_port, limit);
}

static void guest_scribble(void)
{
	struct ring *r = &d.rings[take(1) % 3];
	uint32_t what = take(1);

	wild = true;
	if (what % 4 == 0)
		ring_set_avail_idx(r, (uint16_t)take(2));
	else if (what % 4 == 1)
		ring_offer(r, (uint16_t)take(2));
	else
		ring_desc(r, (uint16_t)(take(1) % 256), take(4), take(3),
			  (uint16_t)(take(1) % 8), (uint16_t)take(1));
}

/* --- brigd ------------------------------------------------------------------------ */

static void brigd_close(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	*s = (struct stream){ .fd = -1 };
}

/* Our own end, to make its buffer small: then the ring is soon in use. */
static const struct vsock_conn *newest_conn(void)
{
	const struct vsock_conn *best = NULL;

	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++) {
		const struct vsock_conn *c = &d.v.conns[i];

		if (c->guest == VSOCK_GUEST_CONNECTING &&
		    (best == NULL || c->host_port >> 8 > best->host_port >> 8))
			best = c;
	}
	ASSERT(best != NULL);
	return best;
}

static void brigd_connect(struct stream *s)
{
	uint32_t port = take(1);
	int small = 4096;
	int r;

	brigd_close(s);
	vmm_lock();
	r = vsock_connect(&d.v, port % 64, &s->fd);
	vmm_unlock();
	if (r < 0)
		return;
	s->guest_port = port % 64;
	if (d.v.stopped)
		return;
	s->host_port = newest_conn()->host_port;
	if (port & 0x80 && setsockopt(newest_conn()->fd, SOL_SOCKET, SO_SNDBUF,
				      &small, sizeof(small)) < 0)
		abort();
	if (port & 0x40) { /* the guest accepts at once */
		struct packet p = { .src_cid = BRIG_CID_GUEST,
				    .dst_cid = BRIG_CID_HOST,
				    .src_port = s->guest_port,
				    .dst_port = s->host_port,
				    .type = 1,
				    .op = OP_RESPONSE,
				    .buf_alloc = 1u << take(1) % 20 };

		rx_post(&d, RX_BUFS);
		s->limit = p.buf_alloc;
		tx_put(&d, &p, NULL, 0);
		virtio_kick(&d.v.dev, 1);
	}
}

static void brigd_write(struct stream *s)
{
	static uint8_t data[WRITE_MAX];
	uint32_t n = take(2) % WRITE_MAX;
	ssize_t r;

	if (s->fd < 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		data[i] = pattern(s, false, s->brigd_wrote + i);
	r = send(s->fd, data, n, MSG_NOSIGNAL);
	s->brigd_wrote += r > 0 ? (uint32_t)r : 0;
}

static void brigd_read(struct stream *s)
{
	static uint8_t data[0x10000];
	ssize_t n;

	if (s->fd < 0)
		return;
	n = read(s->fd, data, take(2));
	for (ssize_t i = 0; i < n; i++)
		ASSERT(wild || data[i] == pattern(s, true,
						  s->brigd_read + (uint32_t)i));
	s->brigd_read += n > 0 ? (uint32_t)n : 0;
	ASSERT(wild || s->brigd_read <= s->guest_wrote);
}

/* --- the script --------------------------------------------------------------------- */

static void restart(void)
{
	reg_write(&d.v.dev, R_STATUS, 0);
	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++)
		ASSERT(d.v.conns[i].fd < 0 &&
		       d.v.conns[i].guest == VSOCK_GUEST_NONE);
	for (unsigned int i = 0; i < STREAMS; i++)
		brigd_close(&streams[i]);
	wild = false;
	driver_start(&d);
}

static void step(void)
{
	uint32_t what = take(1);
	struct stream *s = &streams[(what >> 4) % STREAMS];

	switch (what % 16) {
	case 0:
		brigd_connect(s);
		break;
	case 1:
		brigd_write(s);
		break;
	case 2:
		brigd_read(s);
		break;
	case 3:
		brigd_close(s);
		break;
	case 4:
		if (s->fd >= 0)
			shutdown(s->fd, (int)(take(1) % 3));
		break;
	case 5:
		rx_post(&d, take(1));
		break;
	case 6:
		virtio_kick(&d.v.dev, take(1) % 4);
		break;
	case 7:
		vsock_event(&d.v, take(4), take(2));
		break;
	case 8:
		d.refuse = take(1) & 1;
		break;
	case 9:
		if (take(1) < 8)
			restart();
		break;
	case 10:
		guest_scribble();
		break;
	case 11:
	case 12:
		driver_run(&d);
		guest_receive();
		break;
	default:
		guest_send();
		break;
	}
}

static void check(void)
{
	ASSERT(d.v.rst_count <= VSOCK_RSTS_MAX);
	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++) {
		const struct vsock_conn *c = &d.v.conns[i];
		bool work = d.v.work[i / 64] >> (i % 64) & 1;
		uint32_t in_flight = c->tx_cnt - c->peer_fwd_cnt;
		bool reads = c->guest == VSOCK_GUEST_OPEN && c->fd >= 0 &&
			     c->readable && !c->eof &&
			     in_flight < c->peer_buf_alloc;

		ASSERT(c->rx_cnt - c->fwd_cnt <= VSOCK_RING_BYTES);
		ASSERT(c->rx_cnt - c->fwd_told <= VSOCK_RING_BYTES);
		ASSERT(work == (c->pending != 0 || reads));
		if (c->guest == VSOCK_GUEST_NONE)
			ASSERT(c->pending == 0);
		if (c->guest == VSOCK_GUEST_NONE && c->fd < 0)
			ASSERT(!c->ring_touched && c->tx_cnt == 0);
		if (c->fd >= 0)
			ASSERT(c->wants_out == (c->rx_cnt != c->fwd_cnt));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	input = bytes;
	left = size < 4096 ? size : 4096;
	wild = false;
	driver_init(&d);
	for (unsigned int i = 0; i < STREAMS; i++)
		streams[i] = (struct stream){ .fd = -1 };
	while (left > 0) {
		step();
		check();
	}
	restart();
	d.accepted_count = 0;
	driver_fini(&d);
	return 0;
}
