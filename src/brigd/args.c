/* args.c - request bodies and query values as checked C values.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "body.h"
#include "id.h"
#include "settings.h"
#include "wire/guest.h"

bool args_is_image_name(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n >= IMAGE_NAME_BYTES || s[0] == '.' || s[0] == '-')
		return false;
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789._-") == n;
}

/* {name: value}; names as a shell could set them, at least without '='. */
int args_get_env(json_t *object, const char *name, json_t **ret,
		 struct fault *fault)
{
	const char *key;
	json_t *value;
	json_t *env = NULL;
	int r = body_object(object, name, &env, fault);

	if (r <= 0)
		return r;
	if (json_object_size(env) > BRIG_ENV_MAX)
		return fault_set(fault, 422, "invalid_field",
				 "`%s` has more than %u members", name,
				 BRIG_ENV_MAX);
	json_object_foreach(env, key, value) {
		if (key[0] == '\0' || strchr(key, '=') != NULL)
			return fault_set(fault, 422, "invalid_field",
					 "`%s`: `%.60s` is no name for a "
					 "variable",
					 name, key);
		if (body_text(value, key, COMMAND_BYTES, fault) == NULL)
			return -EINVAL;
	}
	*ret = env;
	return 1;
}

int args_get_kept_env(json_t *object, const char *name, json_t **ret,
		      struct fault *fault)
{
	int r = args_get_env(object, name, ret, fault);

	if (r > 0 && !settings_is_env(*ret))
		return fault_set(fault, 422, "invalid_field",
				 "`%s` takes more than %u bytes", name,
				 SANDBOX_ENV_BYTES);
	return r;
}

static int get_resources(json_t *object, struct args_create *a,
			 struct fault *fault)
{
	json_t *resources = NULL;
	uint64_t cpus = CPUS_DEFAULT;
	uint64_t memory = MEMORY_MIB_DEFAULT;
	uint64_t storage = STORAGE_GB_DEFAULT;
	int r = body_object(object, "resources", &resources, fault);

	if (r < 0)
		return r;
	if (r > 0 &&
	    (body_integer(resources, "cpus", 1, CPUS_MAX, &cpus, fault) < 0 ||
	     body_integer(resources, "memory", BRIG_MEMORY_MIB_MIN,
			  BRIG_MEMORY_MIB_MAX, &memory, fault) < 0 ||
	     body_integer(resources, "storage", 1, STORAGE_GB_MAX, &storage,
			  fault) < 0))
		return -EINVAL;
	a->cpus = (uint32_t)cpus;
	a->memory_mib = (uint32_t)memory;
	a->storage_gb = (uint32_t)storage;
	return 0;
}

static int fill_create(struct args_create *a, struct fault *fault)
{
	if (body_string(a->json, "name", NAME_BYTES, &a->name, fault) < 0 ||
	    body_string(a->json, "image", IMAGE_NAME_BYTES, &a->image, fault) <
		    0 ||
	    body_bool(a->json, "wait_for_ready", &a->wait_for_ready, fault) <
		    0 ||
	    args_get_kept_env(a->json, "env_vars", &a->env, fault) < 0 ||
	    get_resources(a->json, a, fault) < 0)
		return -EINVAL;
	if (a->name != NULL && !id_is_label(a->name))
		return fault_set(fault, 422, "invalid_field",
				 "`name` must be 1 to 63 characters of a-z, "
				 "0-9 and -, with no - at either end");
	if (!args_is_image_name(a->image))
		return fault_set(fault, 422, "invalid_field",
				 "`image` is not a name of an image");
	return 0;
}

int args_parse_create(const char *text, size_t n, struct args_create *ret,
		      struct fault *fault)
{
	*ret = (struct args_create){ .image = "default",
				     .wait_for_ready = true };
	int r = body_parse(text, n, &ret->json, fault);
	if (r == 0)
		r = fill_create(ret, fault);
	if (r < 0)
		args_free_create(ret);
	return r;
}

void args_free_create(struct args_create *a)
{
	json_decref(a->json);
	a->json = NULL;
}

static int get_timeout(json_t *object, const char *name, uint32_t *ret_ms,
		       struct fault *fault)
{
	double seconds = 0;
	int r = body_positive(object, name, RUN_TIMEOUT_MAX_S, &seconds, fault);

	if (r > 0)
		*ret_ms = (uint32_t)ceil(seconds * 1000);
	return r;
}

static int get_command(struct args_run *a, struct fault *fault)
{
	int r = body_string(a->json, "command", COMMAND_BYTES, &a->command,
			    fault);

	if (r < 0)
		return r;
	if (r > 0 && a->command[0] == '\0')
		return fault_set(fault, 422, "invalid_field",
				 "`command` must not be empty");
	return 0;
}

