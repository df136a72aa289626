/* save.c - a running sandbox becomes a struct saved, while it runs on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "save.h"

enum save_step {
	SAVE_QUIESCE, /* the agent freezes users */
	SAVE_REPLY,   /* the VMM copies itself */
	SAVE_WRITE,   /* the copy writes */
	SAVE_WRITTEN, /* waits for the thaw */
	SAVE_MERGE,
	SAVE_HELD, /* done, and the guest stands still */
	SAVE_OVER,
};

static struct loop *loop_of(const struct save *s)
{
	return s->app->loop;
}

static void maybe_finish(struct save *s);

/* --- Ending ------------------------------------------------------------------------- */

static void close_files(struct save *s)
{
	fd_close(&s->state_fd);
	fd_close(&s->memory_fd);
	fd_close(&s->top_fd);
}

/* The sandbox has nothing to do with it any more. */
static void detach(struct save *s)
{
	struct sandbox *sb = s->sb;

	if (sb == NULL)
		return;
	s->sb = NULL;
	agent_stop(&s->agent);
	vmm_peer_cancel(sandbox_vmm(sb), &s->call);
	loop_timer_del(loop_of(s), &s->deadline);
	sandbox_op_end(sb, &s->op);
	sb->save = NULL;
	sb->heard_ns = now_ns();
}

static void deliver(struct save *s)
{
	s->step = SAVE_OVER;
	close_files(s);
	if (s->failed) {
		saved_unref(s->saved);
		s->saved = NULL;
	}
	s->on_done(s, s->failed ? &s->fault : NULL);
}

printf_like(4, 5) static void fail(struct save *s, unsigned int status,
				   const char *code, const char *fmt, ...);

static void fail(struct save *s, unsigned int status, const char *code,
		 const char *fmt, ...)
{
	char text[FAULT_TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!s->failed)
		(void)fault_set(&s->fault, status, code, "%s", text);
	s->failed = true;
	s->step = SAVE_WRITTEN;
	maybe_finish(s);
}

static void fail_errno(struct save *s, const char *what, int error)
{
	log_error("save: %s: %s", what, strerror(-error));
	if (error == -ENOSPC || error == -EDQUOT)
		fail(s, 507, "disk_full",
		     "the host has no room for the snapshot");
	else if (error == -EBUSY)
		fail(s, 409, "busy", "the sandbox is being saved already");
	else if (error == -E2BIG)
		fail(s, 422, "too_many_layers",
		     "the sandbox has been saved %u times, the maximum; "
		     "clone or restore it from a new one",
		     BRIG_LAYERS_MAX);
	else
		fail(s, 503, "save_failed", "%s: %s", what, strerror(-error));
}

/* The sandbox ended, or is being deleted. */
static void on_lost(struct sandbox_op *op)
{
	struct save *s = container_of(op, struct save, op);

	int r = sandbox_check_running(s->sb, &s->fault);

	ASSERT(r < 0); /* that is what "lost" means */
	s->thawing = false;
	if (s->step == SAVE_HELD) {
		detach(s); /* on_done was called; s->sb says so */
	} else if (s->released) {
		maybe_finish(s);
	} else {
		s->failed = true;
		detach(s);
		deliver(s);
	}
}

/* --- The thaw -------------------------------------------------------------------------- */

static void thaw_ended(struct save *s, bool done)
{
	s->thawing = false;
	agent_stop(&s->agent);
	if (!done)
		sandbox_suspect(s->sb, "agent_lost");
	maybe_finish(s);
}

static void thaw(struct save *s)
{
	if (!s->agent.active ||
	    guest_conn_send(s->agent.conn, GUEST_THAW, NULL, 0) < 0) {
		thaw_ended(s, false);
		return;
	}
	agent_set_deadline(&s->agent, THAW_TIMEOUT_S * NS_PER_S);
}

static void on_resumed(struct vmm_call *call, int status, int fd,
		       const struct vmm_msg *msg)
{
	struct save *s = container_of(call, struct save, call);

	(void)fd;
	(void)msg;
	if (status < 0)
		sandbox_suspect(s->sb, "vmm_error");
	thaw(s);
}

/* The guest goes on, then its users do. */
static void wake(struct save *s)
{
	struct vmm_msg msg = { .type = VMM_RESUME };

	s->thawing = true;
	s->call.on_reply = on_resumed;
	if (!s->options.pause ||
	    vmm_peer_send(sandbox_vmm(s->sb), &msg, NULL, 0,
			  VMM_REPLY_TIMEOUT_S, &s->call) < 0)
		thaw(s);
}

/* --- The VMM's part ----------------------------------------------------------------------- */

