/* sandbox_new.c - a sandbox comes to be, or begins again.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fd.h"
#include "id.h"
#include "image.h"
#include "log.h"
#include "meminfo.h"
#include "pool.h"
#include "sandbox_vm.h"
#include "standby.h"
#include "store.h"
#include "when.h"

/* --- Is there room? --------------------------------------------------------------------- */

/* A guest that boots will touch what it was promised; one that is restored
 * shares its memory with others, and touches a part. */
static uint64_t promise_mib(uint32_t memory_mib, bool restored)
{
	return restored ? RESTORED_MIB : VMM_OVERHEAD_MIB + memory_mib;
}

/* What was promised to sandboxes whose guests have not touched it yet. */
static uint64_t promised_mib(const struct sandbox_set *set)
{
	const struct sandbox *sb;
	uint64_t mib = 0;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->state == SANDBOX_CREATING)
			mib += promise_mib(sb->shape.memory_mib,
					   sb->below != NULL);
	}
	return mib;
}

static int admit(struct sandbox_set *set, uint32_t memory_mib, bool restored,
		 struct fault *fault)
{
	uint64_t need = promise_mib(memory_mib, restored) + HOST_RESERVE_MIB +
			promised_mib(set);
	uint64_t per_s;

	if (set->app->ending)
		return fault_set(fault, 503, "ending", "brigd is ending");
	if (spawn_peer_kvm(set->app->spawn, &per_s) == SPAWN_KVM_EMULATED)
		return fault_set(fault, 503, "kvm_too_slow",
				 "this machine's /dev/kvm interprets guest "
				 "kernel code; use the host VM: "
				 "`brig host start`");
	if (set->count >= BRIG_SANDBOXES_MAX)
		return fault_set(fault, 503, "no_capacity",
				 "this host has %u sandboxes, its maximum",
				 set->count);
	if (meminfo_mib("MemAvailable") < need)
		return fault_set(fault, 503, "no_capacity",
				 "the host has not enough free memory for %u "
				 "MiB",
				 memory_mib);
	return 0;
}

/* --- Its image ------------------------------------------------------------------------------ */

/* With a snapshot the shape is complete, and the image must be what it was;
 * otherwise what the image is comes into the shape. */
static int check_image(const struct sandbox_set *set,
		       const struct sandbox_spec *spec, struct shape *shape,
		       struct fault *fault)
{
	bool complete = spec->from != NULL || spec->snapshot != NULL;
	cleanup_fd int fd = -1;

	if (complete)
		fd = image_open_shape(set->app->images_dir, shape);
	else
		fd = image_open_new(set->app->images_dir, shape);
	if (fd == -ENOENT)
		return fault_set(fault, 404, "image_not_found",
				 "there is no image `%s`", shape->image);
	if (fd == -ESTALE)
		return fault_set(fault, 422, "image_changed",
				 "the image `%s` is not what it was any more",
				 shape->image);
	if (fd < 0) {
		log_error("image=%s: %s", shape->image, strerror(-fd));
		return fault_set(fault, 500, "image_error",
				 "the image `%s` cannot be opened",
				 shape->image);
	}
	if (shape->base_bytes > shape->disk_bytes)
		return fault_set(fault, 422, "invalid_field",
				 "`storage` is smaller than the image");
	return 0;
}

/* --- Making one ------------------------------------------------------------------------------- */

/* One of the pool's shells, whose id was chosen for whoever takes it. */
static void take_shell(struct sandbox *sb)
{
	struct shell_kind kind = {
		.vcpus = sb->shape.vcpus,
		.memory_mib = sb->shape.memory_mib,
		.cpu_quota_percent = sb->cpus * 25,
		.disk_bytes = sb->shape.disk_bytes,
	};

	sb->shell = pool_take(sb->set->app->pool, &kind);
	if (sb->shell == NULL) {
		id_make(sb->id, "sb_");
		return;
	}
	memcpy(sb->id, sb->shell->id, sizeof(sb->id));
	sb->id_used = true;
	shell_own(sb->shell, &sandbox_shell_events, sb);
}

static void fill_owner(struct sandbox *sb, const struct sandbox_spec *spec)
{
	sb->tenant = spec->tenant;
	if (spec->name != NULL)
		(void)snprintf(sb->name, sizeof(sb->name), "%s", spec->name);
	else
		id_make_name(sb->name);
	sb->created_ms = when_now_ms();
	sb->env = json_incref(spec->env);
	if (sb->tenant != 0)
		sb->set->count++;
}

static void fill(struct sandbox *sb, const struct sandbox_spec *spec,
		 const struct shape *shape)
{
	fill_owner(sb, spec);
	sb->cpus = spec->cpus;
	sb->shape = *shape;
	sb->origin = spec->origin;
	if (spec->template_name != NULL)
		(void)snprintf(sb->template_name, sizeof(sb->template_name),
			       "%s", spec->template_name);
	if (spec->snapshot != NULL) {
		(void)snprintf(sb->snapshot, sizeof(sb->snapshot), "%s",
			       spec->snapshot);
		memcpy(sb->parent, sb->snapshot, sizeof(sb->parent));
	}
	if (spec->from != NULL) {
		sb->from = saved_ref(spec->from);
		sb->below = saved_ref(spec->from);
	}
	sb->may_use_template = spec->may_use_template;
	sb->rehearsal = spec->rehearsal;
	sb->template_as_made = spec->origin == ORIGIN_TEMPLATE;
	take_shell(sb);
}

