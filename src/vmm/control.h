/* control.h - brig-vmm's side of its conversation with brigd (wire/vmm.h).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Device thread only. The socket is VMM_FD_CONTROL, non-blocking: a brigd
 * that does not read while its buffer is full, or that closes the socket,
 * ends the machine.
 */
#ifndef BRIG_VMM_CONTROL_H
#define BRIG_VMM_CONTROL_H

#include <stdint.h>

#include "cc.h"
#include "wire/vmm.h"

struct machine;

/* The socket is readable: handles one request of brigd. */
void control_event(struct machine *m);

/* Tells brigd that the shell is built. */
void control_ready(void);

/* Tells brigd how the VMM_SAVE of number `seq` ended. */
void control_saved(uint32_t seq, int status, const struct vmm_saved *saved);

/* Tells brigd why the machine stopped; the last packet. */
void control_stopped(void);

/* The guest connected to host port `port`: hands `fd` (taken, also on
 * failure) to brigd. 0 or -errno. `arg` is not used. */
must_check int control_accept(void *arg, uint32_t port, int fd);

#endif
