/* vm.c - brig-vmm as a benchmark sees it: shells, guests, saved machines.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "tests/bench/vm.h"

#define RAM_BYTES ((uint64_t)VM_MEMORY_MIB << 20)
#define ANSWER_TIMEOUT_NS (10ull * 1000 * 1000 * 1000)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static const char *vmm_path;
static const char *guest_path;

/* What brig-spawn does: asks KVM once, and tells every brig-vmm. */
static struct {
	uint32_t nent;
	uint32_t padding;
	struct kvm_cpuid_entry2 entries[VMM_CPUID_MAX];
} cpuid;

/* For results that are -1 and errno. */
static int ok(int r, const char *what)
{
	if (r < 0)
		die("%s: %m", what);
	return r;
}

/* For results that are -errno. */
static void must(int r, const char *what)
{
	if (r < 0)
		die("%s: %s", what, strerrordesc_np(-r));
}

void vm_programs(const char *vmm, const char *guest)
{
	vmm_path = vmm;
	guest_path = guest;
	cleanup_fd int kvm_fd =
		ok(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	cpuid.nent = ARRAY_LEN(cpuid.entries);
	(void)ok(ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid), "CPUID");
}

uint64_t clock_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- files ---------------------------------------------------------------- */

int file_new(const char *name)
{
	return ok(memfd_create(name, MFD_ALLOW_SEALING | MFD_CLOEXEC), name);
}

void file_seal(int fd)
{
	(void)ok(fcntl(fd, F_ADD_SEALS, SEALS), "F_ADD_SEALS");
}

void vm_files(struct vm *v)
{
	v->console_fd = file_new("console");
	v->base_fd = file_new("base");
	v->top_fd = file_new("top");
	(void)ok(ftruncate(v->console_fd, sizeof(*v->console)), "ftruncate");
	v->console = mmap(NULL, sizeof(*v->console), PROT_READ, MAP_SHARED,
			  v->console_fd, 0);
	if (v->console == MAP_FAILED)
		die("mmap: %m");
	v->seen = 0;
}

/* --- the process ------------------------------------------------------------ */

static int config_pipe(void)
{
	const struct vmm_config config = {
		.magic = VMM_CONFIG_MAGIC,
		.version = VMM_CONFIG_VERSION,
		.vcpus = 1,
		.memory_mib = VM_MEMORY_MIB,
		.disk_bytes = VM_DISK_BYTES,
		.cpuid_entries = cpuid.nent,
	};
	int ends[2];

	(void)ok(pipe2(ends, O_CLOEXEC), "pipe2");
	must(fd_write_all(ends[1], &config, sizeof(config)), "configuration");
	must(fd_write_all(ends[1], cpuid.entries,
			  cpuid.nent * sizeof(cpuid.entries[0])),
	     "configuration");
	fd_close(&ends[1]);
	return ends[0];
}

/* So that no source of a dup2() is the target of another. */
static int move_up(int fd)
{
	int up = ok(fcntl(fd, F_DUPFD_CLOEXEC, VMM_FD_END), "F_DUPFD");

	fd_close(&fd);
	return up;
}

/* In the child of a vfork: system calls only. */
noreturn_fn static void become_vmm(const int *fds, size_t n)
{
	static char name[] = "brig-vmm";
	char *argv[] = { name, NULL };
	char *envp[] = { NULL };

	for (size_t i = 0; i < n; i++) {
		if (dup2(fds[i], VMM_FD_CONFIG + (int)i) < 0)
			_exit(127);
	}
	(void)execve(vmm_path, argv, envp);
	_exit(127);
}

