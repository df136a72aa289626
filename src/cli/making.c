/* making.c - requests that make sandboxes: one or many, new or copies.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "cmd.h"
#include "making.h"
#include "ref.h"
#include "sandbox.h"
#include "stop.h"

#define MAKE_TIMEOUT_S 600u

/* --- the request -------------------------------------------------------------- */

/* The published request knows shares of CPUs; templates, snapshots and counts
 * are in brig's own, which has whole ones. */
static bool is_own(const struct making *m)
{
	return m->template != NULL || m->snapshot != NULL || m->count > 0;
}

int making_check(const struct usage *u, const struct making *m)
{
	if ((m->image != NULL) + (m->template != NULL) + (m->snapshot != NULL) >
	    1)
		return opt_wrong(u, "--image, --template and --snapshot exclude"
				    " each other");
	if ((m->template != NULL && !ref_is_id(m->template)) ||
	    (m->snapshot != NULL && !ref_is_id(m->snapshot)))
		return opt_wrong(u, "that is no name of a template and no id "
				    "of a snapshot");
	if (is_own(m) && m->cpu_quarters % 4 != 0)
		return opt_wrong(u, "--template, --snapshot and --count want "
				    "whole --cpus");
	return CMD_OK;
}

int making_put(json_t *object, const char *key, uint64_t value)
{
	return value == 0
		       ? 0
		       : json_object_set_new(object, key,
					     json_integer((json_int_t)value));
}

static json_t *own_body(const struct making *m)
{
	json_t *body = json_pack("{s:s*, s:s*, s:s*, s:s*, s:O*, s:b}", "image",
				 m->image, "template", m->template, "snapshot",
				 m->snapshot, "name", m->name, "env", m->env,
				 "wait_for_ready", !m->no_wait);

	if (making_put(body, "vcpus", m->cpu_quarters / 4) < 0 ||
	    making_put(body, "memory_mib", m->memory_mib) < 0 ||
	    making_put(body, "disk_gib", m->disk_gb) < 0 ||
	    making_put(body, "count", m->count) < 0) {
		json_decref(body);
		return NULL;
	}
	return body;
}

static json_t *published_body(const struct making *m)
{
	json_t *resources = json_object();
	json_t *body =
		json_pack("{s:s*, s:s*, s:O*, s:b, s:o}", "image", m->image,
			  "name", m->name, "env_vars", m->env, "wait_for_ready",
			  !m->no_wait, "resources", resources);

	if (making_put(resources, "cpus", m->cpu_quarters) < 0 ||
	    making_put(resources, "memory", m->memory_mib) < 0 ||
	    making_put(resources, "storage", m->disk_gb) < 0) {
		json_decref(body);
		return NULL;
	}
	return body;
}

/* --- the reply ---------------------------------------------------------------- */

/* {"sandboxes": [...], "errors": [...]}, or one sandbox. */
static size_t made_count(const json_t *reply)
{
	const json_t *several = json_object_get(reply, "sandboxes");

	return several != NULL ? json_array_size(several) : 1;
}

static const char *made_id(const json_t *reply, size_t i)
{
	const json_t *several = json_object_get(reply, "sandboxes");
	const json_t *one =
		several != NULL ? json_array_get(several, i) : reply;
	const char *id = json_string_value(json_object_get(one, "id"));

	return id != NULL && ref_is_id(id) ? id : NULL;
}

static int delete_made(struct api *a, const json_t *reply)
{
	int code = CMD_OK;

	for (size_t i = 0; i < made_count(reply) && code <= CMD_SIGNAL; i++) {
		int r = sandbox_delete(a, made_id(reply, i));
		if (r != CMD_OK)
			code = r;
	}
	return code != CMD_OK ? code : CMD_SIGNAL + stop_signal();
}

int making_ask(struct api *a, const char *path, const json_t *body,
	       const char *what, json_t **ret)
{
	json_t *reply = NULL;
	const struct request rq = {
		.method = "POST",
		.path = path,
		.body = body,
		.what = what,
		.label = what,
		.left = "a sandbox may be left: see `brig ps`",
		.timeout_s = MAKE_TIMEOUT_S,
		/* without the reply nobody knows what to delete */
		.finish = true,
	};
	int code = sandbox_ask(a, &rq, &reply);

	for (size_t i = 0; code == CMD_OK && i < made_count(reply); i++) {
		if (made_id(reply, i) != NULL)
			continue;
		complain("%s: brigd sent no id", what);
		code = CMD_FAILED;
	}
	if (code == CMD_OK && stop_signal() != 0)
		code = delete_made(a, reply);
	if (code == CMD_OK)
		*ret = json_incref(reply);
	json_decref(reply);
	return code;
}

int making_create(struct api *a, const struct making *m, json_t **ret)
{
	json_t *body = is_own(m) ? own_body(m) : published_body(m);

	if (body == NULL) {
		complain("out of memory, or a name that is not UTF-8");
		return CMD_FAILED;
	}
	int code = making_ask(
		a, is_own(m) ? "/v2/sandboxes" : "/v1/sandboxes/create", body,
		"creating sandbox", ret);
	json_decref(body);
	return code;
}

int making_print(const json_t *reply, bool json)
{
	const json_t *errors = json_object_get(reply, "errors");
	int code = CMD_OK;

	for (size_t i = 0; i < json_array_size(errors); i++) {
		const json_t *error =
			json_object_get(json_array_get(errors, i), "error");
		const char *message =
			json_string_value(json_object_get(error, "message"));
		const char *kind =
			json_string_value(json_object_get(error, "code"));
		complain("one was not made: %s (%s)",
			 message != NULL ? message : "no reason given",
			 kind != NULL ? kind : "no code");
		code = CMD_FAILED;
	}
	if (json && term_print_json(reply) < 0)
		return CMD_FAILED;
	for (size_t i = 0; !json && i < made_count(reply); i++)
		(void)printf("%s\n", made_id(reply, i));
	return code;
}
