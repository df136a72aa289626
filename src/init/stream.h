/* stream.h - frames over one stream socket, in and out, with fixed room.
 * SPDX-License-Identifier: Apache-2.0
 *
 * At most one frame is held in each direction; whoever uses a stream reads
 * or writes the next only when the last is done, and so passes back-pressure
 * on. Exactly the bytes of a frame are read, never more: a stream can be
 * handed to a child process between two frames. Works on blocking and on
 * non-blocking sockets. One thread. Functions return -errno on failure; the
 * stream is then of no use any more.
 */
#ifndef BRIG_INIT_STREAM_H
#define BRIG_INIT_STREAM_H

#include <stdbool.h>

#include "frames.h"

struct stream {
	int fd; /* owned */
	/* frame being read; `in` is valid once stream_read returned 1 */
	struct guest_frame head;
	size_t head_got;
	char *in; /* owned; `in_cap` bytes, NULL at first */
	size_t in_cap;
	size_t in_got;
	/* frame being written */
	char *out; /* owned; header and BRIG_FRAME_DATA_MAX bytes */
	size_t out_len;
	size_t out_sent;
};

/* Takes over `fd`. 0 or -ENOMEM (then `fd` is still the caller's). */
must_check int stream_init(struct stream *s, int fd);

/* Closes and frees; harmless on a zeroed struct whose fd is -1. */
void stream_fini(struct stream *s);

/* Reads on. 1: a whole frame of a type and length that `phase` allows is in
 * `head` and `in`. 0: the socket has no more now. -ECONNRESET at its end,
 * -EPROTO, -EMSGSIZE, -ENOMEM, or what recv said. */
must_check int stream_read(struct stream *s, enum frames_phase phase);

/* Forgets the frame that was read. */
void stream_next(struct stream *s);

/* Forgets the frame that was read and gives its payload to the caller, who
 * frees it; NULL when it had none. */
must_check char *stream_take(struct stream *s);

/* True when nothing waits to be sent: then one frame may be put. */
static inline bool stream_idle(const struct stream *s)
{
	return s->out_len == 0;
}

/* Where the payload of the next frame goes: BRIG_FRAME_DATA_MAX bytes. The
 * stream must be idle; stream_commit then makes it a frame. */
char *stream_room(struct stream *s);
void stream_commit(struct stream *s, enum guest_frame_type type, size_t n);

/* Copies `n` bytes (<= BRIG_FRAME_DATA_MAX) into one frame. */
void stream_put(struct stream *s, enum guest_frame_type type, const void *p,
		size_t n);

/* Puts an ERROR frame. */
printf_like(4, 5) void stream_put_error(struct stream *s,
					enum guest_error_stage stage, int error,
					const char *fmt, ...);

/* Sends on. 1: idle now. 0: the socket takes no more now. */
must_check int stream_flush(struct stream *s);

#endif