static int get_argv(struct args_run *a, struct fault *fault)
{
	size_t i;
	json_t *value;
	int r = body_array(a->json, "argv", BRIG_ARGV_MAX, &a->argv, fault);

	if (r <= 0)
		return r;
	json_array_foreach(a->argv, i, value) {
		const char *s = body_text(value, "argv", COMMAND_BYTES, fault);
		if (s == NULL)
			return -EINVAL;
		if (i == 0 && s[0] == '\0')
			return fault_set(fault, 422, "invalid_field",
					 "`argv` must begin with a program");
	}
	return 1;
}

static int fill_execute(struct args_run *a, struct fault *fault)
{
	if (get_command(a, fault) < 0 ||
	    args_get_env(a->json, "env", &a->env, fault) < 0 ||
	    body_string(a->json, "working_dir", BRIG_PATH_BYTES, &a->cwd,
			fault) < 0)
		return -EINVAL;
	if (a->command == NULL)
		return fault_set(fault, 422, "missing_field",
				 "`command` is missing");
	if (a->stream)
		return 0;
	int r = get_timeout(a->json, "timeout", &a->timeout_ms, fault);
	if (r == 0)
		r = get_timeout(a->json, "api_timeout", &a->timeout_ms, fault);
	return r < 0 ? r : 0;
}

int args_parse_execute(const char *text, size_t n, bool stream,
		       struct args_run *ret, struct fault *fault)
{
	*ret = (struct args_run){
		.cwd = "",
		.user = "",
		.stream = stream,
		.output_limit = stream ? UINT64_MAX : OUTPUT_LIMIT_DEFAULT,
	};
	int r = body_parse(text, n, &ret->json, fault);
	if (r == 0)
		r = fill_execute(ret, fault);
	if (r < 0)
		args_free_run(ret);
	return r;
}

/* What runs and code have in common. */
static int fill_common(struct args_run *a, struct fault *fault)
{
	uint64_t limit = 0;

	if (args_get_env(a->json, "env", &a->env, fault) < 0 ||
	    body_string(a->json, "cwd", BRIG_PATH_BYTES, &a->cwd, fault) < 0 ||
	    body_string(a->json, "user", USER_BYTES, &a->user, fault) < 0 ||
	    body_bool(a->json, "stream", &a->stream, fault) < 0 ||
	    get_timeout(a->json, "timeout_s", &a->timeout_ms, fault) < 0)
		return -EINVAL;
	int r = body_string(a->json, "stdin", JSON_BODY_MAX + 1, &a->input,
			    fault);
	if (r < 0)
		return r;
	if (r > 0)
		a->input_bytes = strlen(a->input);
	a->output_limit = a->stream ? UINT64_MAX : OUTPUT_LIMIT_DEFAULT;
	r = body_integer(a->json, "output_limit", 0, OUTPUT_LIMIT_MAX, &limit,
			 fault);
	if (r > 0)
		a->output_limit = limit;
	return r < 0 ? r : 0;
}

static int fill_run(struct args_run *a, struct fault *fault)
{
	static const char *const names[] = {
		"argv",         "command", "cwd",        "env",
		"user",         "stdin",   "stdin_open", "timeout_s",
		"output_limit", "stream",  NULL,
	};

	if (body_allow_only(a->json, names, fault) < 0 ||
	    get_command(a, fault) < 0 || get_argv(a, fault) < 0 ||
	    body_bool(a->json, "stdin_open", &a->stdin_open, fault) < 0 ||
	    fill_common(a, fault) < 0)
		return -EINVAL;
	if ((a->command == NULL) == (a->argv == NULL))
		return fault_set(fault, 422, "invalid_body",
				 "give either `argv` or `command`");
	return 0;
}

static int fill_code(struct args_run *a, struct fault *fault)
{
	static const char *const names[] = {
		"language", "code",      "cwd",          "env",    "user",
		"stdin",    "timeout_s", "output_limit", "stream", NULL,
	};

	if (body_allow_only(a->json, names, fault) < 0 ||
	    body_string(a->json, "language", USER_BYTES, &a->language, fault) <
		    0 ||
	    body_string(a->json, "code", COMMAND_BYTES, &a->code, fault) < 0 ||
	    fill_common(a, fault) < 0)
		return -EINVAL;
	if (a->language == NULL || a->code == NULL)
		return fault_set(fault, 422, "missing_field",
				 "give `language` and `code`");
	if (strcmp(a->language, "python") != 0 &&
	    strcmp(a->language, "node") != 0 &&
	    strcmp(a->language, "bash") != 0)
		return fault_set(fault, 422, "invalid_field",
				 "`language` must be python, node or bash");
	return 0;
}

