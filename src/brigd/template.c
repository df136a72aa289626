/* template.c - machines that are ready to go on: what new sandboxes come from.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "fd.h"
#include "image.h"
#include "limits.h"
#include "log.h"
#include "peer_spawn.h"
#include "sandbox.h"
#include "template.h"
#include "template_build.h"
#include "when.h"

static const char *const status_names[] = {
	[TEMPLATE_WANTED] = "wanted", [TEMPLATE_MAKING] = "creating",
	[TEMPLATE_STORED] = "stored", [TEMPLATE_LOADING] = "loading",
	[TEMPLATE_READY] = "ready",
};
static_assert(ARRAY_LEN(status_names) == TEMPLATE_STATUSES, "one each");

const char *template_status_name(const struct template *t)
{
	return status_names[t->status];
}

uint64_t template_resident_bytes(const struct template *t)
{
	uint64_t n = 0;

	if (t->saved == NULL)
		return 0;
	n = saved_memory_bytes(t->saved->base);
	if (t->saved->delta != NULL)
		n += saved_memory_bytes(t->saved->delta);
	return n;
}

/* --- The list --------------------------------------------------------------------- */

struct template_load {
	struct snap_load load;
	struct template *t; /* NULL: nobody waits any more */
};

static struct template *new_template(struct template_set *set, const char *name,
				     const struct shape *shape,
				     const char *warm)
{
	struct template *t = calloc(1, sizeof(*t));

	if (t != NULL && warm != NULL)
		t->warm = strdup(warm);
	if (t == NULL || (warm != NULL && t->warm == NULL)) {
		free(t);
		return NULL;
	}
	t->set = set;
	(void)snprintf(t->name, sizeof(t->name), "%s", name);
	t->shape = *shape;
	t->created_ms = when_now_ms();
	t->automatic = strncmp(name, TEMPLATE_AUTO_PREFIX,
			       strlen(TEMPLATE_AUTO_PREFIX)) == 0;
	TAILQ_INSERT_TAIL(&set->list, t, link);
	return t;
}

static void free_template(struct template *t)
{
	if (t->load != NULL)
		t->load->t = NULL;
	saved_unref(t->saved);
	TAILQ_REMOVE(&t->set->list, t, link);
	free(t->warm);
	free(t);
}

struct template *template_find(struct template_set *set, const char *name)
{
	struct template *t;

	TAILQ_FOREACH(t, &set->list, link) {
		if (strcmp(t->name, name) == 0)
			return t;
	}
	return NULL;
}

static void tell(struct template *t, const struct fault *fault)
{
	struct template_request *rq = t->request;

	t->request = NULL;
	if (rq != NULL)
		rq->on_done(rq, fault == NULL ? t : NULL, fault);
}

static void look_later(struct template_set *set, uint64_t after_ns)
{
	if (!set->timer.armed || set->timer.deadline_ns > now_ns() + after_ns)
		loop_timer_set(set->app->loop, &set->timer, after_ns);
}

/* Deletes its snapshot; 0 or -errno. */
static int drop_snapshot(struct template *t)
{
	int r = 0;

	saved_unref(t->saved);
	t->saved = NULL;
	if (t->snapshot[0] != '\0')
		r = snapstore_delete(t->set->app->snapstore, t->snapshot);
	if (r < 0 && r != -ENOENT)
		return r;
	t->snapshot[0] = '\0';
	return 0;
}

static void remove_template(struct template *t)
{
	if (drop_snapshot(t) < 0)
		log_warn("template=%s its snapshot %s stays; going on", t->name,
			 t->snapshot);
	template_build_cancel(t->build);
	free_template(t);
}

/* An automatic one did not do: another later. */
static void want_again(struct template *t, unsigned int after_s)
{
	if (drop_snapshot(t) < 0)
		log_warn("template=%s its snapshot %s stays; going on", t->name,
			 t->snapshot);
	t->snapshot[0] = '\0';
	t->status = TEMPLATE_WANTED;
	t->failed = 0;
	t->retry_ns = now_ns() + after_s * NS_PER_S;
	look_later(t->set, after_s * NS_PER_S);
}

/* --- Into memory ------------------------------------------------------------------ */

