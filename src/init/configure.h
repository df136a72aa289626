/* configure.h - what makes this guest differ from its template: CONFIGURE.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_INIT_CONFIGURE_H
#define BRIG_INIT_CONFIGURE_H

#include "cc.h"
#include "wire/guest.h"

/* Mixes the entropy in, sets the clock and the host name, in this order.
 * Returns 0 and fills *ret but for `disk_grown`, or -errno and in *ret_what
 * the step that failed (a constant). The message is the host's. */
must_check int configure_guest(const struct guest_configure *want,
			       struct guest_configured *ret,
			       const char **ret_what);

#endif
