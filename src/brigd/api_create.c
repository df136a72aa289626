/* api_create.c - POST /v1/sandboxes/create and /v2/sandboxes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "args.h"
#include "args_make.h"
#include "auth.h"
#include "creation.h"
#include "log.h"
#include "store.h"
#include "template.h"
#include "when.h"

/* --- Idempotency-Key ---------------------------------------------------------------- */

/* 1: the key made *ret before; 0: it is new (or there is none); -EINVAL after
 * filling *fault. */
static int look_up_key(const struct request *rq, const char *key,
		       const uint8_t hash[AUTH_HASH_BYTES],
		       struct sandbox **ret, struct fault *fault)
{
	uint8_t before[AUTH_HASH_BYTES];
	char id[BRIG_ID_BYTES];

	if (key == NULL)
		return 0;
	if (key[0] == '\0' || strlen(key) >= IDEMPOTENCY_KEY_BYTES)
		return fault_set(fault, 422, "invalid_field",
				 "Idempotency-Key must have 1 to %u bytes",
				 IDEMPOTENCY_KEY_BYTES - 1);
	int r = store_get_idempotent(api_app(rq)->store, rq->tenant, key,
				     when_now_ms(), before, id);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return fault_set(fault, 503, "store_error",
				 "the database does not answer");
	if (memcmp(before, hash, AUTH_HASH_BYTES) != 0)
		return fault_set(fault, 409, "idempotency_conflict",
				 "this Idempotency-Key was used with another "
				 "body");
	*ret = sandbox_find(api_app(rq)->sandboxes, rq->tenant, id);
	if (*ret == NULL)
		return fault_set(fault, 422, "idempotency_key_used",
				 "the sandbox that this Idempotency-Key made "
				 "is deleted");
	return 1;
}

/* Remembers what the key made; without that a retry would make another. */
static int note_key(struct request *rq, const char *key,
		    const uint8_t hash[AUTH_HASH_BYTES], struct sandbox *sb,
		    struct fault *fault)
{
	if (key == NULL ||
	    store_put_idempotent(api_app(rq)->store, rq->tenant, key, hash,
				 sb->id, when_now_ms()) == 0)
		return 0;
	sandbox_delete(sb);
	return fault_set(fault, 503, "store_error",
			 "the database does not answer");
}

/* 1: the key made *ret before. */
static int create(struct request *rq, const struct sandbox_spec *spec,
		  struct sandbox **ret, struct fault *fault)
{
	uint8_t hash[AUTH_HASH_BYTES];
	const char *key = http_header(rq, "Idempotency-Key");

	auth_hash(rq->body.len > 0 ? rq->body.data : "", rq->body.len, hash);
	int r = look_up_key(rq, key, hash, ret, fault);
	if (r != 0)
		return r;
	r = sandbox_create(api_app(rq)->sandboxes, spec, ret, fault);
	return r < 0 ? r : note_key(rq, key, hash, *ret, fault);
}

static void answer(struct request *rq, const struct sandbox_spec *spec,
		   enum creation_form form, bool wait)
{
	struct fault fault;
	struct sandbox *sb = NULL;