/* The one that was used least recently goes until the rest fits. */
static void make_room(struct template_set *set, const struct template *keep)
{
	for (;;) {
		struct template *oldest = NULL;
		struct template *t;
		uint64_t sum = 0;

		TAILQ_FOREACH(t, &set->list, link) {
			if (!t->automatic || t->status != TEMPLATE_READY)
				continue;
			sum += template_resident_bytes(t);
			if (t != keep &&
			    (oldest == NULL || t->used_ns < oldest->used_ns))
				oldest = t;
		}
		if (sum <= set->memory_bytes || oldest == NULL)
			return;
		log_info("template=%s goes: memory is for others",
			 oldest->name);
		remove_template(oldest);
	}
}

static void on_loaded(struct snap_load *l, int error, struct saved *saved)
{
	struct template_load *load =
		container_of(l, struct template_load, load);
	struct template *t = load->t;
	struct fault fault;

	free(load);
	if (t == NULL) {
		saved_unref(saved);
		return;
	}
	t->load = NULL;
	if (error < 0) {
		log_error("template=%s snapshot=%s: %s", t->name, t->snapshot,
			  strerror(-error));
		t->status = TEMPLATE_STORED;
		snapshot_fault(error, &fault);
		tell(t, &fault);
		if (t->automatic)
			want_again(t, TEMPLATE_RETRY_S);
	} else {
		t->saved = saved;
		t->status = TEMPLATE_READY;
		t->used_ns = now_ns();
		log_info("template=%s is ready, %llu KiB", t->name,
			 (unsigned long long)template_resident_bytes(t) >> 10);
		make_room(t->set, t);
		tell(t, NULL);
	}
	sandbox_start_next(t->set->app->sandboxes);
}

static void start_load(struct template *t)
{
	struct template_load *load = calloc(1, sizeof(*load));
	struct fault fault;

	if (load == NULL) { /* STORED: whoever needs it next tries again */
		(void)fault_set(&fault, 500, "no_memory", "out of memory");
		tell(t, &fault);
		return;
	}
	load->t = t;
	load->load.on_done = on_loaded;
	t->load = load;
	t->status = TEMPLATE_LOADING;
	snapstore_load(t->set->app->snapstore, t->snapshot, &load->load);
}

/* --- Making one ---------------------------------------------------------------------- */

static void on_built(void *arg, const char *snapshot, const struct fault *fault)
{
	struct template *t = arg;

	t->build = NULL;
	if (snapshot != NULL) {
		const struct snap *snap =
			snapstore_find(t->set->app->snapstore, 0, snapshot);
		ASSERT(snap != NULL); /* it was published just now */
		memcpy(t->snapshot, snap->id, sizeof(t->snapshot));
		t->created_ms = snap->created_ms;
		t->status = TEMPLATE_STORED;
		start_load(t);
	} else if (t->automatic) {
		want_again(t, TEMPLATE_RETRY_S);
	} else {
		tell(t, fault);
		free_template(t);
	}
}

static int start_build(struct template *t, struct fault *fault)
{
	t->build = template_build_start(t->set->app, t->name, &t->shape,
					t->warm, on_built, t, fault);
	if (t->build == NULL)
		return -EINVAL;
	t->status = TEMPLATE_MAKING;
	log_info("template=%s is being made", t->name);
	return 0;
}

static bool is_making(const struct template_set *set)
{
	const struct template *t;

	TAILQ_FOREACH(t, &set->list, link) {
		if (t->status == TEMPLATE_MAKING)
			return true;
	}
	return false;
}

static struct template *most_wanted(struct template_set *set)
{
	struct template *best = NULL;
	struct template *t;

	TAILQ_FOREACH(t, &set->list, link) {
		if (t->status == TEMPLATE_WANTED && t->retry_ns <= now_ns() &&
		    (best == NULL || t->used_ns > best->used_ns))
			best = t;
	}
	return best;
}

static void on_timer(struct loop_timer *timer)
{
	struct template_set *set =
		container_of(timer, struct template_set, timer);
	struct template *t = most_wanted(set);
	struct fault fault;
	uint64_t per_s;

	if (t == NULL)
		return;
	if (spawn_peer_kvm(set->app->spawn, &per_s) != SPAWN_KVM_HARDWARE) {
		look_later(set, TEMPLATE_LOOK_MS * NS_PER_MS);
		return;
	}
	if (is_making(set) || sandbox_set_starting(set->app->sandboxes)) {
		look_later(set, TEMPLATE_LOOK_MS * NS_PER_MS);
		return;
	}
	if (start_build(t, &fault) < 0) {
		log_warn("template=%s cannot be made: %s; later", t->name,
			 fault.text);
		want_again(t, fault.status == 503 ? TEMPLATE_BUSY_S
						  : TEMPLATE_RETRY_S);
	}
	look_later(set, TEMPLATE_LOOK_MS * NS_PER_MS);
}

