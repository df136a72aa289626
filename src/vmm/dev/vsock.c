/* vsock.c - virtio-vsock: streams between guest and brigd.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 *   guest --tx queue--> tx_drain --sendmsg--> socket --> brigd
 *                           \--> ring --EPOLLOUT--> sendmsg
 *   guest <--rx queue-- rx_pump <--recvmsg--- socket <-- brigd
 *
 * Nothing is copied twice: sendmsg reads and recvmsg fills the guest's own
 * buffers. Only what the socket does not take goes to the connection's ring,
 * and the credit we give (buf_alloc, virtio 1.2, 5.10.6.3) is the size of the
 * ring, so the ring always has room for what an honest guest sends.
 *
 * Towards the guest everything is state, not a queue: a connection has bits
 * for the control packets it owes and knows whether its socket has bytes and
 * the guest gave credit. Connections that may have a packet have a bit in
 * v->work; rx_pump serves them in turn, one packet each, until the work or
 * the guest's buffers end. Hence the tx queue never waits for the rx queue
 * and the two cannot block each other (5.10.6.1.1).
 *
 * Work is bounded by the queue size for each kick and each event. Nothing is
 * lost by that: a driver kicks after what it added, so buffers we did not
 * take were added later and have a kick of their own on the way.
 *
 * Sockets are watched edge-triggered. `readable` remembers an edge until a
 * read says EAGAIN, so a connection without credit or buffers costs nothing
 * and continues when the guest gives them.
 *
 * The guest is interrupted once for all that one call did.
 *
 * After a restore the gate is closed (vsock_gate.h): rx_pump gives nothing and
 * everything else goes on; what is owed to the guest waits as state.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "fd.h"
#include "vsock.h"
#include "wire/boot.h"

/* virtio 1.2, 5.10.6; all little-endian. */
struct hdr {
	uint64_t src_cid;
	uint64_t dst_cid;
	uint32_t src_port;
	uint32_t dst_port;
	uint32_t len;
	uint16_t type;
	uint16_t op;
	uint32_t flags;
	uint32_t buf_alloc;
	uint32_t fwd_cnt;
} __attribute__((packed));

#define HDR_BYTES ((uint32_t)sizeof(struct hdr))
static_assert(sizeof(struct hdr) == 44, "virtio 1.2, 5.10.6");

#define TYPE_STREAM 1u

enum op {
	OP_REQUEST = 1,
	OP_RESPONSE = 2,
	OP_RST = 3,
	OP_SHUTDOWN = 4,
	OP_RW = 5,
	OP_CREDIT_UPDATE = 6,
	OP_CREDIT_REQUEST = 7,
};

/* flags of OP_SHUTDOWN */
#define SHUTDOWN_RCV 1u
#define SHUTDOWN_SEND 2u

/* Most bytes of one packet to the guest: bounds the time under the lock. */
#define PACKET_MAX (64u << 10)

/* Host ports of our own connections: the low byte is the slot, the rest
 * counts, so that a port comes back after 4 million connections. Far above
 * all well-known ports. */
#define PORT_BASE 0x40000000u
#define PORT_COUNT_MASK 0x3fffffu

#define SHUTDOWN_BOTH (SHUTDOWN_RCV | SHUTDOWN_SEND)

enum {
	RX,
	TX,
	EVENT
};

enum pending {
	PENDING_RST = 1u << 0,
	PENDING_REQUEST = 1u << 1,
	PENDING_RESPONSE = 1u << 2,
	PENDING_SHUTDOWN = 1u << 3,
	PENDING_CREDIT = 1u << 4,
};

static_assert(BRIG_VSOCK_CONNS_MAX == 256, "a slot is one byte of a port");
static_assert((VSOCK_RING_BYTES & (VSOCK_RING_BYTES - 1)) == 0, "power of 2");

/* --- connections --------------------------------------------------------- */

static uint32_t conn_slot(const struct vsock *v, const struct vsock_conn *c)
{
	return (uint32_t)(c - v->conns);
}

static uint8_t *conn_ring(const struct vsock *v, const struct vsock_conn *c)
{
	return v->rings + (size_t)conn_slot(v, c) * VSOCK_RING_BYTES;
}

static uint32_t conn_ring_used(const struct vsock_conn *c)
{
	return c->rx_cnt - c->fwd_cnt;
}

