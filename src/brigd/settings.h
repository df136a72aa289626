/* settings.h - what a snapshot says of sandboxes that are made from it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A JSON object, never changed once it is made: "env", the environment that
 * runs begin with; "cpus", the quota in quarters of a vCPU; of a template also
 * "warm", the command that warmed it. Each may be missing; without any there is
 * no object: NULL. References are counted, and whoever holds one may read it in
 * any thread.
 */
#ifndef BRIGD_SETTINGS_H
#define BRIGD_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cc.h"

/* A new reference. `env` and `warm` may be NULL, `cpus` 0: not set. NULL also
 * when there is no memory. */
json_t *settings_new(json_t *env, uint32_t cpus, const char *warm);

/* Borrowed, or NULL. */
json_t *settings_env(const json_t *settings);
const char *settings_warm(const json_t *settings);
uint32_t settings_cpus(const json_t *settings); /* 0: not set */

/* True if this is what settings_new() makes, for a machine of `vcpus`. Hostile:
 * it comes from a file. */
must_check bool settings_is_good(const json_t *settings, uint32_t vcpus);

/* True if a sandbox may keep this environment: BRIG_ENV_MAX names without "=",
 * SANDBOX_ENV_BYTES. Hostile. */
must_check bool settings_is_env(json_t *env);

#endif
