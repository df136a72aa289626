/* shell.c - one brig-vmm process: started, claimed, cleaned up behind.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fd.h"
#include "limits.h"
#include "log.h"
#include "shell.h"

static void kill_process(struct shell *shell);

/* --- The VMM's events, to whoever owns the shell -------------------------------- */

static void on_ready(void *arg, uint64_t ns)
{
	struct shell *shell = arg;

	if (shell->built)
		return;
	log_debug("shell=%s built in %llu ns of CPU", shell->id,
		  (unsigned long long)ns);
	shell->built = true;
	if (shell->events != NULL)
		shell->events->on_built(shell->arg);
}

static void on_running(void *arg, uint64_t ns)
{
	struct shell *shell = arg;

	log_debug("shell=%s vcpus run after %llu ns of CPU", shell->id,
		  (unsigned long long)ns);
	if (shell->events != NULL)
		shell->events->on_running(shell->arg);
}

static void on_accept(void *arg, uint32_t port, int *fd)
{
	struct shell *shell = arg;

	if (shell->events != NULL)
		shell->events->on_accept(shell->arg, port, fd);
}

static void on_saved(void *arg, uint32_t seq, int status,
		     const struct vmm_saved *saved)
{
	struct shell *shell = arg;

	if (shell->events != NULL)
		shell->events->on_saved(shell->arg, seq, status, saved);
}

static void on_stopped(void *arg, int32_t reason)
{
	struct shell *shell = arg;

	if (shell->events != NULL)
		shell->events->on_stopped(shell->arg, reason);
}

static void on_closed(void *arg)
{
	struct shell *shell = arg;

	if (shell->events != NULL)
		shell->events->on_closed(shell->arg);
}

static const struct vmm_events vmm_events = {
	.on_ready = on_ready,
	.on_running = on_running,
	.on_accept = on_accept,
	.on_saved = on_saved,
	.on_stopped = on_stopped,
	.on_closed = on_closed,
};

/* --- Ending ---------------------------------------------------------------------- */

static void close_process(struct shell *shell)
{
	loop_del(shell->set->loop, &shell->pid_source);
	fd_close(&shell->pidfd);
	fd_close(&shell->cgroup_fd);
}

static void release(struct shell *shell)
{
	struct shell_set *set = shell->set;
	struct spawn_peer *spawn = *set->spawn;

	loop_timer_del(set->loop, &shell->reap);
	vmm_peer_close(shell->vmm);
	if (spawn != NULL) {
		spawn_peer_cancel(spawn, &shell->start_call);
		spawn_peer_cancel(spawn, &shell->kill_call);
	}
	close_process(shell);
	LIST_REMOVE(shell, link);
	set->count--;
	free(shell);
}

static void process_gone(struct shell *shell)
{
	shell->process = PROCESS_NONE;
	close_process(shell);
	spawn_peer_cancel(*shell->set->spawn, &shell->kill_call);
	if (shell->vmm == NULL)
		loop_timer_set(shell->set->loop, &shell->reap, 0);
	else if (shell->events != NULL)
		shell->events->on_suspect(shell->arg);
}

/* Runs from the loop only: nothing up the stack holds on to it. */
static void on_reap(struct loop_timer *timer)
{
	struct shell *shell = container_of(timer, struct shell, reap);

	if (shell->process != PROCESS_NONE) {
		kill_process(shell);
		return;
	}
	const struct shell_events *events = shell->events;
	void *arg = shell->arg;
	release(shell);
	if (events != NULL)
		events->on_gone(arg);
}

static void on_killed(struct spawn_call *call, const struct spawn_msg *msg,
		      const int *fds, size_t nfds)
{
	struct shell *shell = container_of(call, struct shell, kill_call);

	(void)fds;
	(void)nfds;
	/* A brig-spawn that was restarted does not know our handle. */
	if (msg != NULL && (msg->status == -ENOENT || msg->status == -ESRCH))
		process_gone(shell);
}

static void kill_process(struct shell *shell)
{
	struct spawn_msg msg = { .type = SPAWN_KILL, .handle = shell->handle };

	loop_timer_set(shell->set->loop, &shell->reap, KILL_RETRY_S * NS_PER_S);
	if (shell->process != PROCESS_ALIVE || shell->kill_call.pending)
		return;
	int r = spawn_peer_send(*shell->set->spawn, &msg, NULL, 0,
				&shell->kill_call);
	if (r < 0)
		log_warn("shell=%s kill: %s; retrying", shell->id,
			 strerror(-r));
}

void shell_end(struct shell *shell)
{
	struct vmm_peer *vmm = shell->vmm;

	if (vmm == NULL)
		return;
	shell->vmm = NULL;
	vmm_peer_close(vmm);
	if (shell->process == PROCESS_ALIVE)
		kill_process(shell);
	else if (shell->process == PROCESS_NONE)
		loop_timer_set(shell->set->loop, &shell->reap, 0);
}

void shell_drop(struct shell *shell)
{
	if (shell == NULL)
		return;
	shell->events = NULL;
	shell_end(shell);
}

