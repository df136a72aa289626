/* bus.c - where a guest's port and MMIO accesses go.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "bus.h"
#include "stop.h"
#include "x86/acpi.h"

#define SERIAL_PORTS 8u

/* Sleep control register (ACPI 6.4, 4.8.3.7): SLP_TYP and SLP_EN. */
#define SLP_TYP(v) (((v) >> 2) & 7u)
#define SLP_EN 0x20u

void bus_port_read(struct bus *b, uint16_t port, uint8_t *data, uint8_t size)
{
	memset(data, 0xff, size);
	if (size != 1)
		return;
	if (port >= BRIG_SERIAL_PORT && port < BRIG_SERIAL_PORT + SERIAL_PORTS)
		*data = serial_read(b->serial,
				    (uint8_t)(port - BRIG_SERIAL_PORT));
	else if (port == BRIG_PM_SLEEP_STATUS || port == BRIG_PM_SLEEP_CONTROL)
		*data = 0;
	else if (port == BRIG_PVPANIC_PORT)
		*data = BRIG_PVPANIC_PANICKED; /* the events we understand */
}

void bus_port_write(struct bus *b, uint16_t port, const uint8_t *data,
		    uint8_t size)
{
	uint8_t v = *data;

	if (size != 1)
		return;
	if (port >= BRIG_SERIAL_PORT && port < BRIG_SERIAL_PORT + SERIAL_PORTS)
		serial_write(b->serial, (uint8_t)(port - BRIG_SERIAL_PORT), v);
	else if (port == BRIG_PM_SLEEP_CONTROL && (v & SLP_EN) &&
		 SLP_TYP(v) == ACPI_S5_SLP_TYP)
		stop_machine(VMM_STOP_POWEROFF, 0);
	else if (port == BRIG_PM_RESET && v == BRIG_PM_RESET_VALUE)
		stop_machine(VMM_STOP_RESET, 0);
	else if (port == BRIG_PVPANIC_PORT && (v & BRIG_PVPANIC_PANICKED))
		stop_machine(VMM_STOP_PANIC, 0);
}

/* The slot that `at` lies in, and the offset into it; -1: none. */
static int find_slot(uint64_t at, uint64_t *ret_offset)
{
	uint64_t from_base = at - BRIG_MMIO_BASE;

	if (at < BRIG_MMIO_BASE ||
	    from_base >= (uint64_t)BRIG_MMIO_SLOTS * BRIG_MMIO_SLOT_SIZE)
		return -1;
	*ret_offset = from_base % BRIG_MMIO_SLOT_SIZE;
	return (int)(from_base / BRIG_MMIO_SLOT_SIZE);
}

void bus_mmio_read(struct bus *b, uint64_t at, uint8_t *data, uint32_t len)
{
	uint64_t offset;
	int slot = find_slot(at, &offset);

	if (slot < 0)
		memset(data, 0xff, len);
	else
		virtio_mmio_read(b->slots[slot], offset, data, len);
}

void bus_mmio_write(struct bus *b, uint64_t at, const uint8_t *data,
		    uint32_t len)
{
	uint64_t offset;
	int slot = find_slot(at, &offset);

	if (slot >= 0)
		virtio_mmio_write(b->slots[slot], offset, data, len);
}
