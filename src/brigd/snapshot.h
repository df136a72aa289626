/* snapshot.h - saves a sandbox and publishes what came out.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_SNAPSHOT_H
#define BRIGD_SNAPSHOT_H

#include "save.h"
#include "snapstore.h"

/* Embedded in its owner. */
struct snapshot {
	/* Set before snapshot_start(). `fault` NULL: the snapshot is there,
	 * `draft.snap` describes it. Called once, from the loop. With `pause`
	 * the sandbox stands still then, if it still is there (`save.sb`), and
	 * save_release() or save_forget() is the owner's next step; not so
	 * after a fault: then it runs on. */
	void (*on_done)(struct snapshot *s, const struct fault *fault);

	struct snap_draft draft;
	struct save save;

	/* Private. */
	struct app *app;
	bool pause;
	json_t *settings; /* owned; draft.snap borrows it */
	struct fault fault;
	char sandbox_id[BRIG_ID_BYTES];
};

struct snapshot_options {
	const char *name; /* NULL: generate one */
	const char *warm; /* of a template: what warmed it; or NULL */
	enum snap_kind kind;
	bool quick;
	bool pause;
};

/* 0, then on_done is called; or -EINVAL after filling *fault. */
must_check int snapshot_start(struct snapshot *s, struct sandbox *sb,
			      const struct snapshot_options *options,
			      struct fault *fault);

/* What holds a paused sandbox is called "pause-..." and is a part of it: no
 * list shows it. */
void snapshot_name_pause(const char *sandbox_id, char ret[NAME_BYTES]);
must_check bool snapshot_is_pause(const struct snap *s);

/* At start: deletes those that no sandbox is held by any more. */
void snapshot_drop_orphans(struct app *app);

/* What an error of the snapshot store means to a client. */
void snapshot_fault(int error, struct fault *ret);

#endif
