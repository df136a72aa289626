/* serial.h - a 16550A serial port that only sends: the boot log.
 * SPDX-License-Identifier: Apache-2.0
 *
 * As much of National's 16550A (PC16550D data sheet, chapter 8) as Linux's
 * 8250 driver looks at. A byte is sent the moment it is written: it goes into
 * the console ring that brigd reads (struct vmm_console, wire/vmm.h), where
 * the oldest bytes give way. Nothing is ever received.
 *
 * Called from vCPU threads. The port has a lock of its own and never takes
 * vmm_lock, under which the device thread may wait for a disk.
 */
#ifndef BRIG_VMM_DEV_SERIAL_H
#define BRIG_VMM_DEV_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../state/stream.h"
#include "cc.h"
#include "wire/vmm.h"

#define SERIAL_PORTS 8u

struct serial {
	pthread_mutex_t lock;
	struct vmm_console *console; /* borrowed; NULL: none yet */
	int irq_fd;                  /* borrowed */

	/* under lock */
	uint64_t written; /* bytes sent; the console has a copy */
	bool thr_pending; /* THR-empty interrupt not yet acknowledged */
	uint8_t ier;
	uint8_t fcr;
	uint8_t lcr;
	uint8_t mcr;
	uint8_t scr;
	uint8_t dll;
	uint8_t dlm;
};

/* Prepares the port; borrows `irq_fd`, a non-blocking eventfd that raises an
 * edge-triggered interrupt. Without a console yet. */
void serial_init(struct serial *s, int irq_fd);

/* Gives the port its console, before the guest runs: borrowed. Goes on after
 * what was written there; a console that was there before is let go. */
void serial_set_console(struct serial *s, struct vmm_console *console);

/* One byte of port access at `offset` below SERIAL_PORTS. All registers are a
 * byte wide: the caller splits wider accesses and repeats string ones. Offset
 * and value are the guest's. */
uint8_t serial_read(struct serial *s, uint16_t offset);
void serial_write(struct serial *s, uint16_t offset, uint8_t v);

/* Bytes that were sent and are no longer in the ring. Any thread. */
uint64_t serial_dropped(struct serial *s);

/* Saves or loads the registers; the console is not part of it. While the vCPUs
 * stand still: takes no lock. A port that was refused is as it was. */
void serial_state(struct state_stream *s, struct serial *port);

/* After everything was loaded, before the vCPUs run: raises an interrupt that
 * was pending again. */
void serial_restored(struct serial *s);

#endif
