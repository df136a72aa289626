/* store.c - what survives a restart: one SQLite file.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "store.h"

/* Waiting for a lock: only a backup or a person with a shell holds one. */
#define BUSY_TIMEOUT_MS 2000

/* Migration n brings user_version from n to n + 1. Never edit one that was
 * released; append. */
static const char *const migrations[] = {
	"CREATE TABLE tenants (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
	"INSERT INTO tenants VALUES (1, 'default');"
	"CREATE TABLE keys (tenant INTEGER NOT NULL REFERENCES tenants(id),"
	"  name TEXT NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (tenant, name));"
	"CREATE TABLE sandboxes (id TEXT PRIMARY KEY, tenant INTEGER NOT NULL,"
	"  name TEXT NOT NULL, image TEXT NOT NULL, cpus INTEGER NOT NULL,"
	"  memory_mib INTEGER NOT NULL, storage_gb INTEGER NOT NULL,"
	"  status TEXT NOT NULL, reason TEXT NOT NULL,"
	"  created_ms INTEGER NOT NULL, ready_ms INTEGER NOT NULL);"
	"CREATE TABLE runs (seq INTEGER PRIMARY KEY, id TEXT NOT NULL,"
	"  tenant INTEGER NOT NULL, request_id TEXT NOT NULL,"
	"  sandbox_id TEXT NOT NULL, source TEXT NOT NULL,"
	"  status TEXT NOT NULL, command TEXT NOT NULL, cwd TEXT NOT NULL,"
	"  stdout TEXT NOT NULL, stderr TEXT NOT NULL,"
	"  stdout_truncated INTEGER NOT NULL,"
	"  stderr_truncated INTEGER NOT NULL, exit_code INTEGER NOT NULL,"
	"  duration_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL);"
	"CREATE INDEX runs_by_time ON runs (tenant, started_ms);"
	"CREATE TABLE idempotency (tenant INTEGER NOT NULL, key TEXT NOT NULL,"
	"  body BLOB NOT NULL, sandbox_id TEXT NOT NULL,"
	"  created_ms INTEGER NOT NULL, PRIMARY KEY (tenant, key));",

	"ALTER TABLE sandboxes ADD COLUMN origin TEXT NOT NULL DEFAULT 'boot';"
	"ALTER TABLE sandboxes ADD COLUMN template TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE sandboxes ADD COLUMN snapshot TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE sandboxes ADD COLUMN paused TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE sandboxes ADD COLUMN env TEXT;",
};

enum statement {
	PUT_KEY,
	EACH_KEY,
	ADD_SANDBOX,
	CHANGE_SANDBOX,
	REMOVE_SANDBOX,
	MARK_RESTART,
	EACH_SANDBOX,
	ADD_RUN,
	TRIM_RUNS,
	FIND_RUNS,
	COUNT_RUNS,
	GET_IDEMPOTENT,
	PUT_IDEMPOTENT,
	TRIM_IDEMPOTENT,
	DROP_IDEMPOTENT,
	BEGIN,
	COMMIT,
	ROLLBACK,
	STATEMENTS,
};

#define RUN_COLUMNS                                                         \
	"id, request_id, sandbox_id, source, status, command, cwd, stdout," \
	" stderr, stdout_truncated, stderr_truncated, tenant, exit_code,"   \
	" duration_ms, started_ms"
#define RUN_WHERE                                                       \
	" FROM runs WHERE tenant = ?1 AND started_ms BETWEEN ?2 AND ?3" \
	" AND (?4 IS NULL OR sandbox_id = ?4)"

