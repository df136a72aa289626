/* rng.h - virtio entropy device (virtio 1.2, 5.4).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Random bytes come from the host's getrandom at the moment they are asked
 * for; none are kept, so two copies of this process never give the same.
 *
 * A token bucket of RNG_BURST_BYTES that fills at RNG_BYTES_PER_S limits what
 * one guest takes. A request gets what is left in the bucket, at most
 * RNG_REQUEST_BYTES_MAX and always at least one byte, as 5.4.6.2 demands; a
 * guest that asks for more than the rate thus gets short answers and no wait.
 *
 * All fields belong to vmm_lock.
 */
#ifndef BRIG_VMM_DEV_RNG_H
#define BRIG_VMM_DEV_RNG_H

#include <stdint.h>

#include "../virtio/virtio.h"

#define RNG_REQUEST_BYTES_MAX (64u << 10)
#define RNG_BYTES_PER_S (1u << 20)
#define RNG_BURST_BYTES (256u << 10)

struct rng {
	struct virtio_dev dev;
	uint64_t tokens;    /* bytes, at most RNG_BURST_BYTES */
	uint64_t filled_ns; /* CLOCK_MONOTONIC up to which tokens are paid */

	/* scratch of the request in hand */
	struct queue_chain chain;
	uint8_t bytes[4096];
};

/* Prepares the device with a full bucket; borrows all it is given. */
void rng_init(struct rng *r, struct gmem *mem, int irq_fd);

/* Saves or loads the device, as virtio_state() says. The bucket keeps its level
 * and earns nothing for the time between. */
void rng_state(struct state_stream *s, struct rng *r);

#endif
