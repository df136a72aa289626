/* sandbox_vm.c - the process behind a sandbox: start, boot, watch, end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * Life signs come over four ways: the control socket (the VMM's messages, and
 * its end), the ready connection (the agent's), the pidfd, and brig-spawn's
 * EXITED. The control socket carries the VMM's last words and closes when the
 * process dies, so it has the first say about why a sandbox ended; the others
 * only raise a suspicion, which becomes the reason if no last words come
 * within LAST_WORDS_S.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "console.h"
#include "fd.h"
#include "id.h"
#include "image.h"
#include "log.h"
#include "meminfo.h"
#include "sandbox_vm.h"
#include "store.h"
#include "when.h"
#include "wire/boot.h"
#include "wire/vmm.h"

static struct loop *loop_of(const struct sandbox *sb)
{
	return sb->set->app->loop;
}

/* --- Why it ended -------------------------------------------------------------------- */

static const struct {
	enum sandbox_state state;
	const char *reason;
} ends[] = {
	[VMM_STOP_POWEROFF] = { SANDBOX_STOPPED, "guest_poweroff" },
	[VMM_STOP_RESET] = { SANDBOX_STOPPED, "guest_reset" },
	[VMM_STOP_PANIC] = { SANDBOX_FAILED, "guest_panic" },
	[VMM_STOP_TRIPLE_FAULT] = { SANDBOX_FAILED, "guest_crash" },
	[VMM_STOP_INTERNAL_ERROR] = { SANDBOX_FAILED, "vmm_error" },
	[VMM_STOP_COMMAND] = { SANDBOX_FAILED, "vmm_died" },
	[VMM_STOP_DEVICE] = { SANDBOX_FAILED, "vmm_error" },
	[VMM_STOP_SETUP] = { SANDBOX_FAILED, "vmm_error" },
};

static void suspect(struct sandbox *sb, const char *reason)
{
	if (sb->vmm == NULL || sb->suspicion != NULL)
		return;
	sb->suspicion = reason;
	loop_timer_set(loop_of(sb), &sb->last_words, LAST_WORDS_S * NS_PER_S);
}

static void on_last_words(struct loop_timer *timer)
{
	struct sandbox *sb = container_of(timer, struct sandbox, last_words);

	sandbox_set_ended(sb, SANDBOX_FAILED, sb->suspicion);
}

static void on_pid(struct loop_fd *source, uint32_t events)
{
	struct sandbox *sb = container_of(source, struct sandbox, pid_source);

	(void)events;
	loop_del(loop_of(sb), source);
	suspect(sb, "vmm_died");
}

/* --- The agent's ready connection ------------------------------------------------------ */

static void agent_lost(struct sandbox *sb, const char *why)
{
	log_warn("sandbox=%s agent: %s; ending it", sb->id, why);
	guest_conn_close(sb->ready);
	sb->ready = NULL;
	suspect(sb, "agent_lost");
}

