/* vsock.h - virtio-vsock (virtio 1.2, 5.10): streams between guest and brigd.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each stream of the guest ends here, in one end of a non-blocking AF_UNIX
 * socket pair; brigd holds the other. Only stream sockets, no feature bits.
 * The guest may connect to BRIG_READY_PORT alone; brigd may connect to any
 * port of the guest.
 *
 * The guest is hostile: it chooses every header and when to give buffers and
 * credit. What it can make the monitor hold is fixed: BRIG_VSOCK_CONNS_MAX
 * connections, VSOCK_RING_BYTES of unsent data for each, VSOCK_RSTS_MAX
 * refusals. brigd's socket is trusted no more than a client's: it may stall,
 * close or shut down at any time.
 *
 * Connections are never saved: they end with the machine that had them. A
 * restored guest is told so before anything else, by the event
 * VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (5.10.6.7); until it has handled that, no
 * packet reaches it, for a new connection must not be taken for an old one.
 */
#ifndef BRIG_VMM_DEV_VSOCK_H
#define BRIG_VMM_DEV_VSOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../virtio/virtio.h"
#include "vsock_gate.h"
#include "wire/limits.h"

/* What a guest may send on one connection before brigd takes it: our
 * buf_alloc. A power of two, so that byte counters index the ring. */
#define VSOCK_RING_BYTES (64u << 10)
#define VSOCK_BUFFERS_BYTES ((size_t)BRIG_VSOCK_CONNS_MAX * VSOCK_RING_BYTES)

/* Refusals that wait for a receive buffer of the guest; more are dropped. */
#define VSOCK_RSTS_MAX 64u

/* The guest's side of a connection. */
enum vsock_guest_state {
	VSOCK_GUEST_NONE,       /* knows nothing of it (any more) */
	VSOCK_GUEST_CONNECTING, /* we ask; brigd's bytes wait in its socket */
	VSOCK_GUEST_OPEN,
	VSOCK_GUEST_RESET, /* we owe it a RST; its packets are ignored */
};

/* A slot is free when the guest's side is NONE and the host's side has no
 * descriptor. Either may end first: a guest that closed is forgotten while
 * its last bytes go out, a host that closed leaves the guest to finish. */
struct vsock_conn {
	int fd; /* our end of the socket pair, owned; -1: host side ended */
	enum vsock_guest_state guest;
	uint32_t generation; /* of the slot: tells stale events */
	uint32_t host_port;
	uint32_t guest_port;

	/* guest to host; free-running byte counters */
	uint32_t rx_cnt;   /* received from the guest */
	uint32_t fwd_cnt;  /* of those, given to the socket */
	uint32_t fwd_told; /* fwd_cnt as the guest knows it */

	/* host to guest */
	uint32_t tx_cnt;         /* sent to the guest */
	uint32_t peer_buf_alloc; /* the guest's words, any value */
	uint32_t peer_fwd_cnt;

	uint8_t pending;    /* control packets to send: enum in vsock.c */
	uint8_t shut_guest; /* VIRTIO_VSOCK_SHUTDOWN_*: what the guest said */
	uint8_t shut_host;  /* what we say in SHUTDOWN */
	bool readable;      /* a read may give more than EAGAIN */
	bool eof;           /* nothing more is read from the socket */
	bool hung_up;       /* brigd's end is closed in both directions */
	bool wants_out;     /* EPOLLOUT is armed: the ring waits */
	bool ring_touched;  /* the ring has pages to give back */
};

struct vsock_rst {
	uint32_t host_port;
	uint32_t guest_port;
	uint16_t type;
};

#define VSOCK_WORK_WORDS (BRIG_VSOCK_CONNS_MAX / 64u)

struct vsock {
	struct virtio_dev dev; /* what the machine puts into the slot */

	/* private */
	int epoll_fd;
	uint64_t tag;
	int (*on_accept)(void *arg, uint32_t port, int fd);
	void *arg;
	uint8_t config[8];
	bool stopped;  /* broke a rule: nothing happens until a reset */
	bool rx_ready; /* `rx` holds a popped chain, not used yet */
	bool rx_raise; /* pushed, not yet interrupted */
	bool tx_raise;
	struct vsock_gate gate; /* not open: no packet for the guest */
	uint32_t connects;      /* ever: makes fresh host ports */
	unsigned int turn;      /* connection served next */
	unsigned int first_rst;
	unsigned int rst_count;
	struct vsock_rst rsts[VSOCK_RSTS_MAX];
	uint64_t work[VSOCK_WORK_WORDS]; /* bit i: conns[i] may have a packet */
	struct vsock_conn conns[BRIG_VSOCK_CONNS_MAX];
	struct queue_chain rx;
	struct queue_chain tx;
	struct iovec iov[QUEUE_SIZE_MAX];

	uint8_t *rings; /* VSOCK_RING_BYTES for each connection; borrowed */

	/* counters, read under vmm_lock */
	uint64_t rx_bytes;     /* guest to host */
	uint64_t tx_bytes;     /* host to guest */
	uint64_t refused;      /* packets that RST answers, of no connection */
	uint64_t rst_dropped;  /* of those, not answered */
	uint64_t misaddressed; /* packets from or to a CID that is not ours */
	uint64_t violations;   /* connections reset: beyond credit and alike */
};

/* Prepares *v and v->dev. Borrows the rest: `rings` is a private anonymous
 * mapping of VSOCK_BUFFERS_BYTES, of which only what is in use takes memory.
 *
 * Connections are watched in `epoll_fd`, edge-triggered, with data.u64 = tag |
 * index; the low 32 bits of `tag` must be 0. The owner of epoll_fd passes the
 * low 32 bits of data.u64 to vsock_event().
 *
 * on_accept is called, with vmm_lock held, when the guest connects to
 * BRIG_READY_PORT. It owns `fd` (non-blocking) in any case and returns 0, or
 * -errno to refuse. A guest may cause it at any rate. It must not call back
 * into this module. */
void vsock_init(struct vsock *v, struct gmem *mem, int irq_fd, int epoll_fd,
		uint64_t tag, uint8_t *rings,
		int (*on_accept)(void *arg, uint32_t port, int fd), void *arg);

/* Starts a connection to `guest_port`. 0: *ret_fd is brigd's end, owned by
 * the caller and non-blocking; bytes may be written at once. It reads end of
 * file when the guest refuses or closes, or ECONNRESET when bytes of the caller
 * did not reach the guest; a guest that never answers is the caller's to
 * time out by closing, which cancels. -ENOTCONN: no driver; -EBUSY: all
 * connections are in use; or the error of socketpair or epoll_ctl. With
 * vmm_lock held. */
must_check int vsock_connect(struct vsock *v, uint32_t guest_port, int *ret_fd);

/* An epoll event of a connection; a stale one is harmless. Takes vmm_lock. */
void vsock_event(struct vsock *v, uint32_t index, uint32_t events);

/* Saves or loads the device, as virtio_state() says. Loading closes every
 * connection that there was (brigd reads end of file). vsock_connect() may be
 * called once it is loaded; virtio_restored() then tells the guest. */
void vsock_state(struct state_stream *s, struct vsock *v);

#endif
