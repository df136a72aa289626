/* limits.h - every cap that brigd sets, with its reason.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What crosses a process line is in wire/limits.h. What is here bounds a
 * client, a guest or the disk.
 */
#ifndef BRIGD_LIMITS_H
#define BRIGD_LIMITS_H

/* --- HTTP ------------------------------------------------------------------ */

/* Open client connections of one listener. Each may cost CLIENT_MEMORY_BYTES
 * and one descriptor. */
#define CLIENTS_MAX 512u

/* Of these, connections that have not yet sent a whole request header. The
 * oldest is closed for a new one, so idle connections keep nobody out. */
#define CLIENTS_WAITING_MAX 256u

/* libmicrohttpd's pool for one connection: request line, headers and both I/O
 * buffers. Longer headers are answered 431. */
#define CLIENT_MEMORY_BYTES (64u << 10)

/* A new connection must send its first header within this time; a kept-alive
 * one its next header. Absolute: single bytes now and then do not help. */
#define HEADER_TIMEOUT_S 5u
#define KEEPALIVE_TIMEOUT_S 60u

/* A JSON body (at most JSON_BODY_MAX) must arrive within this time. */
#define BODY_TIMEOUT_S 30u

/* While a streamed body comes in: how often we look whether its client left. */
#define BODY_CHECK_S 1u

/* No byte moved in either direction while a body or a reply is under way: the
 * client is gone. Long, because a reader may well look at what it got. */
#define CLIENT_IDLE_TIMEOUT_S 300u

/* A JSON request body: the largest command (128 KiB), environment and stdin
 * text fit several times over. */
#define JSON_BODY_MAX (1u << 20)

/* What is read and dropped of the body of a refused request, so that the
 * client sees the reply instead of a reset connection. */
#define DRAIN_BODY_MAX (8u << 20)

/* Reply bytes of a stream that wait for a slow client: over HIGH the source
 * is paused, under LOW it goes on. One frame of output becomes at most six
 * times its size as JSON, hence MAX. */
#define STREAM_HIGH_BYTES (256u << 10)
#define STREAM_LOW_BYTES (64u << 10)
#define STREAM_MAX_BYTES (1u << 20)

/* --- Guests ---------------------------------------------------------------- */

/* Bytes from a guest that are not yet a whole frame: one data frame and its
 * header fit, whatever else was read with them is parsed at once. */
#define GUEST_IN_BYTES (64u << 10)

/* Bytes that wait for a guest: one EXEC of BRIG_FRAME_MAX and several data
 * frames. Over HIGH whoever writes is paused. */
#define GUEST_OUT_MAX_BYTES (640u << 10)
#define GUEST_OUT_HIGH_BYTES (128u << 10)

/* Time for the VMM to answer a control message. */
#define VMM_REPLY_TIMEOUT_S 10u

/* Time for the agent's first frame after a request: the guest may be swapping
 * or emulated, but not dead. */
#define AGENT_REPLY_TIMEOUT_S 30u

/* No byte moved in a file transfer for this time: the guest is gone. */
#define TRANSFER_IDLE_TIMEOUT_S 60u

/* Time for STATUS before the cgroup's figures are used instead. */
#define AGENT_STATUS_TIMEOUT_S 2u

/* Time for the VMM to load a kernel or a saved state: files of the host. */
#define CLAIM_TIMEOUT_S 30u

/* Boot, from brig-spawn's START to CONFIGURED. An emulated host with several
 * guests booting at once needs half of it. */
#define BOOT_TIMEOUT_S 60u

/* Sandboxes that may boot at once where there is one processor; otherwise as
 * many as there are processors. The others wait their turn. */
#define BOOTS_MIN 2

/* PING on the ready connection, and silence after which the agent is lost. */
#define PING_INTERVAL_S 10u
#define AGENT_SILENCE_S 60u

/* After the ready connection closed: time for the VMM's last words, which
 * say why better than we can. */
#define LAST_WORDS_S 1u

/* Time for SPAWN_EXITED after SPAWN_KILL, before the kill is sent again. */
#define KILL_RETRY_S 5u

/* At SIGTERM: time for all microVMs to end. */
#define SHUTDOWN_TIMEOUT_S 8u

/* Runs and transfers of one sandbox at once: below BRIG_VSOCK_CONNS_MAX, with
 * room for status requests. */
#define SANDBOX_OPS_MAX 200u

/* --- Runs ------------------------------------------------------------------ */

/* stdout and stderr each, as kept for a reply that is not a stream. */
#define OUTPUT_LIMIT_DEFAULT (8u << 20)
#define OUTPUT_LIMIT_MAX (64u << 20)

/* All output kept for all runs: more is counted, not stored. */
#define OUTPUT_TOTAL_MAX (512u << 20)

/* A command line: MAX_ARG_STRLEN of the guest's execve(), with NUL. */
#define COMMAND_BYTES (128u << 10)

/* User names in the guest (LOGIN_NAME_MAX). */
#define USER_BYTES 256u

/* Longest time-out of a run: a day. */
#define RUN_TIMEOUT_MAX_S 86400u

/* The agent ends a run at its time-out; if it does not, brigd gives it up
 * this much later. */
#define RUN_GRACE_S 2u

/* --- Files ----------------------------------------------------------------- */

/* One uploaded file. */
#define UPLOAD_MAX_BYTES (5ull << 30)

