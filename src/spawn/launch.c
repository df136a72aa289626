/* launch.c - the microVMs that run: start, watch, clean up.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "fd.h"
#include "jail.h"
#include "kvm.h"
#include "launch.h"
#include "log.h"
#include "num.h"
#include "request.h"
#include "wire/vmm.h"

/* Of a cgroup that stays busy: 500 tries, 10 ms apart. */
#define CLEAN_TRIES 500
#define CLEAN_PAUSE_NS (10 * NS_PER_MS)

#define SLOT_BITS 12
static_assert(1u << SLOT_BITS == BRIG_SANDBOXES_MAX, "a handle holds a slot");

enum slot_state {
	SLOT_FREE,
	SLOT_RUNNING,
	SLOT_CLEANING,
	SLOT_LOST
};

struct slot {
	enum slot_state state;
	bool started; /* brigd knows the handle */
	bool reaped;
	int tries;
	uint32_t handle;
	pid_t pid;
	int pid_fd;
	int wait_status;
	struct loop_fd watch;    /* pid_fd */
	struct loop_timer timer; /* cleaning */
	char id[BRIG_ID_BYTES];
};

static struct launch_shared shared;
static struct slot slots[BRIG_SANDBOXES_MAX];
static uint32_t next_slot;
static uint32_t next_turn;

/* --- cleaning ------------------------------------------------------------- */

static void finish(struct slot *s, int error)
{
	if (error < 0)
		log_error("sandbox %s: cannot remove its cgroup: %s", s->id,
			  strerrordesc_np(-error));
	fd_close(&s->pid_fd);
	s->state = error < 0 ? SLOT_LOST : SLOT_FREE;
	if (s->started)
		shared.on_exited(s->handle, error, s->wait_status);
}

static void clean(struct slot *s)
{
	int r = -EBUSY;

	s->state = SLOT_CLEANING;
	if (!s->reaped)
		s->reaped = waitpid(s->pid, &s->wait_status, WNOHANG) != 0;
	if (s->reaped) {
		r = cgroup_kill(s->id);
		if (r == 0 || r == -ENOENT)
			r = cgroup_remove(s->id);
	}
	if (r < 0 && ++s->tries < CLEAN_TRIES)
		loop_timer_set(shared.loop, &s->timer, CLEAN_PAUSE_NS);
	else
		finish(s, r);
}

static void on_timer(struct loop_timer *t)
{
	clean(container_of(t, struct slot, timer));
}

static void on_process_end(struct loop_fd *watch, uint32_t events)
{
	(void)events;
	loop_del(shared.loop, watch);
	clean(container_of(watch, struct slot, watch));
}

static void kill_process(const struct slot *s)
{
	/* It is pid 1 of its namespace: with it go all others. */
	if (syscall(SYS_pidfd_send_signal, s->pid_fd, SIGKILL, NULL, 0) < 0 &&
	    errno != ESRCH)
		log_error("sandbox %s: cannot kill: %m", s->id);
}

/* --- starting ------------------------------------------------------------- */

static struct slot *find_slot(void)
{
	for (uint32_t i = 0; i < BRIG_SANDBOXES_MAX; i++) {
		uint32_t at = (next_slot + i) % BRIG_SANDBOXES_MAX;
		if (slots[at].state != SLOT_FREE)
			continue;
		next_slot = at + 1;
		return &slots[at];
	}
	return NULL;
}

static uint32_t slot_uid(const struct slot *s)
{
	return SPAWN_UID_BASE + (uint32_t)(s - slots);
}

static void take_slot(struct slot *s, const char *id)
{
	uint32_t index = (uint32_t)(s - slots);

	next_turn = next_turn % ((1u << (32 - SLOT_BITS)) - 1) + 1;
	*s = (struct slot){
		.state = SLOT_RUNNING,
		.handle = next_turn << SLOT_BITS | index,
		.pid_fd = -1,
		.watch = { .fd = -1, .on_event = on_process_end },
		.timer = { .on_expire = on_timer },
	};
	memcpy(s->id, id, sizeof(s->id));
}

/* A pipe that holds the configuration, for reading. */
static int config_pipe(const struct spawn_msg *m,
		       const struct cpuid_table *cpuid)
{
	const struct vmm_config config = {
		.magic = VMM_CONFIG_MAGIC,
		.version = VMM_CONFIG_VERSION,
		.vcpus = m->vcpus,
		.memory_mib = m->memory_mib,
		.disk_bytes = m->disk_bytes,
		.cpuid_entries = cpuid->entries,
	};
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	int r = fd_write_all(ends[1], &config, sizeof(config));
	if (r == 0)
		r = fd_write_all(ends[1], cpuid->entry,
				 cpuid->entries * sizeof(cpuid->entry[0]));
	fd_close(&ends[1]);
	if (r < 0)
		fd_close(&ends[0]);
	return r < 0 ? r : ends[0];
}

