/* args_make.c - request bodies that make sandboxes, snapshots and templates.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "args.h"
#include "args_make.h"
#include "body.h"
#include "id.h"
#include "wire/limits.h"

#define NAMES_MAX 12

/* The fields of each body, and whether others are refused. */
static const struct {
	bool strict;
	const char *names[NAMES_MAX]; /* NULL at the end */
} bodies[MAKE_KINDS] = {
	[MAKE_SANDBOX] = { true,
			   { "template", "image", "snapshot", "name", "vcpus",
			     "memory_mib", "disk_gib", "env", "count",
			     "wait_for_ready" } },
	[MAKE_CLONES] = { true, { "count", "name", "wait_for_ready" } },
	[MAKE_SNAPSHOT] = { true, { "name", "quick", "memory" } },
	[MAKE_ROLLBACK] = { true, { "snapshot" } },
	[MAKE_TEMPLATE] = { true,
			    { "name", "image", "memory_mib", "vcpus",
			      "disk_gib", "warm" } },
	[MAKE_NOTHING] = { true, { NULL } },
	[MAKE_V1_SNAPSHOT] = { false, { "name", "quick" } },
	[MAKE_V1_RESTORE] = { false,
			      { "name", "image", "wait_for_ready",
				"resources" } },
	[MAKE_V1_CLONE] = { false,
			    { "name", "image", "snapshot_name",
			      "wait_for_ready", "resources" } },
	[MAKE_V1_DELETE] = { false, { "create_snapshot", "snapshot_name" } },
};

static bool has(enum args_make_kind kind, const char *name)
{
	for (size_t i = 0; bodies[kind].names[i] != NULL; i++) {
		if (strcmp(bodies[kind].names[i], name) == 0)
			return true;
	}
	return false;
}

/* --- Single fields -------------------------------------------------------------------- */

static int get_name(const struct args_make *a, enum args_make_kind kind,
		    const char *field, const char **ret, struct fault *fault)
{
	if (!has(kind, field))
		return 0;
	int r = body_string(a->json, field, NAME_BYTES, ret, fault);
	if (r <= 0)
		return r;
	if (!id_is_label(*ret))
		return fault_set(fault, 422, "invalid_field",
				 "`%s` must be 1 to 63 characters of a-z, 0-9 "
				 "and -, with no - at either end",
				 field);
	if (strncmp(*ret, "auto-", 5) == 0 || strncmp(*ret, "pause-", 6) == 0)
		return fault_set(fault, 422, "invalid_field",
				 "names that begin with auto- or pause- are "
				 "brig's own");
	return 0;
}

static int get_text(const struct args_make *a, enum args_make_kind kind,
		    const char *field, size_t bytes, const char **ret,
		    struct fault *fault)
{
	if (!has(kind, field))
		return 0;
	int r = body_string(a->json, field, bytes, ret, fault);
	return r < 0 ? r : 0;
}

static int get_bool(const struct args_make *a, enum args_make_kind kind,
		    const char *field, bool *ret, struct fault *fault)
{
	if (!has(kind, field))
		return 0;
	int r = body_bool(a->json, field, ret, fault);
	return r < 0 ? r : 0;
}

static int get_number(const struct args_make *a, enum args_make_kind kind,
		      const char *field, const uint32_t range[2], uint32_t *ret,
		      struct fault *fault)
{
	uint64_t v = 0;

	if (!has(kind, field))
		return 0;
	int r = body_integer(a->json, field, range[0], range[1], &v, fault);
	if (r > 0)
		*ret = (uint32_t)v;
	return r < 0 ? r : 0;
}

static const uint32_t vcpus_range[2] = { 1, BRIG_VCPUS_MAX };
static const uint32_t cpus_range[2] = { 1, CPUS_MAX };
static const uint32_t memory_range[2] = { BRIG_MEMORY_MIB_MIN,
					  BRIG_MEMORY_MIB_MAX };
