/* request.c - what brig-spawn lets brigd ask for.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "num.h"
#include "request.h"

#define MIB (1ull << 20)
#define QUOTA_PERCENT_MAX (100u * BRIG_VCPUS_MAX)

int request_check_id(const char *id, size_t size)
{
	if (size <= BRIG_ID_LEN || memcmp(id, "sb_", 3) != 0)
		return -EINVAL;
	for (size_t i = 3; i < BRIG_ID_LEN; i++) {
		bool ok = (id[i] >= 'a' && id[i] <= 'z') ||
			  (id[i] >= '0' && id[i] <= '9');
		if (!ok)
			return -EINVAL;
	}
	for (size_t i = BRIG_ID_LEN; i < size; i++) {
		if (id[i] != '\0')
			return -EINVAL;
	}
	return 0;
}

int request_check_start(const struct spawn_msg *m, size_t nfds)
{
	if (m->type != SPAWN_START || nfds != SPAWN_START_FDS)
		return -EINVAL;
	if (m->vcpus < 1 || m->vcpus > BRIG_VCPUS_MAX)
		return -ERANGE;
	if (m->memory_mib < BRIG_MEMORY_MIB_MIN ||
	    m->memory_mib > BRIG_MEMORY_MIB_MAX)
		return -ERANGE;
	if (m->disk_bytes < BRIG_DISK_BYTES_MIN ||
	    m->disk_bytes > BRIG_DISK_BYTES_MAX ||
	    !is_aligned(m->disk_bytes, MIB))
		return -ERANGE;
	if (m->cpu_quota_percent > QUOTA_PERCENT_MAX)
		return -ERANGE;
	return request_check_id(m->id, sizeof(m->id));
}

int request_check_control(int fd)
{
	int type = 0;
	int domain = 0;
	socklen_t n = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
		return -EBADF;
	return type == SOCK_SEQPACKET && domain == AF_UNIX ? 0 : -EBADF;
}
