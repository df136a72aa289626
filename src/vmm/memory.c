/* memory.c - the RAM of the guest as mappings of this process.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Which pages differ from a template is known to the kernel: a private mapping
 * of a file has its own, anonymous page wherever somebody wrote. So nothing is
 * tracked while the guest runs. Two interfaces tell: PAGEMAP_SCAN (Linux 6.7;
 * finds runs of pages) and, before it, one 64-bit word a page
 * (Documentation/admin-guide/mm/pagemap.rst has both). The headers that we are
 * built with are older than the first, hence the declarations here.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "memory.h"
#include "num.h"
#include "wire/boot.h"
#include "wire/limits.h"

#define PAGE MEMORY_PAGE
#define HUGE_PAGE (2u << 20)

/* Runs of a delta that are at least so long are mapped. A copy takes a page of
 * our own and 4 us for each page, a mapping 5 us and a little memory of
 * the kernel. */
#define MAP_RUN_BYTES (8ull * PAGE)

/* And not more of them: a process may have 65,530 mappings. */
#define MAP_RUNS_MAX 4096u

/* --- include/uapi/linux/fs.h of Linux 6.7 ---------------------------------- */

#define PAGE_IS_FILE (1ull << 2)
#define PAGE_IS_PRESENT (1ull << 3)
#define PAGE_IS_SWAPPED (1ull << 4)
#define PAGE_IS_PFNZERO (1ull << 5)

struct page_region {
	uint64_t start; /* addresses */
	uint64_t end;
	uint64_t categories;
};

struct pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)

/* --- a word of /proc/self/pagemap ------------------------------------------ */

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE (1ull << 61) /* or shared */

/* --- mapping --------------------------------------------------------------- */

/* Anonymous memory of `bytes` that begins at a huge page. */
static uint8_t *map_aligned(uint64_t bytes)
{
	uint64_t all = bytes + HUGE_PAGE;
	uint8_t *p = mmap(NULL, all, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	uint64_t skip = align_up((uintptr_t)p, HUGE_PAGE) - (uintptr_t)p;
	if (skip > 0)
		(void)munmap(p, skip);
	(void)munmap(p + skip + bytes, HUGE_PAGE - skip);
	return p + skip;
}

int memory_reserve(struct memory *m, uint32_t mib, struct gmem *map)
{
	uint64_t bytes = (uint64_t)mib << 20;
	uint64_t low = u64_min(bytes, BRIG_RAM_LOW_END);

	*m = (struct memory){
		.host = map_aligned(bytes),
		.bytes = bytes,
		.pagemap_fd = -1,
	};
	if (m->host == NULL)
		return -ENOMEM;
	/* Fewer faults here and in the nested page table; only a hint. */
	(void)madvise(m->host, bytes, MADV_HUGEPAGE);
	(void)madvise(m->host, bytes, MADV_DONTDUMP);
	*map = (struct gmem){ .count = 1 };
	map->regions[0] = (struct gmem_region){ .size = low, .host = m->host };
	if (bytes > low)
		map->regions[map->count++] = (struct gmem_region){
			.start = BRIG_RAM_HIGH_START,
			.size = bytes - low,
			.host = m->host + low,
		};
	return 0;
}

/* A memfd of `bytes` that nobody can write to, shrink or grow any more: what
 * we have checked stays true, and no page of it can fault (SIGBUS). */
static int check_sealed(int fd, uint64_t bytes, struct memory_file *ret)
{
	const int need = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || (seals & need) != need)
		return -EBADF;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != bytes)
		return -EBADF;
	*ret = (struct memory_file){ st.st_dev, st.st_ino, st.st_ctim };
	return 0;
}

static int check_files(const struct memory *m, int base_fd, int delta_fd,
		       struct memory_file *base, struct memory_file *delta)
{
	int r = check_sealed(base_fd, m->bytes, base);

	*delta = (struct memory_file){ 0 };
	if (r == 0 && delta_fd >= 0)
		r = check_sealed(delta_fd, m->bytes, delta);
	return r;
}

/* Of files that cannot be written to, the times cannot change either. */
static bool is_same(const struct memory_file *a, const struct memory_file *b)
{
	return a->dev == b->dev && a->ino == b->ino &&
	       a->made.tv_sec == b->made.tv_sec &&
	       a->made.tv_nsec == b->made.tv_nsec;
}

static int map_file(const struct memory *m, uint64_t at, uint64_t bytes, int fd)
{
	void *p = mmap(m->host + at, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, (off_t)at);

	return p == MAP_FAILED ? -errno : 0;
}

