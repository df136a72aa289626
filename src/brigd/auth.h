/* auth.h - API keys: which tenant a key belongs to.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_AUTH_H
#define BRIGD_AUTH_H

#include <stddef.h>
#include <stdint.h>

#include "cc.h"
#include "limits.h"

#define AUTH_HASH_BYTES 32 /* SHA-256 */
#define AUTH_KEYS_MAX 64

struct auth {
	size_t count;
	struct {
		uint8_t hash[AUTH_HASH_BYTES];
		int64_t tenant;
	} keys[AUTH_KEYS_MAX];
};

/* Hashes `n` bytes. */
void auth_hash(const void *bytes, size_t n, uint8_t ret[AUTH_HASH_BYTES]);

/* Adds a key by its hash; -ENOSPC over AUTH_KEYS_MAX. */
must_check int auth_add(struct auth *a, const uint8_t hash[AUTH_HASH_BYTES],
			int64_t tenant);

/* The tenant (> 0) of a key as a client presented it; 0 if it is none. Takes
 * the same time whichever key it is and however much of it is right. */
must_check int64_t auth_check(const struct auth *a, const char *key);

/* Reads the key in the file at `path` (first line), or makes a new key there,
 * mode 0600. 0, or -errno; -EACCES if others may read the file; -EINVAL if
 * what it holds is no key. */
must_check int auth_read_key_file(const char *path, char ret[API_KEY_BYTES]);

#endif