static void configure(struct sandbox *sb)
{
	struct guest_configure c;
	struct timespec ts;

	memset(&c, 0, sizeof(c));
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	c.realtime_ns = (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
	(void)snprintf(c.hostname, sizeof(c.hostname), "%s", sb->name);
	if (getrandom(c.entropy, sizeof(c.entropy), 0) !=
		    (ssize_t)sizeof(c.entropy) ||
	    guest_conn_send(sb->ready, GUEST_CONFIGURE, &c, sizeof(c)) < 0)
		agent_lost(sb, "cannot be configured");
	explicit_bzero(c.entropy, sizeof(c.entropy));
}

static void on_hello(struct sandbox *sb, const struct frame *f)
{
	struct guest_hello hello;

	frame_copy(f, &hello, sizeof(hello));
	if (hello.version != GUEST_PROTOCOL_VERSION)
		agent_lost(sb, "speaks another protocol version");
	else
		configure(sb);
}

static void ping_later(struct sandbox *sb)
{
	loop_timer_set(loop_of(sb), &sb->timer, PING_INTERVAL_S * NS_PER_S);
}

static void on_configured(struct sandbox *sb, const struct frame *f)
{
	struct guest_configured c;

	frame_copy(f, &c, sizeof(c));
	if (c.clock_set != 1 || c.entropy_added != 1 || c.hostname_set != 1) {
		agent_lost(sb, "did not do all of CONFIGURE");
		return;
	}
	if (c.disk_grown != 1)
		log_warn("sandbox=%s file system does not fill its disk; "
			 "going on",
			 sb->id);
	ping_later(sb);
	sandbox_set_ready(sb);
}

static void on_ready_frame(void *arg, const struct frame *f)
{
	struct sandbox *sb = arg;
	bool creating = sb->state == SANDBOX_CREATING;

	sb->heard_ns = now_ns();
	if (f->type == GUEST_HELLO && creating)
		on_hello(sb, f);
	else if (f->type == GUEST_CONFIGURED && creating)
		on_configured(sb, f);
	else if (f->type == GUEST_ERROR && creating)
		agent_lost(sb, "could not do CONFIGURE");
	else if (f->type != GUEST_PONG)
		agent_lost(sb, "sent a frame out of turn");
}

static void on_ready_closed(void *arg, int error)
{
	agent_lost(arg, error == -EPROTO ? "sent nonsense" : "closed");
}

static const struct guest_events ready_events = {
	.on_frame = on_ready_frame,
	.on_closed = on_ready_closed,
};

static void ping(struct sandbox *sb)
{
	uint64_t now = now_ns();

	if (sb->ready == NULL)
		return;
	if (now - sb->heard_ns > AGENT_SILENCE_S * NS_PER_S) {
		agent_lost(sb, "is silent");
		return;
	}
	/* Full of pings already: the silence will be noticed. */
	int r = guest_conn_send(sb->ready, GUEST_PING, &now, sizeof(now));
	(void)r;
	ping_later(sb);
}

static void on_timer(struct loop_timer *timer)
{
	struct sandbox *sb = container_of(timer, struct sandbox, timer);

	if (sb->state == SANDBOX_CREATING)
		sandbox_set_ended(sb, SANDBOX_FAILED, "boot_timeout");
	else
		ping(sb);
}

/* --- The VMM's control socket ----------------------------------------------------------- */

static void on_running(void *arg, uint64_t ns)
{
	struct sandbox *sb = arg;

	log_debug("sandbox=%s vcpus run after %llu ns", sb->id,
		  (unsigned long long)ns);
}

static void on_accept(void *arg, uint32_t port, int *fd)
{
	struct sandbox *sb = arg;

	/* One ready connection in a life: whoever comes later is not the
	 * agent we booted. */
	if (port != BRIG_READY_PORT || sb->state != SANDBOX_CREATING ||
	    sb->ready != NULL || sb->suspicion != NULL) {
		log_debug("sandbox=%s refused a connection from the guest",
			  sb->id);
		return;
	}
	sb->heard_ns = now_ns();
	sb->ready = guest_conn_new(loop_of(sb), fd_take(fd), &ready_events, sb);
	if (sb->ready == NULL)
		sandbox_set_ended(sb, SANDBOX_FAILED, "vmm_error");
}

static void on_stopped(void *arg, int32_t reason)
{
	struct sandbox *sb = arg;

	if (reason < 1 || (size_t)reason >= ARRAY_LEN(ends))
		sandbox_set_ended(sb, SANDBOX_FAILED, "vmm_error");
	else
		sandbox_set_ended(sb, ends[reason].state, ends[reason].reason);
}

/* Without last words: whatever was suspected before, the monitor is gone. */
static void on_closed(void *arg)
{
	sandbox_set_ended(arg, SANDBOX_FAILED, "vmm_died");
}

static const struct vmm_events vmm_events = {
	.on_running = on_running,
	.on_accept = on_accept,
	.on_stopped = on_stopped,
	.on_closed = on_closed,
};

/* --- Starting ----------------------------------------------------------------------------- */

static void on_started(struct spawn_call *call, const struct spawn_msg *msg,
		       const int *fds, size_t nfds)
{
	struct sandbox *sb = container_of(call, struct sandbox, start_call);

	if (msg == NULL || msg->type != SPAWN_STARTED || msg->status < 0 ||
	    nfds != SPAWN_STARTED_FDS) {
		log_error("sandbox=%s spawn: %s", sb->id,
			  msg == NULL ? "connection lost"
				      : strerror(-msg->status));
		sb->process = PROCESS_NONE;
		sandbox_set_ended(sb, SANDBOX_FAILED, "vmm_error");
		loop_timer_set(loop_of(sb), &sb->reap, 0);
		return;
	}
	sb->process = PROCESS_ALIVE;
	sb->handle = msg->handle;
	sb->pidfd = fds[0];
	sb->cgroup_fd = fds[1];
	int r = loop_add(loop_of(sb), &sb->pid_source, sb->pidfd, EPOLLIN);
	if (r < 0)
		log_warn("sandbox=%s pidfd: %s; going on", sb->id,
			 strerror(-r));
	if (sb->vmm == NULL) /* ended in the meantime */
		sandbox_vm_kill(sb);
}

enum {
	CONTROL,
	KERNEL,
	INITRD,
	BASE,
	LAYER,
	CONSOLE
};
static_assert(CONSOLE == SPAWN_START_FDS - 1, "as wire/spawn.h lists them");

static int open_files(struct sandbox *sb, int fds[SPAWN_START_FDS])
{
	const struct app *app = sb->set->app;

	fds[KERNEL] = open(app->kernel_path, O_RDONLY | O_CLOEXEC);
	if (fds[KERNEL] < 0)
		return -errno;
	fds[INITRD] = open(app->initrd_path, O_RDONLY | O_CLOEXEC);
	if (fds[INITRD] < 0)
		return -errno;
	fds[LAYER] = open(app->layers_dir,
			  O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
	if (fds[LAYER] < 0)
		return -errno;
	return console_make(&fds[CONSOLE], &sb->console);
}

static int send_start(struct sandbox *sb, const int *fds, uint64_t base_bytes)
{
	struct spawn_msg msg = {
		.type = SPAWN_START,
		.vcpus = sb->vcpus,
		.memory_mib = sb->memory_mib,
		.disk_bytes = sb->disk_bytes,
		.base_bytes = base_bytes,
		.cpu_quota_percent = sb->cpus * 25,
	};

	memcpy(msg.id, sb->id, sizeof(msg.id));
	return spawn_peer_send(sb->set->app->spawn, &msg, fds, SPAWN_START_FDS,
			       &sb->start_call);
}

static int start(struct sandbox *sb, int base_fd, uint64_t base_bytes)
{
	int fds[SPAWN_START_FDS] = { -1, -1, -1, base_fd, -1, -1 };
	int pair[2] = { -1, -1 };
	int r = open_files(sb, fds);

	if (r == 0 &&
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		r = -errno;
	if (r == 0) {
		fds[CONTROL] = pair[1];
		sb->vmm = vmm_peer_new(loop_of(sb), fd_take(&pair[0]),
				       &vmm_events, sb);
		if (sb->vmm == NULL)
			r = -ENOMEM;
	}
	if (r == 0)
		r = send_start(sb, fds, base_bytes);
	if (r == 0) {
		sb->process = PROCESS_STARTING;
		loop_timer_set(loop_of(sb), &sb->timer,
			       sb->set->boot_timeout_s * NS_PER_S);
	}
	fd_close(&pair[0]);
	for (int i = 0; i < SPAWN_START_FDS; i++) {
		if (i != BASE)
			fd_close(&fds[i]);
	}
	return r;
}

/* --- Taking turns ---------------------------------------------------------------------------- */

static unsigned int booting(const struct sandbox_set *set)
{
	const struct sandbox *sb;
	unsigned int n = 0;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->state == SANDBOX_CREATING &&
		    sb->process != PROCESS_QUEUED)
			n++;
	}
	return n;
}

static void enqueue(struct sandbox *sb, int base_fd, uint64_t base_bytes)
{
	sb->process = PROCESS_QUEUED;
	sb->base_fd = base_fd;
	sb->base_bytes = base_bytes;
}

static void dequeue(struct sandbox *sb)
{
	fd_close(&sb->base_fd);
	if (sb->process == PROCESS_QUEUED)
		sb->process = PROCESS_NONE;
}

static void start_queued(struct sandbox *sb)
{
	cleanup_fd int base_fd = fd_take(&sb->base_fd);

	dequeue(sb);
	int r = start(sb, base_fd, sb->base_bytes);
	if (r == 0)
		return;
	log_error("sandbox=%s start: %s", sb->id, strerror(-r));
	sandbox_set_ended(sb, SANDBOX_FAILED, "vmm_error");
}

static void on_next_boot(struct loop_timer *timer)
{
	struct sandbox_set *set =
		container_of(timer, struct sandbox_set, next_boot);
	unsigned int n = booting(set);
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (n >= set->boots_max)
			break;
		if (sb->process != PROCESS_QUEUED)
			continue;
		start_queued(sb);
		n++;
	}
}

