/* config.c - the shape of one microVM; checked here and nowhere else.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "config.h"
#include "fd.h"
#include "num.h"

int config_check(const struct vmm_config *c)
{
	if (c->magic != VMM_CONFIG_MAGIC || c->version != VMM_CONFIG_VERSION)
		return -EPROTO;
	if (c->vcpus < 1 || c->vcpus > BRIG_VCPUS_MAX)
		return -ERANGE;
	if (c->memory_mib < BRIG_MEMORY_MIB_MIN ||
	    c->memory_mib > BRIG_MEMORY_MIB_MAX)
		return -ERANGE;
	if (c->disk_bytes < BRIG_DISK_BYTES_MIN ||
	    c->disk_bytes > BRIG_DISK_BYTES_MAX ||
	    !is_aligned(c->disk_bytes, 1u << 20))
		return -ERANGE;
	if (c->cpuid_entries > KVM_CPUID_MAX || c->zero != 0)
		return -ERANGE;
	return 0;
}

int config_read(int fd, struct vmm_config *ret, struct kvm_cpuid_table *cpuid)
{
	struct vmm_config c;
	ssize_t n = fd_read_all(fd, &c, sizeof(c));

	if (n < 0)
		return (int)n;
	if ((size_t)n != sizeof(c))
		return -EPROTO;
	int r = config_check(&c);
	if (r < 0)
		return r;
	size_t bytes = c.cpuid_entries * sizeof(cpuid->entries[0]);
	n = fd_read_all(fd, cpuid->entries, bytes);
	if (n < 0)
		return (int)n;
	if ((size_t)n != bytes)
		return -EPROTO;
	cpuid->nent = c.cpuid_entries;
	*ret = c;
	return 0;
}