static const uint32_t disk_range[2] = { 1, STORAGE_GB_MAX };
static const uint32_t count_range[2] = { 1, CREATE_COUNT_MAX };

/* Part 1: `storage` is a string there. */
static int get_storage(json_t *resources, uint32_t *ret, struct fault *fault)
{
	json_t *v = json_object_get(resources, "storage");
	uint64_t n = 0;

	if (json_is_string(v))
		return args_query_number(json_string_value(v), "storage",
					 STORAGE_GB_MAX, 0, ret, fault);
	int r = body_integer(resources, "storage", 1, STORAGE_GB_MAX, &n,
			     fault);
	if (r > 0)
		*ret = (uint32_t)n;
	return r < 0 ? r : 0;
}

static int get_resources(struct args_make *a, enum args_make_kind kind,
			 struct fault *fault)
{
	json_t *resources = NULL;
	uint64_t cpus = 0;
	uint64_t memory = 0;

	if (!has(kind, "resources"))
		return 0;
	int r = body_object(a->json, "resources", &resources, fault);
	if (r <= 0)
		return r;
	if (body_integer(resources, "cpus", cpus_range[0], cpus_range[1], &cpus,
			 fault) < 0 ||
	    body_integer(resources, "memory", memory_range[0], memory_range[1],
			 &memory, fault) < 0 ||
	    get_storage(resources, &a->disk_gib, fault) < 0)
		return -EINVAL;
	a->cpus = (uint32_t)cpus;
	a->memory_mib = (uint32_t)memory;
	return 0;
}

/* --- All of them -------------------------------------------------------------------- */

static int fill(struct args_make *a, enum args_make_kind k, struct fault *f)
{
	if (get_name(a, k, "name", &a->name, f) < 0 ||
	    get_name(a, k, "snapshot_name", &a->snapshot_name, f) < 0 ||
	    get_text(a, k, "image", IMAGE_NAME_BYTES, &a->image, f) < 0 ||
	    get_text(a, k, "template", NAME_BYTES, &a->template_name, f) < 0 ||
	    get_text(a, k, "snapshot", BRIG_ID_BYTES, &a->snapshot, f) < 0 ||
	    get_text(a, k, "warm", WARM_COMMAND_BYTES, &a->warm, f) < 0 ||
	    get_bool(a, k, "wait_for_ready", &a->wait_for_ready, f) < 0 ||
	    get_bool(a, k, "quick", &a->quick, f) < 0 ||
	    get_bool(a, k, "memory", &a->memory, f) < 0 ||
	    get_bool(a, k, "create_snapshot", &a->create_snapshot, f) < 0 ||
	    get_number(a, k, "vcpus", vcpus_range, &a->vcpus, f) < 0 ||
	    get_number(a, k, "memory_mib", memory_range, &a->memory_mib, f) <
		    0 ||
	    get_number(a, k, "disk_gib", disk_range, &a->disk_gib, f) < 0 ||
	    get_number(a, k, "count", count_range, &a->count, f) < 0 ||
	    get_resources(a, k, f) < 0)
		return -EINVAL;
	if (has(k, "env") && args_get_kept_env(a->json, "env", &a->env, f) < 0)
		return -EINVAL;
	if (a->image != NULL && !args_is_image_name(a->image))
		return fault_set(f, 422, "invalid_field",
				 "`image` is not a name of an image");
	return 0;
}

int args_parse_make(enum args_make_kind kind, const char *text, size_t n,
		    struct args_make *ret, struct fault *fault)
{
	*ret = (struct args_make){ .wait_for_ready = true, .memory = true };
	int r = body_parse(text, n, &ret->json, fault);
	if (r == 0 && bodies[kind].strict)
		r = body_allow_only(ret->json, bodies[kind].names, fault);
	if (r == 0)
		r = fill(ret, kind, fault);
	if (r < 0)
		args_make_free(ret);
	return r;
}

void args_make_free(struct args_make *a)
{
	json_decref(a->json);
	a->json = NULL;
}
