/* machine.c - one microVM: what it is made of, in guest-visible order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * machine_build() acquires everything that does not depend on a guest: the
 * range that will be its RAM, threads' stacks, eventfds, tables. claim.c then
 * puts a guest in, which brings the few files that a guest has; besides them,
 * only the sockets of vsock streams come and go.
 *
 * Order matters to KVM (performance.md has the figures): memory slots before
 * anything registers on its I/O bus, the irqchip before the first vCPU.
 *
 * The thread that called machine_run() is the device thread: one epoll set
 * with the ioeventfds of all queues, the sockets of vsock and the control
 * socket. Each vCPU has a thread of its own. What they share is behind
 * vmm_lock (virtio.h) or atomic.
 */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control.h"
#include "fd.h"
#include "log.h"
#include "machine.h"
#include "num.h"
#include "stop.h"

/* Where the linker put the program. */
extern const char __executable_start;
extern const char etext;

#define EVENTS_PER_ROUND 64
#define PAGE 4096u

/* Of a state file whose disk is not very fragmented. */
#define STATE_BYTES_USUAL(vcpus) (8192u + (vcpus)*10240u)

/* Intel only: three pages KVM needs for real mode, in the hole below 4 GiB. */
#define TSS_ADDRESS 0xfffbd000u

static void must(int r, const char *what)
{
	if (r < 0)
		die("%s: %s", what, strerrordesc_np(-r));
}

int machine_watch(struct machine *m, int fd, enum machine_event kind,
		  uint32_t index)
{
	struct epoll_event ev = {
		.events = EPOLLIN,
		.data.u64 = ((uint64_t)kind << 32) | index,
	};

	return epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static void *map_anonymous(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap of %zu bytes: %m", bytes);
	return p;
}

/* --- memory ---------------------------------------------------------------- */

static void give_memory_to_kvm(struct machine *m)
{
	for (uint32_t i = 0; i < m->mem.count; i++) {
		struct gmem_region *r = &m->mem.regions[i];
		must(kvm_set_memory(m->vm_fd, i, r->start, r->size, r->host),
		     "KVM_SET_USER_MEMORY_REGION");
	}
}

/* --- devices --------------------------------------------------------------- */

static int irq_line(struct machine *m, uint32_t gsi)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		die("eventfd: %m");
	must(kvm_add_irqfd(m->vm_fd, fd, gsi), "KVM_IRQFD");
	return fd;
}

static void build_serial(struct machine *m)
{
	serial_init(&m->serial, irq_line(m, BRIG_SERIAL_GSI));
	m->bus.serial = &m->serial;
}

/* Puts a device into its slot: an interrupt line and one ioeventfd a queue. */
static void attach(struct machine *m, unsigned int slot, struct virtio_dev *d)
{
	uint64_t notify = BRIG_MMIO_BASE +
			  (uint64_t)slot * BRIG_MMIO_SLOT_SIZE +
			  VIRTIO_MMIO_QUEUE_NOTIFY;

	for (unsigned int q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		if (d->model->queue_max[q] == 0)
			break;
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fd < 0)
			die("eventfd: %m");
		must(kvm_add_ioeventfd(m->vm_fd, fd, notify, q),
		     "KVM_IOEVENTFD");
		m->kick_fds[slot][q] = fd;
		must(machine_watch(m, fd, MACHINE_KICK,
				   slot * VIRTIO_QUEUES_MAX + q),
		     "epoll_ctl");
	}
	m->bus.slots[slot] = d;
}

static int slot_irq(struct machine *m, uint32_t slot)
{
	return irq_line(m, BRIG_MMIO_GSI_BASE + slot);
}

static void build_blk(struct machine *m)
{
	uint8_t *map = map_anonymous(cow_map_bytes(m->config.disk_bytes));

	must(cow_init(&m->disk, m->config.disk_bytes, map), "disk");
	blk_init(&m->blk, &m->disk, &m->mem, slot_irq(m, BRIG_SLOT_BLK));
	attach(m, BRIG_SLOT_BLK, &m->blk.dev);
}

static void build_vsock(struct machine *m)
{
	vsock_init(&m->vsock, &m->mem, slot_irq(m, BRIG_SLOT_VSOCK),
		   m->epoll_fd, (uint64_t)MACHINE_VSOCK << 32,
		   map_anonymous(VSOCK_BUFFERS_BYTES), control_accept, NULL);
	attach(m, BRIG_SLOT_VSOCK, &m->vsock.dev);
}

static void build_rng(struct machine *m)
{
	rng_init(&m->rng, &m->mem, slot_irq(m, BRIG_SLOT_RNG));
	attach(m, BRIG_SLOT_RNG, &m->rng.dev);
}

/* --- building -------------------------------------------------------------- */

static void build_vcpus(struct machine *m)
{
	must(x86_init(VMM_FD_KVM), "list of MSRs");
	for (unsigned int i = 0; i < m->config.vcpus; i++)
		must(vcpu_create(&m->vcpus[i], VMM_FD_KVM, m->vm_fd, i,
				 m->config.vcpus, &m->bus),
		     "vCPU");
}

