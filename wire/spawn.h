/* spawn.h - brigd -> brig-spawn: fixed-size requests and descriptors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * SOCK_SEQPACKET on a unix socket (mode 0660, checked by SO_PEERCRED: only
 * the brig user and root may connect; one connection at a time). Each packet
 * is one struct spawn_msg, with at most SPAWN_FDS_MAX descriptors; never a
 * path. brig-spawn re-checks every field: brigd may be compromised, and must
 * not become root.
 *
 *   SPAWN_START    fd: the control socket. Starts a shell: a microVM of this
 *                  shape without a guest. Reply SPAWN_STARTED with two
 *                  descriptors: pidfd, and the sandbox's cgroup directory
 *                  (O_PATH).
 *   SPAWN_KILL     handle. Kills all of the cgroup; reply SPAWN_DONE. The
 *                  SPAWN_EXITED event follows when everything is cleaned up.
 *   SPAWN_PROBE    Runs `brig-vmm --probe`; reply SPAWN_PROBED.
 *   SPAWN_EXITED   event: the VMM of `handle` ended, its cgroup is removed
 *                  and its uid is free again; wait_status as waitpid(2) says.
 *
 * When the connection to brigd closes, running microVMs go on.
 */
#ifndef BRIG_WIRE_SPAWN_H
#define BRIG_WIRE_SPAWN_H

#include <assert.h>
#include <stdint.h>

#include "limits.h"

#define SPAWN_SOCKET_PATH "/run/brig/spawn.sock"
#define SPAWN_FDS_MAX 1
#define SPAWN_START_FDS 1
#define SPAWN_STARTED_FDS 2

/* uids SPAWN_UID_BASE .. + BRIG_SANDBOXES_MAX - 1 belong to microVMs. */
#define SPAWN_UID_BASE 0x6b000000u

enum spawn_msg_type {
	SPAWN_START = 1,
	SPAWN_KILL = 2,
	SPAWN_PROBE = 3,

	SPAWN_STARTED = 16,
	SPAWN_DONE = 17,
	SPAWN_PROBED = 18,
	SPAWN_EXITED = 19,
};

enum spawn_kvm_kind {
	SPAWN_KVM_NONE = 0,
	SPAWN_KVM_EMULATED = 1, /* guest ring 0 is interpreted: too slow */
	SPAWN_KVM_HARDWARE = 2,
};

struct spawn_msg {
	uint32_t type;          /* enum spawn_msg_type */
	uint32_t seq;           /* chosen by brigd, repeated in the reply */
	int32_t status;         /* replies: 0 or -errno */
	uint32_t handle;        /* STARTED gives it, KILL and EXITED name it */
	char id[BRIG_ID_BYTES]; /* START: sandbox id, names the cgroup */
	uint32_t vcpus;
	uint32_t memory_mib;
	uint64_t disk_bytes;
	uint32_t cpu_quota_percent; /* of one CPU, 100 = one; 0: no quota */
	uint32_t uid;               /* STARTED */
	int32_t wait_status;        /* EXITED */
	uint32_t kvm_kind;          /* PROBED: enum spawn_kvm_kind */
	uint64_t iterations_per_s;  /* PROBED */
};
static_assert(sizeof(struct spawn_msg) == 88, "wire format");

#endif
