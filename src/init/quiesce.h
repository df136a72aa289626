/* quiesce.h - QUIESCE and THAW: everything of users stands still for a copy.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 *   WARMING    interpreters that are being started become ready
 *   HOOKS      /etc/brig/pre-snapshot.d           with GUEST_QUIESCE_FILES
 *   SYNCING    file systems are written out       with GUEST_QUIESCE_FILES
 *   FREEZING   all processes of users stop
 *   SEALING    the root file system stops         with GUEST_QUIESCE_FILES
 *   HELD       QUIESCED was put: the host may save the machine
 *   LEAVING    THAWED or ERROR was put: then close
 *   LOST       the connection broke while HELD: this is a copy, and CONFIGURE
 *              lets users go on; or the host forgot about us, and its ready
 *              connection is as it was: then they go on after a moment
 *
 * Each step has a deadline; one that is missed thaws everything and answers
 * ERROR. A connection that breaks before HELD thaws everything too: nothing
 * was saved yet. The event loop is never blocked. One thread.
 */
#ifndef BRIG_INIT_QUIESCE_H
#define BRIG_INIT_QUIESCE_H

#include "freezer.h"
#include "hooks.h"
#include "ready.h"
#include "warm.h"

enum quiesce_state {
	QUIESCE_NONE,
	QUIESCE_WARMING,
	QUIESCE_HOOKS,
	QUIESCE_SYNCING,
	QUIESCE_FREEZING,
	QUIESCE_SEALING,
	QUIESCE_HELD,
	QUIESCE_LEAVING,
	QUIESCE_LOST,
};

struct quiesce {
	struct loop *loop;
	struct reaper *reaper;
	struct freezer *freezer;
	const struct ready *ready;
	struct warm *warm;
	struct hooks hooks; /* its pointers are set by the owner */
	/* The connection is closed; `owner` is told. */
	void (*on_done)(void *owner);

	enum quiesce_state state;
	void *owner;
	uint32_t flags;
	struct stream stream;
	struct loop_fd socket;
	struct child helper; /* of SYNCING and SEALING */
	struct loop_timer timer;
	uint64_t deadline_ns; /* of the state */
	uint64_t ready_epoch; /* when it began */
	bool gone;            /* the connection broke before HELD */
};

void quiesce_init(struct quiesce *q);

/* Forgets all; processes stay as they are. */
void quiesce_fini(struct quiesce *q);

/* Serves the QUIESCE frame in `s` and takes `s` over, or returns -errno:
 * -EBUSY while another one is served, -EINVAL for unknown flags. Calls on_done
 * later, never from within. */
must_check int quiesce_start(struct quiesce *q, struct stream *s, void *owner);

#endif
