/* dsdt.asl - the devices of a brig microVM, for the C preprocessor and iasl.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Always the same table: an empty slot reads DeviceID 0 and is skipped by the
 * driver (virtio 1.2, 4.2.3.1.1), so no table is built at run time.
 */
#include "wire/boot.h"

/* One virtio-mmio slot: "LNRO0005" is what Linux' virtio_mmio binds to. */
#define SLOT(name, n)                                                          \
	Device (name) {                                                        \
		Name (_HID, "LNRO0005")                                        \
		Name (_UID, n)                                                 \
		Name (_CCA, One)                                               \
		Name (_CRS, ResourceTemplate () {                              \
			DWordMemory (ResourceConsumer, PosDecode, MinFixed,    \
				MaxFixed, NonCacheable, ReadWrite, 0,          \
				SLOT_START(n), SLOT_END(n), 0,                 \
				BRIG_MMIO_SLOT_SIZE)                           \
			Interrupt (ResourceConsumer, Edge, ActiveHigh,         \
				Exclusive) { SLOT_GSI(n) }                     \
		})                                                             \
	}

#define SLOT_START(n) SLOT_START_##n
#define SLOT_END(n) SLOT_END_##n
#define SLOT_GSI(n) SLOT_GSI_##n

/* iasl folds no constants inside resource macros: spelled out, and checked
 * against wire/boot.h by static_asserts in acpi.c. */
#define SLOT_START_0 0xd0000000
#define SLOT_END_0 0xd0000fff
#define SLOT_GSI_0 16
#define SLOT_START_1 0xd0001000
#define SLOT_END_1 0xd0001fff
#define SLOT_GSI_1 17
#define SLOT_START_2 0xd0002000
#define SLOT_END_2 0xd0002fff
#define SLOT_GSI_2 18
#define SLOT_START_3 0xd0003000
#define SLOT_END_3 0xd0003fff
#define SLOT_GSI_3 19
#define SLOT_START_4 0xd0004000
#define SLOT_END_4 0xd0004fff
#define SLOT_GSI_4 20
#define SLOT_START_5 0xd0005000
#define SLOT_END_5 0xd0005fff
#define SLOT_GSI_5 21
#define SLOT_START_6 0xd0006000
#define SLOT_END_6 0xd0006fff
#define SLOT_GSI_6 22
#define SLOT_START_7 0xd0007000
#define SLOT_END_7 0xd0007fff
#define SLOT_GSI_7 23

DefinitionBlock ("", "DSDT", 6, "BRIG", "BRIGVMM", 1)
{
	Scope (\_SB) {
		SLOT (VR00, 0)
		SLOT (VR01, 1)
		SLOT (VR02, 2)
		SLOT (VR03, 3)
		SLOT (VR04, 4)
		SLOT (VR05, 5)
		SLOT (VR06, 6)
		SLOT (VR07, 7)

		Device (COM1) {
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, 0)
			Name (_CRS, ResourceTemplate () {
				IO (Decode16, BRIG_SERIAL_PORT,
					BRIG_SERIAL_PORT, 0, 8)
				Interrupt (ResourceConsumer, Edge, ActiveHigh,
					Exclusive) { BRIG_SERIAL_GSI }
			})
		}

		/* pvpanic: "QEMU0001" is what Linux' pvpanic binds to. */
		Device (PEVT) {
			Name (_HID, "QEMU0001")
			Name (_CRS, ResourceTemplate () {
				IO (Decode16, BRIG_PVPANIC_PORT,
					BRIG_PVPANIC_PORT, 0, 1)
			})
		}
	}

	/* SLP_TYP 5 in the sleep control register powers off (S5). */
	Name (\_S5, Package () { 5 })
}