static int save_row(const struct sandbox *sb)
{
	struct store_sandbox row = {
		.tenant = sb->tenant,
		.cpus = sb->cpus,
		.memory_mib = sb->shape.memory_mib,
		.storage_gb = sandbox_disk_gib(sb),
		.status = "creating",
		.created_ms = sb->created_ms,
		.ready_ms = -1,
	};
	char *env = NULL;

	if (sb->tenant == 0)
		return 0;
	if (sb->env != NULL) {
		env = json_dumps(sb->env, JSON_COMPACT);
		if (env == NULL)
			return -ENOMEM;
	}
	row.env = env;
	memcpy(row.id, sb->id, sizeof(row.id));
	memcpy(row.name, sb->name, sizeof(row.name));
	memcpy(row.image, sb->shape.image, sizeof(row.image));
	memcpy(row.snapshot, sb->snapshot, sizeof(row.snapshot));
	memcpy(row.template_name, sb->template_name, sizeof(row.template_name));
	(void)snprintf(row.origin, sizeof(row.origin), "%s",
		       sandbox_origin_name(sb));
	int r = store_add_sandbox(sb->set->app->store, &row);
	free(env);
	return r;
}

static int start_fault(const struct sandbox *sb, int error, struct fault *fault)
{
	if (error == -ENOTCONN)
		return fault_set(fault, 503, "spawn_unavailable",
				 "brig-spawn is not running");
	if (error == -ENOSPC || error == -EMFILE || error == -ENOMEM ||
	    error == -EAGAIN)
		return fault_set(fault, 503, "no_capacity", "the host: %s",
				 strerror(-error));
	log_error("sandbox=%s start: %s", sb->id, strerror(-error));
	return fault_set(fault, 500, "host_error",
			 "the sandbox cannot be started: %s", strerror(-error));
}

/* The row comes first: a sandbox that runs is always in the store. */
static int save_and_start(struct sandbox *sb, struct fault *fault)
{
	int r = save_row(sb);

	if (r == 0) {
		r = sandbox_start(sb);
		if (r < 0 && sb->tenant != 0 &&
		    store_remove_sandbox(sb->set->app->store, sb->id) < 0)
			log_warn("sandbox=%s row stays; going on", sb->id);
	}
	return r < 0 ? start_fault(sb, r, fault) : 0;
}

static int make(struct sandbox_set *set, const struct sandbox_spec *spec,
		const struct shape *shape, struct sandbox **ret,
		struct fault *fault)
{
	struct sandbox *sb = sandbox_new(set);

	if (sb == NULL)
		return fault_set(fault, 500, "no_memory", "out of memory");
	fill(sb, spec, shape);
	int r = save_and_start(sb, fault);
	if (r < 0)
		sandbox_drop(sb);
	*ret = sb;
	return r;
}

/* One that runs already, under a new owner and name. */
static int adopt(struct sandbox *sb, const struct sandbox_spec *spec,
		 struct fault *fault)
{
	fill_owner(sb, spec);
	TAILQ_REMOVE(&sb->set->list, sb, link);
	TAILQ_INSERT_TAIL(&sb->set->list, sb, link); /* oldest first */
	int r = save_row(sb);
	if (r < 0) {
		sandbox_delete(sb);
		return start_fault(sb, r, fault);
	}
	sandbox_start_over(sb);
	return 0;
}

int sandbox_create(struct sandbox_set *set, const struct sandbox_spec *spec,
		   struct sandbox **ret, struct fault *fault)
{
	struct shape shape = spec->shape;
	bool restored = spec->from != NULL || spec->snapshot != NULL;
	int r = admit(set, shape.memory_mib, restored, fault);

	if (r == 0)
		r = check_image(set, spec, &shape, fault);
	if (r < 0)
		return r;
	struct sandbox *sb = standby_take(set->app->standbys, spec, &shape);
	if (sb != NULL)
		r = adopt(sb, spec, fault);
	else
		r = make(set, spec, &shape, &sb, fault);
	if (r < 0)
		return r;
	log_info("sandbox=%s name=%s origin=%s", sb->id, sb->name,
		 sandbox_origin_name(sb));
	*ret = sb;
	return 0;
}

/* --- Beginning again ------------------------------------------------------------------------- */

int sandbox_restart(struct sandbox *sb, struct saved *from,
		    enum sandbox_origin origin, const char *snapshot,
		    struct fault *fault)
{
	struct sandbox_spec spec = { .from = from };
	struct shape shape = from->shape;

	ASSERT(from->state != NULL && sb->state != SANDBOX_CREATING);
	if (admit(sb->set, shape.memory_mib, true, fault) < 0 ||
	    check_image(sb->set, &spec, &shape, fault) < 0)
		return -EINVAL;
	sandbox_set_creating(sb);
	sandbox_vm_stop(sb);
	shell_drop(sb->shell);
	sb->shell = NULL;
	sb->from = saved_ref(from);
	sb->below = saved_ref(from);
	sb->shape = shape;
	sb->origin = origin;
	sb->template_as_made = false;
	sb->save_broken = false;
	if (snapshot != NULL) {
		(void)snprintf(sb->snapshot, sizeof(sb->snapshot), "%s",
			       snapshot);
		memcpy(sb->parent, sb->snapshot, sizeof(sb->parent));
	}
	int r = sandbox_start(sb);
	if (r < 0) {
		sandbox_set_ended(sb, SANDBOX_FAILED, "vmm_error");
		return start_fault(sb, r, fault);
	}
	return 0;
}
