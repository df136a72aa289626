/* vmm.h - brig-spawn -> brig-vmm at start, brigd <-> brig-vmm after that.
 * SPDX-License-Identifier: Apache-2.0
 *
 * brig-vmm gets everything as descriptors at fixed numbers, and no argument
 * and no environment. It reads one struct vmm_config from VMM_FD_CONFIG (a
 * pipe that brig-spawn filled), then speaks with brigd on VMM_FD_CONTROL: a
 * SOCK_SEQPACKET socket on which each packet is one struct vmm_msg, with at
 * most one descriptor attached. brigd is not trusted with more than its own
 * sandbox; brig-vmm may be compromised by its guest, so brigd checks every
 * field that comes back.
 */
#ifndef BRIG_WIRE_VMM_H
#define BRIG_WIRE_VMM_H

#include <assert.h>
#include <stdint.h>

#include "limits.h"

enum vmm_fd {
	/* 0 and 1 are /dev/null, 2 is the log */
	VMM_FD_CONFIG = 3,   /* pipe: one struct vmm_config */
	VMM_FD_CONTROL = 4,  /* SOCK_SEQPACKET: struct vmm_msg */
	VMM_FD_KVM = 5,      /* /dev/kvm */
	VMM_FD_KERNEL = 6,   /* ELF, read only */
	VMM_FD_INITRD = 7,   /* cpio archive, read only */
	VMM_FD_BASE = 8,     /* base image: regular file or block device, ro */
	VMM_FD_LAYER = 9,    /* copy-on-write layer: empty file, read-write */
	VMM_FD_CONSOLE = 10, /* memfd: struct vmm_console and its data */
	VMM_FD_END = 11,
};

#define VMM_CONFIG_MAGIC 0x67697262u /* "brig" */
#define VMM_CONFIG_VERSION 1u

enum vmm_config_flags {
	VMM_CONFIG_CONSOLE_VERBOSE = 1u << 0, /* no "quiet": full boot log */
};

struct vmm_config {
	uint32_t magic;
	uint32_t version;
	uint32_t vcpus;      /* 1..BRIG_VCPUS_MAX */
	uint32_t memory_mib; /* BRIG_MEMORY_MIB_MIN..MAX */
	uint64_t disk_bytes; /* virtual size of the root disk */
	uint64_t base_bytes; /* size of the base image; at most disk_bytes */
	uint32_t flags;      /* enum vmm_config_flags */
	uint32_t zero;
};
static_assert(sizeof(struct vmm_config) == 40, "wire format");

enum vmm_msg_type {
	/* brigd -> brig-vmm; each is answered by VMM_REPLY with the same seq */
	VMM_CONNECT = 1, /* port: guest port; reply carries a stream socket */
	VMM_STATS = 2,   /* reply: u.stats */
	VMM_STOP = 3,    /* end now; no reply, the socket closes */

	/* brig-vmm -> brigd */
	VMM_REPLY = 16,   /* status: 0 or -errno */
	VMM_RUNNING = 17, /* vCPUs run; value: CPU time of set-up in ns */
	VMM_ACCEPT = 18,  /* the guest connected to host port `port`; carries a
	                     stream socket */
	VMM_STOPPED = 19, /* last words; status: enum vmm_stop_reason */
};

enum vmm_stop_reason {
	VMM_STOP_POWEROFF = 1,       /* ACPI S5 */
	VMM_STOP_RESET = 2,          /* ACPI reset register */
	VMM_STOP_PANIC = 3,          /* pvpanic, then reset or not */
	VMM_STOP_TRIPLE_FAULT = 4,   /* KVM_EXIT_SHUTDOWN */
	VMM_STOP_INTERNAL_ERROR = 5, /* KVM_EXIT_INTERNAL_ERROR and the like */
	VMM_STOP_COMMAND = 6,        /* VMM_STOP, or brigd is gone */
	VMM_STOP_DEVICE = 7,         /* a device could not finish a reset */
	VMM_STOP_SETUP = 8,          /* before the first KVM_RUN; value: step */
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