/* Bytes that the guest may still send as far as it knows. */
static uint32_t conn_guest_credit(const struct vsock_conn *c)
{
	return VSOCK_RING_BYTES - (c->rx_cnt - c->fwd_told);
}

/* Bytes that we may send. Both words are the guest's: whatever does not make
 * sense, such as a fwd_cnt that went backwards or a buffer that shrank below
 * what is in flight, is no credit. */
static uint32_t conn_host_credit(const struct vsock_conn *c)
{
	uint32_t in_flight = c->tx_cnt - c->peer_fwd_cnt;

	return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight
					     : 0;
}

static bool conn_can_read(const struct vsock_conn *c)
{
	return c->guest == VSOCK_GUEST_OPEN && c->fd >= 0 && c->readable &&
	       !c->eof && conn_host_credit(c) > 0;
}

static void conn_release(struct vsock *v, struct vsock_conn *c)
{
	if (c->ring_touched)
		(void)madvise(conn_ring(v, c), VSOCK_RING_BYTES, MADV_DONTNEED);
	*c = (struct vsock_conn){ .fd = -1, .generation = c->generation + 1 };
}

/* Ends each change of a connection: frees it or notes whether it has work. */
static void conn_settle(struct vsock *v, struct vsock_conn *c)
{
	uint32_t slot = conn_slot(v, c);
	uint64_t bit = 1ull << (slot % 64);

	if (c->guest == VSOCK_GUEST_NONE && c->fd < 0)
		conn_release(v, c);
	if (c->pending != 0 || conn_can_read(c))
		v->work[slot / 64] |= bit;
	else
		v->work[slot / 64] &= ~bit;
}

static void conn_close_fd(struct vsock *v, struct vsock_conn *c)
{
	if (c->fd >= 0)
		(void)epoll_ctl(v->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	fd_close(&c->fd);
}

/* The guest's side ends; what it sent before still reaches brigd. */
static void conn_end_guest(struct vsock *v, struct vsock_conn *c, bool send_rst)
{
	c->guest = send_rst ? VSOCK_GUEST_RESET : VSOCK_GUEST_NONE;
	c->pending = send_rst ? PENDING_RST : 0;
	if (conn_ring_used(c) == 0)
		conn_close_fd(v, c);
}

/* The host's side ends in the middle: bytes are lost, so the guest gets RST
 * unless it never heard of the connection or is gone already. */
static void conn_end_host(struct vsock *v, struct vsock_conn *c)
{
	bool knows = c->guest != VSOCK_GUEST_NONE &&
		     (c->pending & PENDING_REQUEST) == 0;

	conn_close_fd(v, c);
	c->guest = knows ? VSOCK_GUEST_RESET : VSOCK_GUEST_NONE;
	c->pending = knows ? PENDING_RST : 0;
}

static void conn_violate(struct vsock *v, struct vsock_conn *c)
{
	v->violations++;
	conn_end_guest(v, c, true);
}

/* Index of this use of the slot in events: generation and slot. */
static uint32_t conn_index(const struct vsock *v, const struct vsock_conn *c)
{
	return c->generation << 8 | conn_slot(v, c);
}

static int conn_watch(struct vsock *v, struct vsock_conn *c, int op, bool out)
{
	struct epoll_event ev = {
		.events = EPOLLIN | EPOLLRDHUP | EPOLLET |
			  (out ? (uint32_t)EPOLLOUT : 0u),
		.data.u64 = v->tag | conn_index(v, c),
	};

	c->wants_out = out;
	return epoll_ctl(v->epoll_fd, op, c->fd, &ev) < 0 ? -errno : 0;
}

/* A free connection with a socket pair; the caller owns *ret_peer. */
static int conn_open(struct vsock *v, struct vsock_conn **ret, int *ret_peer)
{
	struct vsock_conn *c = NULL;
	int fds[2];
	int r;

	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX && c == NULL; i++)
		if (v->conns[i].guest == VSOCK_GUEST_NONE && v->conns[i].fd < 0)
			c = &v->conns[i];
	if (c == NULL)
		return -EBUSY;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
		       fds) < 0)
		return -errno;
	c->fd = fds[0];
	r = conn_watch(v, c, EPOLL_CTL_ADD, false);
	if (r < 0) {
		fd_close(&c->fd);
		fd_close(&fds[1]);
		return r;
	}
	*ret = c;
	*ret_peer = fds[1];
	return 0;
}