static int copy_file(const struct memory *m, uint64_t at, uint64_t bytes,
		     int fd)
{
	ssize_t n = fd_pread_all(fd, m->host + at, bytes, (off_t)at);

	if (n < 0)
		return (int)n;
	return (uint64_t)n == bytes ? 0 : -EIO;
}

/* The next run of data from `from` on; false: there is none. */
static bool next_run(int fd, uint64_t from, uint64_t *ret_start,
		     uint64_t *ret_end)
{
	off_t start = lseek(fd, (off_t)from, SEEK_DATA);

	if (start < 0)
		return false;
	off_t end = lseek(fd, start, SEEK_HOLE);
	if (end <= start)
		return false;
	*ret_start = (uint64_t)start;
	*ret_end = (uint64_t)end;
	return true;
}

/* The file cannot change, so this ends: each run begins past the last. With
 * `again` the runs that are mapped are in place. */
static int map_delta(struct memory *m, int fd, bool again)
{
	uint64_t start;
	uint64_t end = 0;

	m->mapped = 0;
	while (end < m->bytes && next_run(fd, end, &start, &end)) {
		int r = 0;
		if (end - start < MAP_RUN_BYTES || m->mapped == MAP_RUNS_MAX)
			r = copy_file(m, start, end - start, fd);
		else if (m->mapped++, !again)
			r = map_file(m, start, end - start, fd);
		if (r < 0)
			return r;
	}
	return 0;
}

int memory_map(struct memory *m, int base_fd, int delta_fd)
{
	struct memory_file base;
	struct memory_file delta;
	int r = check_files(m, base_fd, delta_fd, &base, &delta);

	if (r == 0)
		r = map_file(m, 0, m->bytes, base_fd);
	if (r < 0)
		return r;
	m->mapped = 0;
	if (delta_fd >= 0)
		r = map_delta(m, delta_fd, false);
	if (r < 0)
		return r;
	(void)madvise(m->host, m->bytes, MADV_DONTDUMP);
	m->inherits = true;
	m->base = base;
	m->delta = delta;
	return 0;
}

/* --- writing --------------------------------------------------------------- */

struct writer {
	const struct memory *m;
	int pagemap_fd;
	int out_fd;
	uint64_t bytes; /* written */
};

