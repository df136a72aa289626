/* vm.h - brig-vmm as a benchmark sees it: shells, guests, saved machines.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Plays brig-spawn (without a jail) and brigd. Whatever goes wrong ends the
 * program with a line: there is nobody to handle it.
 */
#ifndef BRIG_TESTS_BENCH_VM_H
#define BRIG_TESTS_BENCH_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/bench/question.h"
#include "wire/vmm.h"

#define VM_MEMORY_MIB 128u
#define VM_DISK_BYTES BRIG_DISK_BYTES_MIN

/* Where the programs are; before anything else. */
void vm_programs(const char *vmm, const char *guest);

/* A brig-vmm and brigd's end of what it has. */
struct vm {
	pid_t pid;
	int control;
	int console_fd;
	int base_fd;
	int top_fd;
	struct vmm_console *console;
	uint64_t seen; /* bytes of the console that were looked at */
};

/* A saved machine: descriptors for a restore. */
struct image {
	int state_fd;
	int memory_fd; /* all of RAM, or the delta; not sealed yet */
};

/* Makes the files of a guest, which a claim will need. */
void vm_files(struct vm *v);

/* Starts a shell; does not wait for it. */
void vm_start(struct vm *v);

/* Receives until a packet of this type comes; returns it. */
struct vmm_msg vm_expect(struct vm *v, enum vmm_msg_type type);

/* Boots the guest and waits until it waits for questions. */
void vm_boot(struct vm *v);

/* Puts a question that nobody can know the answer to into a file of RAM that
 * is not sealed yet. Returns the answer. */
uint32_t question_write(int fd, uint32_t dirty_pages, bool then_halt);

/* A sealed memfd for VMM_RESTORE_DELTA with a question, after which the guest
 * halts, and the data of `delta_fd` (-1: none). */
int question_make(uint32_t dirty_pages, int delta_fd, uint32_t *ret_answer);

/* Sends VMM_RESTORE or VMM_RESET; does not wait. `delta_fd` is borrowed. */
void vm_restore(struct vm *v, enum vmm_msg_type type, const struct image *from,
		int delta_fd);

/* Waits for VMM_RUNNING, then until the guest has said this value. */
void vm_await(struct vm *v, uint32_t answer);

/* VMM_SAVE into these files; waits for nothing. */
void vm_save(struct vm *v, uint32_t flags, int state_fd, int memory_fd);

/* Saves into new memfds and waits for the end. */
struct vmm_saved vm_save_image(struct vm *v, uint32_t flags, struct image *ret);

/* VMM_RESUME. */
void vm_resume(struct vm *v);
void image_close(struct image *image);

void file_seal(int fd);
int file_new(const char *name); /* an empty memfd */

/* Private memory of its own in bytes: without the guest's RAM. */
uint64_t vm_own_memory(const struct vm *v);

/* Kills it, waits and closes everything: at once, or in two steps. */
void vm_end(struct vm *v);
void vm_kill(struct vm *v);
void vm_reap(struct vm *v);

uint64_t clock_ns(void);

#endif
