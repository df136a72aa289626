/* claim.c - puts a guest into a shell: by a boot or from a saved machine.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "claim.h"
#include "control.h"
#include "fd.h"
#include "log.h"
#include "machine.h"
#include "num.h"
#include "workset.h"
#include "x86/boot.h"

#define SECTOR_BYTES 512u

/* --- what boot and restore share -------------------------------------------- */

static int map_console(struct machine *m, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size != (off_t)sizeof(struct vmm_console))
		return -EBADF;
	struct vmm_console *old = m->serial.console;
	if (old != NULL && m->console_dev == st.st_dev &&
	    m->console_ino == st.st_ino) {
		serial_set_console(&m->serial, old);
		return 0;
	}
	struct vmm_console *console =
		mmap(NULL, sizeof(*console), PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	if (console == MAP_FAILED)
		return -errno;
	m->console_dev = st.st_dev;
	m->console_ino = st.st_ino;
	serial_set_console(&m->serial, console);
	if (old != NULL)
		(void)munmap(old, sizeof(*old));
	return 0;
}

static int check_base(const struct machine *m, uint64_t base_bytes)
{
	if (base_bytes > m->config.disk_bytes ||
	    !is_aligned(base_bytes, SECTOR_BYTES))
		return -ERANGE;
	return 0;
}

/* What the disk takes over becomes -1. */
static int open_disk(struct machine *m, uint64_t base_bytes, int *base,
		     int *layers, uint32_t count, int *top)
{
	int r = cow_open(&m->disk, *base, base_bytes, layers, count, *top);

	if (r < 0)
		return r;
	*base = -1;
	*top = -1;
	for (uint32_t i = 0; i < count; i++)
		layers[i] = -1;
	return 0;
}

static void go(struct machine *m, bool paused)
{
	m->state = paused ? MACHINE_PAUSED : MACHINE_RUNNING;
	if (!paused)
		vcpu_resume_all(m->vcpus, m->config.vcpus);
}

/* --- boot --------------------------------------------------------------------- */

static int load_kernel(struct machine *m, const struct vmm_boot *b,
		       const int *fds)
{
	const struct boot_files files = { fds[VMM_BOOT_FD_KERNEL],
					  fds[VMM_BOOT_FD_INITRD] };
	bool verbose = b->flags & VMM_BOOT_CONSOLE_VERBOSE;
	struct boot_result entry;
	int r = boot_load(&m->mem, &files, m->config.vcpus, verbose, &entry);

	return r < 0 ? r : boot_set_registers(m->vcpus[0].fd, &entry);
}

static int check_boot(const struct machine *m, const struct vmm_boot *b,
		      size_t nfds)
{
	if ((b->flags & ~(uint32_t)VMM_BOOT_CONSOLE_VERBOSE) != 0 ||
	    b->layers > BRIG_LAYERS_MAX ||
	    nfds != (size_t)VMM_BOOT_FDS + b->layers)
		return -EPROTO;
	return check_base(m, b->base_bytes);
}

int claim_boot(struct machine *m, const struct vmm_boot *b, int *fds,
	       size_t nfds)
{
	if (m->state != MACHINE_SHELL)
		return -EBUSY;
	int r = check_boot(m, b, nfds);
	if (r == 0)
		r = map_console(m, fds[VMM_BOOT_FD_CONSOLE]);
	vcpu_pause_all(m->vcpus, m->config.vcpus);
	if (r == 0)
		r = load_kernel(m, b, fds);
	if (r == 0)
		r = open_disk(m, b->base_bytes, &fds[VMM_BOOT_FD_BASE],
			      &fds[VMM_BOOT_FDS], b->layers,
			      &fds[VMM_BOOT_FD_TOP]);
	if (r == 0)
		r = cow_find_blocks(&m->disk);
	if (r == 0)
		go(m, false);
	return r;
}

/* --- restore ------------------------------------------------------------------- */

/* Names for the descriptors of a restore, of which some are optional. */
struct restore_fds {
	int *state;
	int *memory;
	int *delta;   /* NULL: none */
	int *working; /* set of pages; NULL: none */
	int *console;
	int *base;
	int *layers; /* r->layers of them */
	int *top;
};

static int name_fds(const struct vmm_restore *r, int *fds, size_t nfds,
		    struct restore_fds *ret)
{
	const uint32_t known = VMM_RESTORE_DELTA | VMM_RESTORE_PAUSED |
			       VMM_RESTORE_WORKING_SET | VMM_RESTORE_REHEARSAL;
	bool delta = r->flags & VMM_RESTORE_DELTA;
	bool working = r->flags & VMM_RESTORE_WORKING_SET;

