/* control.c - brig-vmm's side of its conversation with brigd (wire/vmm.h).
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "claim.h"
#include "clock.h"
#include "control.h"
#include "fd.h"
#include "log.h"
#include "machine.h"
#include "num.h"
#include "stop.h"
#include "workset.h"

static int send_msg(const struct vmm_msg *msg, int fd)
{
	int r = fd_send_packet(VMM_FD_CONTROL, msg, sizeof(*msg), &fd,
			       fd >= 0 ? 1 : 0);

	if (r < 0) {
		log_warn("control=lost error=%d", -r);
		stop_machine(VMM_STOP_COMMAND, (uint64_t)-r);
	}
	return r;
}

static void reply(const struct vmm_msg *request, struct vmm_msg *msg, int fd)
{
	msg->type = VMM_REPLY;
	msg->seq = request->seq;
	int r = send_msg(msg, fd);
	(void)r; /* send_msg() has stopped the machine */
}

static void do_connect(struct machine *m, const struct vmm_msg *request)
{
	struct vmm_msg msg = { .port = request->port };
	cleanup_fd int fd = -1;

	vmm_lock();
	msg.status = vsock_connect(&m->vsock, request->port, &fd);
	vmm_unlock();
	reply(request, &msg, fd);
}

static void do_stats(struct machine *m, const struct vmm_msg *request)
{
	struct vmm_msg msg = { 0 };
	struct vmm_stats *s = &msg.u.stats;

	vmm_lock();
	s->blk_read_bytes = m->blk.read_bytes;
	s->blk_write_bytes = m->blk.write_bytes;
	s->blk_reads = m->blk.reads;
	s->blk_writes = m->blk.writes;
	s->layer_bytes = blk_layer_bytes(&m->blk);
	s->vsock_rx_bytes = m->vsock.rx_bytes;
	s->vsock_tx_bytes = m->vsock.tx_bytes;
	for (unsigned int i = 0; i < BRIG_MMIO_SLOTS; i++) {
		if (m->bus.slots[i] != NULL)
			s->needs_reset += m->bus.slots[i]->needs_reset_count;
	}
	vmm_unlock();
	s->console_dropped =
		(uint32_t)u64_min(serial_dropped(&m->serial), UINT32_MAX);
	reply(request, &msg, -1);
}

static void say(uint32_t type)
{
	struct vmm_msg msg = { .type = type,
			       .value = clock_ns(CLOCK_PROCESS_CPUTIME_ID) };
	int r = send_msg(&msg, -1);
	(void)r; /* send_msg() has stopped the machine */
}

/* --- claims, pauses, saves -------------------------------------------------- */

/* A machine whose claim failed is good for nothing, unless it came at the wrong
 * time. */
static void do_claim(struct machine *m, const struct vmm_msg *request, int *fds,
		     size_t nfds)
{
	struct vmm_msg msg = { 0 };

	if (request->type == VMM_BOOT)
		msg.status = claim_boot(m, &request->u.boot, fds, nfds);
	else
		msg.status = claim_restore(m, &request->u.restore, fds, nfds,
					   request->type == VMM_RESET);
	reply(request, &msg, -1);
	if (msg.status == 0)
		say(VMM_RUNNING);
	else if (msg.status != -EBUSY)
		stop_machine(VMM_STOP_SETUP, (uint64_t)-msg.status);
}

static void do_pause(struct machine *m, const struct vmm_msg *request)
{
	struct vmm_msg msg = { 0 };
	bool pause = request->type == VMM_PAUSE;

	if (m->state == MACHINE_SHELL) {
		msg.status = -EPROTO;
	} else if (pause && m->state == MACHINE_RUNNING) {
		vcpu_pause_all(m->vcpus, m->config.vcpus);
		m->state = MACHINE_PAUSED;
	} else if (!pause && m->state == MACHINE_PAUSED) {
		vcpu_resume_all(m->vcpus, m->config.vcpus);
		m->state = MACHINE_RUNNING;
	}
	reply(request, &msg, -1);
}

static void do_save(struct machine *m, const struct vmm_msg *request, int *fds,
		    size_t nfds)
{
	struct vmm_msg msg = { 0 };

	msg.status =
		save_begin(m, request, fds, nfds, &msg.value, &msg.u.saved);
	reply(request, &msg, -1);
}

static void do_working_set(struct machine *m, const struct vmm_msg *request,
			   const int *fds, size_t nfds)
{
	struct vmm_msg msg = { .status = -EPROTO };

	if (nfds == 1 && m->state != MACHINE_SHELL)
		msg.status = workset_write(&m->memory, fds[0], &msg.value);
	reply(request, &msg, -1);
}

void control_saved(uint32_t seq, int status, const struct vmm_saved *saved)
{
	struct vmm_msg msg = {
		.type = VMM_SAVED,
		.seq = seq,
		.status = status,
		.u.saved = *saved,
	};
	int r = send_msg(&msg, -1);
	(void)r; /* send_msg() has stopped the machine */
}

static void handle(struct machine *m, const struct vmm_msg *request, int *fds,
		   size_t nfds)
{
	switch (request->type) {
	case VMM_CONNECT:
		do_connect(m, request);
		break;
	case VMM_STATS:
		do_stats(m, request);
		break;
	case VMM_BOOT:
	case VMM_RESTORE:
	case VMM_RESET:
		do_claim(m, request, fds, nfds);
		break;
	case VMM_PAUSE:
	case VMM_RESUME:
		do_pause(m, request);
		break;
	case VMM_WORKING_SET:
		do_working_set(m, request, fds, nfds);
		break;
	case VMM_SAVE:
		do_save(m, request, fds, nfds);
		break;
	default: /* VMM_STOP among them */
		stop_machine(VMM_STOP_COMMAND, request->type);
		break;
	}
}

void control_event(struct machine *m)
{
	struct vmm_msg request;
	int fds[VMM_FDS_MAX];
	size_t nfds = 0;
	ssize_t n = fd_recv_packet(VMM_FD_CONTROL, &request, sizeof(request),
				   fds, VMM_FDS_MAX, &nfds);

	if (n == -EAGAIN)
		return;
	if (n == (ssize_t)sizeof(request))
		handle(m, &request, fds, nfds);
	else
		stop_machine(VMM_STOP_COMMAND, 0); /* brigd is gone, or mad */
	for (size_t i = 0; i < nfds; i++)
		fd_close(&fds[i]);
}

/* --- what the machine says --------------------------------------------------- */

void control_ready(void)
{
	say(VMM_READY);
}

void control_stopped(void)
{
	struct vmm_msg msg = { .type = VMM_STOPPED };

	msg.status = (int32_t)stop_reason(&msg.value);
	log_info("stopped reason=%d detail=%llu", msg.status,
		 (unsigned long long)msg.value);
	int r = fd_send_packet(VMM_FD_CONTROL, &msg, sizeof(msg), NULL, 0);
	(void)r; /* brigd may be the reason */
}

int control_accept(void *arg, uint32_t port, int fd)
{
	struct vmm_msg msg = { .type = VMM_ACCEPT, .port = port };
	cleanup_fd int owned = fd;

	(void)arg;
	return send_msg(&msg, owned);
}