/* The old top became a sealed layer: from now on it belongs to all. */
static int take_layer(struct save *s)
{
	struct sandbox *sb = s->sb;
	int fd = saved_freeze(fd_take(&sb->top_fd));
	int r = fd < 0 ? fd : 0;

	sb->top_fd = fd_take(&s->top_fd);
	if (r == 0)
		r = saved_add_layer(s->saved, saved_file_new(fd));
	if (r < 0) {
		sb->save_broken = true; /* its disk cannot be told any more */
		return r;
	}
	saved_unref(sb->below);
	sb->below = saved_ref(s->saved);
	return 0;
}

static int check_layers(struct save *s, const struct vmm_msg *msg)
{
	uint32_t before = s->saved->layer_count;
	uint32_t now = msg->u.saved.layers;

	if (now == before + 1)
		return take_layer(s);
	/* The top was empty and stays; or the VMM did not get that far. */
	if (now == before || msg->status < 0)
		return 0;
	return -EPROTO;
}

static void on_write_deadline(struct loop_timer *timer)
{
	struct save *s = container_of(timer, struct save, deadline);

	s->sb->save_broken = true;
	if (s->options.pause)
		wake(s);
	fail_errno(s, "the monitor does not write the snapshot", -ETIMEDOUT);
}

static void on_reply(struct vmm_call *call, int status, int fd,
		     const struct vmm_msg *msg)
{
	struct save *s = container_of(call, struct save, call);
	int r = status;

	(void)fd;
	if (msg == NULL)
		s->sb->save_broken = true;
	else
		r = check_layers(s, msg);
	if (r == 0)
		r = status;
	if (r == -EPROTO)
		sandbox_suspect(s->sb, "vmm_error");
	if (r < 0 || msg == NULL) {
		wake(s);
		fail_errno(s, "the monitor cannot save", r);
		return;
	}
	s->pause_ns = msg->value;
	if (s->options.disk) {
		s->step = SAVE_WRITTEN;
		wake(s);
		return;
	}
	s->step = SAVE_WRITE;
	loop_timer_set(loop_of(s), &s->deadline,
		       SAVE_WRITE_TIMEOUT_S * NS_PER_S);
	if (!s->options.pause)
		wake(s);
	else
		agent_set_deadline(&s->agent, 0);
}

static int make_files(struct save *s)
{
	struct snapstore *store = s->app->snapstore;

	s->top_fd = snapstore_file(store);
	if (s->top_fd < 0)
		return s->top_fd;
	if (s->options.disk)
		return 0;
	if (s->options.live) {
		s->state_fd = memfd_create("brig-state",
					   MFD_CLOEXEC | MFD_ALLOW_SEALING);
		s->memory_fd = memfd_create("brig-memory",
					    MFD_CLOEXEC | MFD_ALLOW_SEALING);
		return s->state_fd < 0 || s->memory_fd < 0 ? -errno : 0;
	}
	s->state_fd = snapstore_file(store);
	if (s->state_fd < 0)
		return s->state_fd;
	s->memory_fd = snapstore_file(store);
	return s->memory_fd < 0 ? s->memory_fd : 0;
}

static void send_save(struct save *s)
{
	struct vmm_msg msg = { .type = VMM_SAVE };
	int r = make_files(s);
	int fds[VMM_SAVE_FDS] = {
		[VMM_SAVE_FD_TOP] = s->top_fd,
		[VMM_SAVE_FD_STATE] = s->state_fd,
		[VMM_SAVE_FD_MEMORY] = s->memory_fd,
	};
	size_t nfds = s->options.disk ? VMM_SAVE_DISK_FDS : VMM_SAVE_FDS;

	msg.u.save.flags = (s->options.pause ? VMM_SAVE_STAY_PAUSED : 0u) |
			   (s->options.disk ? VMM_SAVE_DISK : 0u);
	s->step = SAVE_REPLY;
	if (r == 0)
		r = vmm_peer_send(sandbox_vmm(s->sb), &msg, fds, nfds,
				  SAVE_REPLY_TIMEOUT_S, &s->call);
	if (r < 0) {
		wake(s);
		fail_errno(s, "the snapshot cannot begin", r);
		return;
	}
	agent_set_deadline(&s->agent, 0);
}

/* --- What was written ------------------------------------------------------------------------ */

static int check_size(int fd, uint64_t min, uint64_t max)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size < min || (uint64_t)st.st_size > max
		       ? -EPROTO
		       : 0;
}

/* RAM on disk: that of the parent, then what differs. */
static int add_memory(struct save *s, struct saved_file *file)
{
	const struct saved *from = s->sb->from;
	unsigned int n = from != NULL ? from->memory_count : 0;

	for (unsigned int i = 0; i < n; i++) {
		int r = saved_add_memory(s->saved,
					 saved_file_ref(from->memory[i]));
		if (r < 0) {
			saved_file_unref(file);
			return r;
		}
	}
	return saved_add_memory(s->saved, file);
}