static const char *const sql[STATEMENTS] = {
	[PUT_KEY] = "INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3)",
	[EACH_KEY] = "SELECT tenant, hash FROM keys",
	[ADD_SANDBOX] = "INSERT INTO sandboxes VALUES"
			" (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
			" ?13, ?14, ?15, ?16)",
	[CHANGE_SANDBOX] = "UPDATE sandboxes SET status = ?2, reason = ?3,"
			   " ready_ms = ?4, origin = ?5, template = ?6,"
			   " snapshot = ?7, paused = ?8 WHERE id = ?1",
	[REMOVE_SANDBOX] = "DELETE FROM sandboxes WHERE id = ?1",
	[MARK_RESTART] = "UPDATE sandboxes SET reason = 'daemon_restart',"
			 " status = CASE WHEN paused = '' THEN 'stopped'"
			 " ELSE 'paused' END"
			 " WHERE status IN ('creating', 'running')",
	[EACH_SANDBOX] = "SELECT id, tenant, name, image, cpus, memory_mib,"
			 " storage_gb, status, reason, created_ms, ready_ms,"
			 " origin, template, snapshot, paused, env"
			 " FROM sandboxes ORDER BY created_ms, rowid",
	[ADD_RUN] = "INSERT INTO runs (" RUN_COLUMNS ") VALUES (?1, ?2, ?3,"
		    " ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
	[TRIM_RUNS] = "DELETE FROM runs WHERE seq <="
		      " (SELECT max(seq) FROM runs) - ?1",
	[FIND_RUNS] = "SELECT " RUN_COLUMNS RUN_WHERE
		      " ORDER BY started_ms DESC, seq DESC LIMIT ?5",
	[COUNT_RUNS] = "SELECT count(*)" RUN_WHERE,
	[GET_IDEMPOTENT] = "SELECT body, sandbox_id FROM idempotency WHERE"
			   " tenant = ?1 AND key = ?2 AND created_ms > ?3",
	[PUT_IDEMPOTENT] = "INSERT OR REPLACE INTO idempotency VALUES"
			   " (?1, ?2, ?3, ?4, ?5)",
	[TRIM_IDEMPOTENT] = "DELETE FROM idempotency WHERE created_ms <= ?1",
	[DROP_IDEMPOTENT] = "DELETE FROM idempotency WHERE sandbox_id = ?1",
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
};

/* --- Statements ------------------------------------------------------------------- */

static int failed(struct store *s, const char *what)
{
	int code = sqlite3_errcode(s->db);

	log_error("store: %s: %s", what, sqlite3_errmsg(s->db));
	return code == SQLITE_FULL ? -ENOSPC : -EIO;
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	/* Borrowed until the statement is reset, which is within the caller.
	 * Binding cannot fail for an index that exists and no copy. */
	(void)sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

static void bind_int(sqlite3_stmt *st, int at, int64_t v)
{
	(void)sqlite3_bind_int64(st, at, v);
}

static void bind_hash(sqlite3_stmt *st, int at, const uint8_t *hash)
{
	(void)sqlite3_bind_blob(st, at, hash, AUTH_HASH_BYTES, SQLITE_STATIC);
}

static void get_text(sqlite3_stmt *st, int column, char *to, size_t size)
{
	const unsigned char *text = sqlite3_column_text(st, column);

	(void)snprintf(to, size, "%s", text == NULL ? "" : (const char *)text);
}

static bool get_hash(sqlite3_stmt *st, int column, uint8_t *to)
{
	const void *blob = sqlite3_column_blob(st, column);

	if (blob == NULL || sqlite3_column_bytes(st, column) != AUTH_HASH_BYTES)
		return false;
	memcpy(to, blob, AUTH_HASH_BYTES);
	return true;
}

static sqlite3_stmt *statement(struct store *s, enum statement which)
{
	sqlite3_stmt *st = s->statements[which];

	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return st;
}

/* Runs a statement that returns no row. */
static int run(struct store *s, enum statement which)
{
	sqlite3_stmt *st = s->statements[which];
	int r = 0;

	if (sqlite3_step(st) != SQLITE_DONE)
		r = failed(s, sql[which]);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return r;
}

/* --- Opening ---------------------------------------------------------------------- */

static int exec(struct store *s, const char *text)
{
	if (sqlite3_exec(s->db, text, NULL, NULL, NULL) != SQLITE_OK)
		return failed(s, "set-up");
	return 0;
}

static int get_version(struct store *s, int *ret)
{
	sqlite3_stmt *st = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &st, NULL) !=
		    SQLITE_OK ||
	    sqlite3_step(st) != SQLITE_ROW)
		r = failed(s, "user_version");
	else
		*ret = sqlite3_column_int(st, 0);
	(void)sqlite3_finalize(st);
	return r;
}

