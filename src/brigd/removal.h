/* removal.h - deletes sandboxes and answers when they are cleaned up.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_REMOVAL_H
#define BRIGD_REMOVAL_H

#include "http.h"
#include "sandbox.h"

/* Deletes the `n` sandboxes (the array is borrowed during the call) and
 * answers `rq` when all are gone: as delete-all does if `all`, else as delete
 * does for its one sandbox. What is not cleaned up after some time is reported
 * as an error and goes on in the background, as it does when the client goes
 * away. */
void removal_start(struct request *rq, struct sandbox **sandboxes, size_t n,
		   bool all);

#endif
