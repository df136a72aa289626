/* pool.h - shells that were started ahead, for whoever needs one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Keeps so many shells of the default kind, and of the few kinds that were
 * asked for within the last minute. What was taken is replaced a little
 * later: not while the one who took it is being started. A shell that dies is
 * replaced too, each time later than before.
 */
#ifndef BRIGD_POOL_H
#define BRIGD_POOL_H

#include "app.h"
#include "shell.h"

struct pool;

/* NULL: no memory. With app->pool_size 0 it stays empty. */
struct pool *pool_new(struct app *app);
void pool_free(struct pool *p);

/* A shell of this kind, perhaps not built yet; shell_own() follows at once.
 * NULL: there is none. */
struct shell *pool_take(struct pool *p, const struct shell_kind *kind);

/* Starts no more, and ends what is there. */
void pool_stop(struct pool *p);

/* How many are built. */
unsigned int pool_ready(const struct pool *p);

#endif
