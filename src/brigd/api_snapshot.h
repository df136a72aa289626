/* api_snapshot.h - what other handlers need to say about snapshots.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_API_SNAPSHOT_H
#define BRIGD_API_SNAPSHOT_H

#include <jansson.h>

#include "http.h"
#include "snapshot.h"

json_t *api_snapshot_json_v1(const struct snap *s);

/* Answers with the snapshot object of part 2. */
void api_snapshot_reply(struct request *rq, const char *id);

#endif
