/* sandbox.c - requests that commands have in common, and the first steps.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>

#include "cmd.h"
#include "ref.h"
#include "sandbox.h"
#include "stop.h"

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

int sandbox_fail(const char *what, const struct api_call *c, int r)
{
	if (r == -EINTR && stop_signal() != 0)
		return CMD_SIGNAL + stop_signal();
	complain("%s: %s", what, c->message);
	return CMD_FAILED;
}

int sandbox_ask(struct api *a, const struct request *rq, json_t **ret)
{
	struct api_call c = { .method = rq->method,
			      .path = rq->path,
			      .body = rq->body,
			      .source_fd = -1,
			      .label = rq->label,
			      .timeout_s = rq->timeout_s,
			      .finish = rq->finish };
	int r = api_perform(a, &c);
	int code = r == 0 ? CMD_OK : sandbox_fail(rq->what, &c, r);

	if (r == -EINTR && rq->left != NULL)
		complain("%s", rq->left);
	if (code == CMD_OK) {
		*ret = c.reply.len > 0 ? api_reply_json(&c) : json_null();
		if (*ret == NULL) {
			complain("%s: %s", rq->what, c.message);
			code = CMD_FAILED;
		}
	}
	api_end(&c);
	return code;
}

int sandbox_do(const struct request *rq, const char *key, bool json)
{
	struct api a cleanup_api = { .multi = NULL };
	json_t *reply = NULL;
	int code = sandbox_open_api(&a);

	if (code == CMD_OK)
		code = sandbox_ask(&a, rq, &reply);
	if (code == CMD_OK)
		code = sandbox_print(reply, key, json);
	json_decref(reply);
	return code;
}

int sandbox_fetch(struct api *a, const char *method, const char *path,
		  const char *what, json_t **ret)
{
	const struct request rq = { .method = method,
				    .path = path,
				    .what = what,
				    .timeout_s = FETCH_TIMEOUT_S };

	return sandbox_ask(a, &rq, ret);
}

int sandbox_delete(struct api *a, const char *id)
{
	char path[PATH_BYTES];
	char what[PATH_BYTES];
	char left[PATH_BYTES];
	json_t *reply = NULL;
	const struct request rq = { .method = "DELETE",
				    .path = path,
				    .what = what,
				    .label = "deleting sandbox",
				    .left = left,
				    .timeout_s = DELETE_TIMEOUT_S };

	(void)snprintf(path, sizeof(path), "/v1/sandboxes/%s/delete", id);
	(void)snprintf(what, sizeof(what), "deleting %s", id);
	(void)snprintf(left, sizeof(left), "%s may be left: `brig rm %s`", id,
		       id);
	int code = sandbox_ask(a, &rq, &reply);
	json_decref(reply);
	return code;
}

int sandbox_print(const json_t *reply, const char *key, bool json)
{
	const char *id = json_string_value(json_object_get(reply, key));

	if (json)
		return term_print_json(reply) < 0 ? CMD_FAILED : CMD_OK;
	if (id == NULL || !ref_is_id(id)) {
		complain("brigd sent no %s", key);
		return CMD_FAILED;
	}
	(void)printf("%s\n", id);
	return CMD_OK;
}
