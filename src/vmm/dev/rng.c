/* rng.c - virtio entropy device (virtio 1.2, 5.4).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <errno.h>
#include <sys/random.h>

#include "clock.h"
#include "num.h"
#include "rng.h"

/* --- token bucket --------------------------------------------------------- */

/* Pays for the time since the last call. A clock that stands still or goes
 * back pays nothing, and the time that is too short for a token is kept. */
static void rng_refill(struct rng *r)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (now <= r->filled_ns)
		return;
	uint64_t passed = now - r->filled_ns;
	if (passed >= NS_PER_S) {
		r->tokens = RNG_BURST_BYTES;
		r->filled_ns = now;
		return;
	}
	uint64_t earned = passed * RNG_BYTES_PER_S / NS_PER_S;
	r->tokens = u64_min(r->tokens + earned, RNG_BURST_BYTES);
	r->filled_ns += earned * NS_PER_S / RNG_BYTES_PER_S;
}

static_assert(RNG_BURST_BYTES <= RNG_BYTES_PER_S,
	      "one second fills the bucket");

static uint32_t rng_take(struct rng *r, uint32_t wanted)
{
	rng_refill(r);
	uint64_t n = u64_min(wanted, RNG_REQUEST_BYTES_MAX);
	n = u64_min(n, u64_max(r->tokens, 1));
	r->tokens -= u64_min(n, r->tokens);
	return (uint32_t)n;
}

/* --- device --------------------------------------------------------------- */

/* Fills the chain's first `n` bytes; how many it managed, or -errno. */
static int64_t rng_fill(struct rng *r, uint32_t n)
{
	uint32_t done = 0;

	while (done < n) {
		size_t here = u64_min(n - done, sizeof(r->bytes));
		ssize_t got = getrandom(r->bytes, here, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		int64_t put = queue_chain_write(&r->chain, r->dev.mem, done,
						r->bytes, (uint32_t)got);
		if (put < 0)
			return put;
		done += (uint32_t)put;
	}
	explicit_bzero(r->bytes, sizeof(r->bytes));
	return done;
}

/* One round serves at most a full ring; see blk_notify. */
static void rng_notify(struct virtio_dev *d, unsigned int q)
{
	struct rng *r = d->self;
	unsigned int served = 0;

	ASSERT(q == 0);
	while (served < d->queues[0].size && virtio_pop(d, 0, &r->chain) == 1) {
		uint32_t wanted = r->chain.writable_bytes;
		int64_t n = 0;
		if (wanted > 0)
			n = rng_fill(r, rng_take(r, wanted));
		if (n < 0) {
			virtio_needs_reset(d, "buffer not writable");
			return;
		}
		if (virtio_push(d, 0, r->chain.head, (uint32_t)n) < 0)
			return;
		served++;
	}
	if (served > 0)
		virtio_interrupt(d, 0);
}

static const struct virtio_model rng_model = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.queue_max = { QUEUE_SIZE_MAX },
	.notify = rng_notify,
};

void rng_init(struct rng *r, struct gmem *mem, int irq_fd)
{
	*r = (struct rng){
		.tokens = RNG_BURST_BYTES,
		.filled_ns = clock_ns(CLOCK_MONOTONIC),
	};
	virtio_init(&r->dev, &rng_model, mem, r, NULL, 0, irq_fd);
}

void rng_state(struct state_stream *s, struct rng *r)
{
	state_begin(s, "rng", 1);
	virtio_state(s, &r->dev);
	state_u64(s, "tokens", &r->tokens, 0, RNG_BURST_BYTES);
	state_end(s);
	if (s->loading)
		r->filled_ns = clock_ns(CLOCK_MONOTONIC);
}
