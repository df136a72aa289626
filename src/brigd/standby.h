/* standby.h - sandboxes that run already, for whoever asks next.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A machine that goes on from a template touches most of its memory for the
 * first time until its first command has ended, and each touch is a fault. So
 * a few sandboxes of the default template are restored ahead, hidden, and run
 * one command of each kind. Who asks for such a sandbox gets one of them: it
 * is configured anew (name, ids, entropy, clock), and its receipt is of that.
 *
 * Before that, of each template that comes into memory one sandbox rehearses:
 * it does the same and is asked which pages it used. Those are made ready in
 * all that come from this memory afterwards (src/vmm/workset.h).
 */
#ifndef BRIGD_STANDBY_H
#define BRIGD_STANDBY_H

#include "app.h"
#include "sandbox.h"

struct standby_set;

/* Keeps `count` of them once there is a default template; 0: none, and nothing
 * rehearses. NULL: no memory. */
struct standby_set *standby_set_new(struct app *app, unsigned int count);
void standby_set_free(struct standby_set *set);

/* One that fits, which is the caller's from here on; NULL: there is none. */
struct sandbox *standby_take(struct standby_set *set,
			     const struct sandbox_spec *spec,
			     const struct shape *shape);

/* How many are ready to be taken. */
unsigned int standby_ready(const struct standby_set *set);

#endif
