/* sandbox.c - creating and deleting sandboxes, for the commands that do.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "ref.h"
#include "sandbox.h"
#include "stop.h"

#define CREATE_TIMEOUT_S 600u
#define DELETE_TIMEOUT_S 30u
#define FETCH_TIMEOUT_S 60u
#define PATH_BYTES 256

int sandbox_open_api(struct api *a)
{
	const char *why = "";

	if (stop_watch() < 0) {
		complain("cannot watch for signals");
		return CMD_FAILED;
	}
	if (api_open(a, &why) < 0) {
		complain("%s", why);
		return CMD_FAILED;
	}
	return CMD_OK;
}

/* Complains, unless the user's own signal was the reason. */
static int fail(const char *what, const struct api_call *c, int r)
{
	if (r == -EINTR && stop_signal() != 0)
		return CMD_SIGNAL + stop_signal();
	complain("%s: %s", what, c->message);
	return CMD_FAILED;
}

static json_t *create_body(const struct sandbox_spec *s)
{
	json_t *body = json_pack("{s:s*, s:s*, s:O*, s:b}", "image", s->image,
				 "name", s->name, "env_vars", s->env,
				 "wait_for_ready", !s->no_wait);
	json_t *resources = json_object();
	int r = 0;

	if (s->cpu_quarters > 0)
		r |= json_object_set_new(
			resources, "cpus",
			json_integer((json_int_t)s->cpu_quarters));
	if (s->memory_mib > 0)
		r |= json_object_set_new(
			resources, "memory",
			json_integer((json_int_t)s->memory_mib));
	if (s->disk_gb > 0)
		r |= json_object_set_new(resources, "storage",
					 json_integer((json_int_t)s->disk_gb));
	if (r < 0 || json_object_set_new(body, "resources", resources) < 0) {
		json_decref(body);
		return NULL;
	}
	return body;
}

/* Takes the reply apart; the id in it is a new reference's. */
static int read_created(struct api *a, struct api_call *c, json_t **ret)
{
	json_t *reply = api_reply_json(c);
	const char *id = json_string_value(json_object_get(reply, "id"));

	if (id == NULL || !ref_is_id(id)) {
		complain("creating a sandbox: brigd sent no id");
		json_decref(reply);
		return CMD_FAILED;
	}
	if (stop_signal() != 0) {
		int r = sandbox_delete(a, id);
		json_decref(reply);
		return r != CMD_OK ? r : CMD_SIGNAL + stop_signal();
	}
	*ret = reply;
	return CMD_OK;
}

int sandbox_create(struct api *a, const struct sandbox_spec *spec, json_t **ret)
{
	json_t *body = create_body(spec);
	/* a signal does not cut it: without the reply nobody knows what to
	 * delete */
	struct api_call c = { .method = "POST",
			      .path = "/v1/sandboxes/create",
			      .body = body,
			      .source_fd = -1,
			      .label = "creating sandbox",
			      .timeout_s = CREATE_TIMEOUT_S,
			      .finish = true };
	int code;

	if (body == NULL) {
		complain("out of memory");
		return CMD_FAILED;
	}
	int r = api_perform(a, &c);
	if (r == 0)
		code = read_created(a, &c, ret);
	else
		code = fail("creating a sandbox", &c, r);
	if (r == -EINTR)
		complain("a sandbox may be left: see `brig ps`");
	api_end(&c);
	json_decref(body);
	return code;
}

int sandbox_delete(struct api *a, const char *id)
{
	char path[PATH_BYTES];
	char what[PATH_BYTES];
	struct api_call c = { .method = "DELETE",
			      .path = path,
			      .source_fd = -1,
			      .label = "deleting sandbox",
			      .timeout_s = DELETE_TIMEOUT_S };

	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/delete", id);
	(void)snprintf(what, sizeof(what), "deleting %s", id);
	int r = api_perform(a, &c);
	int code = r == 0 ? CMD_OK : fail(what, &c, r);
	if (r == -EINTR)
		complain("%s may be left: `brig rm %s`", id, id);
	api_end(&c);
	return code;
}

int sandbox_fetch(struct api *a, const char *method, const char *path,
		  const char *what, json_t **ret)
{
	struct api_call c = { .method = method,
			      .path = path,
			      .source_fd = -1,
			      .timeout_s = FETCH_TIMEOUT_S };
	int code = CMD_FAILED;
	int r = api_perform(a, &c);

	if (r < 0) {
		code = fail(what, &c, r);
	} else {
		*ret = api_reply_json(&c);
		if (*ret != NULL)
			code = CMD_OK;
		else
			complain("%s: %s", what, c.message);
	}
	api_end(&c);
	return code;
}