static int migrate(struct store *s)
{
	int version = 0;
	int r = get_version(s, &version);

	if (r < 0)
		return r;
	if (version < 0 || version > (int)ARRAY_LEN(migrations)) {
		log_error("store: the database is of a newer brigd "
			  "(version %d, this one knows %zu)",
			  version, ARRAY_LEN(migrations));
		return -EIO;
	}
	for (; version < (int)ARRAY_LEN(migrations); version++) {
		char set[64];
		(void)snprintf(set, sizeof(set), "PRAGMA user_version = %d",
			       version + 1);
		r = exec(s, "BEGIN IMMEDIATE");
		if (r == 0)
			r = exec(s, migrations[version]);
		if (r == 0)
			r = exec(s, set);
		if (r == 0)
			r = exec(s, "COMMIT");
		if (r < 0)
			return r;
	}
	return 0;
}

static int prepare(struct store *s)
{
	for (size_t i = 0; i < STATEMENTS; i++) {
		if (sqlite3_prepare_v3(s->db, sql[i], -1,
				       SQLITE_PREPARE_PERSISTENT,
				       &s->statements[i], NULL) != SQLITE_OK)
			return failed(s, sql[i]);
	}
	return 0;
}

int store_open(const char *path, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return -ENOMEM;
	int r = 0;
	if (sqlite3_open_v2(path, &s->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			    NULL) != SQLITE_OK)
		r = failed(s, path);
	if (r == 0) {
		(void)sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
		/* NORMAL: a power cut may lose the newest rows, never more:
		 * the microVMs they speak of are gone then as well, or
		 * store_sync() was called. */
		r = exec(s, "PRAGMA journal_mode = WAL;"
			    "PRAGMA synchronous = NORMAL;"
			    "PRAGMA foreign_keys = ON;");
	}
	if (r == 0)
		r = migrate(s);
	if (r == 0)
		r = prepare(s);
	if (r < 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < STATEMENTS; i++)
		(void)sqlite3_finalize(s->statements[i]);
	(void)sqlite3_close(s->db);
	free(s);
}

/* --- Keys ------------------------------------------------------------------------- */

int store_put_key(struct store *s, int64_t tenant, const char *name,
		  const uint8_t hash[AUTH_HASH_BYTES])
{
	sqlite3_stmt *st = statement(s, PUT_KEY);

	bind_int(st, 1, tenant);
	bind_text(st, 2, name);
	bind_hash(st, 3, hash);
	return run(s, PUT_KEY);
}

int store_load_keys(struct store *s, struct auth *ret)
{
	sqlite3_stmt *st = statement(s, EACH_KEY);
	int r = 0;
	int step;

	ret->count = 0;
	while ((step = sqlite3_step(st)) == SQLITE_ROW && r == 0) {
		uint8_t hash[AUTH_HASH_BYTES];
		int64_t tenant = sqlite3_column_int64(st, 0);
		if (tenant > 0 && get_hash(st, 1, hash))
			r = auth_add(ret, hash, tenant);
	}
	if (r == 0 && step != SQLITE_DONE)
		r = failed(s, sql[EACH_KEY]);
	(void)sqlite3_reset(st);
	return r;
}

/* --- Sandboxes -------------------------------------------------------------------- */

int store_add_sandbox(struct store *s, const struct store_sandbox *row)
{
	sqlite3_stmt *st = statement(s, ADD_SANDBOX);

	bind_text(st, 1, row->id);
	bind_int(st, 2, row->tenant);
	bind_text(st, 3, row->name);
	bind_text(st, 4, row->image);
	bind_int(st, 5, row->cpus);
	bind_int(st, 6, row->memory_mib);
	bind_int(st, 7, row->storage_gb);
	bind_text(st, 8, row->status);
	bind_text(st, 9, row->reason);
	bind_int(st, 10, row->created_ms);
	bind_int(st, 11, row->ready_ms);
	bind_text(st, 12, row->origin);
	bind_text(st, 13, row->template_name);
	bind_text(st, 14, row->snapshot);
	bind_text(st, 15, row->paused);
	if (row->env != NULL)
		bind_text(st, 16, row->env);
	return run(s, ADD_SANDBOX);
}

