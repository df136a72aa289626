/* shell.h - one brig-vmm process: started, claimed, cleaned up behind.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A shell is a microVM of some shape without a guest. It belongs to a sandbox
 * from the start, or to the pool until a sandbox claims it. Whoever owns it
 * hears what it says; a shell that nobody owns any more is being ended and
 * stays in the set until brig-spawn has cleaned up behind it.
 *
 *   starting --READY--> built --BOOT, RESTORE--> (its owner's business)
 *       any of them --shell_end, socket closed--> ending --EXITED--> gone
 */
#ifndef BRIGD_SHELL_H
#define BRIGD_SHELL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "loop.h"
#include "peer_spawn.h"
#include "peer_vmm.h"
#include "wire/limits.h"

/* What a shell cannot change any more. */
struct shell_kind {
	uint32_t vcpus;
	uint32_t memory_mib;
	uint32_t cpu_quota_percent;
	uint64_t disk_bytes;
};

struct shell_events {
	void (*on_built)(void *arg);
	/* Could not be started, or its socket closed, without last words. */
	void (*on_closed)(void *arg);
	/* The process ended, says the kernel; last words may still come. */
	void (*on_suspect)(void *arg);
	void (*on_running)(void *arg);
	void (*on_accept)(void *arg, uint32_t port, int *fd); /* fd_take */
	void (*on_saved)(void *arg, uint32_t seq, int status,
			 const struct vmm_saved *saved);
	void (*on_stopped)(void *arg, int32_t reason);
	/* Cleaned up: the shell is freed after this call. */
	void (*on_gone)(void *arg);
};

enum shell_process {
	PROCESS_NONE,     /* cleaned up, or never started */
	PROCESS_STARTING, /* START is sent */
	PROCESS_ALIVE,    /* STARTED came, EXITED did not */
};

struct shell_set;

struct shell {
	struct shell_set *set;
	LIST_ENTRY(shell) link;
	char id[BRIG_ID_BYTES]; /* names its cgroup */
	struct shell_kind kind;
	const struct shell_events *events; /* NULL: nobody's */
	void *arg;
	bool built;
	struct vmm_peer *vmm; /* NULL: ending */

	/* Private. */
	enum shell_process process;
	uint32_t handle; /* brig-spawn's */
	int pidfd;
	int cgroup_fd; /* may be read; -1: not known */
	struct loop_fd pid_source;
	struct spawn_call start_call;
	struct spawn_call kill_call;
	struct loop_timer reap; /* kill again, or free */
};

struct shell_set {
	struct loop *loop;
	struct spawn_peer **spawn; /* of the app: set later than this */
	LIST_HEAD(, shell) list;
	unsigned int count;
};

void shell_set_init(struct shell_set *set, struct loop *loop,
		    struct spawn_peer **spawn);

/* Frees all that is left; nobody is told. */
void shell_set_fini(struct shell_set *set);

/* brig-spawn says that a process is gone; an on_exited of spawn_peer_new. */
void shell_set_exited(void *arg, uint32_t handle, int32_t wait_status);

must_check bool shell_kind_equal(const struct shell_kind *a,
				 const struct shell_kind *b);

/* Starts one. 0, or -errno (-ENOTCONN: brig-spawn is not there). */
must_check int shell_start(struct shell_set *set, const char id[BRIG_ID_BYTES],
			   const struct shell_kind *kind,
			   const struct shell_events *events, void *arg,
			   struct shell **ret);

/* Gives it to another owner. */
void shell_own(struct shell *shell, const struct shell_events *events,
	       void *arg);

/* Ends the process; of the events only on_gone follows, from the loop. */
void shell_end(struct shell *shell);

/* The same, and nobody is told: the caller forgets it. NULL is fine. */
void shell_drop(struct shell *shell);

#endif
