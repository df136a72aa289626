/* save.c - a machine into a state file and a memory file, while it runs on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "fd.h"
#include "log.h"
#include "machine.h"
#include "save.h"

/* Descriptors of the child; VMM_FD_PROC stays where it is. */
enum child_fd {
	CHILD_FD_STATE = VMM_FD_CONFIG,
	CHILD_FD_MEMORY = VMM_FD_CONTROL,
	CHILD_FD_REPORT = VMM_FD_KVM,
};

#define KNOWN_FLAGS ((uint32_t)VMM_SAVE_STAY_PAUSED | VMM_SAVE_DISK)

/* Ends of the socket pair between us and the child. */
enum {
	PARENT,
	CHILD
};

struct report {
	int32_t error; /* 0 or -errno */
	uint32_t zero;
	struct vmm_saved saved;
};

int save_init(struct save *s)
{
	void *p = mmap(NULL, SAVE_STATE_BYTES_MAX, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	/* Children are not waited for: a pipe tells their end. */
	if (signal(SIGCHLD, SIG_IGN) == SIG_ERR)
		return -errno;
	*s = (struct save){ .buf = p, .report_fd = -1 };
	return 0;
}

void save_state(struct state_stream *s, struct machine *m,
		struct x86_machine *x)
{
	const struct vmm_config *c = &m->config;
	struct vmm_config is = *c;

	state_begin(s, "machine", 1);
	state_u32(s, "vcpus", &is.vcpus, c->vcpus, c->vcpus);
	state_u32(s, "memory_mib", &is.memory_mib, c->memory_mib,
		  c->memory_mib);
	state_u64(s, "disk_bytes", &is.disk_bytes, c->disk_bytes,
		  c->disk_bytes);
	x86_state(s, x, c->vcpus, vcpu_cpuid());
	serial_state(s, &m->serial);
	cow_state(s, &m->disk);
	blk_state(s, &m->blk);
	vsock_state(s, &m->vsock);
	rng_state(s, &m->rng);
	state_end(s);
}

/* --- the child ------------------------------------------------------------------ */

static int write_state(struct machine *m, uint64_t *ret_bytes)
{
	struct state_stream s;
	size_t bytes = 0;

	state_save(&s, m->save.buf, SAVE_STATE_BYTES_MAX);
	save_state(&s, m, &m->x86);
	int r = state_finish(&s, &bytes);
	if (r < 0)
		log_error("state not saved: %s at %s", strerrordesc_np(-r),
			  s.where);
	else
		r = fd_write_all(CHILD_FD_STATE, m->save.buf, bytes);
	*ret_bytes = bytes;
	return r;
}

/* Only what is needed stays open: nobody shall wait for the end of a socket
 * because we hold a copy of it. */
static int keep_fds(int state_fd, int memory_fd, int report_fd)
{
	if (dup2(state_fd, CHILD_FD_STATE) < 0 ||
	    dup2(memory_fd, CHILD_FD_MEMORY) < 0 ||
	    dup2(report_fd, CHILD_FD_REPORT) < 0)
		return -errno;
	return close_range(VMM_FD_END, UINT_MAX, 0) < 0 ? -errno : 0;
}

noreturn_fn static void child(struct machine *m, const struct vmm_saved *begun)
{
	struct report report = { .saved = *begun };
	int r = write_state(m, &report.saved.state_bytes);

	if (r == 0)
		r = memory_write(&m->memory, VMM_FD_PROC, CHILD_FD_MEMORY,
				 &report.saved.memory_bytes);
	report.error = r;
	r = fd_write_all(CHILD_FD_REPORT, &report, sizeof(report));
	_exit(r < 0);
}

/* On a machine that is busy a new process takes the processor on which a vCPU
 * would go on. So it waits for a byte from its parent, which comes after the
 * resume. The report goes the other way. */
static void wait_for_resume(const int *pair)
{
	uint8_t go;

	if (close(pair[PARENT]) < 0 || read(pair[CHILD], &go, 1) != 1)
		_exit(1);
}

static int fork_child(struct machine *m, const int *fds, const int *pair,
		      const struct vmm_saved *begun)
{
	pid_t pid = fork();

	if (pid == 0) {
		wait_for_resume(pair);
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
		    keep_fds(fds[VMM_SAVE_FD_STATE], fds[VMM_SAVE_FD_MEMORY],
			     pair[CHILD]) == 0)
			child(m, begun);
		_exit(1);
	}
	return pid < 0 ? -errno : 0;
}

