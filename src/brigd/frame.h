/* frame.h - takes frames out of bytes that a guest sent.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pure: no descriptor, no memory of its own. The bytes are hostile. Only
 * frames that an agent may send to the host pass, each with the payload
 * length that wire/guest.h gives it; the values inside are not judged here,
 * except that guest_error.detail ends with a NUL.
 */
#ifndef BRIGD_FRAME_H
#define BRIGD_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "cc.h"
#include "wire/guest.h"

struct frame {
	enum guest_frame_type type;
	const uint8_t *payload; /* borrowed from the input; unaligned */
	uint32_t length;
};

/* Takes the frame that begins at `bytes`. Returns its whole size (header and
 * payload) and writes *ret; 0 if more bytes are needed; -EPROTO if the frame
 * is none that an agent may send: then close the connection. Never asks for
 * more than sizeof(struct guest_frame) + BRIG_FRAME_DATA_MAX bytes. */
must_check int frame_take(const uint8_t *bytes, size_t n, struct frame *ret);

/* Copies a payload of a fixed size out of a frame. */
void frame_copy(const struct frame *f, void *to, size_t n);

#endif
