/* sandbox_vm.h - the process behind a sandbox; between the sandbox_*.c only.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_SANDBOX_VM_H
#define BRIGD_SANDBOX_VM_H

#include "sandbox.h"

/* --- In sandbox.c: the only functions that move a state ------------------------- */

/* CREATING to RUNNING. */
void sandbox_set_ready(struct sandbox *sb);

/* To STOPPED or FAILED, and all that follows: the VMM is ended, operations
 * are lost, waiters are told. Harmless if it ended before. */
void sandbox_set_ended(struct sandbox *sb, enum sandbox_state state,
		       const char *reason);

/* A blank one in the set; NULL: no memory. sandbox_drop() takes it out again
 * if it never got as far as brig-spawn. */
struct sandbox *sandbox_new(struct sandbox_set *set);
void sandbox_drop(struct sandbox *sb);

/* --- In sandbox_vm.c --------------------------------------------------------------- */

void sandbox_vm_init(struct sandbox *sb);
void sandbox_vm_init_set(struct sandbox_set *set);

/* One that booted is done, or may be: from the loop, starts those whose turn
 * it is, oldest first. */
void sandbox_vm_boot_next(struct sandbox_set *set);

/* Closes our ends, so that the VMM ends, and has brig-spawn kill it. */
void sandbox_vm_stop(struct sandbox *sb);

/* Asks brig-spawn (again) to kill it. */
void sandbox_vm_kill(struct sandbox *sb);

/* brig-spawn has cleaned up. */
void sandbox_vm_gone(struct sandbox *sb);

void sandbox_vm_free(struct sandbox *sb);

#endif