/* RAM to restore from at once: the same in memory. */
static int share_memory(struct save *s, const struct saved_file *file)
{
	const struct saved *from = s->sb->from;
	int fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	struct saved_memory *m = saved_memory_new(fd);
	if (m == NULL)
		return -ENOMEM;
	if (from == NULL) {
		s->saved->base = m;
		return 0;
	}
	s->saved->base = saved_memory_ref(from->base);
	s->saved->delta = m;
	return 0;
}

static int take_files(struct save *s)
{
	uint64_t ram = (uint64_t)s->saved->shape.memory_mib << 20;
	int r = check_size(s->state_fd, 1, SNAP_STATE_MAX);

	if (r == 0)
		r = check_size(s->memory_fd, ram, ram);
	if (r < 0)
		return r;
	int state = saved_freeze(fd_take(&s->state_fd));
	int memory = saved_freeze(fd_take(&s->memory_fd));
	if (state >= 0)
		s->saved->state = saved_file_new(state);
	struct saved_file *file = memory < 0 ? NULL : saved_file_new(memory);
	if (s->saved->state == NULL || file == NULL) {
		saved_file_unref(file);
		return state < 0 ? state : memory < 0 ? memory : -ENOMEM;
	}
	r = add_memory(s, file);
	return r == 0 && s->options.live ? share_memory(s, file) : r;
}

void save_on_saved(struct save *s, uint32_t seq, int status,
		   const struct vmm_saved *saved)
{
	(void)saved;
	if (s->step != SAVE_WRITE || seq != s->call.seq)
		return;
	loop_timer_del(loop_of(s), &s->deadline);
	int r = status;
	if (r == 0)
		r = take_files(s);
	if (r < 0) {
		if (s->options.pause)
			wake(s);
		fail_errno(s, "the snapshot was not written", r);
		return;
	}
	s->step = SAVE_WRITTEN;
	maybe_finish(s);
}

/* --- Merging RAM of a live clone ------------------------------------------------------------- */

static bool has_older_delta(const struct save *s)
{
	const struct sandbox *sb = s->sb;

	return s->options.live && sb->from != NULL && sb->from->delta != NULL;
}

