/* snapshot.c - saves a sandbox and publishes what came out.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cgroup.h"
#include "id.h"
#include "log.h"
#include "snapshot.h"
#include "store.h"

void snapshot_fault(int error, struct fault *ret)
{
	switch (error) {
	case -ENOENT:
		(void)fault_set(ret, 404, "not_found", "no such snapshot");
		break;
	case -EBADMSG:
		(void)fault_set(ret, 422, "snapshot_damaged",
				"the files of the snapshot are damaged");
		break;
	case -ENOTSUP:
		(void)fault_set(ret, 422, "snapshot_version",
				"another version of brig made the snapshot");
		break;
	case -EBUSY:
		(void)fault_set(ret, 409, "busy",
				"the snapshot is still being made");
		break;
	case -EMFILE:
		(void)fault_set(ret, 429, "too_many_requests",
				"as many transfers as there may be go on");
		break;
	case -EDQUOT:
		(void)fault_set(ret, 507, "too_many_snapshots",
				"this host has %u snapshots, its maximum",
				SNAPSHOTS_MAX);
		break;
	case -ENOSPC:
		(void)fault_set(ret, 507, "disk_full",
				"the host has no room for the snapshot");
		break;
	default:
		(void)fault_set(ret, 503, "snapshot_error",
				"the snapshot store failed: %s",
				strerror(-error));
	}
}

/* --- Of paused sandboxes ----------------------------------------------------------- */

#define PAUSE_PREFIX "pause-"

void snapshot_name_pause(const char *sandbox_id, char ret[NAME_BYTES])
{
	(void)snprintf(ret, NAME_BYTES, PAUSE_PREFIX "%.24s",
		       sandbox_id + strlen("sb_"));
}

bool snapshot_is_pause(const struct snap *s)
{
	return strncmp(s->name, PAUSE_PREFIX, strlen(PAUSE_PREFIX)) == 0;
}

struct orphans {
	const struct sandbox_set *set;
	json_t *ids;
};

static void note_orphan(void *arg, const struct snap *s)
{
	struct orphans *o = arg;
	const struct sandbox *sb;

	if (!snapshot_is_pause(s))
		return;
	TAILQ_FOREACH(sb, &o->set->list, link) {
		if (strcmp(sb->paused, s->id) == 0)
			return;
	}
	(void)json_array_append_new(o->ids, json_string(s->id));
}

void snapshot_drop_orphans(struct app *app)
{
	struct orphans o = { .set = app->sandboxes, .ids = json_array() };
	json_t *id;
	size_t i;

	snapstore_each(app->snapstore, 0, note_orphan, &o);
	json_array_foreach(o.ids, i, id) {
		const char *text = json_string_value(id);
		int r = snapstore_delete(app->snapstore, text);
		log_info("snapshot=%s of a pause that is over: %s", text,
			 r < 0 ? strerror(-r) : "deleted");
	}
	json_decref(o.ids);
}

/* --- Making one --------------------------------------------------------------------- */

static void deliver(struct snapshot *s, bool failed)
{
	saved_unref(s->draft.saved);
	s->draft.saved = NULL;
	json_decref(s->settings);
	s->settings = NULL;
	snapstore_sweep(s->app->snapstore);
	s->on_done(s, failed ? &s->fault : NULL);
}

/* The fault is told when the guest runs again. */
static void on_released(struct save *save)
{
	deliver(container_of(save, struct snapshot, save), true);
}

/* The next one of this sandbox shares what this one has. */
static void note_parent(const struct snapshot *s)
{
	const struct snap *snap = &s->draft.snap;
	struct sandbox *sb =
		sandbox_find(s->app->sandboxes, snap->tenant, s->sandbox_id);

	if (sb != NULL && !snapshot_is_pause(snap))
		memcpy(sb->parent, snap->id, sizeof(sb->parent));
}

static void on_published(struct snap_draft *d, int error)
{
	struct snapshot *s = container_of(d, struct snapshot, draft);

	if (error == 0) {
		log_info("snapshot=%s sandbox=%s made", d->snap.id,
			 s->sandbox_id);
		note_parent(s);
		deliver(s, false);
		return;
	}
	log_error("snapshot of sandbox=%s: %s", s->sandbox_id,
		  strerror(-error));
	snapshot_fault(error, &s->fault);
	if (s->pause)
		save_release(&s->save);
	else
		deliver(s, true);
}

static void on_saved(struct save *save, const struct fault *fault)
{
	struct snapshot *s = container_of(save, struct snapshot, save);

	if (fault != NULL) {
		s->fault = *fault;
		deliver(s, true);
		return;
	}
	s->draft.saved = save->saved;
	s->draft.snap.quiesced = save->quiesced;
	snapstore_publish(s->app->snapstore, &s->draft);
}

static void describe(struct snap *snap, const struct sandbox *sb,
		     const struct snapshot_options *options)
{
	if (options->name != NULL)
		(void)snprintf(snap->name, sizeof(snap->name), "%s",
			       options->name);
	else
		id_make_name(snap->name);
	snap->kind = options->kind;
	snap->tenant = sb->tenant != 0 ? sb->tenant : STORE_TENANT;
	snap->shape = sb->shape;
	memcpy(snap->parent, sb->parent, sizeof(snap->parent));
	memcpy(snap->source_id, sb->id, sizeof(snap->source_id));
	memcpy(snap->source_name, sb->name, sizeof(snap->source_name));
}

/* A save that ends for want of room has taken it from all disks meanwhile; so
 * as much as it may write has to be there before. */
static int check_room(struct sandbox *sb,
		      const struct snapshot_options *options,
		      struct fault *fault)
{
	uint64_t bytes = 0;

	if (options->kind != SNAP_DISK &&
	    cgroup_read_memory(sandbox_cgroup(sb), &bytes) < 0)
		bytes = 0; /* writing will tell */
	int r = snapstore_check_room(sb->set->app->snapstore, bytes);
	if (r < 0) {
		snapshot_fault(r, fault);
		return -EINVAL;
	}
	return 0;
}

int snapshot_start(struct snapshot *s, struct sandbox *sb,
		   const struct snapshot_options *options, struct fault *fault)
{
	struct save_options save = {
		.disk = options->kind == SNAP_DISK,
		.quick = options->quick,
		.pause = options->pause,
	};

	if (check_room(sb, options, fault) < 0)
		return -EINVAL;
	s->app = sb->set->app;
	s->pause = options->pause;
	s->draft = (struct snap_draft){ .on_done = on_published };
	describe(&s->draft.snap, sb, options);
	s->settings = settings_new(sb->env, sb->cpus, options->warm);
	if (s->settings == NULL)
		return fault_set(fault, 500, "no_memory", "out of memory");
	s->draft.snap.settings = s->settings;
	memcpy(s->sandbox_id, sb->id, sizeof(s->sandbox_id));
	s->save.on_done = on_saved;
	s->save.on_released = on_released;
	int r = save_start(&s->save, sb, &save, fault);
	if (r < 0)
		json_decref(s->settings);
	return r;
}