void sandbox_vm_boot_next(struct sandbox_set *set)
{
	loop_timer_set(set->app->loop, &set->next_boot, 0);
}

/* A boot takes all of a processor: more at once than there are processors
 * would only make each take longer, up to its deadline. */
void sandbox_vm_init_set(struct sandbox_set *set)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	set->boots_max = cpus > BOOTS_MIN ? (unsigned int)cpus : BOOTS_MIN;
	set->next_boot.on_expire = on_next_boot;
}

/* --- Creating ------------------------------------------------------------------------------- */

/* What was promised to sandboxes whose guests have not touched it yet. */
static uint64_t promised_mib(const struct sandbox_set *set)
{
	const struct sandbox *sb;
	uint64_t mib = 0;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->state == SANDBOX_CREATING)
			mib += sb->memory_mib + VMM_OVERHEAD_MIB;
	}
	return mib;
}

static int admit(struct sandbox_set *set, const struct args_create *args,
		 struct fault *fault)
{
	uint64_t need = args->memory_mib + VMM_OVERHEAD_MIB + HOST_RESERVE_MIB +
			promised_mib(set);

	uint64_t per_s;

	if (spawn_peer_kvm(set->app->spawn, &per_s) == SPAWN_KVM_EMULATED)
		return fault_set(fault, 503, "kvm_too_slow",
				 "this machine's /dev/kvm interprets guest "
				 "kernel code; use the host VM: "
				 "`brig host start`");
	if (set->count >= BRIG_SANDBOXES_MAX)
		return fault_set(fault, 503, "no_capacity",
				 "this host has %u sandboxes, its maximum",
				 set->count);
	if (meminfo_mib("MemAvailable") < need)
		return fault_set(fault, 503, "no_capacity",
				 "the host has not enough free memory for %u "
				 "MiB",
				 args->memory_mib);
	return 0;
}

