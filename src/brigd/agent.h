/* agent.h - one request to the agent of a sandbox, from connect to its end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Asks the VMM for a stream to the agent, sends the first frame, gives out
 * the frames that come back and says when it is over: the agent closed, broke
 * the protocol or was silent for too long, or the sandbox went away.
 */
#ifndef BRIGD_AGENT_H
#define BRIGD_AGENT_H

#include "buf.h"
#include "fault.h"
#include "peer_guest.h"
#include "peer_vmm.h"
#include "sandbox.h"

struct agent_events {
	/* The first frame is on its way; more may be sent. May be NULL. */
	void (*on_open)(void *arg);
	/* The deadline of the first frame goes on until the owner calls
	 * agent_set_deadline(). */
	void (*on_frame)(void *arg, const struct frame *f);
	/* It is over, and the request was stopped already. 0: the agent
	 * closed; -EHOSTDOWN: the sandbox is gone; -ETIMEDOUT; -EPROTO; or
	 * another -errno. */
	void (*on_end)(void *arg, int error);
	void (*on_writable)(void *arg); /* may be NULL */
};

/* Embedded in its owner. */
struct agent {
	struct sandbox *sb;
	const struct agent_events *events;
	void *arg;
	struct sandbox_op op;
	struct vmm_call call;
	struct guest_conn *conn; /* NULL until the VMM answered */
	struct loop_timer deadline;
	enum guest_frame_type type; /* of the first frame */
	struct buf first;           /* its payload, until it is sent */
	bool active;
};

/* Starts with a->events and a->arg set, all else zero, and with a first frame whose payload is taken from `first` (max
 * BRIG_FRAME_MAX; the buffer is emptied). 0, then on_end or agent_stop() ends
 * it; or -EINVAL after filling *fault (422 sandbox_not_running, 429, 503). */
must_check int agent_start(struct agent *a, struct sandbox *sb,
			   enum guest_frame_type type, struct buf *first,
			   struct fault *fault);

/* Ends it at once and without a callback; harmless when it is over. */
void agent_stop(struct agent *a);

/* on_end(-ETIMEDOUT) after so many ns without another call; 0: never. */
void agent_set_deadline(struct agent *a, uint64_t after_ns);

/* What on_end's error, or a GUEST_ERROR frame (AT_USER, AT_CWD, ...), means
 * to a client. Always fills *ret. */
void agent_fault(const struct sandbox *sb, int error, struct fault *ret);
void agent_fault_of_frame(const struct frame *f, struct fault *ret);

#endif
