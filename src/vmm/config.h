/* config.h - the shape of one microVM; checked here and nowhere else.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_CONFIG_H
#define BRIG_VMM_CONFIG_H

#include "cc.h"
#include "kvm.h"
#include "wire/vmm.h"

/* Reads struct vmm_config from the pipe `fd` and checks every field against
 * wire/limits.h, and then the CPUID entries that it promises (*cpuid: none is
 * nent 0). 0, -EPROTO (wrong size, magic or version), -ERANGE (a number outside
 * its limits) or the errno of the read. */
must_check int config_read(int fd, struct vmm_config *ret,
			   struct kvm_cpuid_table *cpuid);

/* The check alone. */
must_check int config_check(const struct vmm_config *c);

#endif
