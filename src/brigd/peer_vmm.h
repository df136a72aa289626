/* peer_vmm.h - our side of the control socket of one brig-vmm (wire/vmm.h).
 * SPDX-License-Identifier: Apache-2.0
 *
 * The VMM may have been taken over by its guest: it can answer anything, late
 * or never. Calls are embedded in their owner and borrowed until on_reply or
 * vmm_peer_cancel(); on_reply is always called, at the latest when the peer
 * is closed.
 */
#ifndef BRIGD_PEER_VMM_H
#define BRIGD_PEER_VMM_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "wire/vmm.h"

struct vmm_peer;

struct vmm_call {
	/* 0 or -errno (-ETIMEDOUT: no answer; -EPIPE: VMM gone; -EPROTO). For
	 * VMM_CONNECT `fd` is then a stream socket, the callee's; else -1.
	 * `msg` is the reply, with u.stats or value as its type has it; NULL
	 * when there was none. */
	void (*on_reply)(struct vmm_call *call, int status, int fd,
			 const struct vmm_msg *msg);
	uint32_t seq;         /* of the message; read only */
	uint64_t deadline_ns; /* private */
	bool connect;         /* private: expects a descriptor */
	bool pending;
	struct vmm_call *next;
};

struct vmm_events {
	void (*on_ready)(void *arg, uint64_t ns);
	void (*on_running)(void *arg, uint64_t ns);
	void (*on_accept)(void *arg, uint32_t port, int *fd); /* fd_take */
	/* `seq` is that of the VMM_SAVE; status 0 or -errno. */
	void (*on_saved)(void *arg, uint32_t seq, int status,
			 const struct vmm_saved *saved);
	void (*on_stopped)(void *arg, int32_t reason);
	void (*on_closed)(void *arg); /* socket closed or nonsense on it */
};

/* Takes over `fd`, the control socket. NULL: no memory (fd is closed). */
struct vmm_peer *vmm_peer_new(struct loop *loop, int fd,
			      const struct vmm_events *events, void *arg);

/* Closes the socket, which ends the VMM; fails all calls with -EPIPE. May be
 * called from any of the callbacks. NULL is fine. */
void vmm_peer_close(struct vmm_peer *p);

/* 0, then on_reply is called later; or -errno, then it never is. */
must_check int vmm_peer_connect(struct vmm_peer *p, uint32_t port,
				struct vmm_call *call);
must_check int vmm_peer_stats(struct vmm_peer *p, struct vmm_call *call);

/* Sends `msg` with `nfds` descriptors (borrowed); its seq is set here. The
 * reply may take `timeout_s`. */
must_check int vmm_peer_send(struct vmm_peer *p, struct vmm_msg *msg,
			     const int *fds, size_t nfds,
			     unsigned int timeout_s, struct vmm_call *call);

/* Forgets a call; its reply is dropped. NULL peer is fine. */
void vmm_peer_cancel(struct vmm_peer *p, struct vmm_call *call);

#endif
