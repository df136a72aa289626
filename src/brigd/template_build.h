/* template_build.h - boots a machine nobody sees, warms it and saves it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_TEMPLATE_BUILD_H
#define BRIGD_TEMPLATE_BUILD_H

#include "run.h"
#include "snapshot.h"

/* Frees itself when all is over. */
struct template_build {
	/* `snapshot` is NULL after a fault. Not called any more once `arg` is
	 * NULL. */
	void (*on_done)(void *arg, const char *snapshot,
			const struct fault *fault);
	void *arg;

	/* Private. */
	struct app *app;
	struct sandbox *sb; /* NULL: gone */
	struct sandbox_waiter waiter;
	struct run run;
	bool running;      /* `run` goes on */
	unsigned int step; /* of warming */
	char *warm;        /* owned; NULL: no command */
	struct loop_timer settle;
	unsigned int looks; /* at whether it stands still */
	bool saving;        /* `snapshot` goes on */
	struct snapshot snapshot;
	char name[NAME_BYTES];
	struct fault fault;
};

/* NULL after filling *fault. */
struct template_build *
template_build_start(struct app *app, const char *name,
		     const struct shape *shape, const char *warm,
		     void (*on_done)(void *arg, const char *snapshot,
				     const struct fault *fault),
		     void *arg, struct fault *fault);

/* Ends it; on_done is not called. NULL is fine. */
void template_build_cancel(struct template_build *b);

/* At the end of brigd: frees it, whatever goes on. */
void template_build_free(struct template_build *b);

#endif
