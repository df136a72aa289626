/* creation.h - waits for new sandboxes and answers who asked for them.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_CREATION_H
#define BRIGD_CREATION_H

#include <jansson.h>

#include "http.h"
#include "sandbox.h"

enum creation_form {
	CREATION_V1,         /* POST /v1/sandboxes/create */
	CREATION_V1_RESTORE, /* POST /v1/snapshots/{id}/restore */
	CREATION_V1_CLONE,   /* POST /v1/sandboxes/{id}/clone */
	CREATION_ONE,        /* POST /v2/sandboxes */
	CREATION_MANY,       /* the same with count; clone; rollback, ... */
};

struct creation;

/* For at most `n` sandboxes. NULL after answering. */
struct creation *creation_new(struct request *rq, enum creation_form form,
			      size_t n, bool wait);

/* One that was just created, or restarted (`keep`: it stays when it fails). */
void creation_add(struct creation *c, struct sandbox *sb, bool keep);

/* One that could not be. */
void creation_add_fault(struct creation *c, const struct fault *fault);

/* The snapshot that CREATION_V1_CLONE and _RESTORE speak of; taken. */
void creation_set_snapshot(struct creation *c, json_t *snapshot);

/* All are added: answers now or later. */
void creation_wait(struct creation *c);

#endif
