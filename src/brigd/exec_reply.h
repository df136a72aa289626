/* exec_reply.h - the JSON of a run's result and of its stream.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Written straight into a buffer: output may be megabytes, and a tree of JSON
 * values would hold it three times. Pure: the guest's bytes go in, valid JSON
 * comes out. All return 0, -ENOMEM or -ENOSPC.
 */
#ifndef BRIGD_EXEC_REPLY_H
#define BRIGD_EXEC_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "run.h"

/* Two streams at OUTPUT_LIMIT_MAX, each byte as six, and the rest. */
#define EXEC_REPLY_MAX (13ull * OUTPUT_LIMIT_MAX)

/* What the host counted around a run. Other runs of the same sandbox at the
 * same time are in it too. */
struct exec_host_usage {
	bool known; /* before and after */
	struct vmm_stats before;
	struct vmm_stats after;
	uint64_t cpu_before_usec; /* UINT64_MAX: no cgroup to read */
	uint64_t cpu_after_usec;
};

/* The VMM's CPU time, or UINT64_MAX. */
void exec_read_cpu(const struct sandbox *sb, uint64_t *ret_usec);

/* Part 1: {"stdout": "..."} and a newline; the last line; the reply. */
must_check int exec_add_v1_output(struct buf *to, enum run_stream which,
				  const uint8_t *bytes, size_t n);
must_check int exec_add_v1_end(struct buf *to, const struct run *run);
must_check int exec_add_v1_result(struct buf *to, const struct run *run);

/* Part 2. */
must_check int exec_add_started(struct buf *to, const struct run *run);
must_check int exec_add_v2_output(struct buf *to, enum run_stream which,
				  uint64_t offset, const uint8_t *bytes,
				  size_t n);
must_check int exec_add_v2_end(struct buf *to, const struct run *run,
			       const struct exec_host_usage *host,
			       const char *request_id);
must_check int exec_add_v2_result(struct buf *to, const struct run *run,
				  const struct exec_host_usage *host);

#endif
