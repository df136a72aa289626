/* boot.h - puts kernel, initrd and boot parameters into guest memory.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_X86_BOOT_H
#define BRIG_VMM_X86_BOOT_H

#include <stdbool.h>

#include "../gmem.h"
#include "../kvm.h"

struct boot_files {
	int kernel_fd; /* borrowed */
	int initrd_fd; /* borrowed; an empty file means none */
};

struct boot_result {
	gpa_t entry;      /* of the PVH boot protocol */
	gpa_t start_info; /* goes into EBX */
};

/* Loads everything the boot processor needs: kernel segments, the initrd at
 * the end of low RAM, ACPI tables, memory map, command line and the PVH
 * start info (xen/include/public/arch-x86/hvm/start_info.h). Before the
 * first vCPU runs. 0, or what elf_load() returns, -EFBIG when the initrd does
 * not fit above the kernel, or the errno of a read. */
must_check int boot_load(struct gmem *mem, const struct boot_files *files,
			 unsigned int vcpus, bool verbose,
			 struct boot_result *ret);

/* Registers of the boot processor at the PVH entry: 32-bit protected mode,
 * flat segments, no paging. */
must_check int boot_set_registers(int vcpu_fd, const struct boot_result *b);

#endif
