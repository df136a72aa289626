/* poweroff.h - the end of the machine, asked for or not.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_INIT_POWEROFF_H
#define BRIG_INIT_POWEROFF_H

#include "cgroup.h"
#include "loop.h"

/* Kills all runs, writes the file systems out and switches the machine off.
 * A test build only stops `loop`. */
void poweroff(struct loop *loop, const struct cgroup_tree *tree);

/* Says why on the console, in one line, and switches the machine off: for
 * the boot, when there is no way on. `error` is an errno, 0 for none. */
noreturn_fn void poweroff_failed(const char *what, int error);

#endif
