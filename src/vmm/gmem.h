/* gmem.h - the one door to guest memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A guest physical address is a gpa_t, which cannot be dereferenced. All
 * accesses name an address and a length; both are taken to be hostile. A
 * range must lie inside one region: whatever wraps, starts or ends outside,
 * or crosses from one region into another (the hole below 4 GiB) is refused
 * with -EFAULT and touches nothing. vCPUs run while we read, so callers copy
 * a value once, check the copy, and use the copy.
 *
 * The map is fixed before the first vCPU runs; after that all functions may
 * be called from any thread.
 */
#ifndef BRIG_VMM_GMEM_H
#define BRIG_VMM_GMEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cc.h"

typedef struct {
	uint64_t v;
} gpa_t;

#define GPA(x) ((gpa_t){ (x) })

#define GMEM_REGIONS_MAX 2

struct gmem_region {
	uint64_t start; /* guest physical */
	uint64_t size;  /* bytes, a multiple of 4 KiB */
	uint8_t *host;  /* owned by whoever mapped it */
};

struct gmem {
	struct gmem_region regions[GMEM_REGIONS_MAX]; /* ascending, disjoint */
	unsigned int count;
#ifdef BRIG_TEST
	/* Called before each read of guest memory, so that a test can change
	 * what the next fetch sees (security.md A-07); may be NULL. */
	void (*before_read)(struct gmem *g, gpa_t at, size_t n);
	uint64_t reads; /* how many there were */
#endif
};

/* Copies `n` bytes out of guest memory; 0 or -EFAULT. n of 0 is allowed and
 * still checks the address. */
must_check int gmem_read(struct gmem *g, gpa_t at, void *to, size_t n);

/* Copies `n` bytes into guest memory; 0 or -EFAULT. */
must_check int gmem_write(struct gmem *g, gpa_t at, const void *from, size_t n);

/* One aligned 16-bit field of a ring, loaded with acquire order: what the
 * driver wrote before it is visible after. -EFAULT also when misaligned. */
must_check int gmem_load_u16(struct gmem *g, gpa_t at, uint16_t *ret);

/* The same stored with release order. */
must_check int gmem_store_u16(struct gmem *g, gpa_t at, uint16_t v);

/* Gives the host range of [at, at + n) for one preadv/pwritev/recv/send by
 * the kernel, which then is the only one that touches it. Never for reading
 * fields. 0 or -EFAULT; n must be at least 1. */
must_check int gmem_iovec(struct gmem *g, gpa_t at, size_t n,
			  struct iovec *ret);

#endif
