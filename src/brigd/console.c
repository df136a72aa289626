/* console.c - the boot log that a brig-vmm leaves in shared memory.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "console.h"
#include "fd.h"
#include "num.h"
#include "utf8.h"

int console_make(int *ret_fd, struct vmm_console **ret_map)
{
	cleanup_fd int fd =
		memfd_create("brig-console", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, sizeof(struct vmm_console)) < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) <
	    0)
		return -errno;
	void *map = mmap(NULL, sizeof(struct vmm_console), PROT_READ,
			 MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*ret_fd = fd_take(&fd);
	*ret_map = map;
	return 0;
}

void console_free(struct vmm_console *map)
{
	if (map != NULL)
		(void)munmap(map, sizeof(*map));
}

int console_add_tail(const struct vmm_console *map, size_t n, struct buf *to)
{
	uint64_t end = __atomic_load_n(&map->written, __ATOMIC_ACQUIRE);

	n = (size_t)u64_min(u64_min(n, BRIG_CONSOLE_RING_BYTES), end);
	if (n == 0)
		return 0;
	uint8_t *copy = malloc(n);
	if (copy == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		copy[i] = map->data[(end - n + i) % BRIG_CONSOLE_RING_BYTES];
	/* The ring may begin in the middle of a character. */
	size_t skip = 0;
	while (skip < n && skip < UTF8_TAIL_MAX && (copy[skip] & 0xc0) == 0x80)
		skip++;
	int r = utf8_add(to, copy + skip, n - skip);
	free(copy);
	return r;
}
