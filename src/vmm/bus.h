/* bus.h - where a guest's port and MMIO accesses go.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The map is fixed: it is wire/boot.h. An access that meets nothing reads all
 * ones and is ignored when written, as on a PC. All functions are called from
 * vCPU threads; every argument is the guest's.
 */
#ifndef BRIG_VMM_BUS_H
#define BRIG_VMM_BUS_H

#include <stdint.h>

#include "dev/serial.h"
#include "virtio/virtio.h"
#include "wire/boot.h"

struct bus {
	struct virtio_dev *slots[BRIG_MMIO_SLOTS]; /* borrowed; NULL: empty */
	struct serial *serial;                     /* borrowed */
};

void bus_port_read(struct bus *b, uint16_t port, uint8_t *data, uint8_t size);
void bus_port_write(struct bus *b, uint16_t port, const uint8_t *data,
		    uint8_t size);
void bus_mmio_read(struct bus *b, uint64_t at, uint8_t *data, uint32_t len);
void bus_mmio_write(struct bus *b, uint64_t at, const uint8_t *data,
		    uint32_t len);

#endif
