/* vcpu.c - one virtual processor: its thread and the loop around KVM_RUN.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All that a vCPU thread does is run the guest and hand its exits to the bus.
 * What the guest wrote into struct kvm_run is read once. An exit that we do
 * not know ends the machine with a reason: never a loop that spins.
 *
 * Pausing: KVM does the second half of a port or MMIO access (the value that
 * was read goes into a register) when KVM_RUN is entered again, before
 * anything else. With immediate_exit set it does just that and returns -EINTR
 * (api.rst, "KVM_RUN"). So -EINTR is the one place where a vCPU may park, and
 * the signal below is only there to get it out of the guest.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "num.h"
#include "stop.h"
#include "vcpu.h"
#include "wire/vmm.h"
#include "x86/cpuid.h"

/* Stack of a vCPU thread: it calls a handful of small functions. */
#define VCPU_STACK_BYTES (64u << 10)

/* Its handler does nothing: a pending signal takes a vCPU out of KVM_RUN. */
#define VCPU_SIGNAL SIGUSR1

/* vCPUs stop within some 20 us, a device's callback apart: about as long as it
 * takes to wake a thread that sleeps. So the pauser looks so often before it
 * sleeps. It does not yield: where others want the processor too, that would
 * be milliseconds. */
#define LOOKS_MAX 1000

static struct kvm_cpuid_table supported; /* by KVM; nent 0: not known yet */
static struct kvm_cpuid_table cpuid;     /* of vCPU 0 */

/* What keeps the vCPUs parked. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool paused;
	atomic_uint moving; /* threads that neither are parked nor ended;
			       written with the lock held */
} gate = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.paused = true,
};

void vcpu_supports(const struct kvm_cpuid_table *table)
{
	supported = *table;
}

static int give_cpuid(struct vcpu *v, int kvm_fd, unsigned int vcpus)
{
	static struct kvm_cpuid_table table;
	int r = 0;

	if (supported.nent == 0)
		r = kvm_supported_cpuid(kvm_fd, &supported);
	if (r < 0)
		return r;
	table = supported;
	cpuid_make(&table, v->id, vcpus);
	if (v->id == 0)
		cpuid = table;
	return kvm_set_cpuid(v->fd, &table);
}

int vcpu_create(struct vcpu *v, int kvm_fd, int vm_fd, unsigned int id,
		unsigned int vcpus, struct bus *bus)
{
	int bytes = kvm_vcpu_run_bytes(kvm_fd);

	if (bytes < 0)
		return bytes;
	v->id = id;
	v->bus = bus;
	v->fd = kvm_create_vcpu(vm_fd, id);
	if (v->fd < 0)
		return v->fd;
	v->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		      v->fd, 0);
	if (v->run == MAP_FAILED)
		return -errno;
	v->run->immediate_exit = 1; /* paused, like all others */
	return give_cpuid(v, kvm_fd, vcpus);
}

const struct kvm_cpuid_table *vcpu_cpuid(void)
{
	return &cpuid;
}

/* Port I/O: `count` units of `size` bytes lie in the shared page; string
 * instructions give more than one. */
static void port_io(struct vcpu *v)
{
	uint8_t *data = (uint8_t *)v->run + v->run->io.data_offset;
	uint8_t size = v->run->io.size;
	uint32_t count = v->run->io.count;

	for (uint32_t i = 0; i < count; i++, data += size) {
		if (v->run->io.direction == KVM_EXIT_IO_OUT)
			bus_port_write(v->bus, v->run->io.port, data, size);
		else
			bus_port_read(v->bus, v->run->io.port, data, size);
	}
}

static void mmio(struct vcpu *v)
{
	uint64_t at = v->run->mmio.phys_addr;
	uint32_t len = v->run->mmio.len;

	if (v->run->mmio.is_write)
		bus_mmio_write(v->bus, at, v->run->mmio.data, len);
	else
		bus_mmio_read(v->bus, at, v->run->mmio.data, len);
}

static void handle_exit(struct vcpu *v)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		port_io(v);
		return;
	case KVM_EXIT_MMIO:
		mmio(v);
		return;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return;
	case KVM_EXIT_SHUTDOWN:
		stop_machine(VMM_STOP_TRIPLE_FAULT, v->id);
		return;
	case KVM_EXIT_SYSTEM_EVENT:
		stop_machine(VMM_STOP_RESET, v->run->system_event.type);
		return;
	default:
		stop_machine(VMM_STOP_INTERNAL_ERROR, v->run->exit_reason);
		return;
	}
}

