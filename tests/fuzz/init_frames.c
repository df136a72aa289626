/* init_frames.c - the agent's request parser against any bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: two bytes of frame type, one of phase, then the payload. What the
 * parser accepts must lie within the payload and keep its promises.
 */
#include "src/init/frames.h"

#define HEAD 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(const char *s, const char *payload, size_t n)
{
	ASSERT(s >= payload && s < payload + n);
	ASSERT(strlen(s) < (size_t)(payload + n - s));
}

static void parse_exec(char *payload, size_t n)
{
	static struct exec_request req;

	if (frames_parse_exec(payload, n, &req) < 0)
		return;
	within(req.user, payload, n);
	within(req.cwd, payload, n);
	ASSERT(req.argc >= 1 && req.argc <= BRIG_ARGV_MAX);
	ASSERT(req.envc <= BRIG_ENV_MAX);
	for (uint32_t i = 0; i < req.argc; i++)
		within(req.argv[i], payload, n);
	for (uint32_t i = 0; i < req.envc; i++) {
		within(req.env[i], payload, n);
		ASSERT(strchr(req.env[i], '=') != NULL);
	}
	ASSERT(req.argv[req.argc] == NULL && req.env[req.envc] == NULL);
}

static void parse_path(char *payload, size_t n, size_t head)
{
	const char *path = frames_parse_path(payload, n, head);

	if (path == NULL)
		return;
	ASSERT(path == payload + head && path[0] != '\0');
	ASSERT(strlen(path) + 1 == n - head && n - head <= BRIG_PATH_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_frame f = { .zero = 0 };

	if (size < HEAD)
		return 0;
	/* A copy of the exact size, so that a read past it is seen. */
	size_t n = size - HEAD;
	char *payload = malloc(n);
	if (n > 0 && payload == NULL)
		return 0;
	if (n > 0)
		memcpy(payload, data + HEAD, n);
	memcpy(&f.type, data, sizeof(f.type));
	f.length = (uint32_t)n;
	if (frames_check(&f, (enum frames_phase)(data[2] % 5)) == 0) {
		parse_exec(payload, n);
		parse_path(payload, n, 0);
		parse_path(payload, n, sizeof(struct guest_read));
	}
	free(payload);
	return 0;
}
