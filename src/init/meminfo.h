/* meminfo.h - how much memory there is and is left, from /proc/meminfo.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_INIT_MEMINFO_H
#define BRIG_INIT_MEMINFO_H

#include <stdint.h>

#include "cc.h"

struct meminfo {
	uint64_t total_bytes;
	uint64_t available_bytes;
};

/* 0 or -errno. */
must_check int meminfo_read(struct meminfo *ret);

#endif