static int open_base(struct sandbox_set *set, const struct args_create *args,
		     uint64_t *ret_bytes, struct fault *fault)
{
	int fd = image_open(set->app->images_dir, args->image, ret_bytes);

	if (fd == -ENOENT)
		return fault_set(fault, 404, "image_not_found",
				 "there is no image `%s`", args->image);
	if (fd < 0) {
		log_error("image=%s: %s", args->image, strerror(-fd));
		return fault_set(fault, 500, "image_error",
				 "the image `%s` cannot be opened",
				 args->image);
	}
	if (*ret_bytes > (uint64_t)args->storage_gb << 30) {
		fd_close(&fd);
		return fault_set(fault, 422, "invalid_field",
				 "`storage` is smaller than the image");
	}
	return fd;
}

static void fill(struct sandbox *sb, const struct args_create *args,
		 int64_t tenant)
{
	id_make(sb->id, "sb_");
	if (args->name != NULL)
		(void)snprintf(sb->name, sizeof(sb->name), "%s", args->name);
	else
		id_make_name(sb->name);
	(void)snprintf(sb->image, sizeof(sb->image), "%s", args->image);
	sb->tenant = tenant;
	sb->cpus = args->cpus;
	sb->vcpus = (args->cpus + 3) / 4;
	sb->memory_mib = args->memory_mib;
	sb->storage_gb = args->storage_gb;
	sb->disk_bytes = (uint64_t)args->storage_gb << 30;
	sb->created_ms = when_now_ms();
	sb->created_ns = now_ns();
	sb->env = json_incref(args->env);
}

static int save(const struct sandbox *sb)
{
	struct store_sandbox row = {
		.tenant = sb->tenant,
		.cpus = sb->cpus,
		.memory_mib = sb->memory_mib,
		.storage_gb = sb->storage_gb,
		.status = "creating",
		.created_ms = sb->created_ms,
		.ready_ms = -1,
	};

	memcpy(row.id, sb->id, sizeof(row.id));
	memcpy(row.name, sb->name, sizeof(row.name));
	memcpy(row.image, sb->image, sizeof(row.image));
	return store_add_sandbox(sb->set->app->store, &row);
}

/* The row comes first: a sandbox that runs is always in the store. Takes
 * *base_fd when the boot has to wait. `sb` itself counts as booting. */
static int save_and_start(struct sandbox *sb, int *base_fd, uint64_t base_bytes,
			  struct fault *fault)
{
	int r = save(sb);

