/* boot.h - what brig-vmm lays out for the guest: addresses, ports, numbers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Read by brig-vmm, by src/vmm/x86/dsdt.asl (through the C preprocessor), by
 * brig-init and by the tiny guests under tests/guest. Constants only: no C.
 *
 *   0x0000_0000 .. 0xbfff_ffff   RAM, low part (at most 3 GiB)
 *   0xc000_0000 .. 0xcfff_ffff   hole
 *   0xd000_0000 .. 0xd000_7fff   eight virtio-mmio slots of 4 KiB
 *   0xfec0_0000                  I/O APIC (KVM)
 *   0xfee0_0000                  local APICs (KVM)
 *   0x1_0000_0000 ..             RAM, what did not fit below 3 GiB
 */
#ifndef BRIG_WIRE_BOOT_H
#define BRIG_WIRE_BOOT_H

#define BRIG_RAM_LOW_END 0xc0000000
#define BRIG_RAM_HIGH_START 0x100000000

#define BRIG_MMIO_BASE 0xd0000000
#define BRIG_MMIO_SLOT_SIZE 0x1000
#define BRIG_MMIO_SLOTS 8

/* Slot n raises GSI BRIG_MMIO_GSI_BASE + n: I/O APIC pins above the PIC's. */
#define BRIG_MMIO_GSI_BASE 16

/* Fixed slots, in the order machine_build() attaches them. An empty slot
 * reads DeviceID 0, which the driver skips (virtio 1.2, 4.2.3.1.1). */
#define BRIG_SLOT_BLK 0
#define BRIG_SLOT_VSOCK 1
#define BRIG_SLOT_RNG 2
#define BRIG_SLOT_NET 3
#define BRIG_SLOT_BALLOON 4

/* 16550A: the boot log. */
#define BRIG_SERIAL_PORT 0x3f8
#define BRIG_SERIAL_GSI 4

/* ACPI 6.4, 4.8.3.7: sleep control and status; 4.8.3.6: reset register. */
#define BRIG_PM_SLEEP_CONTROL 0x600
#define BRIG_PM_SLEEP_STATUS 0x601
#define BRIG_PM_RESET 0x602
#define BRIG_PM_RESET_VALUE 0x52

/* pvpanic (QEMU docs/specs/pvpanic): the guest's kernel says it panicked. */
#define BRIG_PVPANIC_PORT 0x505
#define BRIG_PVPANIC_PANICKED 0x01

/* vsock addresses (virtio 1.2, 5.10.4): the host is 2, a guest always 3;
 * every microVM has its own vsock, so the number names nobody. */
#define BRIG_CID_HOST 2
#define BRIG_CID_GUEST 3

/* The agent listens here in the guest; below 1024, so only the guest's root
 * can take it. */
#define BRIG_AGENT_PORT 52

/* The agent connects here once when it is up; the only host port that
 * accepts a connection from a guest. */
#define BRIG_READY_PORT 53

#endif