int store_change_sandbox(struct store *s, const struct store_change *change)
{
	sqlite3_stmt *st = statement(s, CHANGE_SANDBOX);

	bind_text(st, 1, change->id);
	bind_text(st, 2, change->status);
	bind_text(st, 3, change->reason);
	bind_int(st, 4, change->ready_ms);
	bind_text(st, 5, change->origin);
	bind_text(st, 6, change->template_name);
	bind_text(st, 7, change->snapshot);
	bind_text(st, 8, change->paused);
	return run(s, CHANGE_SANDBOX);
}

int store_sync(struct store *s)
{
	if (sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE,
				      NULL, NULL) != SQLITE_OK)
		return failed(s, "checkpoint");
	return 0;
}

int store_remove_sandbox(struct store *s, const char *id)
{
	sqlite3_stmt *st = statement(s, REMOVE_SANDBOX);

	bind_text(st, 1, id);
	return run(s, REMOVE_SANDBOX);
}

int store_mark_restart(struct store *s)
{
	(void)statement(s, MARK_RESTART);
	return run(s, MARK_RESTART);
}

int store_each_sandbox(struct store *s,
		       int (*each)(void *arg, const struct store_sandbox *row),
		       void *arg)
{
	sqlite3_stmt *st = statement(s, EACH_SANDBOX);
	int r = 0;
	int step;

	while ((step = sqlite3_step(st)) == SQLITE_ROW && r == 0) {
		struct store_sandbox row = {
			.tenant = sqlite3_column_int64(st, 1),
			.cpus = (uint32_t)sqlite3_column_int64(st, 4),
			.memory_mib = (uint32_t)sqlite3_column_int64(st, 5),
			.storage_gb = (uint32_t)sqlite3_column_int64(st, 6),
			.created_ms = sqlite3_column_int64(st, 9),
			.ready_ms = sqlite3_column_int64(st, 10),
			.env = (const char *)sqlite3_column_text(st, 15),
		};
		get_text(st, 0, row.id, sizeof(row.id));
		get_text(st, 2, row.name, sizeof(row.name));
		get_text(st, 3, row.image, sizeof(row.image));
		get_text(st, 7, row.status, sizeof(row.status));
		get_text(st, 8, row.reason, sizeof(row.reason));
		get_text(st, 11, row.origin, sizeof(row.origin));
		get_text(st, 12, row.template_name, sizeof(row.template_name));
		get_text(st, 13, row.snapshot, sizeof(row.snapshot));
		get_text(st, 14, row.paused, sizeof(row.paused));
		r = each(arg, &row);
	}
	if (r == 0 && step != SQLITE_DONE)
		r = failed(s, sql[EACH_SANDBOX]);
	(void)sqlite3_reset(st);
	return r;
}

/* --- The log of runs ---------------------------------------------------------------- */

static int add_run(struct store *s, const struct store_run *row)
{
	sqlite3_stmt *st = statement(s, ADD_RUN);

	bind_text(st, 1, row->id);
	bind_text(st, 2, row->request_id);
	bind_text(st, 3, row->sandbox_id);
	bind_text(st, 4, row->source);
	bind_text(st, 5, row->status);
	bind_text(st, 6, row->command);
	bind_text(st, 7, row->cwd);
	for (int i = 0; i < 2; i++)
		(void)sqlite3_bind_text64(st, 8 + i, row->output[i],
					  row->output_len[i], SQLITE_STATIC,
					  SQLITE_UTF8);
	bind_int(st, 10, row->truncated[0]);
	bind_int(st, 11, row->truncated[1]);
	bind_int(st, 12, row->tenant);
	bind_int(st, 13, row->exit_code);
	bind_int(st, 14, row->duration_ms);
	bind_int(st, 15, row->started_ms);
	return run(s, ADD_RUN);
}

int store_add_runs(struct store *s, const struct store_run *rows, size_t n)
{
	(void)statement(s, BEGIN);
	int r = run(s, BEGIN);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_run(s, &rows[i]);
	if (r == 0) {
		bind_int(statement(s, TRIM_RUNS), 1, LOG_ROWS_MAX);
		r = run(s, TRIM_RUNS);
	}
	if (r == 0)
		r = run(s, COMMIT);
	if (r < 0 && run(s, ROLLBACK) < 0)
		log_error("store: the log cannot be rolled back");
	return r;
}

