/* configure.h - what makes this guest differ from its template: CONFIGURE.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * In a copy the users' processes are frozen when this begins, and they thaw
 * only after everything that must not be the same in two copies was made new
 * and read back. If a step fails they stay frozen. Between the two the hooks
 * of /etc/brig/post-restore.d run, outside the freeze and bounded in time,
 * while the event loop goes on. One thread.
 */
#ifndef BRIG_INIT_CONFIGURE_H
#define BRIG_INIT_CONFIGURE_H

#include "freezer.h"
#include "hooks.h"
#include "wire/guest.h"

struct configure {
	struct freezer *freezer;
	struct hooks hooks; /* its pointers are set by the owner */
	bool disk_grown;
	/* Called at the end: 0 and `done` is the receipt, or -errno and `what`
	 * is the step that failed (a constant). */
	void (*on_done)(struct configure *c, int error);

	uint64_t generation; /* of the last that succeeded; 0: none yet */
	struct guest_configured done;
	const char *what;
	bool busy;
	char hostname[BRIG_HOSTNAME_BYTES];
	char env_text[2][BRIG_HOSTNAME_BYTES + 32];
};

void configure_init(struct configure *c);

/* Begins; on_done may be called before this returns. The message is the
 * host's; not to be called while `busy`. */
void configure_start(struct configure *c, const struct guest_configure *want);

/* Who asked has gone: gives up, and on_done is not called. */
void configure_stop(struct configure *c);

#endif
