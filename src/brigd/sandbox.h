/* sandbox.h - one sandbox from create to delete: its state, its process.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   creating --CONFIGURED--> running --power-off, reset--> stopped
 *    |    ^                 |   |   |
 *    |    +--reset----------+   |   +--died, crashed, agent lost--> failed
 *    |    +--rollback, from any state but creating
 *    |    +--resume-- paused <--+
 *    +--boot failed, died--> failed; a resume that fails: paused again
 *
 * A sandbox that is paused, stopped or failed has no VMM and stays in the
 * list until it is deleted. Deleting kills the VMM, waits until brig-spawn
 * has cleaned up behind it, and forgets the sandbox.
 *
 * What is "creating" waits its turn, for a snapshot or template to be loaded,
 * for a shell, for the VMM to boot or restore, and for the agent, in this
 * order; see sandbox_start.c.
 */
#ifndef BRIGD_SANDBOX_H
#define BRIGD_SANDBOX_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "app.h"
#include "fault.h"
#include "limits.h"
#include "loop.h"
#include "peer_guest.h"
#include "peer_vmm.h"
#include "receipt.h"
#include "saved.h"
#include "shell.h"
#include "snapstore.h"
#include "wire/limits.h"

enum sandbox_state {
	SANDBOX_CREATING, /* no requests yet */
	SANDBOX_RUNNING,  /* requests may be sent to the agent */
	SANDBOX_PAUSED,   /* saved in the snapshot `paused`; no VMM */
	SANDBOX_STOPPED,  /* ended as the guest or we wished; no VMM */
	SANDBOX_FAILED,   /* ended otherwise; `reason` says how; no VMM */
	SANDBOX_STATES,
};

enum sandbox_origin {
	ORIGIN_BOOT,
	ORIGIN_TEMPLATE,
	ORIGIN_SNAPSHOT,
	ORIGIN_CLONE,
	SANDBOX_ORIGINS,
};

/* While CREATING: what it waits for. */
enum sandbox_step {
	STEP_NONE,
	STEP_QUEUED, /* its turn, or its template */
	STEP_LOAD,   /* its snapshot */
	STEP_SHELL,  /* a shell */
	STEP_CLAIM,  /* the VMM */
	STEP_AGENT,  /* the guest */
};

struct sandbox_sample {
	int64_t at_ms;
	double cpu_percent; /* of its vCPUs */
	uint64_t memory_bytes;
};

struct sandbox;
struct sandbox_load;
struct save;

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
	int64_t tenant; /* 0: brigd's own, which nobody sees */
	uint32_t cpus;
	struct shape shape;
	int64_t created_ms;
	json_t *env; /* NULL or defaults for every run */

	/* Moved by sandbox.c only. */
	enum sandbox_state state;
	char reason[24];  /* "": none */
	int64_t ready_ms; /* create to running; -1: not yet */
	bool deleting;

	/* Where it comes from. */
	enum sandbox_origin origin;
	char template_name[NAME_BYTES]; /* "": none */
	char snapshot[SNAP_ID_BYTES];   /* "": none */
	char paused[SNAP_ID_BYTES];     /* the snapshot that holds it */
	char parent[SNAP_ID_BYTES];     /* of its next snapshot */
	bool id_used;                   /* a shell has, or had, our id */
	bool may_use_template;          /* an automatic one */
	bool rehearsal;                 /* as in struct sandbox_spec */
	bool template_as_made;          /* VMM_RESET leads to the template */
	struct receipt receipt;

	/* Starting, by sandbox_start.c. */
	enum sandbox_step step;
	struct sandbox_load *load; /* STEP_LOAD */
	struct vmm_call claim_call;
	uint64_t started_ns;               /* create, resume, ... */
	uint64_t step_ns;                  /* the current step began */
	struct guest_configure *configure; /* what was sent, unanswered */

	struct shell *shell;    /* its process, until that is cleaned up */
	struct loop_timer reap; /* forget */

	/* Its memory and disk. */
	struct saved *from;  /* what it was restored from; NULL: booted */
	struct saved *below; /* whose disk layers are below the top; or NULL */
	int top_fd;          /* its top layer, read-write */
	struct save *save;   /* goes on; NULL: none */
	bool save_broken;    /* one never ended: what is sealed? */

	struct guest_conn *ready;    /* the agent's own connection */
	struct vmm_console *console; /* NULL after a restart */
	uint64_t heard_ns;           /* last frame on `ready` */
	struct loop_timer timer;     /* start deadline; then ping */
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
	unsigned int count;       /* without brigd's own */
	unsigned int boot_timeout_s;
	unsigned int boots_max;    /* that boot at the same time */
	unsigned int restores_max; /* that are restored at the same time */
	struct loop_timer next_start;
	struct loop_timer sampler;
};

