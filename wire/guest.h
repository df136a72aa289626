/* guest.h - host <-> brig-init: frames over a vsock stream.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All numbers are little-endian. Every frame is a struct guest_frame and then
 * `length` bytes. A side that receives an unknown type, a length over its
 * bound or a payload of the wrong shape closes the connection.
 *
 * Two kinds of connection:
 *
 *   guest -> host, BRIG_READY_PORT, kept open as long as the agent lives; made
 *   again when it breaks, which is how a guest notices that it was restored
 *       guest: HELLO             agent is up, root file system mounted
 *       host:  CONFIGURE         identity: host name, clock, entropy, ids
 *       guest: CONFIGURED        each step done (or ERROR): ready for users,
 *                                who were frozen until now if it was restored
 *       host:  PING / guest: PONG    at any time
 *
 *   host -> guest, BRIG_AGENT_PORT, one operation per connection
 *       EXEC    -> STARTED, then STDOUT and STDERR as they come, then EXIT.
 *                  The host may send STDIN, STDIN_EOF and SIGNAL after EXEC.
 *                  If the host closes the connection before EXIT, every
 *                  process of the run is killed.
 *       READ    -> FILE_INFO, DATA..., END
 *       WRITE, DATA..., END -> FILE_INFO
 *       STAT    -> FILE_INFO
 *       STATUS  -> STATUS_REPLY
 *       QUIESCE -> QUIESCED      every process of a user is frozen, until THAW
 *                                on this connection (-> THAWED) or CONFIGURE
 *       POWEROFF -> (the machine goes away)
 *     Any of them may answer ERROR instead, as its last frame.
 *
 * The host must treat all bytes from the guest as hostile: the guest's root
 * owns the agent.
 */
#ifndef BRIG_WIRE_GUEST_H
#define BRIG_WIRE_GUEST_H

#include <assert.h>
#include <stdint.h>

#include "limits.h"

#define GUEST_PROTOCOL_VERSION 2u

struct guest_frame {
	uint32_t length; /* payload bytes, at most BRIG_FRAME_MAX */
	uint16_t type;   /* enum guest_frame_type */
	uint16_t zero;
};
static_assert(sizeof(struct guest_frame) == 8, "wire format");

enum guest_frame_type {
	/* ready connection */
	GUEST_HELLO = 1,      /* struct guest_hello */
	GUEST_CONFIGURE = 2,  /* struct guest_configure */
	GUEST_CONFIGURED = 3, /* struct guest_configured */
	GUEST_PING = 4,       /* up to 64 bytes, echoed */
	GUEST_PONG = 5,

	/* requests, host to guest */
	GUEST_EXEC = 16,     /* struct guest_exec + strings */
	GUEST_READ = 17,     /* struct guest_read + path NUL */
	GUEST_WRITE = 18,    /* struct guest_write + path NUL */
	GUEST_STAT = 19,     /* path NUL */
	GUEST_STATUS = 20,   /* empty */
	GUEST_POWEROFF = 21, /* empty */
	GUEST_QUIESCE = 22,  /* struct guest_quiesce */
	GUEST_THAW = 23,     /* empty */

	/* within a run or a transfer, host to guest */
	GUEST_STDIN = 32,     /* bytes */
	GUEST_STDIN_EOF = 33, /* empty */
	GUEST_SIGNAL = 34,    /* uint32_t signal number, to the process group */

	/* both ways: the bytes of a file */
	GUEST_DATA = 40, /* bytes */
	GUEST_END = 41,  /* empty */

	/* replies, guest to host */
	GUEST_STARTED = 64,      /* struct guest_started */
	GUEST_STDOUT = 65,       /* bytes */
	GUEST_STDERR = 66,       /* bytes */
	GUEST_EXIT = 67,         /* struct guest_exit */
	GUEST_FILE_INFO = 68,    /* struct guest_file_info */
	GUEST_STATUS_REPLY = 69, /* struct guest_status */
	GUEST_ERROR = 70,        /* struct guest_error */
	GUEST_QUIESCED = 71,     /* struct guest_quiesced */
	GUEST_THAWED = 72,       /* empty */
};

struct guest_hello {
	uint32_t version;    /* GUEST_PROTOCOL_VERSION */
	uint32_t vcpus;      /* online */
	uint64_t uptime_ns;  /* CLOCK_MONOTONIC: time from kernel start */
	uint64_t generation; /* of the last CONFIGURE; 0: none since boot */
};
static_assert(sizeof(struct guest_hello) == 24, "wire format");

/* Sent at boot, and again after each restore or clone: whatever must not be
 * the same in two copies of a guest. */
struct guest_configure {
	uint64_t generation;                /* unguessable; echoed */
	uint64_t realtime_ns;               /* CLOCK_REALTIME to set */
	uint8_t entropy[64];                /* mixed and credited */
	uint8_t machine_id[16];             /* for /etc/machine-id */
	uint8_t boot_id[16];                /* for kernel/random/boot_id */
	char hostname[BRIG_HOSTNAME_BYTES]; /* NUL-terminated */
};
static_assert(sizeof(struct guest_configure) == 176, "wire format");

/* The receipt. A sandbox whose steps are not all 1 is not handed out. */
struct guest_configured {
	uint64_t generation;     /* of the CONFIGURE that this answers */
	uint32_t clock_set;      /* 1: done */
	uint32_t entropy_added;  /* 1: RNDADDENTROPY and RNDRESEEDCRNG done */
	uint32_t hostname_set;   /* 1: done */
	uint32_t machine_id_set; /* 1: done */
	uint32_t boot_id_set;    /* 1: done */
	uint32_t hooks_failed;   /* of /etc/brig/post-restore.d */
	uint32_t disk_grown;     /* 1: the file system fills the disk */
	uint32_t zero;
	int64_t clock_step_ns;    /* how far CLOCK_REALTIME was moved */
	uint64_t disk_bytes;      /* size of the root file system */
	uint64_t disk_free_bytes; /* free for root */
};
static_assert(sizeof(struct guest_configured) == 64, "wire format");