static int clone_child(struct slot *s, int cgroup_fd, const struct jail *j)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_INTO_CGROUP | CLONE_NEWNS |
			 CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
			 CLONE_NEWPID,
		.pidfd = (uint64_t)(uintptr_t)&s->pid_fd,
		.exit_signal = SIGCHLD,
		.cgroup = (unsigned int)cgroup_fd,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid < 0)
		return -errno;
	if (pid == 0)
		jail_run_vmm(j);
	s->pid = (pid_t)pid;
	return 0;
}

/* Waits for the end of the child's pipe, which is its exec, or for the step
 * that failed. */
static int wait_for_exec(const struct slot *s, int report_fd)
{
	struct pollfd p = { .fd = report_fd, .events = POLLIN };
	struct jail_failure f;
	int r;

	do
		r = poll(&p, 1, LAUNCH_DEADLINE_MS);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	ssize_t n = fd_read_all(report_fd, &f, sizeof(f));
	if (n == 0)
		return 0;
	if (n != (ssize_t)sizeof(f) || f.error <= 0)
		return -EPROTO;
	f.step[sizeof(f.step) - 1] = '\0';
	log_error("sandbox %s: %s: %s", s->id, f.step,
		  strerrordesc_np(f.error));
	return -f.error;
}

/* Clones the child and sees it through to its exec. */
static int start_process(struct slot *s, int cgroup_fd, struct jail *j)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	cleanup_fd int report_fd = ends[0];
	j->report_fd = ends[1];
	int r = clone_child(s, cgroup_fd, j);
	fd_close(&ends[1]);
	if (r < 0)
		return r;
	r = wait_for_exec(s, report_fd);
	return r < 0 ? r : loop_add(shared.loop, &s->watch, s->pid_fd, EPOLLIN);
}

static void abandon(struct slot *s)
{
	s->reaped = s->pid == 0; /* no process was made */
	if (!s->reaped)
		kill_process(s);
	clean(s);
}

int launch_start(const struct spawn_msg *m, const int *fds, size_t nfds,
		 struct spawn_msg *ret, int ret_fds[SPAWN_STARTED_FDS])
{
	const struct cgroup_limits limits = {
		.memory_mib = m->memory_mib,
		.cpu_quota_percent = m->cpu_quota_percent,
	};
	int r = request_check_start(m, nfds);

	if (r == 0)
		r = request_check_control(fds[0]);
	if (r < 0)
		return r;
	struct slot *s = find_slot();
	if (s == NULL)
		return -EAGAIN;
	cleanup_fd int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0)
		return -errno;
	cleanup_fd int config_fd = config_pipe(m, kvm_supported_cpuid(kvm_fd));
	if (config_fd < 0)
		return config_fd;
	cleanup_fd int cgroup_fd = -1;
	r = cgroup_make(m->id, &limits, &cgroup_fd);
	if (r < 0)
		return r;

	take_slot(s, m->id);
	struct jail j = {
		.vmm_fd = shared.vmm_fd,
		.null_fd = shared.null_fd,
		.fds = { [VMM_FD_CONFIG] = config_fd,
			 [VMM_FD_CONTROL] = fds[0],
			 [VMM_FD_KVM] = kvm_fd,
			 [VMM_FD_PROC] = -1 },
		.uid = slot_uid(s),
		.file_bytes =
			u64_max(m->disk_bytes, (uint64_t)m->memory_mib << 20),
	};
	r = start_process(s, cgroup_fd, &j);
	if (r < 0) {
		abandon(s);
		return r;
	}
	s->started = true;
	ret->handle = s->handle;
	ret->uid = slot_uid(s);
	ret_fds[0] = s->pid_fd;
	ret_fds[1] = fd_take(&cgroup_fd);
	return 0;
}

void launch_init(const struct launch_shared *s)
{
	shared = *s;
}

int launch_kill(uint32_t handle)
{
	struct slot *s = &slots[handle % BRIG_SANDBOXES_MAX];

	if (s->handle != handle ||
	    (s->state != SLOT_RUNNING && s->state != SLOT_CLEANING))
		return -ESRCH;
	if (s->state == SLOT_RUNNING) {
		kill_process(s);
		return cgroup_kill(s->id);
	}
	return 0;
}
