/* ready.h - the connection by which the host knows that the agent lives.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_INIT_READY_H
#define BRIG_INIT_READY_H

#include "loop.h"
#include "stream.h"

struct ready {
	struct loop *loop;
	struct stream stream;
	struct loop_fd socket;
	bool disk_grown;
};

/* Says HELLO on the connected socket `fd`, which it takes over, and then
 * answers CONFIGURE and PING until the host closes the connection. 0 or
 * -errno. */
must_check int ready_init(struct ready *r, struct loop *loop, int fd,
			  bool disk_grown);

#endif
