/* body.c - typed access to a JSON request body that a client wrote.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "body.h"

/* Beyond this a double no longer holds every whole number. */
#define DOUBLE_EXACT_MAX 9007199254740992.0

static int refuse(struct fault *fault, const char *name, const char *what)
{
	return fault_set(fault, 422, "invalid_field", "`%.60s` %s", name, what);
}

static bool is_blank(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (strchr(" \t\r\n", text[i]) == NULL || text[i] == '\0')
			return false;
	}
	return true;
}

int body_parse(const char *text, size_t n, json_t **ret, struct fault *fault)
{
	json_error_t error;

	if (n == 0 || is_blank(text, n)) {
		*ret = json_object();
		if (*ret == NULL)
			return fault_set(fault, 500, "no_memory",
					 "out of memory");
		return 0;
	}
	/* JSON_ALLOW_NUL so that "\u0000" is a wrong value (422, as any
	 * other) and not a syntax error: body_text() refuses it. */
	json_t *v = json_loadb(text, n,
			       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY |
				       JSON_ALLOW_NUL,
			       &error);
	if (v == NULL && json_error_code(&error) == json_error_numeric_overflow)
		return fault_set(fault, 422, "invalid_field",
				 "a number is out of range");
	if (v == NULL && json_error_code(&error) == json_error_null_byte_in_key)
		return fault_set(fault, 422, "invalid_field",
				 "a field name has a NUL byte");
	if (v == NULL)
		return fault_set(fault, 400, "malformed_json",
				 "the body is not JSON: line %d, column %d",
				 error.line, error.column);
	if (!json_is_object(v)) {
		json_decref(v);
		return fault_set(fault, 422, "invalid_body",
				 "the body must be a JSON object");
	}
	*ret = v;
	return 0;
}

int body_allow_only(json_t *object, const char *const *names,
		    struct fault *fault)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		const char *const *p = names;
		while (*p != NULL && strcmp(*p, key) != 0)
			p++;
		if (*p == NULL)
			return fault_set(fault, 422, "unknown_field",
					 "unknown field `%.60s`", key);
	}
	return 0;
}

static json_t *find(json_t *object, const char *name)
{
	json_t *v = json_object_get(object, name);

	return json_is_null(v) ? NULL : v;
}

const char *body_text(json_t *value, const char *name, size_t bytes,
		      struct fault *fault)
{
	if (!json_is_string(value)) {
		(void)refuse(fault, name, "must be a string");
		return NULL;
	}
	const char *s = json_string_value(value);
	size_t n = json_string_length(value);
	if (memchr(s, '\0', n) != NULL) {
		(void)refuse(fault, name, "must not hold a NUL character");
		return NULL;
	}
	if (n >= bytes) {
		(void)fault_set(fault, 422, "invalid_field",
				"`%.60s` is longer than %zu bytes", name,
				bytes - 1);
		return NULL;
	}
	return s;
}

int body_string(json_t *object, const char *name, size_t bytes,
		const char **ret, struct fault *fault)
{
	json_t *v = find(object, name);

	if (v == NULL)
		return 0;
	const char *s = body_text(v, name, bytes, fault);
	if (s == NULL)
		return -EINVAL;
	*ret = s;
	return 1;
}

int body_bool(json_t *object, const char *name, bool *ret, struct fault *fault)
{
	json_t *v = find(object, name);

	if (v == NULL)
		return 0;
	if (!json_is_boolean(v))
		return refuse(fault, name, "must be true or false");
	*ret = json_boolean_value(v);
	return 1;
}

int body_integer(json_t *object, const char *name, uint64_t min, uint64_t max,
		 uint64_t *ret, struct fault *fault)
{
	json_t *v = find(object, name);
	uint64_t n = 0;

	if (v == NULL)
		return 0;
	if (!json_is_number(v))
		return refuse(fault, name, "must be a whole number");
	double d = json_number_value(v);
	if (json_is_real(v) && floor(d) < d)
		return refuse(fault, name, "must be a whole number");
	bool in_range = d >= 0 && d <= DOUBLE_EXACT_MAX;
	if (in_range)
		n = json_is_integer(v) ? (uint64_t)json_integer_value(v)
				       : (uint64_t)d;
	if (!in_range || n < min || n > max)
		return fault_set(fault, 422, "invalid_field",
				 "`%.60s` must be between %llu and %llu", name,
				 (unsigned long long)min,
				 (unsigned long long)max);
	*ret = n;
	return 1;
}

int body_positive(json_t *object, const char *name, double max, double *ret,
		  struct fault *fault)
{
	json_t *v = find(object, name);

	if (v == NULL)
		return 0;
	if (!json_is_number(v))
		return refuse(fault, name, "must be a number");
	double d = json_number_value(v);
	if (!(d > 0 && d <= max))
		return fault_set(fault, 422, "invalid_field",
				 "`%.60s` must be over 0 and at most %.0f",
				 name, max);
	*ret = d;
	return 1;
}

int body_object(json_t *object, const char *name, json_t **ret,
		struct fault *fault)
{
	json_t *v = find(object, name);

	if (v == NULL)
		return 0;
	if (!json_is_object(v))
		return refuse(fault, name, "must be an object");
	*ret = v;
	return 1;
}

int body_array(json_t *object, const char *name, size_t max, json_t **ret,
	       struct fault *fault)
{
	json_t *v = find(object, name);

	if (v == NULL)
		return 0;
	if (!json_is_array(v) || json_array_size(v) == 0)
		return refuse(fault, name, "must be an array with a member");
	if (json_array_size(v) > max)
		return fault_set(fault, 422, "invalid_field",
				 "`%.60s` has more than %zu members", name,
				 max);
	*ret = v;
	return 1;
}
