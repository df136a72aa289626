/* acpi.h - the ACPI tables that describe the machine.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_X86_ACPI_H
#define BRIG_VMM_X86_ACPI_H

#include "../gmem.h"

/* RSDP and all tables go here: below 1 MiB, in a range that the memory map
 * calls reserved. */
#define ACPI_START 0xe0000u
#define ACPI_END 0x100000u

/* SLP_TYP of S5, as the DSDT's \_S5 has it. */
#define ACPI_S5_SLP_TYP 5u

/* Writes RSDP, XSDT, FADT (hardware-reduced), MADT and DSDT for `vcpus`
 * processors (ACPI 6.4, 5.2). Before the first vCPU runs. 0 or -EFAULT. */
must_check int acpi_write(struct gmem *mem, unsigned int vcpus,
			  gpa_t *ret_rsdp);

#endif