	if (r == 0 && booting(sb->set) > sb->set->boots_max) {
		enqueue(sb, fd_take(base_fd), base_bytes);
	} else if (r == 0) {
		r = start(sb, *base_fd, base_bytes);
		if (r < 0 &&
		    store_remove_sandbox(sb->set->app->store, sb->id) < 0)
			log_warn("sandbox=%s row stays; going on", sb->id);
	}
	if (r == -ENOTCONN)
		return fault_set(fault, 503, "spawn_unavailable",
				 "brig-spawn is not running");
	if (r == -ENOSPC || r == -EMFILE || r == -ENOMEM || r == -EAGAIN)
		return fault_set(fault, 503, "no_capacity", "the host: %s",
				 strerror(-r));
	if (r < 0) {
		log_error("sandbox=%s start: %s", sb->id, strerror(-r));
		return fault_set(fault, 500, "host_error",
				 "the sandbox cannot be started: %s",
				 strerror(-r));
	}
	return 0;
}

int sandbox_create(struct sandbox_set *set, const struct args_create *args,
		   int64_t tenant, struct sandbox **ret, struct fault *fault)
{
	uint64_t base_bytes = 0;
	int r = admit(set, args, fault);

	if (r < 0)
		return r;
	cleanup_fd int base_fd = open_base(set, args, &base_bytes, fault);
	if (base_fd < 0)
		return -EINVAL;
	struct sandbox *sb = sandbox_new(set);
	if (sb == NULL)
		return fault_set(fault, 500, "no_memory", "out of memory");
	fill(sb, args, tenant);
	r = save_and_start(sb, &base_fd, base_bytes, fault);
	if (r < 0) {
		sandbox_drop(sb);
		return r;
	}
	log_info("sandbox=%s name=%s status=creating", sb->id, sb->name);
	*ret = sb;
	return 0;
}

/* --- Ending ----------------------------------------------------------------------------------- */

static void on_killed(struct spawn_call *call, const struct spawn_msg *msg,
		      const int *fds, size_t nfds)
{
	struct sandbox *sb = container_of(call, struct sandbox, kill_call);

	(void)fds;
	(void)nfds;
	/* A brig-spawn that was restarted does not know our handle. */
	if (msg != NULL && (msg->status == -ENOENT || msg->status == -ESRCH))
		sandbox_vm_gone(sb);
}

void sandbox_vm_init(struct sandbox *sb)
{
	sb->pid_source = (struct loop_fd){ .fd = -1, .on_event = on_pid };
	sb->start_call.on_reply = on_started;
	sb->kill_call.on_reply = on_killed;
	sb->timer.on_expire = on_timer;
	sb->last_words.on_expire = on_last_words;
}

void sandbox_vm_kill(struct sandbox *sb)
{
	struct spawn_msg msg = { .type = SPAWN_KILL, .handle = sb->handle };

	loop_timer_set(loop_of(sb), &sb->reap, KILL_RETRY_S * NS_PER_S);
	if (sb->process != PROCESS_ALIVE || sb->kill_call.pending)
		return;
	int r = spawn_peer_send(sb->set->app->spawn, &msg, NULL, 0,
				&sb->kill_call);
	if (r < 0)
		log_warn("sandbox=%s kill: %s; retrying", sb->id, strerror(-r));
}

void sandbox_vm_stop(struct sandbox *sb)
{
	loop_timer_del(loop_of(sb), &sb->timer);
	loop_timer_del(loop_of(sb), &sb->last_words);
	guest_conn_close(sb->ready);
	sb->ready = NULL;
	vmm_peer_close(sb->vmm);
	sb->vmm = NULL;
	dequeue(sb);
	if (sb->process == PROCESS_ALIVE)
		sandbox_vm_kill(sb);
}

static void close_process(struct sandbox *sb)
{
	loop_del(loop_of(sb), &sb->pid_source);
	fd_close(&sb->pidfd);
	fd_close(&sb->cgroup_fd);
}

void sandbox_vm_gone(struct sandbox *sb)
{
	sb->process = PROCESS_NONE;
	close_process(sb);
	spawn_peer_cancel(sb->set->app->spawn, &sb->kill_call);
	suspect(sb, "vmm_died");
	loop_timer_set(loop_of(sb), &sb->reap, 0);
}

void sandbox_vm_free(struct sandbox *sb)
{
	sandbox_vm_stop(sb);
	loop_timer_del(loop_of(sb), &sb->reap);
	spawn_peer_cancel(sb->set->app->spawn, &sb->start_call);
	spawn_peer_cancel(sb->set->app->spawn, &sb->kill_call);
	close_process(sb);
	console_free(sb->console);
	sb->console = NULL;
}
