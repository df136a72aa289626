/* id.h - ids nobody can guess, names people can say.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_ID_H
#define BRIGD_ID_H

#include <stdbool.h>

#include "cc.h"
#include "limits.h"
#include "wire/limits.h"

/* Writes prefix ("sb_", "req_", "snap_") and 24 random characters of [a-z0-9]
 * (124 bits), NUL-terminated. The prefix has at most 5 characters. */
void id_make(char ret[BRIG_ID_BYTES], const char *prefix);

/* Writes a name such as "calm-otter-27". Not unique. */
void id_make_name(char ret[NAME_BYTES]);

/* True if `name` is a DNS label (RFC 1123): 1..63 characters of [a-z0-9-],
 * neither first nor last a dash. Such a name is the guest's host name. */
must_check bool id_is_label(const char *name);

#endif
