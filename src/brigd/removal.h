/* removal.h - deletes sandboxes and answers when they are cleaned up.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_REMOVAL_H
#define BRIGD_REMOVAL_H

#include "http.h"
#include "sandbox.h"

/* Deletes `only`, or all of the tenant's sandboxes if it is NULL, and answers
 * `rq` when they are gone: as delete does, or as delete-all. `snapshot` is the
 * name of one that was made of `only` before; NULL: none. What is not cleaned
 * up after some time is reported as an error and goes on in the background, as
 * it does when the client goes away. */
void removal_start(struct request *rq, struct sandbox *only,
		   const char *snapshot);

#endif
