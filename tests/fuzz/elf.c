/* elf.c - fuzz target: the kernel loader (security.md A-26).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Whatever the file says: no write outside RAM (ASan's red zones around the
 * mapping), no more than the file's bytes read, an error or a sane entry.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/base/cc.h"
#include "src/vmm/x86/elf.h"

#define RAM_BYTES (2u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static uint8_t *ram;
	struct elf_kernel k;

	if (fd < 0) {
		fd = memfd_create("kernel", 0);
		ram = malloc(RAM_BYTES);
		ASSERT(fd >= 0 && ram != NULL);
	}
	ASSERT(ftruncate(fd, (off_t)size) == 0);
	ASSERT(pwrite(fd, data, size, 0) == (ssize_t)size);
	struct gmem mem = { .count = 1, .regions = { { 0, RAM_BYTES, ram } } };
	int r = elf_load(fd, &mem, &k);
	ASSERT(r <= 0);
	if (r == 0)
		ASSERT(k.start.v >= 0x100000 && k.end.v <= RAM_BYTES &&
		       k.entry.v >= k.start.v && k.entry.v < k.end.v);
	return 0;
}