enum guest_quiesce_flags {
	/* Also run /etc/brig/pre-snapshot.d, sync, and freeze the root file
	 * system: what is on the disk is what applications meant. */
	GUEST_QUIESCE_FILES = 1u << 0,
};

struct guest_quiesce {
	uint32_t flags; /* enum guest_quiesce_flags */
	uint32_t zero;
};
static_assert(sizeof(struct guest_quiesce) == 8, "wire format");

struct guest_quiesced {
	uint32_t hooks_failed;
	uint32_t warm; /* interpreters that are ready to be used */
};
static_assert(sizeof(struct guest_quiesced) == 8, "wire format");

enum guest_exec_flags {
	GUEST_EXEC_SHELL = 1u << 0, /* argv[0] is a line for /bin/bash or sh */
	GUEST_EXEC_STDIN = 1u << 1, /* stdin stays open for STDIN frames */
	/* argv[0] is a language (python, node, bash), argv[1] code in it: runs
	 * in an interpreter that was started before, where there is one. Empty
	 * code waits until there is one: EXIT tells that it was ready */
	GUEST_EXEC_CODE = 1u << 2,
};

/* Followed by NUL-terminated strings without padding, in this order: user,
 * cwd, argv[0..argc-1], env[0..envc-1] ("NAME=value", added to the agent's
 * default environment). An empty user is root; an empty cwd is the user's
 * home directory. The payload ends with the last NUL. */
struct guest_exec {
	uint32_t flags;      /* enum guest_exec_flags */
	uint32_t timeout_ms; /* 0: none; then SIGKILL to every process */
	uint32_t argc;       /* 1..BRIG_ARGV_MAX; 1 with SHELL, 2 with CODE */
	uint32_t envc;       /* 0..BRIG_ENV_MAX */
};
static_assert(sizeof(struct guest_exec) == 16, "wire format");

struct guest_started {
	uint32_t pid; /* in the guest */
	uint32_t zero;
};
static_assert(sizeof(struct guest_started) == 8, "wire format");

enum guest_exit_reason {
	GUEST_EXITED = 0,    /* code is the exit status */
	GUEST_SIGNALED = 1,  /* code is the signal number */
	GUEST_TIMED_OUT = 2, /* killed at timeout_ms; code is SIGKILL */
	GUEST_OOM = 3,       /* the guest's OOM killer took the main process */
};

/* All figures are the guest's word. */
struct guest_exit {
	uint32_t reason; /* enum guest_exit_reason */
	uint32_t code;
	uint64_t wall_ns;           /* from fork to end */
	uint64_t cpu_user_ns;       /* of every process of the run */
	uint64_t cpu_system_ns;     /* of every process of the run */
	uint64_t memory_peak_bytes; /* of the run's cgroup */
	uint64_t stdout_bytes;      /* read from the pipes and sent */
	uint64_t stderr_bytes;
};
static_assert(sizeof(struct guest_exit) == 56, "wire format");

/* Paths: absolute, or relative to root's home directory. */
struct guest_read {
	uint64_t offset;
	uint64_t length; /* UINT64_MAX: to the end */
};
static_assert(sizeof(struct guest_read) == 16, "wire format");

/* Missing directories are made. The file appears under its name only after
 * END: written under a temporary name beside it, then renamed. */
struct guest_write {
	uint32_t mode; /* 0: 0644, or the mode of the file it replaces */
	uint32_t zero;
	uint64_t size; /* announced; UINT64_MAX: not known */
};
static_assert(sizeof(struct guest_write) == 16, "wire format");

struct guest_file_info {
	uint64_t size;
	uint64_t mtime_ns;
	uint32_t mode; /* st_mode */
	uint32_t uid;
	uint32_t gid;
	uint32_t zero;
};
static_assert(sizeof(struct guest_file_info) == 32, "wire format");

struct guest_status {
	uint64_t uptime_ns;
	uint64_t memory_total_bytes;
	uint64_t memory_available_bytes;
	uint64_t cpu_busy_ns; /* all vCPUs, since boot */
	uint64_t cpu_idle_ns;
	uint64_t disk_total_bytes;
	uint64_t disk_free_bytes;
	uint32_t load_milli[3]; /* load averages x 1000 */
	uint32_t processes; /* of users; kernel threads and agent excluded */
};
static_assert(sizeof(struct guest_status) == 72, "wire format");

/* Where a request failed; decides the HTTP status. */
enum guest_error_stage {
	GUEST_AT_REQUEST = 1, /* the request itself is malformed */
	GUEST_AT_USER = 2,    /* no such user */
	GUEST_AT_CWD = 3,     /* working directory */
	GUEST_AT_EXEC = 4,    /* execve */
	GUEST_AT_FORK = 5,    /* resources of the guest: pids, memory */
	GUEST_AT_OPEN = 6,    /* a file */
	GUEST_AT_IO = 7,      /* read or write, ENOSPC among them */
	GUEST_AT_SETUP = 8,   /* CONFIGURE */
};

struct guest_error {
	uint32_t stage;   /* enum guest_error_stage */
	uint32_t error;   /* errno of the guest */
	char detail[120]; /* what was tried; NUL-terminated, for people */
};
static_assert(sizeof(struct guest_error) == 128, "wire format");

#endif
