/* frames.c - what a frame to the agent may look like: types, lengths, shape.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "frames.h"
#include "num.h"

#define PING_MAX 64u
#define SIGNAL_BYTES 4u

struct rule {
	enum frames_phase phase;
	uint16_t type;
	uint32_t min;
	uint32_t max;
};

/* A path is one byte and a NUL at least. */
static const struct rule rules[] = {
	{ FRAMES_READY, GUEST_CONFIGURE, sizeof(struct guest_configure),
	  sizeof(struct guest_configure) },
	{ FRAMES_READY, GUEST_PING, 0, PING_MAX },
	{ FRAMES_REQUEST, GUEST_EXEC, sizeof(struct guest_exec) + 3,
	  BRIG_FRAME_MAX },
	{ FRAMES_REQUEST, GUEST_READ, sizeof(struct guest_read) + 2,
	  sizeof(struct guest_read) + BRIG_PATH_BYTES },
	{ FRAMES_REQUEST, GUEST_WRITE, sizeof(struct guest_write) + 2,
	  sizeof(struct guest_write) + BRIG_PATH_BYTES },
	{ FRAMES_REQUEST, GUEST_STAT, 2, BRIG_PATH_BYTES },
	{ FRAMES_REQUEST, GUEST_STATUS, 0, 0 },
	{ FRAMES_REQUEST, GUEST_POWEROFF, 0, 0 },
	{ FRAMES_REQUEST, GUEST_QUIESCE, sizeof(struct guest_quiesce),
	  sizeof(struct guest_quiesce) },
	{ FRAMES_RUN, GUEST_STDIN, 0, BRIG_FRAME_DATA_MAX },
	{ FRAMES_RUN, GUEST_STDIN_EOF, 0, 0 },
	{ FRAMES_RUN, GUEST_SIGNAL, SIGNAL_BYTES, SIGNAL_BYTES },
	{ FRAMES_UPLOAD, GUEST_DATA, 0, BRIG_FRAME_DATA_MAX },
	{ FRAMES_UPLOAD, GUEST_END, 0, 0 },
	{ FRAMES_QUIESCE, GUEST_THAW, 0, 0 },
};

int frames_check(const struct guest_frame *f, enum frames_phase phase)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		const struct rule *r = &rules[i];
		if (r->phase != phase || r->type != f->type)
			continue;
		if (f->zero != 0)
			return -EPROTO;
		if (f->length < r->min || f->length > r->max)
			return -EMSGSIZE;
		return 0;
	}
	return -EPROTO;
}

/* The string at *at, which moves past its NUL; NULL when there is none. */
static char *next_string(char *payload, size_t n, size_t *at)
{
	if (*at >= n)
		return NULL;
	char *s = payload + *at;
	const char *nul = memchr(s, '\0', n - *at);
	if (nul == NULL)
		return NULL;
	*at += (size_t)(nul - s) + 1;
	return s;
}

static bool is_assignment(const char *s)
{
	const char *equals = strchr(s, '=');

	return equals != NULL && equals != s;
}

static bool parse_strings(char *payload, size_t n, struct exec_request *ret)
{
	size_t at = sizeof(struct guest_exec);

	ret->user = next_string(payload, n, &at);
	ret->cwd = next_string(payload, n, &at);
	if (ret->user == NULL || ret->cwd == NULL)
		return false;
	for (uint32_t i = 0; i < ret->argc; i++) {
		ret->argv[i] = next_string(payload, n, &at);
		if (ret->argv[i] == NULL)
			return false;
	}
	ret->argv[ret->argc] = NULL;
	for (uint32_t i = 0; i < ret->envc; i++) {
		ret->env[i] = next_string(payload, n, &at);
		if (ret->env[i] == NULL || !is_assignment(ret->env[i]))
			return false;
	}
	ret->env[ret->envc] = NULL;
	return at == n;
}

int frames_parse_exec(char *payload, size_t n, struct exec_request *ret)
{
	const uint32_t known =
		GUEST_EXEC_SHELL | GUEST_EXEC_STDIN | GUEST_EXEC_CODE;
	const uint32_t forms = GUEST_EXEC_SHELL | GUEST_EXEC_CODE;
	struct guest_exec head;

	if (n < sizeof(head))
		return -EINVAL;
	memcpy(&head, payload, sizeof(head));
	if ((head.flags & ~known) != 0 || head.argc < 1 ||
	    head.argc > BRIG_ARGV_MAX || head.envc > BRIG_ENV_MAX)
		return -EINVAL;
	if ((head.flags & forms) == forms ||
	    ((head.flags & GUEST_EXEC_SHELL) && head.argc != 1) ||
	    ((head.flags & GUEST_EXEC_CODE) && head.argc != 2))
		return -EINVAL;
	ret->flags = head.flags;
	ret->timeout_ms = head.timeout_ms;
	ret->argc = head.argc;
	ret->envc = head.envc;
	return parse_strings(payload, n, ret) ? 0 : -EINVAL;
}

const char *frames_parse_path(char *payload, size_t n, size_t head)
{
	size_t at = head;

	if (n < head || n - head > BRIG_PATH_BYTES)
		return NULL;
	const char *path = next_string(payload, n, &at);
	if (path == NULL || at != n || path[0] == '\0')
		return NULL;
	return path;
}
