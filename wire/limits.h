/* limits.h - every number that crosses a process line, with its reason.
 * SPDX-License-Identifier: Apache-2.0
 *
 * brigd checks a request against these and answers 422; brig-spawn checks the
 * same numbers again, because brigd may be compromised; brig-vmm checks them a
 * third time in config.c, because its devices are built on them.
 */
#ifndef BRIG_WIRE_LIMITS_H
#define BRIG_WIRE_LIMITS_H

/* vCPUs of one microVM. The MADT and the GSI map are sized for eight. */
#define BRIG_VCPUS_MAX 8u

/* Guest RAM in MiB. Below 128 Debian's kernel and the agent do not fit. */
#define BRIG_MEMORY_MIB_MIN 128u
#define BRIG_MEMORY_MIB_MAX 16384u

/* Virtual size of the root disk in bytes; a multiple of 1 MiB. */
#define BRIG_DISK_BYTES_MIN (64ull << 20)
#define BRIG_DISK_BYTES_MAX (256ull << 30)

/* Sandboxes of one host: the number of uid leases brig-spawn can give out. */
#define BRIG_SANDBOXES_MAX 4096u

/* A sandbox id: "sb_" and 24 characters of [a-z0-9]. */
#define BRIG_ID_LEN 27u
#define BRIG_ID_BYTES 32u /* with NUL and padding, as carried on the wire */

/* Host name given to a guest: one DNS label. */
#define BRIG_HOSTNAME_BYTES 64u

/* One frame between host and agent: header excluded. Large enough for an
 * execve() argument of MAX_ARG_STRLEN (128 KiB) and its environment. */
#define BRIG_FRAME_MAX (256u << 10)

/* Data carried by one stdout, stderr, stdin or file frame. */
#define BRIG_FRAME_DATA_MAX (32u << 10)

/* Arguments and environment variables of one run. */
#define BRIG_ARGV_MAX 1024u
#define BRIG_ENV_MAX 1024u

/* Paths in the guest, with NUL: PATH_MAX. */
#define BRIG_PATH_BYTES 4096u

/* vsock connections of one guest that may be open at once. */
#define BRIG_VSOCK_CONNS_MAX 256u

/* Sealed disk layers below one running disk: a snapshot adds one. So many
 * descriptors pass in one packet (SCM_MAX_FD is 253). */
#define BRIG_LAYERS_MAX 200u

/* Console ring that brigd and brig-vmm share: header page and data. */
#define BRIG_CONSOLE_RING_BYTES (64u << 10)

#endif
