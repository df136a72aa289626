/* vmm.h - brig-spawn -> brig-vmm at start, brigd <-> brig-vmm after that.
 * SPDX-License-Identifier: Apache-2.0
 *
 * brig-spawn starts brig-vmm as a shell: a jailed process with a virtual
 * machine of the right shape and no guest. It has a few descriptors at fixed
 * numbers, no argument and no environment, and reads its configuration
 * from VMM_FD_CONFIG (a pipe that brig-spawn filled). When it is built it
 * says VMM_READY to brigd and waits to be claimed: by VMM_BOOT, which loads a
 * kernel, or by VMM_RESTORE, which continues a machine that was saved.
 *
 * VMM_FD_CONTROL is a SOCK_SEQPACKET socket; each packet is one struct
 * vmm_msg with the descriptors that its type says. brigd is not trusted with
 * more than its own sandbox; brig-vmm may be compromised by its guest, so
 * brigd checks every field that comes back.
 *
 *   shell --BOOT, RESTORE--> running <--PAUSE, RESUME--> paused
 *                               any of them --STOP, guest, error--> stopped
 */
#ifndef BRIG_WIRE_VMM_H
#define BRIG_WIRE_VMM_H

#include <assert.h>
#include <stdint.h>

#include "limits.h"

enum vmm_fd {
	/* 0 and 1 are /dev/null, 2 is the log */
	VMM_FD_CONFIG = 3,  /* pipe: struct vmm_config, then CPUID entries */
	VMM_FD_CONTROL = 4, /* SOCK_SEQPACKET: struct vmm_msg */
	VMM_FD_KVM = 5,     /* /dev/kvm */
	VMM_FD_PROC = 6,    /* procfs of its own PID namespace, mounted nowhere:
	                       for /proc/self/pagemap */
	VMM_FD_END = 7,
};

#define VMM_CONFIG_MAGIC 0x67697262u /* "brig" */
#define VMM_CONFIG_VERSION 3u
#define VMM_CPUID_MAX 128u /* entries; KVM knows about 80 */

/* The shape of the machine: what cannot change any more. */
struct vmm_config {
	uint32_t magic;
	uint32_t version;
	uint32_t vcpus;      /* 1..BRIG_VCPUS_MAX */
	uint32_t memory_mib; /* BRIG_MEMORY_MIB_MIN..MAX */
	uint64_t disk_bytes; /* virtual size of the root disk */

	/* So many struct kvm_cpuid_entry2 follow: what this host's KVM said to
	 * KVM_GET_SUPPORTED_CPUID. 0: brig-vmm asks, which takes longer. */
	uint32_t cpuid_entries;
	uint32_t zero;
};
static_assert(sizeof(struct vmm_config) == 32, "wire format");

enum vmm_msg_type {
	/* brigd -> brig-vmm; each is answered by VMM_REPLY with the same seq
	 * and, where it says so, by an event later */
	VMM_CONNECT = 1, /* port: guest port; reply carries a stream socket */
	VMM_STATS = 2,   /* reply: u.stats */
	VMM_STOP = 3,    /* end now; no reply, the socket closes */
	VMM_BOOT = 4,    /* u.boot, VMM_BOOT_FDS; then VMM_RUNNING */
	VMM_RESTORE = 5, /* u.restore and its fds; then VMM_RUNNING */
	VMM_PAUSE = 6,   /* the vCPUs stand still when the reply comes */
	VMM_RESUME = 7,
	VMM_SAVE = 8,  /* u.save, VMM_SAVE_FDS. The reply comes when the guest
	                 runs on: value is how long it stood still, in ns.
	                 VMM_SAVED comes when the files are written. One at a
	                 time: -EBUSY. */
	VMM_RESET = 9, /* back to what the last VMM_RESTORE gave, in the same
	                  process: u.restore and the same fds again. -EBUSY
	                  while a save is being written. */
	VMM_WORKING_SET = 10, /* one fd: an empty file, for the pages which the
	                         guest has used; see struct vmm_pages. Reply:
	                         value is the size of the file. */

