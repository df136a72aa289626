/* where.h - where the programs are that brig starts.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_CLI_WHERE_H
#define BRIG_CLI_WHERE_H

#include <stddef.h>

#include "cc.h"

#define WHERE_BYTES 4096

/* Looks for an executable: $BRIG_LIBEXEC/NAME; LIBEXEC/brig/NAME beside the
 * directory of this program; in a build tree (this program is in
 * build/COMPILER/bin) `in_tree`, relative to that directory; last
 * /usr/libexec/brig/NAME. 0 or -ENOENT. */
must_check int where_find(const char *name, const char *in_tree,
			  char ret[static WHERE_BYTES]);

/* The directory in which brig-host keeps the host VM's data, as host/brig-host
 * finds it; empty when there can be none. */
void where_host_dir(char ret[static WHERE_BYTES]);

/* Looks for NAME in PATH. 0 or -ENOENT. */
must_check int where_in_path(const char *name, char ret[static WHERE_BYTES]);

#endif