static void bind_query(sqlite3_stmt *st, const struct store_query *q)
{
	bind_int(st, 1, q->tenant);
	bind_int(st, 2, q->from_ms);
	bind_int(st, 3, q->to_ms);
	if (q->sandbox_id != NULL)
		bind_text(st, 4, q->sandbox_id);
}

static const char *text_or_empty(sqlite3_stmt *st, int column)
{
	const unsigned char *text = sqlite3_column_text(st, column);

	return text == NULL ? "" : (const char *)text;
}

static void give_run(sqlite3_stmt *st,
		     void (*each)(void *arg, const struct store_run *row),
		     void *arg)
{
	struct store_run row = {
		.id = text_or_empty(st, 0),
		.request_id = text_or_empty(st, 1),
		.sandbox_id = text_or_empty(st, 2),
		.source = text_or_empty(st, 3),
		.status = text_or_empty(st, 4),
		.command = text_or_empty(st, 5),
		.cwd = text_or_empty(st, 6),
		.output = { text_or_empty(st, 7), text_or_empty(st, 8) },
		.output_len = { (size_t)sqlite3_column_bytes(st, 7),
				(size_t)sqlite3_column_bytes(st, 8) },
		.truncated = { sqlite3_column_int64(st, 9) != 0,
			       sqlite3_column_int64(st, 10) != 0 },
		.tenant = sqlite3_column_int64(st, 11),
		.exit_code = sqlite3_column_int64(st, 12),
		.duration_ms = sqlite3_column_int64(st, 13),
		.started_ms = sqlite3_column_int64(st, 14),
	};

	each(arg, &row);
}

int store_find_runs(struct store *s, const struct store_query *q,
		    void (*each)(void *arg, const struct store_run *row),
		    void *arg, int64_t *ret_total)
{
	sqlite3_stmt *st = statement(s, COUNT_RUNS);
	int64_t total;
	int step;
	int r = 0;

	bind_query(st, q);
	if (sqlite3_step(st) != SQLITE_ROW)
		return failed(s, sql[COUNT_RUNS]);
	total = sqlite3_column_int64(st, 0);
	(void)sqlite3_reset(st);

	st = statement(s, FIND_RUNS);
	bind_query(st, q);
	bind_int(st, 5, q->limit);
	while ((step = sqlite3_step(st)) == SQLITE_ROW)
		give_run(st, each, arg);
	if (step != SQLITE_DONE)
		r = failed(s, sql[FIND_RUNS]);
	else
		*ret_total = total;
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return r;
}

/* --- Idempotency -------------------------------------------------------------------- */

static int64_t oldest(int64_t now_ms)
{
	return now_ms - (int64_t)IDEMPOTENCY_TTL_S * 1000;
}

int store_get_idempotent(struct store *s, int64_t tenant, const char *key,
			 int64_t now_ms, uint8_t ret_body[AUTH_HASH_BYTES],
			 char ret_id[BRIG_ID_BYTES])
{
	sqlite3_stmt *st = statement(s, GET_IDEMPOTENT);
	int r = 0;

	bind_int(st, 1, tenant);
	bind_text(st, 2, key);
	bind_int(st, 3, oldest(now_ms));
	int step = sqlite3_step(st);
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		r = failed(s, sql[GET_IDEMPOTENT]);
	else if (step == SQLITE_DONE || !get_hash(st, 0, ret_body))
		r = -ENOENT;
	else
		get_text(st, 1, ret_id, BRIG_ID_BYTES);
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	return r;
}

int store_put_idempotent(struct store *s, int64_t tenant, const char *key,
			 const uint8_t body[AUTH_HASH_BYTES], const char *id,
			 int64_t now_ms)
{
	bind_int(statement(s, TRIM_IDEMPOTENT), 1, oldest(now_ms));
	int r = run(s, TRIM_IDEMPOTENT);
	if (r < 0)
		return r;
	sqlite3_stmt *st = statement(s, PUT_IDEMPOTENT);
	bind_int(st, 1, tenant);
	bind_text(st, 2, key);
	bind_hash(st, 3, body);
	bind_text(st, 4, id);
	bind_int(st, 5, now_ms);
	return run(s, PUT_IDEMPOTENT);
}

int store_drop_idempotent(struct store *s, const char *id)
{
	bind_text(statement(s, DROP_IDEMPOTENT), 1, id);
	return run(s, DROP_IDEMPOTENT);
}
