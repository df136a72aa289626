/* save.h - a machine into a state file and a memory file, while it runs on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * The vCPUs are parked; what KVM holds is read; the disk's top layer is sealed
 * and replaced; then the process forks and the guest runs on. That is the
 * pause. The child is a copy of this process at that instant, with one thread
 * and no use for KVM: it takes its time to write the devices' state and the
 * pages of RAM, and ends. All that it destroys is its own copy.
 *
 * The parent learns of the end by a pipe and tells brigd. One save at a time.
 * Device thread only.
 */
#ifndef BRIG_VMM_SAVE_H
#define BRIG_VMM_SAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cc.h"
#include "state/stream.h"
#include "wire/vmm.h"

struct machine;
struct x86_machine;

/* Of a state file: registers and devices take some 20 KiB, the map of a very
 * fragmented disk most of it. */
#define SAVE_STATE_BYTES_MAX (32u << 20)

struct save {
	uint8_t *buf;  /* SAVE_STATE_BYTES_MAX, touched only as far as used */
	int report_fd; /* the child's report, then its end; -1: no save */
	uint32_t seq;  /* of the VMM_SAVE that is under way */
};

/* Reserves the buffer. 0 or -errno. */
must_check int save_init(struct save *s);

/* VMM_SAVE: returns when the guest runs again, or stays paused if it was or
 * shall be. Takes the descriptors over. 0 and *ret_ns, how long it stood still,
 * with *ret as far as it is known by then; or -errno and the guest goes on as
 * before. With VMM_SAVE_DISK that is all; otherwise save_ended() will tell. */
must_check int save_begin(struct machine *m, const struct vmm_msg *request,
			  int *fds, size_t nfds, uint64_t *ret_ns,
			  struct vmm_saved *ret);

/* The child has ended: tells brigd how. */
void save_ended(struct machine *m);

/* The one order in which a machine's state is saved and loaded. */
void save_state(struct state_stream *s, struct machine *m,
		struct x86_machine *x);

#endif