/* Whole multipart body: the file and its envelope. */
#define UPLOAD_BODY_MAX_BYTES (UPLOAD_MAX_BYTES + (1u << 20))

/* --- Sandboxes ------------------------------------------------------------- */

#define NAME_BYTES 64u       /* one DNS label and NUL */
#define IMAGE_NAME_BYTES 64u /* a file name in the images directory */
#define CPUS_MAX 32u         /* quarters: eight vCPUs */
#define CPUS_DEFAULT 4u
#define MEMORY_MIB_DEFAULT 512u
#define STORAGE_GB_DEFAULT 10u
#define STORAGE_GB_MAX 256u /* BRIG_DISK_BYTES_MAX */

/* Sandboxes that one request may make. */
#define CREATE_COUNT_MAX 1000u

/* Host memory that admission leaves alone: the host's own processes. */
#define HOST_RESERVE_MIB 128u

/* What brig-vmm itself needs beside its guest's RAM. */
#define VMM_OVERHEAD_MIB 32u

/* What a guest that was restored takes for itself before anybody asks
 * something of it; the rest it shares. */
#define RESTORED_MIB 8u

/* A sandbox's own environment, as JSON: it is kept for each sandbox and with
 * each snapshot, and has to leave a run room in its frame. */
#define SANDBOX_ENV_BYTES (32u << 10)

/* History of status: one sample each SAMPLE_INTERVAL_S, for one hour. */
#define SAMPLES_MAX 360u
#define SAMPLE_INTERVAL_S 10u

/* Shown of the boot log when a boot failed. */
#define CONSOLE_TAIL_BYTES 2048u

/* --- Shells started ahead --------------------------------------------------- */

/* Shells of one kind: so many for each processor, in these bounds. */
#define POOL_PER_CPU 2u
#define POOL_MIN 2u
#define POOL_MAX 64u

/* Kinds that have shells: the default and those used last. */
#define POOL_KINDS 4u
#define POOL_KIND_TTL_S 60u

/* Shells that are built at the same time, while nothing else starts. */
#define POOL_STARTS_MAX 2u

/* After a shell was taken: its taker goes first. */
#define POOL_REFILL_MS 20u
#define POOL_TICK_S 5u
#define POOL_BUILD_TIMEOUT_S 30u
#define POOL_BACKOFF_MIN_MS 100u
#define POOL_BACKOFF_MAX_S 30u

/* --- Templates ---------------------------------------------------------------- */

/* RAM of automatic templates, unless --template-memory says otherwise: this
 * part of all memory. */
#define TEMPLATE_MEMORY_PART 4u
#define TEMPLATE_MEMORY_MIB_MAX (1u << 24) /* 16 TiB: more than any host has */
#define TEMPLATES_AUTO_MAX 16u

/* The command that warms one: it is kept with it. */
#define WARM_COMMAND_BYTES (16u << 10)

/* How long to wait before looking again whether nothing else starts; before
 * trying again what found no room; and what failed. */
#define TEMPLATE_LOOK_MS 500u
#define TEMPLATE_BUSY_S 10u
#define TEMPLATE_RETRY_S 300u

/* Restores that fail in a row before an automatic template is made anew. */
#define TEMPLATE_FAILED_MAX 3u

/* Sandboxes that run ahead: most of them, how many without an option. */
#define STANDBY_MAX 64u
#define STANDBY_DEFAULT 2u
/* Looking whether one is missing; not so soon after somebody asked for one;
 * after a failure. */
#define STANDBY_LOOK_MS 500u
#define STANDBY_QUIET_MS 1500u
#define STANDBY_RETRY_S 10u
#define STANDBY_RUN_TIMEOUT_S 60u

/* --- Saving ------------------------------------------------------------------- */

/* QUIESCE runs hooks and syncs; THAW undoes it. */
#define QUIESCE_TIMEOUT_S 15u
#define THAW_TIMEOUT_S 15u

/* VMM_SAVE's reply comes when the guest runs on. */
#define SAVE_REPLY_TIMEOUT_S 30u

/* Writing all of RAM: 16 GiB to a slow disk. */
#define SAVE_WRITE_TIMEOUT_S 900u

/* Files of RAM that a live clone keeps apart; then it merges them. */
#define SAVE_MEMORY_FILES_MAX 16u

/* --- Store ----------------------------------------------------------------- */

/* Lists of part 1. More pages than there can be items. */
#define PAGE_NUMBER_MAX 1000000u
#define PAGE_SIZE_DEFAULT 50u
#define PAGE_SIZE_MAX 1000u
#define LOG_LIMIT_DEFAULT 100u
#define LOG_LIMIT_MAX 1000u

/* Of each run's output, in the log. */
#define LOG_OUTPUT_BYTES 4096u

/* Of each run's command line, in the log. */
#define LOG_COMMAND_BYTES 4096u

/* Newest rows of the log that are kept. */
#define LOG_ROWS_MAX 10000u

/* Log rows waiting to be written; more are dropped and counted. */
#define LOG_QUEUE_MAX 1024u

/* An Idempotency-Key and how long it is remembered. */
#define IDEMPOTENCY_KEY_BYTES 256u
#define IDEMPOTENCY_TTL_S 86400u

/* An API key as presented; a longer one cannot be right. */
#define API_KEY_BYTES 256u

#endif
