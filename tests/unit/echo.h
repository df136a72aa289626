/* echo.h - the smallest device model: copies what it reads to what it may
 * write.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two queues of up to 8 entries; queue 0 is served, queue 1 only keeps count
 * of its kicks. Shared by unit tests and fuzz targets.
 */
#ifndef BRIG_TESTS_ECHO_H
#define BRIG_TESTS_ECHO_H

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ring.h"

#define ECHO_FEATURES (1ull << 5 | 1ull << 33)
#define ECHO_CONFIG_LEN 12u

struct echo {
	struct virtio_dev dev;
	int irq_fd;
	uint8_t config[ECHO_CONFIG_LEN + 8]; /* the rest must not be seen */
	struct queue_chain chain;
	bool refuse_activate;
	bool active;
	unsigned int activations;
	unsigned int resets;
	unsigned int kicks[2];
	unsigned int popped;    /* chains ever */
	unsigned int pops_once; /* most chains in one kick */
};

static inline int echo_activate(struct virtio_dev *d)
{
	struct echo *e = d->self;

	if (e->refuse_activate)
		return -EINVAL;
	if (e->active || !d->active)
		abort();
	e->active = true;
	e->activations++;
	return 0;
}

static inline bool echo_serve(struct echo *e)
{
	uint8_t buf[64];
	uint32_t done = 0;

	for (;;) {
		int64_t n = queue_chain_read(&e->chain, e->dev.mem, done, buf,
					     sizeof(buf));
		if (n > 0)
			n = queue_chain_write(&e->chain, e->dev.mem, done, buf,
					      (uint32_t)n);
		if (n < 0)
			abort(); /* it was checked when it was popped */
		if (n == 0)
			break;
		done += (uint32_t)n;
	}
	return virtio_push(&e->dev, 0, e->chain.head, done) == 0;
}

static inline void echo_notify(struct virtio_dev *d, unsigned int q)
{
	struct echo *e = d->self;
	unsigned int served = 0;

	if (!e->active || q > 1 || d->queues[q].size == 0)
		abort();
	e->kicks[q]++;
	while (q == 0 && served < d->queues[0].size &&
	       virtio_pop(d, 0, &e->chain) == 1) {
		if (!echo_serve(e))
			return;
		served++;
	}
	e->popped += served;
	if (served > e->pops_once)
		e->pops_once = served;
	virtio_interrupt(d, q);
}

static inline void echo_reset(struct virtio_dev *d)
{
	struct echo *e = d->self;

	if (!e->active)
		abort();
	e->active = false;
	e->resets++;
}

static const struct virtio_model echo_model = {
	.name = "echo",
	.id = VIRTIO_ID_RNG,
	.queue_max = { 8, 8 },
	.features = ECHO_FEATURES,
	.activate = echo_activate,
	.notify = echo_notify,
	.reset = echo_reset,
};

static inline void echo_init(struct echo *e, struct gmem *mem)
{
	memset(e, 0, sizeof(*e));
	for (uint8_t i = 0; i < sizeof(e->config); i++)
		e->config[i] = 0xc0 + i;
	e->irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (e->irq_fd < 0)
		abort();
	virtio_init(&e->dev, &echo_model, mem, e, e->config, ECHO_CONFIG_LEN,
		    e->irq_fd);
}

/* How often the interrupt was raised since the last call. */
static inline uint64_t echo_interrupts(struct echo *e)
{
	uint64_t n = 0;

	if (read(e->irq_fd, &n, sizeof(n)) != sizeof(n))
		return 0;
	return n;
}

#endif
