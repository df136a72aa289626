/* boot.c - puts kernel, initrd and boot parameters into guest memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   0x1000   struct start_info
 *   0x1100   its module list: the initrd
 *   0x2000   its memory map
 *   0x3000   command line
 *   0xe0000  ACPI tables (acpi.c)
 *   1 MiB..  kernel, where its ELF headers say
 *   top of low RAM: initrd
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "acpi.h"
#include "boot.h"
#include "cpuid.h"
#include "elf.h"
#include "fd.h"
#include "num.h"
#include "wire/boot.h"

#define START_INFO_AT 0x1000u
#define MODULES_AT 0x1100u
#define MEMORY_MAP_AT 0x2000u
#define COMMAND_LINE_AT 0x3000u

/* The first 640 KiB less the page an EBDA would take: free for the guest. */
#define LOW_FREE_END 0x9f000u
#define HIGH_START 0x100000u

#define INITRD_BYTES_MAX (256u << 20)

/* The second half is for hosts with many guests that wait: each wakes as seldom
 * as it can. Nobody looks at what the watchdog, pressure stall information,
 * compaction ahead of need and the statistics of each second are for. */
#define COMMAND_LINE                                                   \
	"console=ttyS0,115200 panic=-1 reboot=a tsc=reliable pci=off " \
	"8250.nr_uarts=1 random.trust_cpu=on rdinit=/init nowatchdog " \
	"psi=0 sysctl.vm.compaction_proactiveness=0 "                  \
	"sysctl.vm.stat_interval=60"

#define QUIET " quiet loglevel=1"

#define START_INFO_MAGIC 0x336ec578u

struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modules;
	uint64_t command_line;
	uint64_t rsdp;
	uint64_t memory_map; /* version 1 */
	uint32_t memory_map_entries;
	uint32_t reserved;
};
static_assert(sizeof(struct start_info) == 56, "start_info.h");

struct module {
	uint64_t start;
	uint64_t size;
	uint64_t command_line;
	uint64_t reserved;
};
static_assert(sizeof(struct module) == 32, "start_info.h");

enum memory_kind {
	MEMORY_RAM = 1,
	MEMORY_RESERVED = 2
};

struct memory_entry {
	uint64_t start;
	uint64_t size;
	uint32_t type; /* enum memory_kind */
	uint32_t reserved;
};
static_assert(sizeof(struct memory_entry) == 24, "start_info.h");

static int load_initrd(struct gmem *mem, int fd, gpa_t kernel_end,
		       struct module *ret)
{
	const struct gmem_region *low = &mem->regions[0];
	struct iovec iov;
	struct stat st;

	*ret = (struct module){ 0 };
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size == 0)
		return 0;
	if (st.st_size < 0 || st.st_size > INITRD_BYTES_MAX)
		return -EFBIG;
	uint64_t size = (uint64_t)st.st_size;
	uint64_t room = align_up(size, 4096);
	if (room > low->size || low->size - room < kernel_end.v)
		return -EFBIG;
	uint64_t at = low->size - room;
	int r = gmem_iovec(mem, GPA(at), size, &iov);
	if (r < 0)
		return r;
	ssize_t n = fd_pread_all(fd, iov.iov_base, size, 0);
	if (n < 0)
		return (int)n;
	if ((uint64_t)n != size)
		return -EIO;
	*ret = (struct module){ .start = at, .size = size };
	return 0;
}

static int write_memory_map(struct gmem *mem, uint32_t *ret_entries)
{
	struct memory_entry map[4] = {
		{ 0, LOW_FREE_END, MEMORY_RAM, 0 },
		{ ACPI_START, ACPI_END - ACPI_START, MEMORY_RESERVED, 0 },
		{ HIGH_START, mem->regions[0].size - HIGH_START, MEMORY_RAM,
		  0 },
	};
	uint32_t n = 3;

	if (mem->count > 1)
		map[n++] = (struct memory_entry){ mem->regions[1].start,
						  mem->regions[1].size,
						  MEMORY_RAM, 0 };
	*ret_entries = n;
	return gmem_write(mem, GPA(MEMORY_MAP_AT), map, n * sizeof(map[0]));
}

/* An emulated processor does not speculate: mitigations would cost
 * instructions and protect nothing. */
static const char *command_line(bool verbose)
{
	if (cpuid_is_emulated())
		return verbose ? COMMAND_LINE " mitigations=off"
			       : COMMAND_LINE QUIET " mitigations=off";
	return verbose ? COMMAND_LINE : COMMAND_LINE QUIET;
}

static int write_parameters(struct gmem *mem, const struct module *initrd,
			    gpa_t rsdp, bool verbose)
{
	const char *line = command_line(verbose);
	struct start_info info = {
		.magic = START_INFO_MAGIC,
		.version = 1,
		.nr_modules = initrd->size > 0 ? 1 : 0,
		.modules = MODULES_AT,
		.command_line = COMMAND_LINE_AT,
		.rsdp = rsdp.v,
		.memory_map = MEMORY_MAP_AT,
	};
	int r = write_memory_map(mem, &info.memory_map_entries);

	if (r == 0)
		r = gmem_write(mem, GPA(MODULES_AT), initrd, sizeof(*initrd));
	if (r == 0)
		r = gmem_write(mem, GPA(COMMAND_LINE_AT), line,
			       strlen(line) + 1);
	if (r == 0)
		r = gmem_write(mem, GPA(START_INFO_AT), &info, sizeof(info));
	return r;
}

int boot_load(struct gmem *mem, const struct boot_files *files,
	      unsigned int vcpus, bool verbose, struct boot_result *ret)
{
	struct elf_kernel kernel;
	struct module initrd;
	gpa_t rsdp;
	int r = elf_load(files->kernel_fd, mem, &kernel);

	if (r == 0)
		r = load_initrd(mem, files->initrd_fd, kernel.end, &initrd);
	if (r == 0)
		r = acpi_write(mem, vcpus, &rsdp);
	if (r == 0)
		r = write_parameters(mem, &initrd, rsdp, verbose);
	if (r < 0)
		return r;
	*ret = (struct boot_result){ kernel.entry, GPA(START_INFO_AT) };
	return 0;
}

/* A flat 4 GiB segment. */
static struct kvm_segment flat(uint16_t selector, uint8_t type)
{
	return (struct kvm_segment){
		.limit = 0xffffffffu,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1,
	};
}

#define SEGMENT_CODE 0xbu /* execute, read, accessed */
#define SEGMENT_DATA 0x3u /* read, write, accessed */
#define SEGMENT_TSS32_BUSY 0xbu

int boot_set_registers(int vcpu_fd, const struct boot_result *b)
{
	struct kvm_sregs s;
	struct kvm_regs regs = {
		.rflags = 2,
		.rip = b->entry.v,
		.rbx = b->start_info.v,
	};
	int r = kvm_get_sregs(vcpu_fd, &s);

	if (r < 0)
		return r;
	s.cs = flat(0x08, SEGMENT_CODE);
	s.ds = flat(0x10, SEGMENT_DATA);
	s.es = s.fs = s.gs = s.ss = s.ds;
	s.tr = (struct kvm_segment){
		.limit = 0x67,
		.selector = 0x18,
		.type = SEGMENT_TSS32_BUSY,
		.present = 1,
	};
	s.cr0 = 1; /* protection enabled, paging off */
	s.cr4 = 0;
	s.efer = 0;
	r = kvm_set_sregs(vcpu_fd, &s);
	return r < 0 ? r : kvm_set_regs(vcpu_fd, &regs);
}
