/* blk.c - any driver of the block device; see device.h for the script.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Checked besides what the sanitizers see: the base is never written, the
 * top's blocks are those that are marked, and a block reads the same through
 * the disk as from the file that holds it.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device.h"
#include "src/vmm/dev/blk.h"

#define DISK_BYTES (128u << 10)
#define BLOCKS (DISK_BYTES / COW_BLOCK_BYTES)
#define BASE_BYTES (50u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct device_fuzz fuzz;
static struct cow cow;
static struct blk blk;
static uint8_t base[BASE_BYTES];

static void check_blocks(void)
{
	static uint8_t now[BASE_BYTES];
	uint64_t marked = 0;

	if (pread(cow.base_fd, now, BASE_BYTES, 0) != BASE_BYTES ||
	    memcmp(now, base, BASE_BYTES) != 0)
		abort();
	for (uint64_t b = 0; b < BLOCKS; b++) {
		uint8_t disk[COW_BLOCK_BYTES];
		uint8_t file[COW_BLOCK_BYTES] = { 0 };
		struct iovec iov = { disk, sizeof(disk) };
		bool in_top = cow.map[b] == 1;
		off_t at = (off_t)(b * COW_BLOCK_BYTES);
		ssize_t n = pread(in_top ? cow.top_fd : cow.base_fd, file,
				  sizeof(file), at);
		if (n < 0 || (in_top && n != (ssize_t)sizeof(file)) ||
		    cow_read(&cow, (uint64_t)at, &iov, 1) != 0 ||
		    memcmp(disk, file, sizeof(disk)) != 0)
			abort();
		marked += in_top;
	}
	if (marked != cow.layer_blocks)
		abort();
}

static void set_up(void)
{
	int base_fd = memfd_create("base", MFD_CLOEXEC);
	int top_fd = memfd_create("top", MFD_CLOEXEC);
	uint8_t *map = mmap(NULL, BLOCKS, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < BASE_BYTES; i++)
		base[i] = (uint8_t)(i * 31 + 7);
	guest_init(&fuzz.guest);
	if (pwrite(base_fd, base, BASE_BYTES, 0) != BASE_BYTES ||
	    map == MAP_FAILED || cow_init(&cow, DISK_BYTES, map) != 0 ||
	    cow_open(&cow, base_fd, BASE_BYTES, NULL, 0, top_fd) != 0)
		abort();
	blk_init(&blk, &cow, &fuzz.guest.mem,
		 eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	fuzz.dev = &blk.dev;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (fuzz.dev == NULL)
		set_up();
	if (ftruncate(cow.top_fd, 0) != 0)
		abort();
	memset(cow.map, 0, BLOCKS);
	cow.layer_blocks = 0;
	device_run(&fuzz, data, size);
	check_blocks();
	return 0;
}
