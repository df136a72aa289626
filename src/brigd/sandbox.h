/* sandbox.h - one sandbox from create to delete: its state, its process.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   creating --CONFIGURED--> running --power-off, reset--> stopped
 *      |                        |
 *      +--boot failed, died-----+--died, crashed, agent lost--> failed
 *
 * A sandbox that is stopped or failed has no VMM any more and stays in the
 * list until it is deleted. Deleting kills the VMM, waits until brig-spawn
 * has cleaned up behind it, and forgets the sandbox.
 */
#ifndef BRIGD_SANDBOX_H
#define BRIGD_SANDBOX_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "app.h"
#include "args.h"
#include "fault.h"
#include "limits.h"
#include "loop.h"
#include "peer_guest.h"
#include "peer_spawn.h"
#include "peer_vmm.h"
#include "wire/limits.h"

enum sandbox_state {
	SANDBOX_CREATING, /* no requests yet */
	SANDBOX_RUNNING,  /* requests may be sent to the agent */
	SANDBOX_STOPPED,  /* ended as the guest or we wished; no VMM */
	SANDBOX_FAILED,   /* ended otherwise; `reason` says how; no VMM */
	SANDBOX_STATES,
};

enum sandbox_process {
	PROCESS_NONE,     /* never started, or cleaned up */
	PROCESS_QUEUED,   /* waits for its turn to boot */
	PROCESS_STARTING, /* START is sent */
	PROCESS_ALIVE,    /* STARTED came, EXITED did not */
};

struct sandbox_sample {
	int64_t at_ms;
	double cpu_percent; /* of its vCPUs */
	uint64_t memory_bytes;
};

struct sandbox;

/* Something that goes on inside a sandbox and must hear of its end. Embedded
 * in its owner. */
struct sandbox_op {
	void (*on_lost)(struct sandbox_op *op); /* must call sandbox_op_end */
	LIST_ENTRY(sandbox_op) link;
};

/* Somebody who waits for a change of state. Embedded in its owner. */
struct sandbox_waiter {
	/* `sb` moved to another state; or it is deleted (`gone`): then the
	 * waiter is out of the list and `sb` is freed after the call. */
	void (*on_change)(struct sandbox_waiter *w, struct sandbox *sb,
			  bool gone);
	LIST_ENTRY(sandbox_waiter) link;
};

struct sandbox {
	struct sandbox_set *set;
	TAILQ_ENTRY(sandbox) link;

	/* Constant. */
	char id[BRIG_ID_BYTES];
	char name[NAME_BYTES];
	char image[IMAGE_NAME_BYTES];
	int64_t tenant;
	uint32_t cpus;
	uint32_t vcpus;
	uint32_t memory_mib;
	uint32_t storage_gb;
	uint64_t disk_bytes;
	int64_t created_ms;
	json_t *env; /* NULL or defaults for every run */

	/* Moved by sandbox.c only. */
	enum sandbox_state state;
	char reason[24];  /* "": none */
	int64_t ready_ms; /* create to running; -1: not yet */
	bool deleting;

	enum sandbox_process process;
	int base_fd; /* while QUEUED: the image, its size */
	uint64_t base_bytes;
	uint32_t handle; /* brig-spawn's; while ALIVE */
	int pidfd;
	int cgroup_fd;
	struct loop_fd pid_source;
	struct spawn_call start_call;
	struct spawn_call kill_call;
	struct loop_timer reap; /* kill again, or forget */

	struct vmm_peer *vmm;        /* NULL once stopped or failed */
	struct guest_conn *ready;    /* the agent's own connection */
	struct vmm_console *console; /* NULL after a restart */
	uint64_t created_ns;
	uint64_t heard_ns;       /* last frame on `ready` */
	struct loop_timer timer; /* boot deadline; then ping */
	struct loop_timer last_words;
	const char *suspicion; /* reason if no last words come */

	LIST_HEAD(, sandbox_op) ops;
	unsigned int op_count;
	LIST_HEAD(, sandbox_waiter) waiters;

	struct sandbox_sample samples[SAMPLES_MAX];
	unsigned int sample_count; /* ever taken */
	uint64_t sample_cpu_usec;  /* at the last sample */
	uint64_t sample_ns;
};

TAILQ_HEAD(sandbox_list, sandbox);

struct sandbox_set {
	struct app *app;
	struct sandbox_list list; /* oldest first */
	unsigned int count;
	unsigned int boot_timeout_s;
	unsigned int boots_max; /* sandboxes that boot at the same time */
	struct loop_timer next_boot;
	struct loop_timer sampler;
};

/* --- The set ------------------------------------------------------------------- */

/* Loads what the store has. NULL after logging. */
struct sandbox_set *sandbox_set_new(struct app *app,
				    unsigned int boot_timeout_s);
void sandbox_set_free(struct sandbox_set *set);

/* brig-spawn says that a process is gone; an on_exited of spawn_peer_new. */
void sandbox_set_exited(void *arg, uint32_t handle, int32_t wait_status);

/* Ends every VMM; the sandboxes' rows stay. */
void sandbox_set_stop_all(struct sandbox_set *set);

/* True while a process is not cleaned up. */
must_check bool sandbox_set_busy(const struct sandbox_set *set);

/* The tenant's sandbox with this id, or NULL; none that is being deleted. */
struct sandbox *sandbox_find(struct sandbox_set *set, int64_t tenant,
			     const char *id);

/* --- One sandbox ---------------------------------------------------------------- */

/* Starts a new one: state CREATING. -EINVAL after filling *fault. */
must_check int sandbox_create(struct sandbox_set *set,
			      const struct args_create *args, int64_t tenant,
			      struct sandbox **ret, struct fault *fault);

/* Kills what runs and forgets the sandbox when all is cleaned up; waiters are
 * told then. Not found any more from here on. */
void sandbox_delete(struct sandbox *sb);

void sandbox_wait(struct sandbox *sb, struct sandbox_waiter *w);
void sandbox_unwait(struct sandbox_waiter *w);

/* Registers an operation. -EINVAL after filling *fault: 422 if the sandbox
 * does not run, 429 over SANDBOX_OPS_MAX. */
must_check int sandbox_op_begin(struct sandbox *sb, struct sandbox_op *op,
				struct fault *fault);
void sandbox_op_end(struct sandbox *sb, struct sandbox_op *op);

/* 0, or -EINVAL after filling *fault with 422 sandbox_not_running. */
must_check int sandbox_check_running(const struct sandbox *sb,
				     struct fault *fault);

const char *sandbox_status(const struct sandbox *sb);

/* Percent of its vCPUs since the last sample or call, and memory of the VMM,
 * both as the host's kernel counts them. 0, or -errno if not to be had. */
must_check int sandbox_measure(struct sandbox *sb, double *ret_percent,
			       uint64_t *ret_bytes);

#endif
