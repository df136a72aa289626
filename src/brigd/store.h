/* store.h - what survives a restart: one SQLite file.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Write-ahead log, prepared statements only, migrations by user_version. A
 * failure is logged here and returned as -EIO (-ENOSPC: the disk is full,
 * -ENOENT: no such row).
 */
#ifndef BRIGD_STORE_H
#define BRIGD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth.h"
#include "limits.h"
#include "wire/limits.h"

struct store;

#define STORE_TENANT 1 /* the tenant of the key file */

struct store_sandbox {
	char id[BRIG_ID_BYTES];
	int64_t tenant;
	char name[NAME_BYTES];
	char image[IMAGE_NAME_BYTES];
	uint32_t cpus;
	uint32_t memory_mib;
	uint32_t storage_gb;
	char status[16];
	char reason[24]; /* "": none */
	int64_t created_ms;
	int64_t ready_ms; /* how long the start took; -1: never ready */
	char origin[16];
	char template_name[NAME_BYTES]; /* "": none; as the next two */
	char snapshot[BRIG_ID_BYTES];   /* that it was made from */
	char paused[BRIG_ID_BYTES];     /* that holds it while it is paused */
	const char *env;                /* JSON, borrowed; NULL: none */
};

/* What changes in the life of a sandbox. Borrowed. */
struct store_change {
	const char *id;
	const char *status;
	const char *reason;
	int64_t ready_ms;
	const char *origin;
	const char *template_name;
	const char *snapshot;
	const char *paused;
};

/* One row of the log. Strings are borrowed. */
struct store_run {
	const char *id;
	const char *request_id;
	const char *sandbox_id;
	const char *source; /* sync, stream */
	const char *status; /* completed, timeout, error */
	const char *command;
	const char *cwd;
	const char *output[2]; /* valid UTF-8, may hold NULs */
	size_t output_len[2];
	bool truncated[2];
	int64_t tenant;
	int64_t exit_code;
	int64_t duration_ms;
	int64_t started_ms;
};

struct store_query {
	int64_t tenant;
	int64_t from_ms;
	int64_t to_ms;
	const char *sandbox_id; /* NULL: all */
	uint32_t limit;
};

/* Opens or makes DIR/brig.db and brings it to this version. */
must_check int store_open(const char *path, struct store **ret);
void store_close(struct store *s);

/* Makes `hash` the only key called `name` of a tenant. */
must_check int store_put_key(struct store *s, int64_t tenant, const char *name,
			     const uint8_t hash[AUTH_HASH_BYTES]);
must_check int store_load_keys(struct store *s, struct auth *ret);

must_check int store_add_sandbox(struct store *s,
				 const struct store_sandbox *row);
must_check int store_change_sandbox(struct store *s,
				    const struct store_change *change);
must_check int store_remove_sandbox(struct store *s, const char *id);

/* Makes durable what was written so far, also against a power cut. */
must_check int store_sync(struct store *s);

/* Sandboxes that were alive when an earlier brigd ended are not any more;
 * what was being resumed is paused as before. */
must_check int store_mark_restart(struct store *s);

/* Calls `each` for every sandbox, oldest first. */
must_check int store_each_sandbox(struct store *s,
				  int (*each)(void *arg,
					      const struct store_sandbox *row),
				  void *arg);

/* Adds `n` rows to the log in one transaction and drops the oldest rows over
 * LOG_ROWS_MAX. */
must_check int store_add_runs(struct store *s, const struct store_run *rows,
			      size_t n);

/* Calls `each` for the newest matching rows, newest first; writes how many
 * rows match at all. */
must_check int store_find_runs(struct store *s, const struct store_query *q,
			       void (*each)(void *arg,
					    const struct store_run *row),
			       void *arg, int64_t *ret_total);

/* Idempotency keys of create: hash of key and body to sandbox id. `get`:
 * -ENOENT if the key is new or older than IDEMPOTENCY_TTL_S. */
must_check int store_get_idempotent(struct store *s, int64_t tenant,
				    const char *key, int64_t now_ms,
				    uint8_t ret_body[AUTH_HASH_BYTES],
				    char ret_id[BRIG_ID_BYTES]);
must_check int store_put_idempotent(struct store *s, int64_t tenant,
				    const char *key,
				    const uint8_t body[AUTH_HASH_BYTES],
				    const char *id, int64_t now_ms);

/* Forgets the key that made a sandbox which never became ready. */
must_check int store_drop_idempotent(struct store *s, const char *id);

#endif