/* --- The set ------------------------------------------------------------------- */

/* Loads what the store has. NULL after logging. */
struct sandbox_set *sandbox_set_new(struct app *app,
				    unsigned int boot_timeout_s);
void sandbox_set_free(struct sandbox_set *set);

/* Ends every VMM; the sandboxes' rows stay. */
void sandbox_set_stop_all(struct sandbox_set *set);

/* True while one boots or is restored, or waits for that. */
must_check bool sandbox_set_starting(const struct sandbox_set *set);

/* One that was starting is done, or a template is there: from the loop, starts
 * those whose turn it is, oldest first. */
void sandbox_start_next(struct sandbox_set *set);

/* The tenant's sandbox with this id, or NULL; none that is being deleted. */
struct sandbox *sandbox_find(struct sandbox_set *set, int64_t tenant,
			     const char *id);

/* --- One sandbox ---------------------------------------------------------------- */

/* What a new one shall be. Strings and references are borrowed. */
struct sandbox_spec {
	int64_t tenant;     /* 0: brigd's own, hidden */
	const char *name;   /* NULL: generate one */
	json_t *env;        /* NULL: none */
	uint32_t cpus;      /* quarters of a vCPU: the quota */
	struct shape shape; /* without `from` and `snapshot` image, vcpus,
			       memory_mib and disk_bytes are enough */
	enum sandbox_origin origin;
	struct saved *from;        /* NULL: load `snapshot`, or boot */
	const char *snapshot;      /* NULL: none */
	const char *template_name; /* NULL: none */
	bool may_use_template;     /* of this shape, if there is one */
	bool rehearsal;            /* it will be asked for its working set */
};

/* Starts a new one: state CREATING. -EINVAL after filling *fault. */
must_check int sandbox_create(struct sandbox_set *set,
			      const struct sandbox_spec *spec,
			      struct sandbox **ret, struct fault *fault);

/* Ends what runs and starts the same sandbox again from `from`, a whole
 * machine: state CREATING. `snapshot` NULL: it comes from where it came from
 * before. 0, or -EINVAL after filling *fault. */
must_check int sandbox_restart(struct sandbox *sb, struct saved *from,
			       enum sandbox_origin origin, const char *snapshot,
			       struct fault *fault);

/* Back to the template, in the same process. `sb` runs and template_as_made
 * is set. -EINVAL after filling *fault. */
must_check int sandbox_reset(struct sandbox *sb, struct fault *fault);

/* It is saved in `snapshot`: ends the VMM, state PAUSED. */
void sandbox_set_paused(struct sandbox *sb, const char *snapshot);

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

/* It does not answer as it should: `reason`, unless the VMM says better. */
void sandbox_suspect(struct sandbox *sb, const char *reason);

const char *sandbox_status(const struct sandbox *sb);
const char *sandbox_origin_name(const struct sandbox *sb);

/* Its VMM, NULL if it has none; its cgroup, -1 if it has none. */
static inline struct vmm_peer *sandbox_vmm(const struct sandbox *sb)
{
	return sb->shell != NULL ? sb->shell->vmm : NULL;
}

static inline int sandbox_cgroup(const struct sandbox *sb)
{
	return sb->shell != NULL ? sb->shell->cgroup_fd : -1;
}

static inline uint32_t sandbox_disk_gib(const struct sandbox *sb)
{
	return (uint32_t)(sb->shape.disk_bytes >> 30);
}

/* Percent of its vCPUs since the last sample or call, and memory of the VMM,
 * both as the host's kernel counts them. 0, or -errno if not to be had. */
must_check int sandbox_measure(struct sandbox *sb, double *ret_percent,
			       uint64_t *ret_bytes);

#endif
