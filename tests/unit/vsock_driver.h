/* vsock_driver.h - the guest's vsock driver and brigd's ends, for tests.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Lays buffers out as Linux 6.1 does: a descriptor for the header and one for
 * the payload, 4 KiB of it for receiving and up to 64 KiB for sending. Aborts
 * when the device breaks a rule of the ring.
 */
#ifndef BRIG_TESTS_VSOCK_DRIVER_H
#define BRIG_TESTS_VSOCK_DRIVER_H

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ring.h"
#include "src/vmm/dev/vsock.h"
#include "wire/boot.h"

#define DRIVER_LOW_BYTES (8u << 20)
#define DRIVER_TAG (7ull << 32)

#define RX_BUFS 128u
#define RX_BUF_BYTES 4096u
#define RX_AT 0x100000u /* headers, then payloads */
#define TX_BUFS 32u
#define TX_BUF_BYTES (64u << 10)
#define TX_AT 0x400000u

enum {
	OP_REQUEST = 1,
	OP_RESPONSE,
	OP_RST,
	OP_SHUTDOWN,
	OP_RW,
	OP_CREDIT_UPDATE,
	OP_CREDIT_REQUEST
};

struct packet {
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

struct driver {
	struct guest guest;
	struct ring rings[3];
	struct vsock v;
	uint8_t *buffers;
	int epoll_fd;
	int irq_fd;
	uint16_t rx_seen; /* used entries taken */
	uint16_t rx_free; /* buffers to post again, in order of use */
	uint16_t rx_spare[RX_BUFS];
	uint16_t tx_next;
	uint32_t wakeups; /* epoll events ever */