	/* brig-vmm -> brigd */
	VMM_REPLY = 16,   /* status: 0 or -errno */
	VMM_RUNNING = 17, /* vCPUs run; value: CPU time of set-up in ns */
	VMM_ACCEPT = 18,  /* the guest connected to host port `port`; carries a
	                     stream socket */
	VMM_STOPPED = 19, /* last words; status: enum vmm_stop_reason */
	VMM_READY = 20, /* the shell is built; value: CPU time of that in ns */
	VMM_SAVED = 21, /* seq: of VMM_SAVE; status: 0 or -errno; u.saved */
};

/* Descriptors of VMM_BOOT: these, then `layers` sealed disk layers, oldest
 * first: the disk of a snapshot without memory. Where a layer has data
 * (SEEK_DATA) it stands for what is below. */
enum vmm_boot_fd {
	VMM_BOOT_FD_KERNEL,  /* ELF, read only */
	VMM_BOOT_FD_INITRD,  /* cpio archive, read only */
	VMM_BOOT_FD_CONSOLE, /* memfd: struct vmm_console */
	VMM_BOOT_FD_BASE,    /* base image: regular file or block device, ro */
	VMM_BOOT_FD_TOP,     /* copy-on-write layer: empty file, read-write */
	VMM_BOOT_FDS,
};

enum vmm_boot_flags {
	VMM_BOOT_CONSOLE_VERBOSE = 1u << 0, /* no "quiet": full boot log */
};

struct vmm_boot {
	uint64_t base_bytes; /* size of the base image; at most disk_bytes */
	uint32_t flags;      /* enum vmm_boot_flags */
	uint32_t layers;     /* sealed ones, at most BRIG_LAYERS_MAX */
};

/* Descriptors of VMM_RESTORE and VMM_RESET: these, then `layers` sealed disk
 * layers, oldest first, as the saved state counts them, then the top layer
 * (empty). Without VMM_RESTORE_DELTA there is no delta in the list. */
enum vmm_restore_fd {
	VMM_RESTORE_FD_STATE,   /* file that VMM_SAVE wrote, read only */
	VMM_RESTORE_FD_MEMORY,  /* memfd, sealed: all of RAM */
	VMM_RESTORE_FD_CONSOLE, /* memfd: struct vmm_console */
	VMM_RESTORE_FD_BASE,    /* base image */
	VMM_RESTORE_FDS_MIN,
};

enum vmm_restore_flags {
	/* After the base image comes one more memfd, sealed, as large as RAM:
	 * where it has data (SEEK_DATA) it stands for VMM_RESTORE_FD_MEMORY. */
	VMM_RESTORE_DELTA = 1u << 0,
	/* Load everything and stay paused. */
	VMM_RESTORE_PAUSED = 1u << 1,
	/* After the delta, if there is one, comes what VMM_WORKING_SET wrote
	 * for another machine with the same memory: only a hint. */
	VMM_RESTORE_WORKING_SET = 1u << 2,
	/* VMM_WORKING_SET will be asked of this machine: pages come one by
	 * one, so that those that are there are those that were used. */
	VMM_RESTORE_REHEARSAL = 1u << 3,
};

struct vmm_restore {
	uint64_t base_bytes;
	uint32_t flags;  /* enum vmm_restore_flags */
	uint32_t layers; /* sealed ones, at most BRIG_LAYERS_MAX */
};

#define VMM_FDS_MAX (VMM_RESTORE_FDS_MIN + 3 + BRIG_LAYERS_MAX)

/* A working set is a file of these, ascending. */
struct vmm_pages {
	uint32_t first; /* of 4 KiB, counted from the start of RAM */
	uint32_t count; /* at least 1 */
	uint32_t flags; /* enum vmm_pages_flags */
	uint32_t zero;
};
static_assert(sizeof(struct vmm_pages) == 16, "wire format");

enum vmm_pages_flags {
	VMM_PAGES_WRITTEN = 1u << 0, /* else only read */
};

#define VMM_WORKING_SET_MAX 16384u /* structs in one file */

/* Descriptors of VMM_SAVE, in this order; with VMM_SAVE_DISK only the first
 * VMM_SAVE_DISK_FDS of them. The memory file is as large as RAM (low part,
 * then high part) and has data exactly for the pages that differ from what the
 * machine was restored from; holes are inherited. After a boot nothing is
 * inherited and holes are zero. */