	if ((r->flags & ~known) != 0 || r->layers > BRIG_LAYERS_MAX ||
	    nfds != (size_t)VMM_RESTORE_FDS_MIN + delta + working + r->layers +
			    1)
		return -EPROTO;
	int *next = &fds[VMM_RESTORE_FDS_MIN];
	*ret = (struct restore_fds){
		.state = &fds[VMM_RESTORE_FD_STATE],
		.memory = &fds[VMM_RESTORE_FD_MEMORY],
		.console = &fds[VMM_RESTORE_FD_CONSOLE],
		.base = &fds[VMM_RESTORE_FD_BASE],
		.delta = delta ? next : NULL,
		.working = working ? next + delta : NULL,
		.layers = next + delta + working,
		.top = next + delta + working + r->layers,
	};
	return 0;
}

/* Reads the state file, once: what is checked is a copy. */
static int read_state(struct machine *m, int fd, size_t *ret_bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADF;
	if (st.st_size < 0 || (uint64_t)st.st_size > SAVE_STATE_BYTES_MAX)
		return -EFBIG;
	ssize_t n = fd_pread_all(fd, m->save.buf, (size_t)st.st_size, 0);
	if (n < 0)
		return (int)n;
	*ret_bytes = (size_t)n;
	return 0;
}

static int load_state(struct machine *m, size_t bytes)
{
	struct state_stream s;

	state_load(&s, m->save.buf, bytes);
	save_state(&s, m, &m->x86);
	int r = state_finish(&s, NULL);
	if (r < 0)
		log_error("state refused: %s at %s", strerrordesc_np(-r),
			  s.where);
	return r;
}

/* The files first, since the state is checked against them; none of it
 * reaches KVM here. */
static int load(struct machine *m, const struct vmm_restore *r,
		const struct restore_fds *f, bool again)
{
	int delta_fd = f->delta != NULL ? *f->delta : -1;
	size_t bytes = 0;
	int e = read_state(m, *f->state, &bytes);

	vcpu_pause_all(m->vcpus, m->config.vcpus); /* were told to stop */
	if (e == 0 && again)
		e = memory_reset(&m->memory, *f->memory, delta_fd);
	else if (e == 0)
		e = memory_map(&m->memory, *f->memory, delta_fd);
	if (e == 0)
		e = open_disk(m, r->base_bytes, f->base, f->layers, r->layers,
			      f->top);
	if (e == 0)
		e = map_console(m, *f->console);
	if (e == 0)
		e = load_state(m, bytes);
	return e;
}

static int set_vcpus(struct machine *m)
{
	bool fresh = m->state == MACHINE_SHELL && m->fresh_known;
	const struct x86_machine *have = fresh ? &m->fresh : NULL;
	int fds[BRIG_VCPUS_MAX];

	for (unsigned int i = 0; i < m->config.vcpus; i++)
		fds[i] = m->vcpus[i].fd;
	return x86_set(&m->x86, have, m->vm_fd, fds, m->config.vcpus);
}

/* Interrupts and kicks that were on their way when the machine was saved. */
static void wake_devices(struct machine *m)
{
	serial_restored(&m->serial);
	for (unsigned int i = 0; i < BRIG_MMIO_SLOTS; i++) {
		if (m->bus.slots[i] != NULL)
			virtio_restored(m->bus.slots[i]);
	}
}

/* What does not work here is no reason to fail. */
static void prepare_pages(struct machine *m, bool rehearsal, const int *fd)
{
	int r = 0;

	if (rehearsal) {
		memory_prepare_reset(&m->memory, VMM_FD_PROC);
		r = workset_watch(&m->memory);
	}
	if (!rehearsal && fd != NULL)
		r = workset_apply(&m->memory, *fd, m->vcpus[0].fd);
	if (r < 0)
		log_warn("working set: %s; going on", strerrordesc_np(-r));
}

int claim_restore(struct machine *m, const struct vmm_restore *r, int *fds,
		  size_t nfds, bool again)
{
	bool paused = r->flags & VMM_RESTORE_PAUSED;
	struct restore_fds f;
	int e = name_fds(r, fds, nfds, &f);

	if (again != (m->state != MACHINE_SHELL) || m->save.report_fd >= 0)
		return -EBUSY;
	if (e == 0)
		e = check_base(m, r->base_bytes);
	if (e < 0)
		return e;
	vcpu_stop_all(m->vcpus, m->config.vcpus);
	e = load(m, r, &f, again);
	if (e == 0)
		e = set_vcpus(m);
	if (e < 0)
		return e;
	wake_devices(m);
	prepare_pages(m, r->flags & VMM_RESTORE_REHEARSAL, f.working);
	go(m, paused);
	return 0;
}
