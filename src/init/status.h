/* status.h - how the guest is doing: STATUS.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_INIT_STATUS_H
#define BRIG_INIT_STATUS_H

#include "cgroup.h"
#include "wire/guest.h"

/* Figures that cannot be read are 0. */
void status_read(const struct cgroup_tree *tree, struct guest_status *ret);

#endif