/* --- the pause ------------------------------------------------------------------ */

static int read_vcpus(struct machine *m)
{
	int fds[BRIG_VCPUS_MAX];

	for (unsigned int i = 0; i < m->config.vcpus; i++)
		fds[i] = m->vcpus[i].fd;
	return x86_get(&m->x86, m->vm_fd, fds, m->config.vcpus);
}

/* What has to happen while nothing moves. */
static int freeze(struct machine *m, int *fds, const int *pair,
		  struct vmm_saved *ret)
{
	bool whole = pair[CHILD] >= 0;
	int r = whole ? read_vcpus(m) : 0;

	if (r < 0)
		return r;
	ret->layer_bytes = blk_layer_bytes(&m->blk);
	r = cow_seal(&m->disk, fds[VMM_SAVE_FD_TOP]);
	if (r < 0)
		return r;
	if (r > 0)
		fds[VMM_SAVE_FD_TOP] = -1; /* the disk's now */
	ret->layers = m->disk.sealed;
	return whole ? fork_child(m, fds, pair, ret) : 0;
}

static int let_child_go(struct machine *m, int fd)
{
	int r = machine_watch(m, fd, MACHINE_SAVED, 0);

	if (r < 0)
		return r;
	return send(fd, "", 1, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

int save_begin(struct machine *m, const struct vmm_msg *request, int *fds,
	       size_t nfds, uint64_t *ret_ns, struct vmm_saved *ret)
{
	const struct vmm_save *want = &request->u.save;
	bool stay = want->flags & VMM_SAVE_STAY_PAUSED;
	bool whole = !(want->flags & VMM_SAVE_DISK);

	if (m->state == MACHINE_SHELL || want->zero != 0 ||
	    (want->flags & ~KNOWN_FLAGS) != 0 ||
	    nfds != (whole ? VMM_SAVE_FDS : VMM_SAVE_DISK_FDS))
		return -EPROTO;
	if (m->save.report_fd >= 0)
		return -EBUSY;
	for (size_t i = 0; i < nfds; i++) {
		if (!is_file(fds[i]))
			return -EBADF;
	}
	int pair[2] = { -1, -1 };
	if (whole && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	uint64_t start = clock_ns(CLOCK_MONOTONIC);
	vcpu_pause_all(m->vcpus, m->config.vcpus);
	int r = freeze(m, fds, pair, ret);
	if (r == 0 && stay)
		m->state = MACHINE_PAUSED;
	if (m->state == MACHINE_RUNNING)
		vcpu_resume_all(m->vcpus, m->config.vcpus);
	*ret_ns = clock_ns(CLOCK_MONOTONIC) - start;
	m->save.seq = request->seq;
	fd_close(&pair[CHILD]);
	if (r == 0 && whole)
		r = let_child_go(m, pair[PARENT]);
	if (r == 0 && whole)
		m->save.report_fd = fd_take(&pair[PARENT]);
	fd_close(&pair[PARENT]);
	return r;
}

void save_ended(struct machine *m)
{
	struct report report;
	ssize_t n = fd_read_all(m->save.report_fd, &report, sizeof(report));

	fd_close(&m->save.report_fd);
	if (n != (ssize_t)sizeof(report))
		report = (struct report){ .error = -EIO };
	control_saved(m->save.seq, report.error, &report.saved);
}
