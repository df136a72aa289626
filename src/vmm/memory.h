/* memory.h - the RAM of the guest as mappings of this process.
 * SPDX-License-Identifier: Apache-2.0
 *
 * RAM is one reserved range of the process, low part first, so that a byte of
 * RAM has one offset, in the mapping and in files alike:
 *
 *   offset 0 ............ low part ........|...... high part ...... memory_mib
 *   guest  0 ............ BRIG_RAM_LOW_END | BRIG_RAM_HIGH_START ....
 *
 * The range never moves, so KVM's slots are set once, before there is a guest.
 * What lies in it changes: anonymous memory for a boot; for a restore a sealed
 * memfd, mapped privately, with a delta on top. Pages that the guest (or we)
 * wrote since are then exactly the anonymous ones, which is what a snapshot
 * has to write.
 *
 * Functions return 0 or -errno. The caller sees to it that nobody writes to
 * RAM meanwhile.
 */
#ifndef BRIG_VMM_MEMORY_H
#define BRIG_VMM_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "cc.h"
#include "gmem.h"

#define MEMORY_PAGE 4096u

/* A sealed file, to be known again. */
struct memory_file {
	uint64_t dev;
	uint64_t ino; /* 0: no file */
	struct timespec made;
};

struct memory {
	uint8_t *host;  /* owned mapping */
	uint64_t bytes; /* of RAM */
	bool inherits;  /* from a memfd: holes of a saved file are not zero */

	/* What memory_map() was given, and runs of the delta that it mapped. */
	struct memory_file base;
	struct memory_file delta;
	unsigned int mapped;
	int pagemap_fd; /* owned; -1: none */
};

/* Reserves the range and fills `map`. No memory is used yet. */
must_check int memory_reserve(struct memory *m, uint32_t mib, struct gmem *map);

/* Maps a saved machine's RAM over the range: `base_fd` all of it, and
 * `delta_fd` (-1: none) where that has data. Both must be memfds of exactly
 * the size of RAM with F_SEAL_SHRINK, GROW and WRITE: -EBADF otherwise, and
 * nothing has happened (C-20). Any number of runs in the delta costs bounded
 * mappings: small ones are copied, and memory_write() will write those again.
 * On another failure the range is unusable. The descriptors stay the
 * caller's. May be called again: what was written is gone. */
must_check int memory_map(struct memory *m, int base_fd, int delta_fd);

/* The same, for a machine that may have been mapped from these very files
 * before: then only the pages that were written since go, if
 * memory_prepare_reset() was called. */
must_check int memory_reset(struct memory *m, int base_fd, int delta_fd);

/* Opens what tells memory_reset() where pages were written, if it is not open;
 * without it, all pages go. `proc_fd` is VMM_FD_PROC. For a moment the process is dumpable: so
 * before there is a guest. */
void memory_prepare_reset(struct memory *m, int proc_fd);

/* What this process has of a page. */
enum memory_page {
	MEMORY_PAGE_NONE,
	MEMORY_PAGE_FILE, /* as the file has it */
	MEMORY_PAGE_OWN,  /* written since */
};

/* Reads what tells, one word for each of `n` pages from `page` on, and says
 * what a word means. -ENOTSUP: `pagemap_fd` is -1. */
must_check int memory_words(const struct memory *m, int pagemap_fd,
			    uint64_t page, uint64_t *words, size_t n);
enum memory_page memory_page(uint64_t word);

/* Writes all pages that differ from what memory_map() gave (after a boot: all
 * that are not zero) to the empty file `out_fd`, at their offsets, and sets
 * its size to that of RAM. `proc_fd` is VMM_FD_PROC. Meant for a forked child
 * of a paused machine, whose RAM stands still: this process must have one
 * thread. *ret_bytes: bytes written. */
must_check int memory_write(const struct memory *m, int proc_fd, int out_fd,
			    uint64_t *ret_bytes);

#endif
