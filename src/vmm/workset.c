/* workset.c - the pages that a guest needs first, made ready before it runs.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"
#include "num.h"
#include "wire/boot.h"
#include "workset.h"

/* --- include/uapi/linux/kvm.h of Linux 6.11 -------------------------------- */

struct pre_fault {
	uint64_t gpa;
	uint64_t size;
	uint64_t flags;
	uint64_t zero[5];
};

#define PRE_FAULT _IOWR(0xae, 0xd5, struct pre_fault)

/* --- watching --------------------------------------------------------------- */

/* A page that is read brings up to 15 neighbours from the page cache with it
 * ("fault-around"), but not where userfaultfd(2) might have to hear of each
 * page. So RAM is registered, and nothing is ever asked for: no page is
 * write-protected. The descriptor stays open as long as the process. */
int workset_watch(const struct memory *m)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register all = {
		.range = { (uintptr_t)m->host, m->bytes },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	long fd = syscall(SYS_userfaultfd,
			  O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0)
		return -errno;
	api.features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	if (ioctl((int)fd, UFFDIO_API, &api) < 0 ||
	    ioctl((int)fd, UFFDIO_REGISTER, &all) < 0) {
		int r = -errno;
		(void)close((int)fd);
		return r;
	}
	return 0;
}

/* --- writing ---------------------------------------------------------------- */

struct writer {
	int fd;
	struct vmm_pages run; /* not written yet, unless count is 0 */
	uint64_t bytes;
};

static int flush(struct writer *w)
{
	if (w->run.count == 0)
		return 0;
	int r = fd_write_all(w->fd, &w->run, sizeof(w->run));
	if (r == 0)
		w->bytes += sizeof(w->run);
	w->run.count = 0;
	return r;
}

static int add(struct writer *w, uint32_t page, enum memory_page kind)
{
	uint32_t flags = kind == MEMORY_PAGE_OWN ? VMM_PAGES_WRITTEN : 0;

	if (kind == MEMORY_PAGE_NONE)
		return 0;
	if (w->run.count > 0 && w->run.flags == flags &&
	    w->run.first + w->run.count == page) {
		w->run.count++;
		return 0;
	}
	int r = flush(w);
	w->run = (struct vmm_pages){ page, 1, flags, 0 };
	return r;
}

int workset_write(const struct memory *m, int fd, uint64_t *ret_bytes)
{
	static uint64_t words[4096];
	uint64_t pages = m->bytes / MEMORY_PAGE;
	struct writer w = { .fd = fd };
	int r = 0;

	for (uint64_t at = 0; at < pages && r == 0; at += ARRAY_LEN(words)) {
		size_t n = (size_t)u64_min(pages - at, ARRAY_LEN(words));
		r = memory_words(m, m->pagemap_fd, at, words, n);
		for (size_t i = 0; i < n && r == 0; i++)
			r = add(&w, (uint32_t)(at + i), memory_page(words[i]));
		if (w.bytes >= VMM_WORKING_SET_MAX * sizeof(w.run))
			break;
	}
	if (r == 0)
		r = flush(&w);
	*ret_bytes = w.bytes;
	return r;
}

/* --- making ready ------------------------------------------------------------ */

static int check(const struct memory *m, const struct vmm_pages *runs, size_t n)
{
	uint64_t pages = m->bytes / MEMORY_PAGE;
	uint64_t next = 0;

	for (size_t i = 0; i < n; i++) {
		const struct vmm_pages *p = &runs[i];
		if (p->first < next || p->first >= pages || p->count == 0 ||
		    p->count > pages - p->first || p->zero != 0 ||
		    (p->flags & ~(uint32_t)VMM_PAGES_WRITTEN) != 0)
			return -EBADMSG;
		next = (uint64_t)p->first + p->count;
	}
	return 0;
}

/* False: this kernel does not do that. The ioctl goes on where a signal
 * stopped it. */
static bool pre_fault(int vcpu_fd, uint64_t gpa, uint64_t bytes)
{
	struct pre_fault arg = { .gpa = gpa, .size = bytes };

	while (arg.size > 0) {
		uint64_t left = arg.size;
		if (ioctl(vcpu_fd, PRE_FAULT, &arg) < 0 && errno != EINTR)
			return false;
		if (arg.size >= left)
			return false;
	}
	return true;
}

/* Offsets in RAM are guest physical addresses, but for the hole below 4 GiB. */
static bool pre_fault_ram(int vcpu_fd, uint64_t at, uint64_t bytes)
{
	uint64_t low = at < BRIG_RAM_LOW_END
			       ? u64_min(bytes, BRIG_RAM_LOW_END - at)
			       : 0;
	uint64_t high = at + low - BRIG_RAM_LOW_END + BRIG_RAM_HIGH_START;

	return pre_fault(vcpu_fd, at, low) &&
	       (low == bytes || pre_fault(vcpu_fd, high, bytes - low));
}

/* What only a read would bring is left to the guest where it cannot be entered
 * into the nested page table ahead: the page itself is in memory already. */
static void apply(const struct memory *m, const struct vmm_pages *runs,
		  size_t n, int vcpu_fd)
{
	bool can = true;

	for (size_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)runs[i].first * MEMORY_PAGE;
		uint64_t bytes = (uint64_t)runs[i].count * MEMORY_PAGE;
		if ((runs[i].flags & VMM_PAGES_WRITTEN) != 0 &&
		    madvise(m->host + at, bytes, MADV_POPULATE_WRITE) < 0)
			return;
		can = can && pre_fault_ram(vcpu_fd, at, bytes);
	}
}

int workset_apply(const struct memory *m, int fd, int vcpu_fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < 0 ||
	    (uint64_t)st.st_size >
		    VMM_WORKING_SET_MAX * sizeof(struct vmm_pages))
		return -EFBIG;
	size_t bytes = (size_t)st.st_size;
	struct vmm_pages *runs = malloc(bytes + 1);
	if (runs == NULL)
		return -ENOMEM;
	ssize_t got = fd_pread_all(fd, runs, bytes, 0);
	size_t n = bytes / sizeof(*runs);
	int r = got < 0 ? (int)got : 0;
	if (r == 0 && ((size_t)got != bytes || bytes % sizeof(*runs) != 0))
		r = -EBADMSG;
	if (r == 0)
		r = check(m, runs, n);
	if (r == 0)
		apply(m, runs, n, vcpu_fd);
	free(runs);
	return r;
}
