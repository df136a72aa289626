/* gmem.c - the one door to guest memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every access passes range(), which turns a hostile address and length into
 * a host pointer or into NULL. No host pointer leaves this file, but for the
 * iovec that the kernel alone will use.
 *
 * vCPUs write to this memory while we copy it. A copy may therefore mix old
 * and new bytes; that is harmless, because a guest could have written the
 * mixture itself. What must not happen is that the compiler fetches a byte a
 * second time after the caller checked the copy: hence the barrier after each
 * copy, which makes the private copy the only place where the value lives.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "gmem.h"
#include "num.h"

/* The host address of [at, at + n), which lies inside one region, or NULL.
 * An empty range has to start inside a region, too. */
static uint8_t *range(const struct gmem *g, gpa_t at, uint64_t n)
{
	uint64_t end;

	if (!u64_add(at.v, n, &end))
		return NULL;
	for (unsigned int i = 0; i < g->count; i++) {
		const struct gmem_region *r = &g->regions[i];

		if (at.v < r->start || at.v - r->start >= r->size)
			continue;
		/* `end` is not below `at`, which is not below `start` */
		return end - r->start <= r->size ? r->host + (at.v - r->start)
						 : NULL;
	}
	return NULL;
}

/* An aligned 16-bit field, or NULL. Regions are page-aligned on both sides,
 * so alignment in the guest is alignment here. */
static uint16_t *field_u16(const struct gmem *g, gpa_t at)
{
	if (!is_aligned(at.v, sizeof(uint16_t)))
		return NULL;
	return (uint16_t *)(void *)range(g, at, sizeof(uint16_t));
}

static void note_read(struct gmem *g, gpa_t at, size_t n)
{
#ifdef BRIG_TEST
	if (g->before_read != NULL)
		g->before_read(g, at, n);
	g->reads++;
#else
	(void)g;
	(void)at;
	(void)n;
#endif
}

int gmem_read(struct gmem *g, gpa_t at, void *to, size_t n)
{
	const uint8_t *from = range(g, at, n);

	if (from == NULL)
		return -EFAULT;
	note_read(g, at, n);
	memcpy(to, from, n);
	atomic_signal_fence(memory_order_seq_cst);
	return 0;
}

int gmem_write(struct gmem *g, gpa_t at, const void *from, size_t n)
{
	uint8_t *to = range(g, at, n);

	if (to == NULL)
		return -EFAULT;
	memcpy(to, from, n);
	atomic_signal_fence(memory_order_seq_cst);
	return 0;
}

int gmem_load_u16(struct gmem *g, gpa_t at, uint16_t *ret)
{
	const uint16_t *field = field_u16(g, at);

	if (field == NULL)
		return -EFAULT;
	note_read(g, at, sizeof(*field));
	*ret = __atomic_load_n(field, __ATOMIC_ACQUIRE);
	return 0;
}

int gmem_store_u16(struct gmem *g, gpa_t at, uint16_t v)
{
	uint16_t *field = field_u16(g, at);

	if (field == NULL)
		return -EFAULT;
	__atomic_store_n(field, v, __ATOMIC_RELEASE);
	return 0;
}

int gmem_iovec(struct gmem *g, gpa_t at, size_t n, struct iovec *ret)
{
	uint8_t *host = range(g, at, n);

	if (host == NULL || n == 0)
		return -EFAULT;
	*ret = (struct iovec){ .iov_base = host, .iov_len = n };
	return 0;
}
