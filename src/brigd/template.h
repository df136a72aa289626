/* template.h - machines that are ready to go on: what new sandboxes come from.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A template is a snapshot of kind SNAP_TEMPLATE whose RAM stays in memory.
 * Automatic ones are made for each shape that somebody asks for, in the
 * background, when nothing else starts, and are called "auto-...". When they
 * take more than their share of memory the one that was used least recently
 * goes. Others are made by request, under a name, with a command that warms
 * them, and stay until they are deleted.
 *
 * An automatic template whose image changed, or that does not restore, is
 * made again.
 */
#ifndef BRIGD_TEMPLATE_H
#define BRIGD_TEMPLATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "app.h"
#include "fault.h"
#include "saved.h"
#include "snapstore.h"

#define TEMPLATE_AUTO_PREFIX "auto-"

enum template_status {
	TEMPLATE_WANTED,  /* not there; to be made when its turn comes */
	TEMPLATE_MAKING,  /* boots, is warmed, is saved */
	TEMPLATE_STORED,  /* on disk */
	TEMPLATE_LOADING, /* from disk */
	TEMPLATE_READY,   /* in memory */
	TEMPLATE_STATUSES,
};

struct template_build;
struct template_set;

struct template
{
	struct template_set *set;
	TAILQ_ENTRY(template) link;
	char name[NAME_BYTES];
	char snapshot[SNAP_ID_BYTES]; /* STORED and on */
	struct shape shape;
	enum template_status status;
	bool automatic;
	char *warm;          /* the command that warms it; NULL: none */
	struct saved *saved; /* READY */
	int64_t created_ms;
	uint64_t used_ns;
	uint64_t retry_ns;   /* WANTED: not before */
	unsigned int failed; /* restores in a row */
	struct template_build *build;
	struct template_load *load;
	struct template_request *request; /* who waits for it; NULL: nobody */
};

TAILQ_HEAD(template_list, template);

struct template_set {
	struct app *app;
	struct template_list list;
	bool automatic; /* make and use them */
	uint64_t memory_bytes;
	struct loop_timer timer;
};

/* Reads what the snapshot store has. NULL: no memory. */
struct template_set *template_set_new(struct app *app, bool automatic,
				      uint64_t memory_bytes);
void template_set_free(struct template_set *set);

/* The default one: loads it, or makes it. */
void template_set_start(struct template_set *set);

enum template_answer {
	TEMPLATE_NONE,  /* boot; one will be made for the next */
	TEMPLATE_COMES, /* sandbox_start_next() will be called */
	TEMPLATE_THERE,
};

/* An automatic one of this shape; *ret is borrowed. */
enum template_answer template_for(struct template_set *set,
				  const struct shape *shape,
				  const struct template **ret);

/* The automatic one of the default shape, if it is in memory; borrowed. */
const struct template *template_default(const struct template_set *set);

/* One in memory whose working set was not looked for yet; NULL: none. */
const struct template *template_unrehearsed(const struct template_set *set);

/* A sandbox that came from a template is ready, or could not be restored. */
void template_used(struct template_set *set, const char *name, bool good);

/* NULL: no such. */
struct template *template_find(struct template_set *set, const char *name);

/* Somebody who waits until a template is made. Embedded in its owner, which
 * may take it back by setting t->request to NULL. */
struct template_request {
	/* Called once, from the loop; `t` is NULL after a fault. */
	void (*on_done)(struct template_request *rq, struct template *t,
			const struct fault *fault);
	struct template *t; /* set by template_make() */
};

/* Boots, warms with the command `warm` (NULL: the interpreters alone) and
 * saves. Of `shape` image, vcpus, memory_mib and disk_bytes count. 0, or
 * -EINVAL after filling *fault. */
must_check int template_make(struct template_set *set, const char *name,
			     const struct shape *shape, const char *warm,
			     struct template_request *rq, struct fault *fault);

/* Forgets it and deletes its snapshot. 0, or -EINVAL after filling *fault. */
must_check int template_delete(struct template *t, struct fault *fault);

const char *template_status_name(const struct template *t);
uint64_t template_resident_bytes(const struct template *t);

#endif