/* A clone of a clone of a clone ...: one file stands for all deltas. */
static int collapse_memory(struct saved *saved, int merged_fd)
{
	if (saved->memory_count <= SAVE_MEMORY_FILES_MAX)
		return 0;
	int fd = fcntl(merged_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	while (saved->memory_count > 1)
		saved_file_unref(saved->memory[--saved->memory_count]);
	return saved_add_memory(saved, saved_file_new(fd));
}

static void on_merged(struct snap_merge *m, int fd_or_error)
{
	struct save *s = container_of(m, struct save, merge);
	struct saved_memory *memory = NULL;

	/* Both ends were kept by `saved`, the older one by a reference. */
	fd_close(&m->older_fd);
	if (fd_or_error >= 0)
		memory = saved_memory_new(fd_or_error);
	if (memory == NULL) {
		s->step = SAVE_WRITTEN;
		fail_errno(s, "merging memory",
			   fd_or_error < 0 ? fd_or_error : -ENOMEM);
		return;
	}
	saved_memory_unref(s->saved->delta);
	s->saved->delta = memory;
	int r = collapse_memory(s->saved, memory->fd);
	if (r < 0) {
		s->step = SAVE_WRITTEN;
		fail_errno(s, "merging memory", r);
		return;
	}
	deliver(s);
}

static void start_merge(struct save *s)
{
	int older = fcntl(s->sb->from->delta->fd, F_DUPFD_CLOEXEC, 0);

	detach(s);
	if (older < 0) {
		fail_errno(s, "merging memory", -errno);
		return;
	}
	s->step = SAVE_MERGE;
	s->merge = (struct snap_merge){
		.older_fd = older,
		.newer_fd = s->saved->delta->fd,
		.on_done = on_merged,
	};
	snapstore_merge(s->app->snapstore, &s->merge);
}

/* Written (or failed) and thawed, in whichever order. */
static void maybe_finish(struct save *s)
{
	if (s->step != SAVE_WRITTEN || s->thawing)
		return;
	if (s->released) {
		detach(s);
		s->step = SAVE_OVER;
		s->on_released(s);
		return;
	}
	if (!s->failed && s->options.pause) {
		s->step = SAVE_HELD;
		s->on_done(s, NULL);
		return;
	}
	if (!s->failed && has_older_delta(s)) {
		start_merge(s);
		return;
	}
	detach(s);
	deliver(s);
}

/* --- The agent's part --------------------------------------------------------------------------- */

static void quiesce_failed(struct save *s, const char *why)
{
	agent_stop(&s->agent);
	fail(s, 503, "quiesce_failed",
	     "the sandbox cannot be brought to rest: %s", why);
}

static void on_frame(void *arg, const struct frame *f)
{
	struct save *s = arg;

	if (f->type == GUEST_QUIESCED && s->step == SAVE_QUIESCE) {
		struct guest_quiesced q;
		frame_copy(f, &q, sizeof(q));
		s->quiesced = !s->options.quick;
		if (q.hooks_failed > 0)
			log_warn("sandbox=%s %u hooks failed before a save; "
				 "going on",
				 s->sb->id, q.hooks_failed);
		send_save(s);
	} else if (f->type == GUEST_THAWED && s->thawing) {
		thaw_ended(s, true);
	} else if (s->step == SAVE_QUIESCE) {
		struct fault fault = { .text = "it answered nonsense" };
		if (f->type == GUEST_ERROR)
			agent_fault_of_frame(f, &fault);
		quiesce_failed(s, fault.text);
	} else {
		agent_stop(&s->agent);
		if (s->thawing)
			thaw_ended(s, false);
	}
}

static void on_end(void *arg, int error)
{
	struct save *s = arg;

	if (error == -EHOSTDOWN)
		return; /* on_lost() of the save itself says so too */
	if (s->step == SAVE_QUIESCE)
		quiesce_failed(s, error == 0 ? "the agent closed"
					     : strerror(-error));
	else if (s->thawing)
		thaw_ended(s, false);
}

static const struct agent_events agent_events = {
	.on_frame = on_frame,
	.on_end = on_end,
};

/* --- Starting ------------------------------------------------------------------------------------- */

static int check(const struct sandbox *sb, struct fault *fault)
{
	if (sandbox_check_running(sb, fault) < 0)
		return -EINVAL;
	if (sb->save != NULL)
		return fault_set(fault, 409, "busy",
				 "the sandbox is being saved already");
	if (sb->save_broken)
		return fault_set(fault, 422, "save_broken",
				 "an earlier snapshot of this sandbox never "
				 "ended; it cannot be saved any more");
	if (sb->below != NULL && sb->below->layer_count >= BRIG_LAYERS_MAX)
		return fault_set(fault, 422, "too_many_layers",
				 "the sandbox has %u disk layers, the maximum",
				 BRIG_LAYERS_MAX);
	return 0;
}

/* The layers below the top belong to what is saved in any case. */
static struct saved *new_saved(const struct sandbox *sb)
{
	const struct saved *below = sb->below;
	struct saved *saved = saved_new(&sb->shape);

	if (saved == NULL)
		return NULL;
	memcpy(saved->hostname_hint, sb->name, sizeof(saved->hostname_hint));
	for (unsigned int i = 0; below != NULL && i < below->layer_count; i++) {
		if (saved_add_layer(saved, saved_file_ref(below->layers[i])) <
		    0) {
			saved_unref(saved);
			return NULL;
		}
	}
	return saved;
}

int save_start(struct save *s, struct sandbox *sb,
	       const struct save_options *options, struct fault *fault)
{
	struct guest_quiesce q = {
		.flags = options->quick ? 0 : GUEST_QUIESCE_FILES,
	};
	struct buf first = BUF_INIT(sizeof(q) + 1);

	if (check(sb, fault) < 0)
		return -EINVAL;
	*s = (struct save){
		.on_done = s->on_done,
		.on_released = s->on_released,
		.app = sb->set->app,
		.options = *options,
		.step = SAVE_QUIESCE,
		.agent = { .events = &agent_events, .arg = s },
		.op = { .on_lost = on_lost },
		.call = { .on_reply = on_reply },
		.deadline = { .on_expire = on_write_deadline },
		.state_fd = -1,
		.memory_fd = -1,
		.top_fd = -1,
	};
	s->saved = new_saved(sb);
	if (s->saved == NULL || buf_add(&first, &q, sizeof(q)) < 0) {
		saved_unref(s->saved);
		return fault_set(fault, 500, "no_memory", "out of memory");
	}
	int r = sandbox_op_begin(sb, &s->op, fault);
	if (r == 0) {
		r = agent_start(&s->agent, sb, GUEST_QUIESCE, &first, fault);
		if (r < 0)
			sandbox_op_end(sb, &s->op);
	}
	buf_free(&first);
	if (r < 0) {
		saved_unref(s->saved);
		return r;
	}
	s->sb = sb;
	sb->save = s;
	agent_set_deadline(&s->agent, QUIESCE_TIMEOUT_S * NS_PER_S);
	return 0;
}

void save_release(struct save *s)
{
	ASSERT(s->step == SAVE_HELD);
	s->released = true;
	s->step = SAVE_WRITTEN;
	if (s->sb != NULL)
		wake(s);
	else
		maybe_finish(s);
}

void save_forget(struct save *s)
{
	ASSERT(s->step == SAVE_HELD);
	detach(s);
	s->step = SAVE_OVER;
}
