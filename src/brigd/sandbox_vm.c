/* sandbox_vm.c - what the VMM and the agent of a sandbox say.
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
 *
 * The ready connection also hands over the guest's identity. It breaks when a
 * machine is restored, and the agent makes it anew: HELLO, CONFIGURE,
 * CONFIGURED. Only a guest that confirms every step becomes RUNNING.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "fd.h"
#include "log.h"
#include "sandbox_vm.h"
#include "save.h"
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

void sandbox_suspect(struct sandbox *sb, const char *reason)
{
	if (sandbox_vmm(sb) == NULL || sb->suspicion != NULL)
		return;
	sb->suspicion = reason;
	loop_timer_set(loop_of(sb), &sb->last_words, LAST_WORDS_S * NS_PER_S);
}

static void on_last_words(struct loop_timer *timer)
{
	struct sandbox *sb = container_of(timer, struct sandbox, last_words);

	sandbox_set_ended(sb, SANDBOX_FAILED, sb->suspicion);
}

/* --- The agent's ready connection ------------------------------------------------------ */

void sandbox_vm_forget_agent(struct sandbox *sb)
{
	guest_conn_close(sb->ready);
	sb->ready = NULL;
	if (sb->configure != NULL)
		explicit_bzero(sb->configure, sizeof(*sb->configure));
	free(sb->configure);
	sb->configure = NULL;
}

static void agent_lost(struct sandbox *sb, const char *why, const char *reason)
{
	log_warn("sandbox=%s agent: %s; ending it", sb->id, why);
	sandbox_vm_forget_agent(sb);
	sandbox_suspect(sb, reason);
}

void sandbox_vm_configure(struct sandbox *sb)
{
	struct guest_configure *c = malloc(sizeof(*c));

	sb->configure = c;
	if (c == NULL || !receipt_make_configure(sb->id, sb->name, c) ||
	    guest_conn_send(sb->ready, GUEST_CONFIGURE, c, sizeof(*c)) < 0)
		agent_lost(sb, "cannot be configured", "agent_lost");
}

static void on_hello(struct sandbox *sb, const struct frame *f)
{
	struct guest_hello hello;

	frame_copy(f, &hello, sizeof(hello));
	if (hello.version != GUEST_PROTOCOL_VERSION)
		agent_lost(sb, "speaks another protocol version", "agent_lost");
	else
		sandbox_vm_configure(sb);
}

static void ping_later(struct sandbox *sb)
{
	loop_timer_set(loop_of(sb), &sb->timer, PING_INTERVAL_S * NS_PER_S);
}

static void on_configured(struct sandbox *sb, const struct frame *f)
{
	struct guest_configured c;
	uint64_t now = now_ns();

	frame_copy(f, &c, sizeof(c));
	if (!receipt_check(sb->configure, &c)) {
		agent_lost(sb, "did not confirm all of CONFIGURE", "identity");
		return;
	}
	if (c.disk_grown != 1)
		log_warn("sandbox=%s file system does not fill its disk; "
			 "going on",
			 sb->id);
	receipt_fill(&sb->receipt, sb->configure, &c);
	sb->receipt.connections_reset = sb->from != NULL;
	sb->receipt.configure_us = (now - sb->step_ns) / 1000;
	sb->receipt.total_us = (now - sb->started_ns) / 1000;
	explicit_bzero(sb->configure, sizeof(*sb->configure));
	free(sb->configure);
	sb->configure = NULL;
	ping_later(sb);
	sandbox_set_ready(sb);
}

static void on_ready_frame(void *arg, const struct frame *f)
{
	struct sandbox *sb = arg;
	bool asked = sb->configure != NULL;
	bool fresh = sb->state == SANDBOX_CREATING && !asked;

	sb->heard_ns = now_ns();
	if (f->type == GUEST_HELLO && fresh)
		on_hello(sb, f);
	else if (f->type == GUEST_CONFIGURED && asked)
		on_configured(sb, f);
	else if (f->type == GUEST_ERROR && asked)
		agent_lost(sb, "could not do CONFIGURE", "identity");
	else if (f->type != GUEST_PONG)
		agent_lost(sb, "sent a frame out of turn", "agent_lost");
}

static void on_ready_closed(void *arg, int error)
{
	agent_lost(arg, error == -EPROTO ? "sent nonsense" : "closed",
		   "agent_lost");
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
	if (sb->save != NULL) {
		sb->heard_ns = now; /* it may be standing still */
	} else if (now - sb->heard_ns > AGENT_SILENCE_S * NS_PER_S) {
		agent_lost(sb, "is silent", "agent_lost");
		return;
	}
	/* Full of pings already: the silence will be noticed. */
	int r = guest_conn_send(sb->ready, GUEST_PING, &now, sizeof(now));
	(void)r;
	ping_later(sb);
}