static int write_all(struct writer *w, uint64_t at, uint64_t end)
{
	while (at < end) {
		ssize_t n =
			pwrite(w->out_fd, w->m->host + at, end - at, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (uint64_t)n;
		w->bytes += (uint64_t)n;
	}
	return 0;
}

static bool is_zero_page(const uint8_t *p)
{
	/* Each byte equals the one before it, and the first is 0. */
	return p[0] == 0 && memcmp(p, p + 1, PAGE - 1) == 0;
}

/* [at, end) are anonymous pages. */
static int write_run(struct writer *w, uint64_t at, uint64_t end)
{
	uint64_t start = at;

	if (w->m->inherits)
		return write_all(w, at, end);
	for (; at < end; at += PAGE) {
		if (!is_zero_page(w->m->host + at))
			continue;
		int r = write_all(w, start, at);
		if (r < 0)
			return r;
		start = at + PAGE;
	}
	return write_all(w, start, end);
}

static struct pm_scan_arg anonymous_pages(const struct memory *m,
					  struct page_region *runs, size_t n)
{
	uint64_t base = (uintptr_t)m->host;

	return (struct pm_scan_arg){
		.size = sizeof(struct pm_scan_arg),
		.start = base,
		.walk_end = base,
		.end = base + m->bytes,
		.vec = (uintptr_t)runs,
		.vec_len = n,
		.category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_FILE,
	};
}

/* -ENOTTY: this kernel has no such ioctl. */
static int scan_runs(struct writer *w)
{
	static struct page_region runs[512];
	uint64_t base = (uintptr_t)w->m->host;
	struct pm_scan_arg arg = anonymous_pages(w->m, runs, ARRAY_LEN(runs));

	while (arg.walk_end < arg.end) {
		arg.start = arg.walk_end;
		int n = ioctl(w->pagemap_fd, PAGEMAP_SCAN, &arg);
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			int r = write_run(w, runs[i].start - base,
					  runs[i].end - base);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

enum memory_page memory_page(uint64_t word)
{
	if ((word & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) == 0)
		return MEMORY_PAGE_NONE;
	return (word & PAGEMAP_FILE) != 0 ? MEMORY_PAGE_FILE : MEMORY_PAGE_OWN;
}

int memory_words(const struct memory *m, int pagemap_fd, uint64_t page,
		 uint64_t *words, size_t n)
{
	uint64_t first = (uintptr_t)m->host / PAGE + page;

	if (pagemap_fd < 0)
		return -ENOTSUP;
	ssize_t got = fd_pread_all(pagemap_fd, words, n * sizeof(words[0]),
				   (off_t)(first * sizeof(words[0])));
	if (got < 0)
		return (int)got;
	return (size_t)got == n * sizeof(words[0]) ? 0 : -EIO;
}

/* The same from the words: `n` of them, for the pages from `at` on. */
static int write_words(struct writer *w, const uint64_t *words, size_t n,
		       uint64_t at)
{
	size_t i = 0;

	while (i < n) {
		size_t start = i;
		while (i < n && memory_page(words[i]) == MEMORY_PAGE_OWN)
			i++;
		if (i > start) {
			int r = write_run(w, at + start * PAGE, at + i * PAGE);
			if (r < 0)
				return r;
		} else {
			i++;
		}
	}
	return 0;
}

static int read_words(struct writer *w)
{
	static uint64_t words[4096];
	uint64_t pages = w->m->bytes / PAGE;

	for (uint64_t at = 0; at < pages; at += ARRAY_LEN(words)) {
		size_t n = (size_t)u64_min(pages - at, ARRAY_LEN(words));
		int r = memory_words(w->m, w->pagemap_fd, at, words, n);
		if (r == 0)
			r = write_words(w, words, n, at * PAGE);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Files of an undumpable process below /proc belong to root. */
static int open_pagemap(int proc_fd)
{
	int dumpable = prctl(PR_GET_DUMPABLE);
	int fd;

	if (dumpable != 1 && prctl(PR_SET_DUMPABLE, 1) < 0)
		return -errno;
	fd = openat(proc_fd, "self/pagemap", O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : fd;
	if (dumpable != 1)
		(void)prctl(PR_SET_DUMPABLE, 0);
	return r;
}

int memory_write(const struct memory *m, int proc_fd, int out_fd,
		 uint64_t *ret_bytes)
{
	cleanup_fd int pagemap_fd = open_pagemap(proc_fd);
	struct writer w = { m, pagemap_fd, out_fd, 0 };

	if (pagemap_fd < 0)
		return pagemap_fd;
	int r = scan_runs(&w);
	if (r == -ENOTTY || r == -EINVAL)
		r = read_words(&w);
	if (r == 0 && ftruncate(out_fd, (off_t)m->bytes) < 0)
		r = -errno;
	if (r == 0)
		*ret_bytes = w.bytes;
	return r;
}

/* --- going back ------------------------------------------------------------ */

/* Each is a system call and a look at KVM's mappings of its own. */
#define DROP_RUNS_MAX 128u

/* In a private mapping of a file, pages that are dropped come back as the file
 * has them. */
static int drop(const struct memory *m, uint64_t at, uint64_t bytes)
{
	return madvise(m->host + at, bytes, MADV_DONTNEED) < 0 ? -errno : 0;
}

/* Where there are many runs, or the kernel does not say which, all goes. */
static int drop_written(const struct memory *m)
{
	static struct page_region runs[DROP_RUNS_MAX];
	struct pm_scan_arg arg = anonymous_pages(m, runs, DROP_RUNS_MAX);
	uint64_t base = (uintptr_t)m->host;
	int r = 0;

	int n = ioctl(m->pagemap_fd, PAGEMAP_SCAN, &arg);
	if (n < 0 || arg.walk_end < arg.end)
		return drop(m, 0, m->bytes);
	for (int i = 0; i < n && r == 0; i++)
		r = drop(m, runs[i].start - base, runs[i].end - runs[i].start);
	return r;
}

void memory_prepare_reset(struct memory *m, int proc_fd)
{
	if (m->pagemap_fd < 0)
		m->pagemap_fd = open_pagemap(proc_fd);
}

int memory_reset(struct memory *m, int base_fd, int delta_fd)
{
	struct memory_file base;
	struct memory_file delta;
	int r = check_files(m, base_fd, delta_fd, &base, &delta);

	if (r < 0)
		return r;
	bool again = is_same(&m->delta, &delta);
	if (!m->inherits || !is_same(&m->base, &base) ||
	    (m->mapped > 0 && !again))
		return memory_map(m, base_fd, delta_fd);
	r = drop_written(m);
	if (r == 0 && delta_fd >= 0)
		r = map_delta(m, delta_fd, again);
	m->delta = delta;
	return r;
}