	int r = create(rq, spec, &sb, &fault);
	if (r < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	ASSERT(sb != NULL);
	if (r > 0 && sb->state != SANDBOX_CREATING) {
		http_reply_json(rq,
				form == CREATION_ONE
					? api_sandbox_json(sb, NULL)
					: api_sandbox_json_v1(sb, "storage"));
		return;
	}
	struct creation *c = creation_new(rq, form, 1, wait);
	if (c == NULL)
		return;
	creation_add(c, sb, false);
	creation_wait(c);
}

/* --- Part 1 ------------------------------------------------------------------------------ */

void api_create(struct request *rq)
{
	struct args_create args;
	struct fault fault;

	if (args_parse_create(rq->body.data, rq->body.len, &args, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	struct sandbox_spec spec = {
		.tenant = rq->tenant,
		.name = args.name,
		.env = args.env,
		.cpus = args.cpus,
		.shape = { .vcpus = (args.cpus + 3) / 4,
			   .memory_mib = args.memory_mib,
			   .disk_bytes = (uint64_t)args.storage_gb << 30 },
		.may_use_template = true,
	};
	(void)snprintf(spec.shape.image, sizeof(spec.shape.image), "%s",
		       args.image);
	answer(rq, &spec, CREATION_V1, args.wait_for_ready);
	args_free_create(&args);
}

/* --- Part 2 ------------------------------------------------------------------------------ */

/* What was asked for must be what the saved machine has. */
static int check_shape(const struct args_make *a, const struct shape *shape,
		       struct fault *fault)
{
	if ((a->vcpus != 0 && a->vcpus != shape->vcpus) ||
	    (a->memory_mib != 0 && a->memory_mib != shape->memory_mib) ||
	    (a->disk_gib != 0 && a->disk_gib != shape->disk_bytes >> 30) ||
	    (a->image != NULL && strcmp(a->image, shape->image) != 0))
		return fault_set(fault, 422, "shape_differs",
				 "a saved machine goes on as it is: image %s, "
				 "%u vCPUs, %u MiB, disk of %llu GiB",
				 shape->image, shape->vcpus, shape->memory_mib,
				 (unsigned long long)shape->disk_bytes >> 30);
	return 0;
}

/* What was asked for, then what the snapshot says. */
static int use_settings(const json_t *settings, struct sandbox_spec *spec,
			struct fault *fault)
{
	json_t *env = settings_env(settings);

	spec->cpus = settings_cpus(settings);
	if (spec->env == NULL) {
		spec->env = env;
		return 0;
	}
	if (env != NULL && json_object_update_missing(spec->env, env) < 0)
		return fault_set(fault, 500, "no_memory", "out of memory");
	if (!settings_is_env(spec->env))
		return fault_set(fault, 422, "invalid_field",
				 "`env` and that of the snapshot together take "
				 "more than %u bytes or %u variables",
				 SANDBOX_ENV_BYTES, BRIG_ENV_MAX);
	return 0;
}

int api_spec_of_snapshot(struct request *rq, const char *id,
			 const struct args_make *a, struct sandbox_spec *spec,
			 struct fault *fault)
{
	const struct snap *snap =
		snapstore_find(api_app(rq)->snapstore, rq->tenant, id);

	if (snap == NULL || snap->kind == SNAP_TEMPLATE)
		return fault_set(fault, 404, "not_found", "no such snapshot");
	if (snap->status == SNAP_CREATING)
		return fault_set(fault, 409, "busy",
				 "the snapshot is still being made");
	if (snap->status == SNAP_ERROR)
		return fault_set(fault, 422, "snapshot_damaged",
				 "the snapshot is damaged: %s", snap->problem);
	spec->shape = snap->shape;
	spec->origin = ORIGIN_SNAPSHOT;
	spec->snapshot = id;
	if (check_shape(a, &snap->shape, fault) < 0)
		return -EINVAL;
	return use_settings(snap->settings, spec, fault);
}

static int spec_of_template(struct request *rq, const struct args_make *a,
			    struct sandbox_spec *spec, struct fault *fault)
{
	const struct template *t =
		template_find(api_app(rq)->templates, a->template_name);

	if (t == NULL)
		return fault_set(fault, 404, "template_not_found",
				 "there is no template `%s`", a->template_name);
	if (t->snapshot[0] == '\0')
		return fault_set(fault, 409, "busy",
				 "the template is still being made");
	spec->shape = t->shape;
	spec->origin = ORIGIN_TEMPLATE;
	spec->template_name = t->name;
	spec->snapshot = t->snapshot;
	spec->from = t->saved;
	return check_shape(a, &t->shape, fault);
}

static void spec_of_image(const struct args_make *a, struct sandbox_spec *spec)
{
	uint32_t disk = a->disk_gib != 0 ? a->disk_gib : STORAGE_GB_DEFAULT;

	spec->shape = (struct shape){
		.vcpus = a->vcpus != 0 ? a->vcpus : (CPUS_DEFAULT + 3) / 4,
		.memory_mib =
			a->memory_mib != 0 ? a->memory_mib : MEMORY_MIB_DEFAULT,
		.disk_bytes = (uint64_t)disk << 30,
	};
	(void)snprintf(spec->shape.image, sizeof(spec->shape.image), "%s",
		       a->image != NULL ? a->image : "default");
	spec->may_use_template = true;
}

static int make_spec(struct request *rq, const struct args_make *a,
		     struct sandbox_spec *spec, struct fault *fault)
{
	int r = 0;

	*spec = (struct sandbox_spec){
		.tenant = rq->tenant,
		.name = a->name,
		.env = a->env,
	};
	if ((a->template_name != NULL) + (a->snapshot != NULL) +
		    (a->image != NULL) >
	    1)
		return fault_set(fault, 422, "invalid_body",
				 "give one of `template`, `image` and "
				 "`snapshot`");
	if (a->template_name != NULL)
		r = spec_of_template(rq, a, spec, fault);
	else if (a->snapshot != NULL)
		r = api_spec_of_snapshot(rq, a->snapshot, a, spec, fault);
	else
		spec_of_image(a, spec);
	if (spec->cpus == 0)
		spec->cpus = 4 * spec->shape.vcpus;
	return r;
}

void api_create_many(struct creation *c, struct request *rq,
		     const struct sandbox_spec *spec, uint32_t count)
{
	struct sandbox_spec each = *spec;
	char name[NAME_BYTES];
	struct fault fault;

	for (uint32_t i = 0; i < count; i++) {
		struct sandbox *sb = NULL;
		if (spec->name != NULL && count > 1) {
			/* 57 and "-1000" are a label still. */
			(void)snprintf(name, sizeof(name), "%.57s-%u",
				       spec->name, (i + 1) % 10000);
			each.name = name;
		}
		if (sandbox_create(api_app(rq)->sandboxes, &each, &sb, &fault) <
		    0)
			creation_add_fault(c, &fault);
		else
			creation_add(c, sb, false);
	}
	creation_wait(c);
}

void api_create_v2(struct request *rq)
{
	struct args_make args;
	struct sandbox_spec spec;
	struct fault fault;

	if (args_parse_make(MAKE_SANDBOX, rq->body.data, rq->body.len, &args,
			    &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
		return;
	}
	if (make_spec(rq, &args, &spec, &fault) < 0) {
		http_reply_fault(rq, &fault, NULL);
	} else if (args.count == 0) {
		answer(rq, &spec, CREATION_ONE, args.wait_for_ready);
	} else if (http_header(rq, "Idempotency-Key") != NULL) {
		http_reply_error(rq, 422, "invalid_field",
				 "Idempotency-Key is for one sandbox, not for "
				 "`count`");
	} else {
		struct creation *c = creation_new(rq, CREATION_MANY, args.count,
						  args.wait_for_ready);
		if (c != NULL)
			api_create_many(c, rq, &spec, args.count);
	}
	args_make_free(&args);
}