int args_parse_run(const char *text, size_t n, struct args_run *ret,
		   struct fault *fault)
{
	*ret = (struct args_run){ .cwd = "", .user = "" };
	int r = body_parse(text, n, &ret->json, fault);
	if (r == 0)
		r = fill_run(ret, fault);
	if (r < 0)
		args_free_run(ret);
	return r;
}

int args_parse_code(const char *text, size_t n, struct args_run *ret,
		    struct fault *fault)
{
	*ret = (struct args_run){ .cwd = "", .user = "" };
	int r = body_parse(text, n, &ret->json, fault);
	if (r == 0)
		r = fill_code(ret, fault);
	if (r < 0)
		args_free_run(ret);
	return r;
}

void args_free_run(struct args_run *a)
{
	json_decref(a->json);
	a->json = NULL;
}

static int add_string(struct buf *to, const char *s)
{
	return buf_add(to, s, strlen(s) + 1);
}

static int add_env(struct buf *to, json_t *env, json_t *unless,
		   uint32_t *ret_count)
{
	const char *key;
	json_t *value;

	json_object_foreach(env, key, value) {
		if (json_object_get(unless, key) != NULL)
			continue;
		int r = buf_addf(to, "%s=%s", key, json_string_value(value));
		if (r == 0)
			r = buf_add(to, "", 1);
		if (r < 0)
			return r;
		(*ret_count)++;
	}
	return 0;
}

static int add_argv(const struct args_run *a, struct buf *to)
{
	size_t i;
	json_t *value;

	if (a->language != NULL) {
		int r = add_string(to, a->language);
		return r < 0 ? r : add_string(to, a->code);
	}
	if (a->argv == NULL)
		return add_string(to, a->command);
	json_array_foreach(a->argv, i, value) {
		int r = add_string(to, json_string_value(value));
		if (r < 0)
			return r;
	}
	return 0;
}

int args_encode_exec(const struct args_run *a, json_t *defaults,
		     struct buf *ret, struct fault *fault)
{
	struct guest_exec head = { .timeout_ms = a->timeout_ms, .argc = 1 };

	if (a->language != NULL) {
		head.flags = GUEST_EXEC_CODE;
		head.argc = 2;
	} else if (a->argv == NULL) {
		head.flags = GUEST_EXEC_SHELL;
	} else {
		head.argc = (uint32_t)json_array_size(a->argv);
	}
	if (a->stdin_open || a->input != NULL)
		head.flags |= GUEST_EXEC_STDIN;
	ASSERT(ret->len == 0 && ret->max == BRIG_FRAME_MAX);
	int r = buf_add(ret, &head, sizeof(head));
	if (r == 0)
		r = add_string(ret, a->user);
	if (r == 0)
		r = add_string(ret, a->cwd);
	if (r == 0)
		r = add_argv(a, ret);
	if (r == 0)
		r = add_env(ret, defaults, a->env, &head.envc);
	if (r == 0)
		r = add_env(ret, a->env, NULL, &head.envc);
	if (r == -ENOMEM)
		return fault_set(fault, 500, "no_memory", "out of memory");
	if (r < 0 || head.envc > BRIG_ENV_MAX)
		return fault_set(fault, 422, "command_too_long",
				 "command and environment together are more "
				 "than %u bytes or %u variables",
				 BRIG_FRAME_MAX, BRIG_ENV_MAX);
	memcpy(ret->data, &head, sizeof(head));
	return 0;
}

int args_query_number(const char *text, const char *name, uint32_t max,
		      uint32_t fallback, uint32_t *ret, struct fault *fault)
{
	if (text == NULL) {
		*ret = fallback;
		return 0;
	}
	size_t digits = strspn(text, "0123456789");
	const char *rest = text + digits;
	if (*rest == '.')
		rest += 1 + strspn(rest + 1, "0");
	if (digits > 0 && digits <= 9 && *rest == '\0') {
		unsigned long v = strtoul(text, NULL, 10);
		if (v >= 1 && v <= max) {
			*ret = (uint32_t)v;
			return 0;
		}
	}
	return fault_set(fault, 422, "invalid_field",
			 "`%s` must be a whole number between 1 and %u", name,
			 max);
}

int args_check_path(const char *path, struct fault *fault)
{
	if (path == NULL || path[0] == '\0')
		return fault_set(fault, 422, "missing_field",
				 "`path` is missing");
	if (strlen(path) >= BRIG_PATH_BYTES)
		return fault_set(fault, 422, "invalid_field",
				 "`path` is longer than %u bytes",
				 BRIG_PATH_BYTES - 1);
	return 0;
}
