/* freezer.h - users' processes stopped while the machine is copied.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A machine is only ever saved while it is frozen, and its connections do not
 * survive the copy. So a run whose connection breaks while everything is
 * frozen is not killed at once: in the copy it goes on as a background
 * process, and in the source it is killed when that thaws. One thread.
 * Functions return 0 or -errno.
 */
#ifndef BRIG_INIT_FREEZER_H
#define BRIG_INIT_FREEZER_H

#include "cgroup.h"
#include "wire/limits.h"

struct freezer {
	struct cgroup_tree *runs;
	struct cgroup_tree *hooks;
	bool frozen;       /* from freezer_freeze to freezer_thaw */
	bool files_frozen; /* the root file system */
	/* Runs that lost their connection since: as many as were running. */
	uint64_t lost[BRIG_VSOCK_CONNS_MAX];
	unsigned int lost_count;
};

enum freezer_side {
	FREEZER_SOURCE, /* the machine that was frozen */
	FREEZER_COPY,   /* restored from what was saved of it */
};

/* Begins to stop all processes of users. */
must_check int freezer_freeze(struct freezer *f);

/* True once the last of them has stopped. */
bool freezer_is_done(const struct freezer *f);

/* Lets them go on. Thaws the root file system first. */
must_check int freezer_thaw(struct freezer *f, enum freezer_side side);

/* Lets only the root file system and what hooks left running go on. */
must_check int freezer_thaw_files(struct freezer *f);
must_check int freezer_thaw_hooks(struct freezer *f);

/* Blocks until the root file system is written out and takes no more writes:
 * for a child process of the agent. The parent then sets `files_frozen`. */
must_check int freezer_freeze_files(void);

/* The connection of run `id` is gone. True when its processes live on for
 * now; false when the caller has to kill them. */
must_check bool freezer_adopt(struct freezer *f, uint64_t id);

#endif