/* --- pausing --------------------------------------------------------------- */

/* Waits while the vCPUs are paused. No part of an exit is left to do. */
static void gate_pass(void)
{
	pthread_mutex_lock(&gate.lock);
	if (gate.paused) {
		if (--gate.moving == 0)
			pthread_cond_broadcast(&gate.changed);
		while (gate.paused)
			pthread_cond_wait(&gate.changed, &gate.lock);
		gate.moving++;
	}
	pthread_mutex_unlock(&gate.lock);
}

static void gate_leave(void)
{
	pthread_mutex_lock(&gate.lock);
	if (--gate.moving == 0)
		pthread_cond_broadcast(&gate.changed);
	pthread_mutex_unlock(&gate.lock);
}

static void set_paused(struct vcpu *vcpus, unsigned int n, bool paused)
{
	gate.paused = paused;
	for (unsigned int i = 0; i < n; i++)
		__atomic_store_n(&vcpus[i].run->immediate_exit, paused,
				 __ATOMIC_RELEASE);
}

void vcpu_stop_all(struct vcpu *vcpus, unsigned int n)
{
	pthread_mutex_lock(&gate.lock);
	if (!gate.paused) {
		set_paused(vcpus, n, true);
		for (unsigned int i = 0; i < n; i++) {
			if (vcpus[i].started)
				(void)pthread_kill(vcpus[i].thread,
						   VCPU_SIGNAL);
		}
	}
	pthread_mutex_unlock(&gate.lock);
}

void vcpu_pause_all(struct vcpu *vcpus, unsigned int n)
{
	vcpu_stop_all(vcpus, n);
	for (int i = 0; gate.moving > 0 && i < LOOKS_MAX; i++)
		__builtin_ia32_pause();
	pthread_mutex_lock(&gate.lock);
	while (gate.moving > 0)
		pthread_cond_wait(&gate.changed, &gate.lock);
	pthread_mutex_unlock(&gate.lock);
}

/* The threads are woken without the lock: else the first of them would sleep
 * again, on the lock, and get the processor a second time when all others have
 * had their turn. */
void vcpu_resume_all(struct vcpu *vcpus, unsigned int n)
{
	pthread_mutex_lock(&gate.lock);
	if (gate.paused) {
		for (unsigned int i = 0; i < n; i++) {
			int r = kvm_note_pause(vcpus[i].fd);
			(void)r; /* a guest without kvm-clock has no use */
		}
		set_paused(vcpus, n, false);
	}
	pthread_mutex_unlock(&gate.lock);
	pthread_cond_broadcast(&gate.changed);
}

/* --- the thread ------------------------------------------------------------ */

/* The first KVM_RUN comes back at once, since the vCPUs are paused. But it does
 * what KVM does only once, which so is over before there is a guest. */
static void *vcpu_loop(void *arg)
{
	struct vcpu *v = arg;

	do {
		int r = kvm_run_vcpu(v->fd);
		if (r == 0)
			handle_exit(v);
		else if (r == -EINTR)
			gate_pass();
		else if (r != -EAGAIN)
			stop_machine(VMM_STOP_INTERNAL_ERROR, (uint64_t)-r);
	} while (!stop_requested());
	gate_leave();
	return NULL;
}

static void do_nothing(int sig)
{
	(void)sig;
}

int vcpu_start(struct vcpu *v)
{
	struct sigaction act = {
		.sa_handler = do_nothing,
		.sa_flags = SA_RESTART, /* for what a device has under way */
	};
	pthread_attr_t attr;
	int r = sigaction(VCPU_SIGNAL, &act, NULL) < 0 ? errno : 0;

	if (r == 0)
		r = pthread_attr_init(&attr);
	if (r == 0)
		r = pthread_attr_setstacksize(&attr, VCPU_STACK_BYTES);
	if (r != 0)
		return -r;
	pthread_mutex_lock(&gate.lock);
	r = pthread_create(&v->thread, &attr, vcpu_loop, v);
	if (r == 0) {
		v->started = true;
		gate.moving++;
	}
	pthread_mutex_unlock(&gate.lock);
	return -r;
}