static const char *timeout_reason(const struct sandbox *sb)
{
	if (sb->configure != NULL)
		return "identity";
	return sb->from != NULL ? "restore_timeout" : "boot_timeout";
}

static void on_timer(struct loop_timer *timer)
{
	struct sandbox *sb = container_of(timer, struct sandbox, timer);

	if (sb->state == SANDBOX_CREATING)
		sandbox_set_ended(sb, SANDBOX_FAILED, timeout_reason(sb));
	else
		ping(sb);
}

/* --- The VMM's control socket ----------------------------------------------------------- */

static void on_built(void *arg)
{
	struct sandbox *sb = arg;

	if (sb->step == STEP_SHELL)
		sandbox_start_claim(sb);
}

static void on_running(void *arg)
{
	struct sandbox *sb = arg;

	if (sb->step == STEP_CLAIM)
		sandbox_start_running(sb);
}

static void on_accept(void *arg, uint32_t port, int *fd)
{
	struct sandbox *sb = arg;

	/* One ready connection for each start, and not before: what comes
	 * before a reset is not from the guest that comes out of it, whoever
	 * comes later is not the agent. */
	if (port != BRIG_READY_PORT || sb->step != STEP_AGENT ||
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

static void on_saved(void *arg, uint32_t seq, int status,
		     const struct vmm_saved *saved)
{
	struct sandbox *sb = arg;

	if (sb->save != NULL)
		save_on_saved(sb->save, seq, status, saved);
}

/* A shell of the pool that ended before it was needed: another will do. */
static bool lose_unused_shell(struct sandbox *sb)
{
	if (sb->step != STEP_QUEUED)
		return false;
	shell_drop(sb->shell);
	sb->shell = NULL;
	return true;
}

static void on_stopped(void *arg, int32_t reason)
{
	struct sandbox *sb = arg;

	if (lose_unused_shell(sb))
		return;
	if (reason < 1 || (size_t)reason >= ARRAY_LEN(ends))
		sandbox_set_ended(sb, SANDBOX_FAILED, "vmm_error");
	else
		sandbox_set_ended(sb, ends[reason].state, ends[reason].reason);
}

static void on_suspect(void *arg)
{
	struct sandbox *sb = arg;

	if (!lose_unused_shell(sb))
		sandbox_suspect(sb, "vmm_died");
}

/* Without last words: whatever was suspected before, the monitor is gone. */
static void on_closed(void *arg)
{
	struct sandbox *sb = arg;

	if (!lose_unused_shell(sb))
		sandbox_set_ended(sb, SANDBOX_FAILED,
				  sb->step == STEP_SHELL ? "vmm_error"
							 : "vmm_died");
}

static void on_gone(void *arg)
{
	struct sandbox *sb = arg;

	sb->shell = NULL;
	loop_timer_set(loop_of(sb), &sb->reap, 0);
}

const struct shell_events sandbox_shell_events = {
	.on_built = on_built,
	.on_closed = on_closed,
	.on_suspect = on_suspect,
	.on_running = on_running,
	.on_accept = on_accept,
	.on_saved = on_saved,
	.on_stopped = on_stopped,
	.on_gone = on_gone,
};

/* --- Ending ----------------------------------------------------------------------------------- */

void sandbox_vm_init(struct sandbox *sb)
{
	sb->timer.on_expire = on_timer;
	sb->last_words.on_expire = on_last_words;
	sb->top_fd = -1;
}

void sandbox_vm_stop(struct sandbox *sb)
{
	loop_timer_del(loop_of(sb), &sb->timer);
	loop_timer_del(loop_of(sb), &sb->last_words);
	sb->suspicion = NULL;
	sandbox_vm_forget_agent(sb);
	sandbox_start_end(sb);
	if (sb->shell != NULL)
		shell_end(sb->shell);
	fd_close(&sb->top_fd);
	saved_unref(sb->from);
	saved_unref(sb->below);
	sb->from = NULL;
	sb->below = NULL;
	if (sb->set->app->worker != NULL)
		snapstore_sweep(sb->set->app->snapstore);
}

void sandbox_vm_free(struct sandbox *sb)
{
	sandbox_vm_stop(sb);
	shell_drop(sb->shell);
	sb->shell = NULL;
	console_free(sb->console);
	sb->console = NULL;
}