/* --- Automatic ones -------------------------------------------------------------------- */

static bool is_shape_of(const struct shape *a, const struct shape *b)
{
	struct shape same = *a;

	memcpy(same.image_hash, b->image_hash, sizeof(same.image_hash));
	same.base_bytes = b->base_bytes;
	return shape_equal(&same, b);
}

/* The one for this shape. One for the same shape of an image that is not any
 * more goes. */
static struct template *find_automatic(struct template_set *set,
				       const struct shape *shape)
{
	struct template *t = TAILQ_FIRST(&set->list);

	while (t != NULL) {
		struct template *next = TAILQ_NEXT(t, link);
		if (t->automatic && shape_equal(&t->shape, shape))
			return t;
		if (t->automatic && is_shape_of(&t->shape, shape)) {
			log_info("template=%s goes: its image changed",
				 t->name);
			remove_template(t);
		}
		t = next;
	}
	return NULL;
}

static void name_automatic(const struct shape *shape, char ret[NAME_BYTES])
{
	uint8_t hash[AUTH_HASH_BYTES];
	char text[256];
	int n = snprintf(text, sizeof(text), "%s %u %u %llu ", shape->image,
			 shape->vcpus, shape->memory_mib,
			 (unsigned long long)shape->disk_bytes);

	ASSERT(n > 0 && (size_t)n + sizeof(shape->image_hash) < sizeof(text));
	memcpy(text + n, shape->image_hash, sizeof(shape->image_hash));
	auth_hash(text, (size_t)n + sizeof(shape->image_hash), hash);
	n = snprintf(ret, NAME_BYTES, TEMPLATE_AUTO_PREFIX);
	for (size_t i = 0; i < 8; i++)
		n += snprintf(ret + n, NAME_BYTES - (size_t)n, "%02x", hash[i]);
}

static unsigned int count_automatic(const struct template_set *set)
{
	const struct template *t;
	unsigned int n = 0;

	TAILQ_FOREACH(t, &set->list, link)
		n += t->automatic;
	return n;
}

static void forget_oldest(struct template_set *set)
{
	struct template *oldest = NULL;
	struct template *t;

	TAILQ_FOREACH(t, &set->list, link) {
		if (t->automatic && t->status != TEMPLATE_MAKING &&
		    t->status != TEMPLATE_LOADING &&
		    (oldest == NULL || t->used_ns < oldest->used_ns))
			oldest = t;
	}
	if (oldest != NULL)
		remove_template(oldest);
}

static struct template *want(struct template_set *set,
			     const struct shape *shape)
{
	char name[NAME_BYTES];

	/* What would push out all others is not worth it. */
	if ((uint64_t)shape->memory_mib << 20 > 2 * set->memory_bytes)
		return NULL;
	if (count_automatic(set) >= TEMPLATES_AUTO_MAX)
		forget_oldest(set);
	name_automatic(shape, name);
	struct template *t = new_template(set, name, shape, NULL);
	if (t != NULL)
		look_later(set, TEMPLATE_LOOK_MS * NS_PER_MS);
	return t;
}

enum template_answer template_for(struct template_set *set,
				  const struct shape *shape,
				  const struct template **ret)
{
	if (!set->automatic)
		return TEMPLATE_NONE;
	struct template *t = find_automatic(set, shape);
	if (t == NULL)
		t = want(set, shape);
	if (t == NULL)
		return TEMPLATE_NONE;
	t->used_ns = now_ns();
	if (t->status == TEMPLATE_STORED)
		start_load(t);
	switch (t->status) {
	case TEMPLATE_READY:
		*ret = t;
		return TEMPLATE_THERE;
	case TEMPLATE_LOADING:
		return TEMPLATE_COMES;
	case TEMPLATE_WANTED:
	case TEMPLATE_MAKING:
	case TEMPLATE_STORED:
	case TEMPLATE_STATUSES:
		break;
	}
	return TEMPLATE_NONE;
}

