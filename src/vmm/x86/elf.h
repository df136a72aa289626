/* elf.h - loads a kernel: an ELF executable with a PVH note.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_X86_ELF_H
#define BRIG_VMM_X86_ELF_H

#include "../gmem.h"

struct elf_kernel {
	gpa_t entry; /* 32-bit entry of the PVH boot protocol */
	gpa_t start; /* lowest and highest byte + 1 of all segments */
	gpa_t end;
};

/* Copies the PT_LOAD segments of the ELF64 or ELF32 x86 file `fd` to their
 * physical addresses and finds the PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY).
 * Every field of the file is taken to be hostile: at most ELF_PHDRS_MAX
 * program headers are read, and nothing outside RAM above 1 MiB is written.
 * 0; -ENOEXEC: not such a file; -EFAULT: does not fit into the RAM; -EIO:
 * shorter than it says; or the errno of the read. */
must_check int elf_load(int fd, struct gmem *mem, struct elf_kernel *ret);

#endif