void vm_start(struct vm *v)
{
	int pair[2];

	(void)ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair),
		 "socketpair");
	int fds[] = {
		move_up(config_pipe()),
		move_up(pair[1]),
		move_up(ok(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm")),
		move_up(ok(open("/proc", O_PATH | O_CLOEXEC), "/proc")),
	};
	v->control = pair[0];
	v->pid = ok(vfork(), "vfork");
	if (v->pid == 0)
		become_vmm(fds, ARRAY_LEN(fds));
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fd_close(&fds[i]);
}

void vm_kill(struct vm *v)
{
	(void)ok(kill(v->pid, SIGKILL), "kill");
}

void vm_end(struct vm *v)
{
	vm_kill(v);
	vm_reap(v);
}

void vm_reap(struct vm *v)
{
	(void)ok(waitpid(v->pid, NULL, 0), "waitpid");
	(void)munmap(v->console, sizeof(*v->console));
	fd_close(&v->control);
	fd_close(&v->console_fd);
	fd_close(&v->base_fd);
	fd_close(&v->top_fd);
}

/* --- conversation ----------------------------------------------------------- */

struct vmm_msg vm_expect(struct vm *v, enum vmm_msg_type type)
{
	struct vmm_msg msg;
	size_t nfds = 0;

	for (;;) {
		ssize_t n = fd_recv_packet(v->control, &msg, sizeof(msg), NULL,
					   0, &nfds);
		if (n != (ssize_t)sizeof(msg))
			die("brig-vmm is gone");
		if (msg.type == VMM_STOPPED || msg.status < 0)
			die("brig-vmm: type=%u status=%d detail=%" PRIu64,
			    msg.type, msg.status, msg.value);
		if (msg.type == type)
			return msg;
	}
}

static void ask(struct vm *v, const struct vmm_msg *msg, const int *fds,
		size_t nfds)
{
	must(fd_send_packet(v->control, msg, sizeof(*msg), fds, nfds),
	     "control socket");
}

void vm_boot(struct vm *v)
{
	const struct vmm_msg msg = { .type = VMM_BOOT };
	cleanup_fd int kernel_fd =
		ok(open(guest_path, O_RDONLY | O_CLOEXEC), guest_path);
	cleanup_fd int initrd_fd = file_new("initrd");
	const int fds[VMM_BOOT_FDS] = {
		[VMM_BOOT_FD_KERNEL] = kernel_fd,
		[VMM_BOOT_FD_INITRD] = initrd_fd,
		[VMM_BOOT_FD_CONSOLE] = v->console_fd,
		[VMM_BOOT_FD_BASE] = v->base_fd,
		[VMM_BOOT_FD_TOP] = v->top_fd,
	};

	ask(v, &msg, fds, VMM_BOOT_FDS);
	(void)vm_expect(v, VMM_RUNNING);
	while (__atomic_load_n(&v->console->written, __ATOMIC_ACQUIRE) < 3)
		(void)usleep(1000); /* "up\n" */
	v->seen = 3;
}

void vm_restore(struct vm *v, enum vmm_msg_type type, const struct image *from,
		int delta_fd)
{
	const struct vmm_msg msg = {
		.type = type,
		.u.restore.flags = VMM_RESTORE_DELTA,
	};
	const int fds[] = {
		[VMM_RESTORE_FD_STATE] = from->state_fd,
		[VMM_RESTORE_FD_MEMORY] = from->memory_fd,
		[VMM_RESTORE_FD_CONSOLE] = v->console_fd,
		[VMM_RESTORE_FD_BASE] = v->base_fd,
		[VMM_RESTORE_FDS_MIN] = delta_fd,
		[VMM_RESTORE_FDS_MIN + 1] = v->top_fd,
	};

	ask(v, &msg, fds, ARRAY_LEN(fds));
}

void vm_await(struct vm *v, uint32_t answer)
{
	uint16_t said = 0;

	/* Not by looking all the time from the start: the monitor has two
	 * threads, and the development machine has two processors. */
	(void)vm_expect(v, VMM_RUNNING);
	uint64_t end = clock_ns() + ANSWER_TIMEOUT_NS;
	while (__atomic_load_n(&v->console->written, __ATOMIC_ACQUIRE) <
	       v->seen + sizeof(said)) {
		if (clock_ns() > end)
			die("the guest does not answer");
		(void)sched_yield();
	}
	for (size_t i = 0; i < sizeof(said); i++, v->seen++)
		said |= (uint16_t)(v->console->data[v->seen %
						    BRIG_CONSOLE_RING_BYTES]
				   << (8 * i));
	if (said != (uint16_t)answer)
		die("the guest said %#x instead of %#x", said, answer);
}

/* --- questions ---------------------------------------------------------------- */

uint32_t question_write(int fd, uint32_t dirty_pages, bool then_halt)
{
	uint8_t page[4096] = { 0 };
	struct question q;

	if (getrandom(&q, sizeof(q), 0) != (ssize_t)sizeof(q))
		die("getrandom: %m");
	q.dirty_pages = dirty_pages;
	q.then_halt = then_halt;
	memcpy(page, &q, sizeof(q));
	if (pwrite(fd, page, sizeof(page), QUESTION_AT) !=
	    (ssize_t)sizeof(page))
		die("question: %m");
	return q.a * q.b;
}

static void copy_data(int from, int to)
{
	static uint8_t buf[1 << 16];
	off_t end = 0;

	for (;;) {
		off_t at = lseek(from, end, SEEK_DATA);
		if (at < 0)
			return; /* ENXIO: no more */
		end = ok((int)lseek(from, at, SEEK_HOLE), "SEEK_HOLE");
		while (at < end) {
			size_t n = sizeof(buf);
			if (end - at < (off_t)n)
				n = (size_t)(end - at);
			if (pread(from, buf, n, at) != (ssize_t)n ||
			    pwrite(to, buf, n, at) != (ssize_t)n)
				die("copy of a delta: %m");
			at += (off_t)n;
		}
	}
}

int question_make(uint32_t dirty_pages, int delta_fd, uint32_t *ret_answer)
{
	int fd = file_new("delta");

	(void)ok(ftruncate(fd, (off_t)RAM_BYTES), "ftruncate");
	if (delta_fd >= 0)
		copy_data(delta_fd, fd);
	*ret_answer = question_write(fd, dirty_pages, true);
	file_seal(fd);
	return fd;
}

/* --- saved machines ------------------------------------------------------------- */

void vm_save(struct vm *v, uint32_t flags, int state_fd, int memory_fd)
{
	const struct vmm_msg msg = { .type = VMM_SAVE, .u.save.flags = flags };
	cleanup_fd int top_fd = file_new("top");
	const int fds[VMM_SAVE_FDS] = {
		[VMM_SAVE_FD_STATE] = state_fd,
		[VMM_SAVE_FD_MEMORY] = memory_fd,
		[VMM_SAVE_FD_TOP] = top_fd,
	};

	ask(v, &msg, fds, VMM_SAVE_FDS);
}

struct vmm_saved vm_save_image(struct vm *v, uint32_t flags, struct image *ret)
{
	*ret = (struct image){ file_new("state"), file_new("memory") };
	vm_save(v, flags, ret->state_fd, ret->memory_fd);
	return vm_expect(v, VMM_SAVED).u.saved;
}

void vm_resume(struct vm *v)
{
	const struct vmm_msg msg = { .type = VMM_RESUME };

	ask(v, &msg, NULL, 0);
	(void)vm_expect(v, VMM_REPLY);
}

void image_close(struct image *image)
{
	fd_close(&image->state_fd);
	fd_close(&image->memory_fd);
}

/* --- memory ------------------------------------------------------------------- */

static bool is_ram(const char *line)
{
	uint64_t start, end;

	if (strstr(line, "/memfd:") != NULL && strstr(line, "console") == NULL)
		return true;
	return sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2 &&
	       end - start == RAM_BYTES;
}

uint64_t vm_own_memory(const struct vm *v)
{
	char path[64];
	char line[512];
	bool counts = false;
	uint64_t bytes = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/smaps", v->pid);
	FILE *f = fopen(path, "re");
	if (f == NULL)
		die("%s: %m", path);
	while (fgets(line, sizeof(line), f) != NULL) {
		uint64_t kib;
		uint64_t end;
		if (sscanf(line, "%*x-%" SCNx64, &end) == 1)
			counts = !is_ram(line);
		else if (counts &&
			 (sscanf(line, "Private_Clean: %" SCNu64, &kib) == 1 ||
			  sscanf(line, "Private_Dirty: %" SCNu64, &kib) == 1))
			bytes += kib << 10;
	}
	(void)fclose(f);
	return bytes;
}