void template_used(struct template_set *set, const char *name, bool good)
{
	struct template *t = template_find(set, name);

	if (t == NULL)
		return;
	t->failed = good ? 0 : t->failed + 1;
	if (t->automatic && t->status == TEMPLATE_READY &&
	    t->failed >= TEMPLATE_FAILED_MAX) {
		log_warn("template=%s does not restore; another will be made",
			 t->name);
		want_again(t, TEMPLATE_BUSY_S);
	}
}

/* --- By request ---------------------------------------------------------------------------- */

int template_make(struct template_set *set, const char *name,
		  const struct shape *shape, const char *warm,
		  struct template_request *rq, struct fault *fault)
{
	struct shape full = *shape;

	if (template_find(set, name) != NULL)
		return fault_set(fault, 422, "name_taken",
				 "there is a template `%s` already", name);
	cleanup_fd int fd = image_open_new(set->app->images_dir, &full);
	if (fd < 0)
		return fault_set(fault, 404, "image_not_found",
				 "there is no image `%s`", shape->image);
	struct template *t = new_template(set, name, &full, warm);
	if (t == NULL)
		return fault_set(fault, 500, "no_memory", "out of memory");
	if (start_build(t, fault) < 0) {
		free_template(t);
		return -EINVAL;
	}
	t->request = rq;
	rq->t = t;
	return 0;
}

int template_delete(struct template *t, struct fault *fault)
{
	struct fault gone;
	int r = drop_snapshot(t);

	if (r < 0) {
		snapshot_fault(r, fault);
		return -EINVAL;
	}
	(void)fault_set(&gone, 422, "deleted", "the template was deleted");
	tell(t, &gone);
	remove_template(t);
	return 0;
}

/* --- The set --------------------------------------------------------------------------------- */

static void add_stored(void *arg, const struct snap *snap)
{
	struct template_set *set = arg;

	if (snap->kind != SNAP_TEMPLATE ||
	    template_find(set, snap->name) != NULL)
		return;
	struct template *t = new_template(set, snap->name, &snap->shape,
					  settings_warm(snap->settings));
	if (t == NULL)
		return;
	memcpy(t->snapshot, snap->id, sizeof(t->snapshot));
	t->created_ms = snap->created_ms;
	t->status = TEMPLATE_STORED;
}

struct template_set *template_set_new(struct app *app, bool automatic,
				      uint64_t memory_bytes)
{
	struct template_set *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->app = app;
	set->automatic = automatic;
	set->memory_bytes = memory_bytes;
	set->timer.on_expire = on_timer;
	TAILQ_INIT(&set->list);
	snapstore_each(app->snapstore, 0, add_stored, set);
	return set;
}

/* What a sandbox is of when nothing else is asked for; of whatever content its
 * image has: that may be another tomorrow. */
static const struct shape standard = {
	.image = "default",
	.vcpus = (CPUS_DEFAULT + 3) / 4,
	.memory_mib = MEMORY_MIB_DEFAULT,
	.disk_bytes = (uint64_t)STORAGE_GB_DEFAULT << 30,
};

const struct template *template_default(const struct template_set *set)
{
	const struct template *t;

	if (!set->automatic)
		return NULL;
	TAILQ_FOREACH(t, &set->list, link) {
		if (t->automatic && t->status == TEMPLATE_READY &&
		    is_shape_of(&t->shape, &standard))
			return t;
	}
	return NULL;
}

const struct template *template_unrehearsed(const struct template_set *set)
{
	const struct template *t;

	TAILQ_FOREACH(t, &set->list, link) {
		if (t->status == TEMPLATE_READY && !t->saved->base->rehearsed)
			return t;
	}
	return NULL;
}

void template_set_start(struct template_set *set)
{
	const struct template *unused = NULL;
	struct shape shape = standard;
	cleanup_fd int fd = image_open_new(set->app->images_dir, &shape);

	if (fd < 0) {
		log_info("no image `default`: no template of it");
		return;
	}
	(void)template_for(set, &shape, &unused);
}

void template_set_free(struct template_set *set)
{
	struct template *t;

	if (set == NULL)
		return;
	loop_timer_del(set->app->loop, &set->timer);
	while ((t = TAILQ_FIRST(&set->list)) != NULL) {
		template_build_free(t->build);
		free_template(t);
	}
	free(set);
}
