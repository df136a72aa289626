/* body.h - typed access to a JSON request body that a client wrote.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A field that is absent or null is "not given". The getters return 1 and
 * write *ret if the field is given, 0 if not, and -EINVAL after filling
 * *fault with a 422 that names the field. Strings never hold a NUL.
 * What they return is borrowed from the JSON value.
 */
#ifndef BRIGD_BODY_H
#define BRIGD_BODY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"

/* Parses a body: an object, or nothing at all (then an empty object). 400
 * for what is not JSON, 422 for other values and for numbers out of range.
 * The caller owns *ret. */
must_check int body_parse(const char *text, size_t n, json_t **ret,
			  struct fault *fault);

/* 422 if the object has a field that is not in `names` (NULL at the end). */
must_check int body_allow_only(json_t *object, const char *const *names,
			       struct fault *fault);

/* A string of less than `bytes` bytes. */
must_check int body_string(json_t *object, const char *name, size_t bytes,
			   const char **ret, struct fault *fault);
must_check int body_bool(json_t *object, const char *name, bool *ret,
			 struct fault *fault);

/* A whole number (also written as 4.0) in min..max. */
must_check int body_integer(json_t *object, const char *name, uint64_t min,
			    uint64_t max, uint64_t *ret, struct fault *fault);

/* Any number over 0 and up to max. */
must_check int body_positive(json_t *object, const char *name, double max,
			     double *ret, struct fault *fault);

/* An object or array below `name`. */
must_check int body_object(json_t *object, const char *name, json_t **ret,
			   struct fault *fault);
must_check int body_array(json_t *object, const char *name, size_t max,
			  json_t **ret, struct fault *fault);

/* The text of `value`, a member of an array or object called `name`; NULL
 * after filling *fault if it is no string, too long or holds a NUL. */
must_check const char *body_text(json_t *value, const char *name, size_t bytes,
				 struct fault *fault);

#endif
