/* agent.c - one request to the agent of a sandbox, from connect to its end.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "agent.h"
#include "limits.h"
#include "log.h"
#include "wire/boot.h"

static void finish(struct agent *a, int error)
{
	agent_stop(a);
	a->events->on_end(a->arg, error);
}

static void on_frame(void *arg, const struct frame *f)
{
	struct agent *a = arg;

	a->events->on_frame(a->arg, f);
}

static void on_closed(void *arg, int error)
{
	finish(arg, error);
}

static void on_writable(void *arg)
{
	struct agent *a = arg;

	if (a->events->on_writable != NULL)
		a->events->on_writable(a->arg);
}

static const struct guest_events guest_events = {
	.on_frame = on_frame,
	.on_closed = on_closed,
	.on_writable = on_writable,
};

static void on_connected(struct vmm_call *call, int status, int fd,
			 const struct vmm_msg *msg)
{
	struct agent *a = container_of(call, struct agent, call);

	(void)msg;
	if (status == 0) {
		a->conn = guest_conn_new(a->sb->set->app->loop, fd,
					 &guest_events, a);
		if (a->conn == NULL)
			status = -ENOMEM;
	}
	if (status == 0)
		status = guest_conn_send(a->conn, a->type, a->first.data,
					 a->first.len);
	buf_free(&a->first);
	if (status < 0)
		finish(a, status);
	else if (a->events->on_open != NULL)
		a->events->on_open(a->arg);
}

static void on_deadline(struct loop_timer *timer)
{
	finish(container_of(timer, struct agent, deadline), -ETIMEDOUT);
}

static void on_lost(struct sandbox_op *op)
{
	finish(container_of(op, struct agent, op), -EHOSTDOWN);
}

int agent_start(struct agent *a, struct sandbox *sb, enum guest_frame_type type,
		struct buf *first, struct fault *fault)
{
	struct buf payload = *first;

	*first = (struct buf)BUF_INIT(first->max);
	*a = (struct agent){
		.sb = sb,
		.events = a->events,
		.arg = a->arg,
		.op = { .on_lost = on_lost },
		.call = { .on_reply = on_connected },
		.deadline = { .on_expire = on_deadline },
		.type = type,
		.first = payload,
	};
	int r = sandbox_op_begin(sb, &a->op, fault);
	if (r < 0) {
		buf_free(&a->first);
		return r;
	}
	a->active = true;
	r = vmm_peer_connect(sandbox_vmm(sb), BRIG_AGENT_PORT, &a->call);
	if (r < 0) {
		agent_stop(a);
		agent_fault(sb, r, fault);
		return -EINVAL;
	}
	agent_set_deadline(a, AGENT_REPLY_TIMEOUT_S * NS_PER_S);
	return 0;
}

void agent_stop(struct agent *a)
{
	if (!a->active)
		return;
	a->active = false;
	sandbox_op_end(a->sb, &a->op);
	vmm_peer_cancel(sandbox_vmm(a->sb), &a->call);
	loop_timer_del(a->sb->set->app->loop, &a->deadline);
	guest_conn_close(a->conn);
	a->conn = NULL;
	buf_free(&a->first);
}

void agent_set_deadline(struct agent *a, uint64_t after_ns)
{
	struct loop *loop = a->sb->set->app->loop;

	if (after_ns > 0)
		loop_timer_set(loop, &a->deadline, after_ns);
	else
		loop_timer_del(loop, &a->deadline);
}

void agent_fault(const struct sandbox *sb, int error, struct fault *ret)
{
	if (error == -EHOSTDOWN && sandbox_check_running(sb, ret) < 0)
		return;
	if (error == -ETIMEDOUT)
		(void)fault_set(ret, 503, "agent_error",
				"the agent in the sandbox does not answer");
	else if (error == -EPROTO)
		(void)fault_set(ret, 503, "agent_error",
				"the agent in the sandbox answered nonsense");
	else
		(void)fault_set(ret, 503, "agent_error",
				"no connection to the agent in the sandbox: %s",
				error == 0 ? "closed" : strerror(-error));
}

/* An errno of the guest; it is Linux there as well. */
static void file_fault(uint32_t error, const char *text, struct fault *ret)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
		(void)fault_set(ret, 404, "not_found",
				"no such file in the sandbox: %s", text);
		return;
	case ENOSPC:
	case EDQUOT:
		(void)fault_set(
			ret, 507, "disk_full",
			"the disk of the sandbox is full, no space left: %s",
			text);
		return;
	case EISDIR:
		(void)fault_set(ret, 422, "is_a_directory",
				"this is a directory: %s", text);
		return;
	case EACCES:
	case EPERM:
	case EROFS:
		(void)fault_set(ret, 403, "permission_denied",
				"the sandbox's file system refuses it: %s",
				text);
		return;
	default:
		(void)fault_set(ret, 422, "file_error", "%s: %s", text,
				strerror((int)(error & 0xfff)));
	}
}

void agent_fault_of_frame(const struct frame *f, struct fault *ret)
{
	struct guest_error e;
	const char *why;

	frame_copy(f, &e, sizeof(e));
	why = strerror((int)(e.error & 0xfff));
	switch (e.stage) {
	case GUEST_AT_USER:
		(void)fault_set(ret, 422, "no_such_user",
				"no such user in the sandbox: %s", e.detail);
		return;
	case GUEST_AT_CWD:
		(void)fault_set(ret, 404, "bad_working_dir",
				"the working directory %s: %s", e.detail, why);
		return;
	case GUEST_AT_EXEC:
		(void)fault_set(ret, 422, "cannot_execute",
				"cannot execute %s: %s", e.detail, why);
		return;
	case GUEST_AT_FORK:
		(void)fault_set(ret, 503, "sandbox_busy",
				"the sandbox has no room for a process: %s",
				why);
		return;
	case GUEST_AT_OPEN:
	case GUEST_AT_IO:
		file_fault(e.error, e.detail, ret);
		return;
	case GUEST_AT_REQUEST:
		(void)fault_set(ret, 422, "refused",
				"the sandbox refuses the request: %s",
				e.detail);
		return;
	default:
		(void)fault_set(ret, 503, "agent_error",
				"the sandbox failed: %s: %s", e.detail, why);
	}
}
