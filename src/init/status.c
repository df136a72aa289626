/* status.c - how the guest is doing: STATUS.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "loop.h"
#include "meminfo.h"
#include "status.h"
#include "textfile.h"

/* The first line of /proc/stat: user nice system idle iowait irq softirq
 * steal, in ticks (proc(5)). */
#define CPU_COLUMNS 8
#define CPU_IDLE 3
#define CPU_IOWAIT 4
#define HEAD_BYTES 256

static void read_cpu(struct guest_status *ret)
{
	char text[HEAD_BYTES];
	uint64_t tick_ns = NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);

	if (textfile_read(AT_FDCWD, "/proc/stat", text, sizeof(text)) < 0 ||
	    strncmp(text, "cpu ", 4) != 0)
		return;
	char *at = text + 4;
	for (int i = 0; i < CPU_COLUMNS; i++) {
		uint64_t ns = strtoull(at, &at, 10) * tick_ns;
		if (i == CPU_IDLE || i == CPU_IOWAIT)
			ret->cpu_idle_ns += ns;
		else
			ret->cpu_busy_ns += ns;
	}
}

void status_read(const struct cgroup_tree *tree, struct guest_status *ret)
{
	struct meminfo memory;
	struct statvfs disk;
	struct sysinfo info;

	*ret = (struct guest_status){ .uptime_ns = now_ns() };
	if (meminfo_read(&memory) == 0) {
		ret->memory_total_bytes = memory.total_bytes;
		ret->memory_available_bytes = memory.available_bytes;
	}
	read_cpu(ret);
	if (statvfs("/", &disk) == 0) {
		ret->disk_total_bytes = disk.f_blocks * disk.f_frsize;
		ret->disk_free_bytes = disk.f_bfree * disk.f_frsize;
	}
	if (sysinfo(&info) == 0) {
		for (int i = 0; i < 3; i++)
			ret->load_milli[i] = (uint32_t)(info.loads[i] * 1000 >>
							SI_LOAD_SHIFT);
	}
	ret->processes = cgroup_count_tasks(tree);
}
