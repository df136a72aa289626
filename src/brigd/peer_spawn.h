/* peer_spawn.h - our side of wire/spawn.h.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One connection to brig-spawn, made again when it breaks. Calls are embedded
 * in their owner and borrowed until on_reply or spawn_peer_cancel().
 */
#ifndef BRIGD_PEER_SPAWN_H
#define BRIGD_PEER_SPAWN_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "wire/spawn.h"

struct spawn_peer;

struct spawn_call {
	/* `msg` is NULL when the connection broke. The descriptors (STARTED:
	 * two) belong to the callee. */
	void (*on_reply)(struct spawn_call *call, const struct spawn_msg *msg,
			 const int *fds, size_t nfds);
	uint32_t seq; /* private */
	bool pending; /* private */
	struct spawn_call *next;
};

/* `on_exited` is told of each SPAWN_EXITED. `path` must live on. */
struct spawn_peer *spawn_peer_new(struct loop *loop, const char *path,
				  void (*on_exited)(void *arg, uint32_t handle,
						    int32_t wait_status),
				  void *arg);
void spawn_peer_free(struct spawn_peer *p);

/* Sends a request; msg->seq is set here. 0, then on_reply is called later; or
 * -errno (-ENOTCONN: brig-spawn is not there), then it never is. */
must_check int spawn_peer_send(struct spawn_peer *p, struct spawn_msg *msg,
			       const int *fds, size_t nfds,
			       struct spawn_call *call);

/* Forgets a call; its reply is dropped. */
void spawn_peer_cancel(struct spawn_peer *p, struct spawn_call *call);

/* What SPAWN_PROBE said last; kind SPAWN_KVM_NONE before. */
enum spawn_kvm_kind spawn_peer_kvm(const struct spawn_peer *p,
				   uint64_t *ret_iterations_per_s);

#endif
