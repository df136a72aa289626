/* spawn_request.c - any packet of a brigd that turned against us.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first byte is the number of descriptors, the rest the packet. What is
 * accepted must be what its comments in wire/ promise, said again here in
 * other words; a descriptor of any kind (the process's own) must not crash the
 * second check.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "src/spawn/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		__builtin_trap();
}

static void check_accepted(const struct spawn_msg *m)
{
	char name[BRIG_ID_BYTES + 1] = "";

	memcpy(name, m->id, BRIG_ID_BYTES);
	require(strlen(name) == 27);
	require(strspn(name, "sb_0123456789acdefghijklmnopqrtuvwxyz") == 27);
	require(strchr(name + 3, '_') == NULL);
	require(m->vcpus - 1 < 8);
	require(m->memory_mib >> 7 > 0 && m->memory_mib <= 16 << 10);
	require(m->disk_bytes % (1 << 20) == 0);
	require(m->disk_bytes >> 20 >= 64 && m->disk_bytes >> 30 <= 256);
	require(m->cpu_quota_percent <= 800);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spawn_msg m;

	if (size < 1)
		return 0;
	memset(&m, 0, sizeof(m));
	memcpy(&m, data + 1, size - 1 < sizeof(m) ? size - 1 : sizeof(m));
	if (request_check_start(&m, data[0]) == 0) {
		require(data[0] == 1);
		check_accepted(&m);
	}
	require(request_check_control((int)(m.seq & 15) - 1) < 0);
	return 0;
}
