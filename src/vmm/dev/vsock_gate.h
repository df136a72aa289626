/* vsock_gate.h - tells a restored guest that its vsock connections are gone.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A closed gate pushes one VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (virtio 1.2,
 * 5.10.6.7) as soon as the guest has given an event buffer, and opens when
 * the guest has handled it. While it is closed vsock.c gives the guest no
 * packet, for a new connection must not be taken for an old one.
 *
 * The driver of Linux handles an event first and then gives its buffer back
 * with a kick, so a buffer that was added since the event tells that it was
 * handled. A guest that never gives one keeps its own gate closed.
 */
#ifndef BRIG_VMM_DEV_VSOCK_GATE_H
#define BRIG_VMM_DEV_VSOCK_GATE_H

#include <stdint.h>

#include "../virtio/virtio.h"

enum vsock_gate_state {
	VSOCK_GATE_OPEN,
	VSOCK_GATE_UNTOLD, /* no event buffer yet */
	VSOCK_GATE_TOLD,   /* until the event buffer comes back */
};

struct vsock_gate {
	enum vsock_gate_state state;
	uint16_t avail; /* the event ring's available index when told */
};

/* The guest kicked event queue `q`, or it is served for the first time. `chain`
 * is scratch. 0; or negative, and the device needs a reset. */
must_check int vsock_gate_serve(struct vsock_gate *g, struct virtio_dev *d,
				unsigned int q, struct queue_chain *chain);

#endif