	/* brigd: what on_accept got */
	int accepted[BRIG_VSOCK_CONNS_MAX];
	unsigned int accepted_count;
	uint32_t accepted_port;
	bool refuse;
};

static inline int driver_accept(void *arg, uint32_t port, int fd)
{
	struct driver *d = arg;

	if (d->refuse || d->accepted_count == BRIG_VSOCK_CONNS_MAX) {
		close(fd);
		return -1;
	}
	d->accepted_port = port;
	d->accepted[d->accepted_count++] = fd;
	return 0;
}

/* --- life -------------------------------------------------------------------- */

static inline void driver_start(struct driver *d)
{
	for (unsigned int i = 0; i < 3; i++)
		ring_init(&d->rings[i], &d->guest, 256, 0x2000 * i);
	d->rx_seen = 0;
	d->tx_next = 0;
	d->rx_free = RX_BUFS;
	for (uint16_t i = 0; i < RX_BUFS; i++)
		d->rx_spare[i] = i;
	if (reg_bring_up(&d->v.dev, 0, d->rings, 3) != 15)
		abort();
}

static inline void driver_init(struct driver *d)
{
	memset(d, 0, sizeof(*d));
	d->guest.mem.count = 1;
	d->guest.mem.regions[0] =
		(struct gmem_region){ 0, DRIVER_LOW_BYTES,
				      guest_map(DRIVER_LOW_BYTES) };
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	d->irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	d->buffers = mmap(NULL, VSOCK_BUFFERS_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (d->epoll_fd < 0 || d->irq_fd < 0 || d->buffers == MAP_FAILED)
		abort();
	vsock_init(&d->v, &d->guest.mem, d->irq_fd, d->epoll_fd, DRIVER_TAG,
		   d->buffers, driver_accept, d);
	driver_start(d);
}

static inline void driver_fini(struct driver *d)
{
	reg_write(&d->v.dev, R_STATUS, 0);
	for (unsigned int i = 0; i < d->accepted_count; i++)
		close(d->accepted[i]);
	close(d->epoll_fd);
	close(d->irq_fd);
	if (munmap(d->buffers, VSOCK_BUFFERS_BYTES) != 0)
		abort();
	guest_fini(&d->guest);
}

/* What the device thread does, until nothing happens any more. */
static inline void driver_run(struct driver *d)
{
	struct epoll_event ev[16];
	int n;

	while ((n = epoll_wait(d->epoll_fd, ev, 16, 0)) > 0) {
		for (int i = 0; i < n; i++) {
			if (ev[i].data.u64 >> 32 != DRIVER_TAG >> 32)
				abort();
			vsock_event(&d->v, (uint32_t)ev[i].data.u64,
				    ev[i].events);
			if (++d->wakeups > 100000000)
				abort();
		}
	}
}

/* --- receiving ----------------------------------------------------------------- */

static inline void rx_post(struct driver *d, unsigned int n)
{
	struct ring *r = &d->rings[0];

	for (; n > 0 && d->rx_free > 0; n--) {
		uint16_t i = d->rx_spare[0];
		uint16_t head = (uint16_t)(2 * i);

		memmove(d->rx_spare, d->rx_spare + 1,
			--d->rx_free * sizeof(d->rx_spare[0]));
		ring_desc(r, head, RX_AT + 64u * i, sizeof(struct packet),
			  DESC_NEXT | DESC_WRITE, (uint16_t)(head + 1));
		ring_desc(r, (uint16_t)(head + 1),
			  RX_AT + 0x10000 + RX_BUF_BYTES * i, RX_BUF_BYTES,
			  DESC_WRITE, 0);
		ring_offer(r, head);
	}
	virtio_kick(&d->v.dev, 0);
}

/* The next packet from the device; false: none. `data` has RX_BUF_BYTES. */
static inline bool rx_take(struct driver *d, struct packet *p, void *data)
{
	struct ring *r = &d->rings[0];
	uint32_t head, written;
	uint16_t i;

	if (d->rx_seen == ring_used_idx(r))
		return false;
	ring_used(r, d->rx_seen++, &head, &written);
	i = (uint16_t)(head / 2);
	if (head % 2 != 0 || i >= RX_BUFS || written < sizeof(*p))
		abort();
	memcpy(p, guest_at(&d->guest, RX_AT + 64u * i, sizeof(*p)), sizeof(*p));
	if (p->len != written - sizeof(*p) || p->len > RX_BUF_BYTES)
		abort();
	memcpy(data,
	       guest_at(&d->guest, RX_AT + 0x10000 + RX_BUF_BYTES * i,
			RX_BUF_BYTES),
	       p->len);
	d->rx_spare[d->rx_free++] = i;
	return true;
}

/* --- sending --------------------------------------------------------------------- */

/* Puts a packet into the ring without a kick. */
static inline void tx_put(struct driver *d, const struct packet *p,
			  const void *data, uint32_t n)
{
	struct ring *r = &d->rings[1];
	uint16_t i = d->tx_next++ % TX_BUFS;
	uint16_t head = (uint16_t)(2 * i);
	uint64_t at = TX_AT + (uint64_t)i * (TX_BUF_BYTES + 64);

	guest_put(&d->guest, at, p, sizeof(*p));
	ring_desc(r, head, at, sizeof(*p), n > 0 ? DESC_NEXT : 0,
		  (uint16_t)(head + 1));
	if (n > 0) {
		guest_put(&d->guest, at + 64, data, n);
		ring_desc(r, (uint16_t)(head + 1), at + 64, n, 0, 0);
	}
	ring_offer(r, head);
}

static inline void tx_kick(struct driver *d)
{
	virtio_kick(&d->v.dev, 1);
	if (ring_used_idx(&d->rings[1]) != d->rings[1].avail_idx &&
	    (reg_read(&d->v.dev, R_STATUS) & 64) == 0)
		abort(); /* the device never waits with what was sent */
}

static inline void tx_send(struct driver *d, const struct packet *p,
			   const void *data, uint32_t n)
{
	tx_put(d, p, data, n);
	tx_kick(d);
}

#endif
