/* settings.c - what a snapshot says of sandboxes that are made from it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "limits.h"
#include "settings.h"
#include "wire/limits.h"

json_t *settings_new(json_t *env, uint32_t cpus, const char *warm)
{
	if (env == NULL && cpus == 0 && warm == NULL)
		return NULL;
	return json_pack("{s:O*, s:o*, s:s*}", "env", env, "cpus",
			 cpus == 0 ? NULL : json_integer((json_int_t)cpus),
			 "warm", warm);
}

json_t *settings_env(const json_t *settings)
{
	return json_object_get(settings, "env");
}

const char *settings_warm(const json_t *settings)
{
	return json_string_value(json_object_get(settings, "warm"));
}

uint32_t settings_cpus(const json_t *settings)
{
	return (uint32_t)json_integer_value(json_object_get(settings, "cpus"));
}

bool settings_is_env(json_t *env)
{
	const char *name;
	json_t *value;

	if (!json_is_object(env) || json_object_size(env) > BRIG_ENV_MAX)
		return false;
	json_object_foreach(env, name, value) {
		if (name[0] == '\0' || strchr(name, '=') != NULL ||
		    !json_is_string(value) ||
		    strlen(json_string_value(value)) !=
			    json_string_length(value))
			return false;
	}
	return json_dumpb(env, NULL, 0, JSON_COMPACT) <= SANDBOX_ENV_BYTES;
}

bool settings_is_good(const json_t *settings, uint32_t vcpus)
{
	json_t *env = json_object_get(settings, "env");
	const json_t *cpus = json_object_get(settings, "cpus");
	const json_t *warm = json_object_get(settings, "warm");
	int known = (env != NULL) + (cpus != NULL) + (warm != NULL);

	if (settings == NULL)
		return true;
	if (known == 0 || json_object_size(settings) != (size_t)known)
		return false;
	if (env != NULL && !settings_is_env(env))
		return false;
	/* A quota of so many quarters is what these vCPUs are for. */
	if (cpus != NULL &&
	    (json_integer_value(cpus) > 4 * (json_int_t)vcpus ||
	     json_integer_value(cpus) <= 4 * ((json_int_t)vcpus - 1)))
		return false;
	return warm == NULL || (json_string_length(warm) > 0 &&
				json_string_length(warm) < WARM_COMMAND_BYTES);
}