void shell_own(struct shell *shell, const struct shell_events *events,
	       void *arg)
{
	shell->events = events;
	shell->arg = arg;
}

static void on_pid(struct loop_fd *source, uint32_t events)
{
	struct shell *shell = container_of(source, struct shell, pid_source);

	(void)events;
	loop_del(shell->set->loop, source);
	if (shell->vmm != NULL && shell->events != NULL)
		shell->events->on_suspect(shell->arg);
}

void shell_set_exited(void *arg, uint32_t handle, int32_t wait_status)
{
	struct shell_set *set = arg;
	struct shell *shell;

	LIST_FOREACH(shell, &set->list, link) {
		if (shell->process == PROCESS_ALIVE && shell->handle == handle)
			break;
	}
	if (shell == NULL)
		return;
	log_info("shell=%s exited wait_status=%d", shell->id, wait_status);
	process_gone(shell);
}

/* --- Starting ---------------------------------------------------------------------- */

static void on_started(struct spawn_call *call, const struct spawn_msg *msg,
		       const int *fds, size_t nfds)
{
	struct shell *shell = container_of(call, struct shell, start_call);

	if (msg == NULL || msg->type != SPAWN_STARTED || msg->status < 0 ||
	    nfds != SPAWN_STARTED_FDS) {
		log_error("shell=%s spawn: %s", shell->id,
			  msg == NULL ? "connection lost"
				      : strerror(-msg->status));
		shell->process = PROCESS_NONE;
		if (shell->vmm == NULL)
			loop_timer_set(shell->set->loop, &shell->reap, 0);
		else if (shell->events != NULL)
			shell->events->on_closed(shell->arg);
		return;
	}
	shell->process = PROCESS_ALIVE;
	shell->handle = msg->handle;
	shell->pidfd = fds[0];
	shell->cgroup_fd = fds[1];
	int r = loop_add(shell->set->loop, &shell->pid_source, shell->pidfd,
			 EPOLLIN);
	if (r < 0)
		log_warn("shell=%s pidfd: %s; going on", shell->id,
			 strerror(-r));
	if (shell->vmm == NULL) /* ended in the meantime */
		kill_process(shell);
}

static int send_start(struct shell *shell, int control)
{
	struct spawn_msg msg = {
		.type = SPAWN_START,
		.vcpus = shell->kind.vcpus,
		.memory_mib = shell->kind.memory_mib,
		.disk_bytes = shell->kind.disk_bytes,
		.cpu_quota_percent = shell->kind.cpu_quota_percent,
	};

	if (*shell->set->spawn == NULL)
		return -ENOTCONN;
	memcpy(msg.id, shell->id, sizeof(msg.id));
	int r = spawn_peer_send(*shell->set->spawn, &msg, &control,
				SPAWN_START_FDS, &shell->start_call);
	if (r == 0)
		shell->process = PROCESS_STARTING;
	return r;
}

static struct shell *new_shell(struct shell_set *set)
{
	struct shell *shell = calloc(1, sizeof(*shell));

	if (shell == NULL)
		return NULL;
	shell->set = set;
	shell->pidfd = -1;
	shell->cgroup_fd = -1;
	shell->pid_source = (struct loop_fd){ .fd = -1, .on_event = on_pid };
	shell->start_call.on_reply = on_started;
	shell->kill_call.on_reply = on_killed;
	shell->reap.on_expire = on_reap;
	LIST_INSERT_HEAD(&set->list, shell, link);
	set->count++;
	return shell;
}

int shell_start(struct shell_set *set, const char id[BRIG_ID_BYTES],
		const struct shell_kind *kind,
		const struct shell_events *events, void *arg,
		struct shell **ret)
{
	int pair[2] = { -1, -1 };

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	cleanup_fd int theirs = pair[1];
	struct shell *shell = new_shell(set);
	if (shell == NULL) {
		fd_close(&pair[0]);
		return -ENOMEM;
	}
	memcpy(shell->id, id, sizeof(shell->id));
	shell->kind = *kind;
	shell_own(shell, events, arg);
	shell->vmm = vmm_peer_new(set->loop, pair[0], &vmm_events, shell);
	int r = shell->vmm == NULL ? -ENOMEM : send_start(shell, theirs);
	if (r < 0) {
		release(shell);
		return r;
	}
	*ret = shell;
	return 0;
}

bool shell_kind_equal(const struct shell_kind *a, const struct shell_kind *b)
{
	return a->vcpus == b->vcpus && a->memory_mib == b->memory_mib &&
	       a->cpu_quota_percent == b->cpu_quota_percent &&
	       a->disk_bytes == b->disk_bytes;
}

/* --- The set ------------------------------------------------------------------------ */

void shell_set_init(struct shell_set *set, struct loop *loop,
		    struct spawn_peer **spawn)
{
	*set = (struct shell_set){ .loop = loop, .spawn = spawn };
	LIST_INIT(&set->list);
}

void shell_set_fini(struct shell_set *set)
{
	struct shell *shell = LIST_FIRST(&set->list);

	while (shell != NULL) {
		struct shell *next = LIST_NEXT(shell, link);
		shell->events = NULL;
		release(shell);
		shell = next;
	}
}
