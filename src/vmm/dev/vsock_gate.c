/* vsock_gate.c - tells a restored guest that its vsock connections are gone.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "vsock_gate.h"

/* virtio 1.2, 5.10.6.7: struct virtio_vsock_event, le32 id */
#define EVENT_BYTES 4u
#define EVENT_TRANSPORT_RESET 0u

/* Where the driver's available index of the event ring stands. */
static int event_avail(struct virtio_dev *d, unsigned int q, uint16_t *ret)
{
	int r = queue_avail_idx(&d->queues[q], d->mem, ret);

	if (r < 0)
		virtio_needs_reset(d, "vsock: bad event ring");
	return r;
}

/* Pushes the event if there is a buffer. The index is taken before: after the
 * push a guest may give the buffer back at any moment. */
static int tell(struct vsock_gate *g, struct virtio_dev *d, unsigned int q,
		struct queue_chain *chain)
{
	const uint32_t id = EVENT_TRANSPORT_RESET;
	int r = virtio_pop(d, q, chain);

	if (r <= 0)
		return r;
	if (chain->readable != 0 ||
	    queue_chain_write(chain, d->mem, 0, &id, EVENT_BYTES) !=
		    EVENT_BYTES) {
		virtio_needs_reset(d, "vsock: event buffer holds no event");
		return -EPROTO;
	}
	r = event_avail(d, q, &g->avail);
	if (r == 0)
		r = virtio_push(d, q, chain->head, EVENT_BYTES);
	if (r < 0)
		return r;
	g->state = VSOCK_GATE_TOLD;
	virtio_interrupt(d, q);
	return 0;
}

int vsock_gate_serve(struct vsock_gate *g, struct virtio_dev *d, unsigned int q,
		     struct queue_chain *chain)
{
	uint16_t avail;
	int r;

	switch (g->state) {
	case VSOCK_GATE_OPEN:
		return 0;
	case VSOCK_GATE_UNTOLD:
		return tell(g, d, q, chain);
	case VSOCK_GATE_TOLD:
		break;
	}
	r = event_avail(d, q, &avail);
	if (r == 0 && avail != g->avail)
		g->state = VSOCK_GATE_OPEN;
	return r;
}
