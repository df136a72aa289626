/* sandbox_vm.h - the process behind a sandbox; between the sandbox_*.c only.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_SANDBOX_VM_H
#define BRIGD_SANDBOX_VM_H

#include "sandbox.h"

/* --- In sandbox.c: the only functions that move a state ------------------------- */

/* CREATING to RUNNING. */
void sandbox_set_ready(struct sandbox *sb);

/* RUNNING or a final state to CREATING: operations are lost. */
void sandbox_set_creating(struct sandbox *sb);

/* To STOPPED or FAILED (or PAUSED again), and all that follows: the VMM is
 * ended, operations are lost, waiters are told. Harmless if it ended before. */
void sandbox_set_ended(struct sandbox *sb, enum sandbox_state state,
		       const char *reason);

/* A blank one in the set; NULL: no memory. sandbox_drop() takes it out again
 * if it never got as far as brig-spawn. */
struct sandbox *sandbox_new(struct sandbox_set *set);
void sandbox_drop(struct sandbox *sb);

/* --- In sandbox_vm.c: what the VMM and the agent say ----------------------------- */

extern const struct shell_events sandbox_shell_events;

void sandbox_vm_init(struct sandbox *sb);

/* Gives the guest its identity, new entropy and the time; it becomes ready when
 * it has confirmed. */
void sandbox_vm_configure(struct sandbox *sb);

/* Lets go of the agent's connection, for one that comes anew. */
void sandbox_vm_forget_agent(struct sandbox *sb);

/* Closes our ends, so that the VMM ends, and has brig-spawn kill it. */
void sandbox_vm_stop(struct sandbox *sb);

void sandbox_vm_free(struct sandbox *sb);

/* --- In sandbox_start.c ------------------------------------------------------------ */

void sandbox_start_init(struct sandbox *sb);
void sandbox_start_init_set(struct sandbox_set *set);

/* CREATING: starts it, or puts it in the queue. 0 or -errno. */
must_check int sandbox_start(struct sandbox *sb);

/* A hidden one that runs gets a new identity: CREATING again, not for long. */
void sandbox_start_over(struct sandbox *sb);

/* The shell is built. */
void sandbox_start_claim(struct sandbox *sb);

/* The vCPUs run. */
void sandbox_start_running(struct sandbox *sb);

/* It is ready, or over: forgets what was under way. */
void sandbox_start_end(struct sandbox *sb);

#endif
