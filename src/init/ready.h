/* ready.h - the connection by which the host knows that the agent lives.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Made again for as long as it takes whenever it breaks: that is how the host
 * meets a guest that was restored, whose connections are cut by the copy. One
 * thread.
 */
#ifndef BRIG_INIT_READY_H
#define BRIG_INIT_READY_H

#include "configure.h"
#include "loop.h"
#include "stream.h"

enum ready_state {
	READY_DOWN,
	READY_CONNECTING,
	READY_UP,
};

struct ready {
	struct loop *loop;
	/* Gives a non-blocking stream socket that is connected to the host or
	 * on its way to be, or -errno. */
	int (*connect)(void);
	struct configure configure; /* its pointers are set by the owner */

	enum ready_state state;
	uint64_t epoch; /* grows with each connection */
	struct stream stream;
	struct loop_fd socket;
	struct loop_timer again;
	uint64_t hello_ns; /* HELLO went; 0: it was answered */
	uint64_t pause_ns; /* before the next attempt */
	bool answer_waits; /* CONFIGURED or ERROR has to be put */
	int configure_error;
};

/* Begins to connect. `connect` and what `configure` needs are set before. */
void ready_init(struct ready *r);
void ready_fini(struct ready *r);

/* The connection that was up as `epoch` still is, as far as the kernel
 * knows. */
must_check bool ready_is_same(const struct ready *r, uint64_t epoch);

#endif
