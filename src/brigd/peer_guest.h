/* peer_guest.h - one connection to the agent in a guest (wire/guest.h).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Frames in and out of a non-blocking stream, with bounded memory in both
 * directions. The bytes are hostile; a frame that frame_take() refuses ends
 * the connection. Whether a frame makes sense at this point is the owner's
 * question.
 */
#ifndef BRIGD_PEER_GUEST_H
#define BRIGD_PEER_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "loop.h"

struct guest_conn;

struct guest_events {
	/* The payload is valid during the call only. */
	void (*on_frame)(void *arg, const struct frame *f);
	/* The connection is over: 0 at its end, -EPROTO, or another -errno.
	 * Called once, and not after guest_conn_close(); then close it. */
	void (*on_closed)(void *arg, int error);
	/* The bytes that waited for the guest are below GUEST_OUT_HIGH_BYTES
	 * again. May be NULL. */
	void (*on_writable)(void *arg);
};

/* Takes over `fd`, a stream socket. NULL: no memory (fd is closed). */
struct guest_conn *guest_conn_new(struct loop *loop, int fd,
				  const struct guest_events *events, void *arg);

/* Closes and frees. May be called from a callback. NULL is fine. */
void guest_conn_close(struct guest_conn *c);

/* Queues a frame. -ENOSPC when too much waits already: look at
 * guest_conn_full() before. */
must_check int guest_conn_send(struct guest_conn *c, enum guest_frame_type type,
			       const void *payload, size_t n);

/* Queues `n` bytes as frames of `type` (STDIN, DATA), each at most
 * BRIG_FRAME_DATA_MAX. */
must_check int guest_conn_send_data(struct guest_conn *c,
				    enum guest_frame_type type,
				    const void *bytes, size_t n);

/* True when writers should wait for on_writable. */
must_check bool guest_conn_full(const struct guest_conn *c);

/* Stops (or goes on) reading frames. Frames that were read already are given
 * out when reading goes on, never from within this call. */
void guest_conn_pause(struct guest_conn *c, bool paused);

#endif
