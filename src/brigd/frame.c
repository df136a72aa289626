/* frame.c - takes frames out of bytes that a guest sent.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "frame.h"

struct shape {
	uint16_t type;
	uint32_t min; /* payload bytes */
	uint32_t max;
};

/* What an agent may send; host-to-guest types are missing on purpose. */
static const struct shape shapes[] = {
	{ GUEST_HELLO, sizeof(struct guest_hello), sizeof(struct guest_hello) },
	{ GUEST_CONFIGURED, sizeof(struct guest_configured),
	  sizeof(struct guest_configured) },
	{ GUEST_PONG, 0, 64 },
	{ GUEST_DATA, 1, BRIG_FRAME_DATA_MAX },
	{ GUEST_END, 0, 0 },
	{ GUEST_STARTED, sizeof(struct guest_started),
	  sizeof(struct guest_started) },
	{ GUEST_STDOUT, 1, BRIG_FRAME_DATA_MAX },
	{ GUEST_STDERR, 1, BRIG_FRAME_DATA_MAX },
	{ GUEST_EXIT, sizeof(struct guest_exit), sizeof(struct guest_exit) },
	{ GUEST_FILE_INFO, sizeof(struct guest_file_info),
	  sizeof(struct guest_file_info) },
	{ GUEST_STATUS_REPLY, sizeof(struct guest_status),
	  sizeof(struct guest_status) },
	{ GUEST_ERROR, sizeof(struct guest_error), sizeof(struct guest_error) },
	{ GUEST_QUIESCED, sizeof(struct guest_quiesced),
	  sizeof(struct guest_quiesced) },
	{ GUEST_THAWED, 0, 0 },
};

static bool has_shape(const struct guest_frame *head)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		if (shapes[i].type == head->type)
			return head->zero == 0 &&
			       head->length >= shapes[i].min &&
			       head->length <= shapes[i].max;
	}
	return false;
}

static bool is_terminated(const struct frame *f)
{
	struct guest_error error;

	frame_copy(f, &error, sizeof(error));
	return memchr(error.detail, '\0', sizeof(error.detail)) != NULL;
}

int frame_take(const uint8_t *bytes, size_t n, struct frame *ret)
{
	struct guest_frame head;

	if (n < sizeof(head))
		return 0;
	memcpy(&head, bytes, sizeof(head));
	if (!has_shape(&head))
		return -EPROTO;
	if (n < sizeof(head) + head.length)
		return 0;
	struct frame f = {
		.type = (enum guest_frame_type)head.type,
		.payload = bytes + sizeof(head),
		.length = head.length,
	};
	if (f.type == GUEST_ERROR && !is_terminated(&f))
		return -EPROTO;
	*ret = f;
	return (int)(sizeof(head) + head.length);
}

void frame_copy(const struct frame *f, void *to, size_t n)
{
	ASSERT(f->length == n);
	memcpy(to, f->payload, n);
}
