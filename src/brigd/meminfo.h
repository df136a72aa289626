/* meminfo.h - one figure of /proc/meminfo.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_MEMINFO_H
#define BRIGD_MEMINFO_H

#include <stdint.h>

#include "cc.h"

/* The value of `name` ("MemTotal", "MemAvailable") in MiB; 0 if the kernel
 * does not say. */
must_check uint64_t meminfo_mib(const char *name);

#endif