static struct vsock_conn *conn_find(struct vsock *v, uint32_t host_port,
				    uint32_t guest_port)
{
	unsigned int from = 0, to = BRIG_VSOCK_CONNS_MAX;

	if (host_port >= PORT_BASE) {
		from = host_port % BRIG_VSOCK_CONNS_MAX;
		to = from + 1;
	} else if (host_port != BRIG_READY_PORT) {
		return NULL;
	}
	for (unsigned int i = from; i < to; i++) {
		struct vsock_conn *c = &v->conns[i];

		if (c->guest != VSOCK_GUEST_NONE && c->host_port == host_port &&
		    c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

/* Drops everything without a word to the guest. */
static void drop_all(struct vsock *v)
{
	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = &v->conns[i];

		if (c->guest == VSOCK_GUEST_NONE && c->fd < 0)
			continue;
		conn_close_fd(v, c);
		conn_release(v, c);
	}
	memset(v->work, 0, sizeof(v->work));
	v->rst_count = 0;
	v->gate.state = VSOCK_GATE_OPEN;
	v->rx_ready = false;
	v->rx_raise = false;
	v->tx_raise = false;
}

/* After an error of the rings: brigd's ends are closed at once rather than
 * when, if ever, the guest resets the device. */
static void stop(struct vsock *v)
{
	drop_all(v);
	v->stopped = true;
}

static void stop_because(struct vsock *v, const char *why)
{
	virtio_needs_reset(&v->dev, why);
	stop(v);
}

/* --- towards the guest ---------------------------------------------------- */

/* Fills v->rx with a buffer of the guest unless there is one. */
static bool rx_take(struct vsock *v)
{
	int r;

	if (v->rx_ready)
		return true;
	r = virtio_pop(&v->dev, RX, &v->rx);
	if (r < 0)
		stop(v);
	if (r <= 0)
		return false;
	if (v->rx.readable != 0 || v->rx.writable_bytes <= HDR_BYTES) {
		stop_because(v, "vsock: rx buffer cannot hold a packet");
		return false;
	}
	v->rx_ready = true;
	return true;
}

/* Completes the buffer in v->rx, whose payload is in place already. */
static void rx_put(struct vsock *v, struct hdr *h)
{
	h->src_cid = BRIG_CID_HOST;
	h->dst_cid = BRIG_CID_GUEST;
	v->rx_ready = false;
	int64_t n = queue_chain_write(&v->rx, v->dev.mem, 0, h, HDR_BYTES);
	if (n != HDR_BYTES) {
		stop_because(v, "vsock: rx buffer is gone");
		return;
	}
	if (virtio_push(&v->dev, RX, v->rx.head, HDR_BYTES + h->len) < 0) {
		stop(v);
		return;
	}
	v->rx_raise = true;
}

/* Each packet of a connection carries our credit. */
static void rx_put_conn(struct vsock *v, struct vsock_conn *c, uint16_t op,
			uint32_t flags, uint32_t len)
{
	struct hdr h = {
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.len = len,
		.type = TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = VSOCK_RING_BYTES,
		.fwd_cnt = c->fwd_cnt,
	};

	c->fwd_told = c->fwd_cnt;
	c->pending &= (uint8_t)~PENDING_CREDIT;
	rx_put(v, &h);
}

static void rx_put_rst(struct vsock *v)
{
	const struct vsock_rst *r = &v->rsts[v->first_rst];
	struct hdr h = {
		.src_port = r->host_port,
		.dst_port = r->guest_port,
		.type = r->type,
		.op = OP_RST,
	};

	v->first_rst = (v->first_rst + 1) % VSOCK_RSTS_MAX;
	v->rst_count--;
	rx_put(v, &h);
}

/* brigd will send no more. When it closed altogether nothing can be given to
 * it either, and the guest is asked to finish. */
static void conn_host_eof(struct vsock *v, struct vsock_conn *c)
{
	if (c->hung_up && conn_ring_used(c) > 0) {
		conn_end_host(v, c);
		return;
	}
	c->eof = true;
	c->shut_host |= SHUTDOWN_SEND;
	if (c->hung_up) {
		c->shut_host |= SHUTDOWN_RCV;
		conn_close_fd(v, c);
	}
	c->pending |= PENDING_SHUTDOWN;
}

/* Reads from brigd into v->rx: one packet, or an end, or nothing. */
static void conn_read(struct vsock *v, struct vsock_conn *c)
{
	uint32_t room = v->rx.writable_bytes - HDR_BYTES;
	uint32_t credit = conn_host_credit(c);
	struct msghdr msg = { .msg_iov = v->iov };
	uint32_t want = room < credit ? room : credit;
	ssize_t n;
	int count;

	if (want > PACKET_MAX)
		want = PACKET_MAX;
	count = queue_chain_iovec(&v->rx, v->dev.mem, true, HDR_BYTES, want,
				  v->iov);
	if (count < 0) {
		stop_because(v, "vsock: rx buffer is gone");
		return;
	}
	msg.msg_iovlen = (size_t)count;
	n = recvmsg(c->fd, &msg, MSG_DONTWAIT);
	if (n > 0) {
		c->tx_cnt += (uint32_t)n;
		v->tx_bytes += (uint64_t)n;
		rx_put_conn(v, c, OP_RW, 0, (uint32_t)n);
	} else if (n == 0) {
		conn_host_eof(v, c);
	} else if (errno == EAGAIN) {
		c->readable = false;
	} else if (errno != EINTR) {
		conn_end_host(v, c);
	}
}

/* Uses v->rx for the packet of this connection that comes first. SHUTDOWN
 * comes after data because it is found at the end of the data. */
static void conn_serve(struct vsock *v, struct vsock_conn *c)
{
	if (c->pending & PENDING_RST) {
		c->pending = 0;
		c->guest = VSOCK_GUEST_NONE;
		rx_put_conn(v, c, OP_RST, 0, 0);
	} else if (c->pending & PENDING_REQUEST) {
		c->pending &= (uint8_t)~PENDING_REQUEST;
		rx_put_conn(v, c, OP_REQUEST, 0, 0);
	} else if (c->pending & PENDING_RESPONSE) {
		c->pending &= (uint8_t)~PENDING_RESPONSE;
		rx_put_conn(v, c, OP_RESPONSE, 0, 0);
	} else if (conn_can_read(c)) {
		conn_read(v, c);
	} else if (c->pending & PENDING_SHUTDOWN) {
		c->pending &= (uint8_t)~PENDING_SHUTDOWN;
		rx_put_conn(v, c, OP_SHUTDOWN, c->shut_host, 0);
	} else {
		rx_put_conn(v, c, OP_CREDIT_UPDATE, 0, 0);
	}
}

/* The next connection that may have a packet, in turn; NULL: none. */
static struct vsock_conn *work_next(struct vsock *v)
{
	unsigned int word = v->turn / 64;
	uint64_t bits = v->work[word] & (~0ull << (v->turn % 64));

	for (unsigned int i = 0; i <= VSOCK_WORK_WORDS; i++) {
		if (bits != 0) {
			unsigned int slot =
				word * 64 + (unsigned int)__builtin_ctzll(bits);

			v->turn = (slot + 1) % BRIG_VSOCK_CONNS_MAX;
			return &v->conns[slot];
		}
		word = (word + 1) % VSOCK_WORK_WORDS;
		bits = v->work[word];
	}
	return NULL;
}

/* At most one queue of packets. A turn that gives no packet takes away what
 * made the connection ready (EAGAIN, end of file), so it counts as work only
 * once: the bound allows for one such turn of each connection. */
static void rx_pump(struct vsock *v)
{
	unsigned int turns = v->dev.queues[RX].size + BRIG_VSOCK_CONNS_MAX;

	if (v->gate.state != VSOCK_GATE_OPEN)
		return;
	while (turns-- > 0 && !v->stopped) {
		struct vsock_conn *c = NULL;

		if (v->rst_count == 0) {
			c = work_next(v);
			if (c == NULL)
				return;
		}
		if (!rx_take(v))
			return;
		if (c == NULL) {
			rx_put_rst(v);
			continue;
		}
		conn_serve(v, c);
		if (!v->stopped)
			conn_settle(v, c);
	}
}

/* Ends each call from outside. */
static void finish(struct vsock *v)
{
	rx_pump(v);
	if (v->tx_raise)
		virtio_interrupt(&v->dev, TX);
	if (v->rx_raise)
		virtio_interrupt(&v->dev, RX);
	v->tx_raise = false;
	v->rx_raise = false;
}

/* --- from the guest -------------------------------------------------------- */

static void rst_queue(struct vsock *v, const struct hdr *h)
{
	unsigned int at = (v->first_rst + v->rst_count) % VSOCK_RSTS_MAX;

	v->refused++;
	if (v->rst_count == VSOCK_RSTS_MAX) {
		v->rst_dropped++;
		return;
	}
	v->rsts[at] = (struct vsock_rst){ .host_port = h->dst_port,
					  .guest_port = h->src_port,
					  .type = h->type };
	v->rst_count++;
}

static ssize_t sock_send(int fd, struct iovec *iov, size_t count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/* After bytes went to the socket or to the ring: what the guest should know,
 * and what was put off until the ring is empty. */
static void conn_after_send(struct vsock *v, struct vsock_conn *c)
{
	bool waiting = conn_ring_used(c) > 0;

	if (c->guest == VSOCK_GUEST_OPEN && c->fwd_cnt != c->fwd_told &&
	    conn_guest_credit(c) < VSOCK_RING_BYTES / 2)
		c->pending |= PENDING_CREDIT;
	if (waiting != c->wants_out &&
	    conn_watch(v, c, EPOLL_CTL_MOD, waiting) < 0) {
		conn_end_host(v, c);
		return;
	}
	if (waiting)
		return;
	if (c->guest != VSOCK_GUEST_OPEN)
		conn_close_fd(v, c);
	else if (c->shut_guest & SHUTDOWN_SEND)
		(void)shutdown(c->fd, SHUT_WR);
}

/* Gives the ring to the socket. */
static void conn_flush(struct vsock *v, struct vsock_conn *c)
{
	uint8_t *ring = conn_ring(v, c);
	uint32_t used = conn_ring_used(c);
	uint32_t at = c->fwd_cnt % VSOCK_RING_BYTES;
	uint32_t first = VSOCK_RING_BYTES - at;
	struct iovec iov[2];
	ssize_t n;

	if (first > used)
		first = used;
	iov[0] = (struct iovec){ ring + at, first };
	iov[1] = (struct iovec){ ring, used - first };
	n = sock_send(c->fd, iov, 2);
	if (n < 0) {
		conn_end_host(v, c);
		return;
	}
	c->fwd_cnt += (uint32_t)n;
	conn_after_send(v, c);
}

/* Puts `n` bytes of the packet in v->tx, from `offset` on, into the ring. */
static int ring_add(struct vsock *v, struct vsock_conn *c, uint32_t offset,
		    uint32_t n)
{
	uint8_t *ring = conn_ring(v, c);

	while (n > 0) {
		uint32_t at = c->rx_cnt % VSOCK_RING_BYTES;
		uint32_t part = VSOCK_RING_BYTES - at;

		if (part > n)
			part = n;
		c->ring_touched = true;
		if (queue_chain_read(&v->tx, v->dev.mem, offset, ring + at,
				     part) != part)
			return -EFAULT;
		c->rx_cnt += part;
		offset += part;
		n -= part;
	}
	return 0;
}

/* Data. The length was not checked yet. */
static void tx_data(struct vsock *v, struct vsock_conn *c, uint32_t len)
{
	ssize_t sent = 0;

	if (c->guest != VSOCK_GUEST_OPEN || c->fd < 0 ||
	    (c->shut_guest & SHUTDOWN_SEND) != 0) {
		/* Not always a fault: it may not know yet that brigd left. */
		conn_end_guest(v, c, true);
		return;
	}
	if (len > v->tx.readable_bytes - HDR_BYTES ||
	    len > conn_guest_credit(c)) {
		conn_violate(v, c);
		return;
	}
	if (len == 0)
		return;
	if (conn_ring_used(c) == 0) {
		int count = queue_chain_iovec(&v->tx, v->dev.mem, false,
					      HDR_BYTES, len, v->iov);

		sent = count < 0 ? count
				 : sock_send(c->fd, v->iov, (size_t)count);
		if (sent < 0) {
			conn_end_host(v, c);
			return;
		}
	}
	v->rx_bytes += len;
	c->rx_cnt += (uint32_t)sent;
	c->fwd_cnt += (uint32_t)sent;
	if (ring_add(v, c, HDR_BYTES + (uint32_t)sent, len - (uint32_t)sent) <
	    0) {
		conn_end_host(v, c);
		return;
	}
	conn_after_send(v, c);
}

static void tx_shutdown(struct vsock *v, struct vsock_conn *c, uint32_t flags)
{
	c->shut_guest |= (uint8_t)(flags & SHUTDOWN_BOTH);
	if (c->shut_guest == SHUTDOWN_BOTH || c->fd < 0) {
		conn_end_guest(v, c, true);
		return;
	}
	if ((c->shut_guest & SHUTDOWN_RCV) != 0 && !c->eof) {
		c->eof = true;
		(void)shutdown(c->fd, SHUT_RD);
	}
	if ((c->shut_guest & SHUTDOWN_SEND) != 0 && conn_ring_used(c) == 0)
		(void)shutdown(c->fd, SHUT_WR);
}

/* A packet of a connection that the guest may know. */
static void tx_conn(struct vsock *v, struct vsock_conn *c, const struct hdr *h)
{
	if (h->op == OP_RST) {
		conn_end_guest(v, c, false);
		return;
	}
	if (c->guest == VSOCK_GUEST_RESET)
		return;
	c->peer_buf_alloc = h->buf_alloc;
	c->peer_fwd_cnt = h->fwd_cnt;
	if (c->guest == VSOCK_GUEST_CONNECTING) {
		if (h->op == OP_RESPONSE && (c->pending & PENDING_REQUEST) == 0)
			c->guest = VSOCK_GUEST_OPEN;
		else
			conn_violate(v, c);
		return;
	}
	switch (h->op) {
	case OP_RW:
		tx_data(v, c, h->len);
		break;
	case OP_SHUTDOWN:
		tx_shutdown(v, c, h->flags);
		break;
	case OP_CREDIT_UPDATE:
		break;
	case OP_CREDIT_REQUEST:
		c->pending |= PENDING_CREDIT;
		break;
	default:
		conn_violate(v, c);
		break;
	}
}

/* The guest asks for a new connection; 0, or it is refused. */
static int tx_request(struct vsock *v, const struct hdr *h)
{
	struct vsock_conn *c;
	int peer = -1;
	int r;

	if (h->dst_port != BRIG_READY_PORT)
		return -ECONNREFUSED;
	r = conn_open(v, &c, &peer);
	if (r < 0)
		return r;
	r = v->on_accept(v->arg, h->dst_port, peer);
	if (r < 0) {
		conn_close_fd(v, c);
		conn_settle(v, c);
		return r;
	}
	c->guest = VSOCK_GUEST_OPEN;
	c->host_port = h->dst_port;
	c->guest_port = h->src_port;
	c->peer_buf_alloc = h->buf_alloc;
	c->peer_fwd_cnt = h->fwd_cnt;
	c->pending = PENDING_RESPONSE;
	conn_settle(v, c);
	return 0;
}

static void tx_packet(struct vsock *v, const struct hdr *h)
{
	struct vsock_conn *c;

	if (h->src_cid != BRIG_CID_GUEST || h->dst_cid != BRIG_CID_HOST) {
		v->misaddressed++;
		return;
	}
	c = conn_find(v, h->dst_port, h->src_port);
	if (c != NULL && h->type == TYPE_STREAM) {
		tx_conn(v, c, h);
		conn_settle(v, c);
		return;
	}
	if (h->op == OP_RST || (h->op == OP_REQUEST && h->type == TYPE_STREAM &&
				tx_request(v, h) == 0))
		return;
	rst_queue(v, h);
}

/* At most one queue of packets. */
static void tx_drain(struct vsock *v)
{
	unsigned int budget = v->dev.queues[TX].size;

	while (budget-- > 0) {
		struct hdr h;
		int r = virtio_pop(&v->dev, TX, &v->tx);

		if (r < 0)
			stop(v);
		if (r <= 0)
			return;
		if (v->tx.writable != 0 ||
		    queue_chain_read(&v->tx, v->dev.mem, 0, &h, HDR_BYTES) !=
			    HDR_BYTES) {
			stop_because(v, "vsock: tx buffer is not a packet");
			return;
		}
		tx_packet(v, &h);
		if (virtio_push(&v->dev, TX, v->tx.head, 0) < 0) {
			stop(v);
			return;
		}
		v->tx_raise = true;
	}
}

/* --- the model ------------------------------------------------------------- */

static int vsock_activate(struct virtio_dev *d)
{
	struct vsock *v = d->self;

	v->stopped = false;
	return d->queues[RX].size == 0 || d->queues[TX].size == 0 ? -EINVAL : 0;
}

static void vsock_notify(struct virtio_dev *d, unsigned int q)
{
	struct vsock *v = d->self;

	if (v->stopped)
		return;
	if (q == TX)
		tx_drain(v);
	else if (q == EVENT && vsock_gate_serve(&v->gate, d, q, &v->rx) < 0)
		stop(v);
	finish(v);
}

static void vsock_reset(struct virtio_dev *d)
{
	drop_all(d->self);
}

static const struct virtio_model vsock_model = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.queue_max = { QUEUE_SIZE_MAX, QUEUE_SIZE_MAX, QUEUE_SIZE_MAX },
	.features = 0,
	.activate = vsock_activate,
	.notify = vsock_notify,
	.reset = vsock_reset,
};

/* --- what the machine calls ------------------------------------------------ */

void vsock_init(struct vsock *v, struct gmem *mem, int irq_fd, int epoll_fd,
		uint64_t tag, uint8_t *rings,
		int (*on_accept)(void *arg, uint32_t port, int fd), void *arg)
{
	ASSERT((uint32_t)tag == 0);
	*v = (struct vsock){
		.epoll_fd = epoll_fd,
		.tag = tag,
		.rings = rings,
		.on_accept = on_accept,
		.arg = arg,
		.config = { BRIG_CID_GUEST }, /* little-endian guest_cid */
	};
	for (unsigned int i = 0; i < BRIG_VSOCK_CONNS_MAX; i++)
		v->conns[i].fd = -1;
	/* One touched ring must not cost 2 MiB. */
	(void)madvise(rings, VSOCK_BUFFERS_BYTES, MADV_NOHUGEPAGE);
	virtio_init(&v->dev, &vsock_model, mem, v, v->config, sizeof(v->config),
		    irq_fd);
}

int vsock_connect(struct vsock *v, uint32_t guest_port, int *ret_fd)
{
	struct vsock_conn *c;
	int r;

	if (!v->dev.active || v->stopped)
		return -ENOTCONN;
	r = conn_open(v, &c, ret_fd);
	if (r < 0)
		return r;
	c->guest = VSOCK_GUEST_CONNECTING;
	c->host_port = PORT_BASE + ((v->connects++ & PORT_COUNT_MASK) << 8) +
		       conn_slot(v, c);
	c->guest_port = guest_port;
	c->pending = PENDING_REQUEST;
	conn_settle(v, c);
	finish(v);
	return 0;
}

static void conn_event(struct vsock *v, struct vsock_conn *c, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & EPOLLHUP) {
		c->hung_up = true;
		if (c->guest != VSOCK_GUEST_OPEN) {
			/* Nobody waits for an answer, or for the ring. */
			conn_end_host(v, c);
			return;
		}
		if (c->eof) {
			conn_host_eof(v, c);
			return;
		}
	}
	if (conn_ring_used(c) > 0)
		conn_flush(v, c);
}

void vsock_event(struct vsock *v, uint32_t index, uint32_t events)
{
	struct vsock_conn *c = &v->conns[index % BRIG_VSOCK_CONNS_MAX];

	vmm_lock();
	if (c->fd >= 0 && conn_index(v, c) == index) {
		conn_event(v, c, events);
		conn_settle(v, c);
		finish(v);
	}
	vmm_unlock();
}

void vsock_state(struct state_stream *s, struct vsock *v)
{
	state_begin(s, "vsock", 1);
	virtio_state(s, &v->dev);
	state_u32(s, "connects", &v->connects, 0, UINT32_MAX);
	state_end(s);
	if (!s->loading)
		return;
	/* A guest whose driver never gave event buffers cannot be told. */
	v->stopped = !virtio_usable(&v->dev, RX);
	if (virtio_usable(&v->dev, EVENT))
		v->gate.state = VSOCK_GATE_UNTOLD;
}