enum vmm_save_fd {
	VMM_SAVE_FD_TOP, /* new top layer, empty: the old one is sealed */
	VMM_SAVE_DISK_FDS,
	VMM_SAVE_FD_STATE = VMM_SAVE_DISK_FDS, /* empty file or memfd, rw */
	VMM_SAVE_FD_MEMORY,                    /* the same */
	VMM_SAVE_FDS,
};

enum vmm_save_flags {
	VMM_SAVE_STAY_PAUSED = 1u << 0, /* the reply leaves the guest paused */
	/* Only the disk's layer is sealed: nothing is written, and the reply is
	 * all that comes. */
	VMM_SAVE_DISK = 1u << 1,
};

struct vmm_save {
	uint32_t flags; /* enum vmm_save_flags */
	uint32_t zero;
};

struct vmm_saved {
	uint64_t memory_bytes; /* written to the memory file */
	uint64_t state_bytes;
	uint64_t layer_bytes; /* of the layer that was sealed */
	uint32_t layers;      /* sealed ones that the state names now */
	uint32_t zero;
};

enum vmm_stop_reason {
	VMM_STOP_POWEROFF = 1,       /* ACPI S5 */
	VMM_STOP_RESET = 2,          /* ACPI reset register */
	VMM_STOP_PANIC = 3,          /* pvpanic, then reset or not */
	VMM_STOP_TRIPLE_FAULT = 4,   /* KVM_EXIT_SHUTDOWN */
	VMM_STOP_INTERNAL_ERROR = 5, /* KVM_EXIT_INTERNAL_ERROR and the like */
	VMM_STOP_COMMAND = 6,        /* VMM_STOP, or brigd is gone */
	VMM_STOP_DEVICE = 7,         /* a device could not finish a reset */
	VMM_STOP_SETUP = 8,          /* the claim failed; detail: -errno */
};

/* Counted by the monitor: a guest cannot forge them. */
struct vmm_stats {
	uint64_t blk_read_bytes;
	uint64_t blk_write_bytes;
	uint32_t blk_reads;
	uint32_t blk_writes;
	uint64_t vsock_rx_bytes;  /* guest to host */
	uint64_t vsock_tx_bytes;  /* host to guest */
	uint32_t needs_reset;     /* devices that a guest's mistake stopped */
	uint32_t console_dropped; /* bytes that no longer were in the ring */
	uint64_t layer_bytes;     /* disk blocks the guest has written */
};
static_assert(sizeof(struct vmm_stats) == 56, "wire format");

struct vmm_msg {
	uint32_t type; /* enum vmm_msg_type */
	uint32_t seq;
	int32_t status;
	uint32_t port;
	uint64_t value;
	union {
		struct vmm_stats stats;
		struct vmm_boot boot;
		struct vmm_restore restore;
		struct vmm_save save;
		struct vmm_saved saved;
		uint8_t zero[56];
	} u;
};
static_assert(sizeof(struct vmm_msg) == 80, "wire format");

/* The boot log: a ring in a memfd of sizeof(struct vmm_console) bytes, made
 * and sealed (F_SEAL_SHRINK | F_SEAL_GROW) by brigd, written by brig-vmm,
 * read by brigd at any time, also after brig-vmm died. `written` counts all
 * bytes ever; byte i is at data[i % BRIG_CONSOLE_RING_BYTES]. brigd masks
 * what it reads: the writer may be compromised. */
struct vmm_console {
	uint64_t written; /* atomic, release after the bytes are in place */
	uint8_t zero[4088];
	uint8_t data[BRIG_CONSOLE_RING_BYTES];
};
static_assert(sizeof(struct vmm_console) == 4096 + BRIG_CONSOLE_RING_BYTES,
	      "wire format");

/* `brig-vmm --probe` prints one line of JSON and exits 0:
 *   {"kvm": "hardware"|"emulated"|"none", "api": 12, "iterations_per_s": n,
 *    "reason": "..."}                                                       */

#endif
