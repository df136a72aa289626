/* stop.h - the one way a running machine ends.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Any thread may ask; the first reason wins. The device thread is woken, says
 * the reason to brigd and ends the process: the kernel is the cleanup.
 */
#ifndef BRIG_VMM_STOP_H
#define BRIG_VMM_STOP_H

#include <stdbool.h>
#include <stdint.h>

#include "cc.h"
#include "wire/vmm.h"

/* Makes the eventfd that stop_machine() signals; before any other thread.
 * Returns it (owned by stop.c) or -errno. */
must_check int stop_init(void);

void stop_machine(enum vmm_stop_reason reason, uint64_t detail);

bool stop_requested(void);

/* The reason and detail of the first stop_machine(); after it was called. */
enum vmm_stop_reason stop_reason(uint64_t *ret_detail);

#endif