/* They park until there is a guest. */
static void start_vcpus(struct machine *m)
{
	for (unsigned int i = 0; i < m->config.vcpus; i++)
		must(vcpu_start(&m->vcpus[i]), "vCPU thread");
}

static void touch(void *p, size_t bytes)
{
	uintptr_t start = (uintptr_t)p & ~(uintptr_t)(PAGE - 1);
	uintptr_t end = align_up((uintptr_t)p + bytes, PAGE);

	(void)madvise((void *)start, end - start, MADV_POPULATE_WRITE);
}

/* What every restore writes to, with one call: a fault takes 3 us. */
static void touch_machine(struct machine *m)
{
	touch(m, offsetof(struct machine, x86.vcpu[m->config.vcpus]));
}

static void touch_program(void)
{
	uintptr_t start = (uintptr_t)&__executable_start;
	uintptr_t end = (uintptr_t)&etext;

	(void)madvise((void *)start, align_up(end - start, PAGE),
		      MADV_POPULATE_READ);
}

static void read_fresh_vcpus(struct machine *m)
{
	int fds[BRIG_VCPUS_MAX];

	for (unsigned int i = 0; i < m->config.vcpus; i++)
		fds[i] = m->vcpus[i].fd;
	vcpu_pause_all(m->vcpus, m->config.vcpus);
	int r = x86_get(&m->fresh, m->vm_fd, fds, m->config.vcpus);
	m->fresh_known = r == 0;
}

/* What makes a claim faster and does not depend on it; for a shell that nobody
 * waits for. Page faults of what every restore touches, 4 us each; and what a
 * restore need not set. */
static void warm_up(struct machine *m)
{
	uint32_t vcpus = m->config.vcpus;

	touch_program();
	touch(m->save.buf, STATE_BYTES_USUAL(vcpus));
	read_fresh_vcpus(m);
	memory_prepare_reset(&m->memory, VMM_FD_PROC);
}

static bool is_asked(void)
{
	struct pollfd p = { .fd = VMM_FD_CONTROL, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static void watch_stop_and_control(struct machine *m)
{
	int stop_fd = stop_init();

	must(stop_fd, "eventfd");
	must(machine_watch(m, stop_fd, MACHINE_STOP, 0), "epoll_ctl");
	must(fd_set_nonblock(VMM_FD_CONTROL), "control socket");
	must(machine_watch(m, VMM_FD_CONTROL, MACHINE_CONTROL, 0),
	     "control socket");
}

void machine_build(struct machine *m, const struct vmm_config *config)
{
	m->config = *config;
	touch_machine(m);
	m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (m->epoll_fd < 0)
		die("epoll_create1: %m");
	must(kvm_check_version(VMM_FD_KVM), "KVM API version");
	m->vm_fd = kvm_create_vm(VMM_FD_KVM);
	must(m->vm_fd, "KVM_CREATE_VM");

	must(memory_reserve(&m->memory, config->memory_mib, &m->mem),
	     "guest memory");
	give_memory_to_kvm(m);
	must(kvm_set_tss_addr(m->vm_fd, TSS_ADDRESS), "KVM_SET_TSS_ADDR");
	must(kvm_create_irqchip(m->vm_fd), "KVM_CREATE_IRQCHIP");
	build_vcpus(m);
	start_vcpus(m);

	build_serial(m);
	build_blk(m);
	build_vsock(m);
	build_rng(m);
	must(save_init(&m->save), "buffer of the saved state");
	watch_stop_and_control(m);
}

/* --- running --------------------------------------------------------------- */

static void kicked(struct machine *m, uint32_t index)
{
	uint32_t slot = index / VIRTIO_QUEUES_MAX;
	uint32_t q = index % VIRTIO_QUEUES_MAX;
	uint64_t count;

	/* Clears the counter; how often the guest kicked does not matter. */
	if (read(m->kick_fds[slot][q], &count, sizeof(count)) > 0)
		virtio_kick(m->bus.slots[slot], q);
}

static void dispatch(struct machine *m, const struct epoll_event *ev)
{
	uint32_t index = (uint32_t)ev->data.u64;

	switch ((enum machine_event)(ev->data.u64 >> 32)) {
	case MACHINE_KICK:
		kicked(m, index);
		break;
	case MACHINE_VSOCK:
		vsock_event(&m->vsock, index, ev->events);
		break;
	case MACHINE_CONTROL:
		control_event(m);
		break;
	case MACHINE_SAVED:
		save_ended(m);
		break;
	case MACHINE_STOP:
		break; /* machine_run() asks stop_requested() */
	}
}

void machine_run(struct machine *m)
{
	struct epoll_event events[EVENTS_PER_ROUND];

	control_ready();
	if (!is_asked())
		warm_up(m);
	while (!stop_requested()) {
		int n = epoll_wait(m->epoll_fd, events, EVENTS_PER_ROUND, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait: %m");
		for (int i = 0; i < n; i++)
			dispatch(m, &events[i]);
	}
	control_stopped();
}
