/* route.c - the table of what brigd serves.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "api.h"
#include "route.h"

#define ID "/v1/sandboxes/{}"
#define ID2 "/v2/sandboxes/{}"

static const struct route routes[] = {
	{ "POST", "/v1/sandboxes/create", ROUTE_JSON, api_create, NULL, 0 },
	{ "GET", "/v1/sandboxes/list", 0, api_list, NULL, 0 },
	{ "GET", "/v1/sandboxes/logs", 0, api_logs, NULL, 0 },
	{ "DELETE", "/v1/sandboxes/delete-all", 0, api_delete_all, NULL, 0 },
	{ "DELETE", ID "/delete", ROUTE_JSON, api_delete, NULL, 0 },
	{ "POST", ID "/execute", ROUTE_JSON, api_execute, NULL, 0 },
	{ "POST", ID "/execute_async", ROUTE_JSON, api_execute_async, NULL, 0 },
	{ "GET", ID "/status", 0, api_status, NULL, 0 },
	{ "GET", ID "/download", 0, api_download, NULL, 0 },
	{ "POST", ID "/upload", ROUTE_STREAM, api_upload, api_upload_begin,
	  UPLOAD_BODY_MAX_BYTES },
	{ "POST", ID "/snapshot", ROUTE_JSON, api_snapshot_v1, NULL, 0 },
	{ "POST", ID "/clone", ROUTE_JSON, api_clone_v1, NULL, 0 },
	{ "GET", "/v1/snapshots/list", 0, api_snapshot_list_v1, NULL, 0 },
	{ "POST", "/v1/snapshots/{}/restore", ROUTE_JSON, api_snapshot_restore,
	  NULL, 0 },
	{ "DELETE", "/v1/snapshots/delete-all", 0, api_snapshot_delete_all,
	  NULL, 0 },
	{ "DELETE", "/v1/snapshots/{}", 0, api_snapshot_delete, NULL, 0 },

	{ "GET", "/healthz", ROUTE_NO_KEY, api_health, NULL, 0 },
	{ "GET", "/v2/host", 0, api_host, NULL, 0 },
	{ "POST", "/v2/sandboxes", ROUTE_JSON, api_create_v2, NULL, 0 },
	{ "GET", ID2, 0, api_get, NULL, 0 },
	{ "GET", ID2 "/console", 0, api_console, NULL, 0 },
	{ "POST", ID2 "/runs", ROUTE_JSON, api_run, NULL, 0 },
	{ "POST", ID2 "/code", ROUTE_JSON, api_code, NULL, 0 },
	{ "POST", ID2 "/runs/{}/stdin", ROUTE_STREAM, api_stdin,
	  api_stdin_begin, UINT64_MAX - 1 },
	{ "POST", ID2 "/snapshots", ROUTE_JSON, api_snapshot, NULL, 0 },
	{ "POST", ID2 "/clone", ROUTE_JSON, api_clone, NULL, 0 },
	{ "POST", ID2 "/pause", ROUTE_JSON, api_pause, NULL, 0 },
	{ "POST", ID2 "/resume", ROUTE_JSON, api_resume, NULL, 0 },
	{ "POST", ID2 "/reset", ROUTE_JSON, api_reset, NULL, 0 },
	{ "POST", ID2 "/rollback", ROUTE_JSON, api_rollback, NULL, 0 },

	{ "GET", "/v2/snapshots", 0, api_snapshot_list, NULL, 0 },
	{ "POST", "/v2/snapshots/import", ROUTE_STREAM, api_snapshot_import,
	  api_snapshot_import_begin, UINT64_MAX - 1 },
	{ "GET", "/v2/snapshots/{}", 0, api_snapshot_get, NULL, 0 },
	{ "DELETE", "/v2/snapshots/{}", 0, api_snapshot_delete, NULL, 0 },
	{ "GET", "/v2/snapshots/{}/export", 0, api_snapshot_export, NULL, 0 },

	{ "POST", "/v2/templates", ROUTE_JSON, api_template_create, NULL, 0 },
	{ "GET", "/v2/templates", 0, api_template_list, NULL, 0 },
	{ "GET", "/v2/templates/{}", 0, api_template_get, NULL, 0 },
	{ "DELETE", "/v2/templates/{}", 0, api_template_delete, NULL, 0 },
};

/* Takes the segment at *path into `to`; false if it does not fit there. */
static bool take_param(const char **path, char to[HTTP_PARAM_BYTES])
{
	size_t n = strcspn(*path, "/");

	if (n == 0 || n >= HTTP_PARAM_BYTES)
		return false;
	memcpy(to, *path, n);
	to[n] = '\0';
	*path += n;
	return true;
}

static bool matches(const char *pattern, const char *path,
		    char param[HTTP_PARAMS_MAX][HTTP_PARAM_BYTES])
{
	size_t params = 0;

	while (*pattern != '\0') {
		if (pattern[0] == '{') {
			ASSERT(params < HTTP_PARAMS_MAX && pattern[1] == '}');
			if (!take_param(&path, param[params]))
				return false;
			params++;
			pattern += 2;
		} else if (*pattern++ != *path++) {
			return false;
		}
	}
	return *path == '\0';
}

const struct route *route_find(const char *method, const char *path,
			       char param[HTTP_PARAMS_MAX][HTTP_PARAM_BYTES])
{
	for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
		if (strcmp(routes[i].method, method) == 0 &&
		    matches(routes[i].path, path, param))
			return &routes[i];
	}
	return NULL;
}
