/* exec_reply.c - the JSON of a run's result and of its stream.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "cgroup.h"
#include "exec_reply.h"
#include "loop.h"
#include "num.h"
#include "utf8.h"
#include "when.h"

/* The guest's figures may be anything; beyond this a reader of JSON may not
 * take them (RFC 8259, 6). */
#define JSON_INTEGER_MAX ((1ull << 53) - 1)

static const char *const stream_names[] = { "stdout", "stderr" };
static_assert(ARRAY_LEN(stream_names) == RUN_STREAMS, "one name a stream");

void exec_read_cpu(const struct sandbox *sb, uint64_t *ret_usec)
{
	if (cgroup_read_cpu(sandbox_cgroup(sb), ret_usec) < 0)
		*ret_usec = UINT64_MAX;
}

static int add_text(struct buf *to, const char *text)
{
	return utf8_add_json(to, (const uint8_t *)text, strlen(text));
}

static int add_bytes(struct buf *to, const struct buf *b)
{
	return utf8_add_json(to, (const uint8_t *)b->data, b->len);
}

/* The bytes without quotes, as UTF-8 or base64; says which. */
static int add_exact(struct buf *to, const uint8_t *bytes, size_t n,
		     const char **ret_encoding)
{
	gnutls_datum_t in = { .size = (unsigned int)n };
	gnutls_datum_t out = { .size = 0 };

	*ret_encoding = "utf-8";
	if (utf8_is_valid(bytes, n))
		return utf8_add_json(to, bytes, n);
	*ret_encoding = "base64";
	/* gnutls only reads it. NOLINTNEXTLINE(performance-no-int-to-ptr) */
	in.data = (unsigned char *)(uintptr_t)bytes;
	if (gnutls_base64_encode2(&in, &out) < 0)
		return -ENOMEM;
	int r = buf_add(to, out.data, out.size);
	gnutls_free(out.data);
	return r;
}

/* --- Part 1 ------------------------------------------------------------------------------------ */

int exec_add_v1_output(struct buf *to, enum run_stream which,
		       const uint8_t *bytes, size_t n)
{
	int r = buf_addf(to, "{\"%s\":\"", stream_names[which]);

	if (r == 0)
		r = utf8_add_json(to, bytes, n);
	return r < 0 ? r : buf_add_str(to, "\"}\n");
}

int exec_add_v1_end(struct buf *to, const struct run *run)
{
	if (run->reason != RUN_LOST && run->reason != RUN_REFUSED)
		return buf_addf(to, "{\"exit_code\":%d}\n", run_exit_code(run));
	int r = buf_add_str(to, "{\"error\":\"");
	if (r == 0)
		r = add_text(to, run->fault.text);
	return r < 0 ? r : buf_add_str(to, "\"}\n");
}

static int add_v1_stream(struct buf *to, const struct run *run,
			 enum run_stream which)
{
	const struct run_output *out = &run->output[which];
	const char *name = stream_names[which];
	int r = buf_addf(to, ",\"%s\":\"", name);

	if (r == 0)
		r = add_bytes(to, &out->kept);
	if (r == 0)
		r = buf_addf(to, "\",\"%s_bytes\":%llu,\"%s_truncated\":%s",
			     name, (unsigned long long)out->bytes, name,
			     out->bytes > out->kept.len ? "true" : "false");
	return r;
}

int exec_add_v1_result(struct buf *to, const struct run *run)
{
	char created[WHEN_BYTES];
	char completed[WHEN_BYTES];

	when_format(run->created_ms, created);
	when_format(run->completed_ms, completed);
	int r = buf_addf(to,
			 "{\"id\":\"%s\",\"created_at\":\"%s\","
			 "\"completed_at\":\"%s\",\"execution_time_ms\":%llu,"
			 "\"exit_code\":%d,\"status\":\"%s\","
			 "\"reason\":\"%s\"",
			 run->id, created, completed,
			 (unsigned long long)(run->wall_ns / NS_PER_MS),
			 run_exit_code(run), run_v1_status(run),
			 run_reason_name(run->reason));
	if (r == 0)
		r = add_v1_stream(to, run, RUN_STDOUT);
	if (r == 0)
		r = add_v1_stream(to, run, RUN_STDERR);
	if (r == 0 && run->reason == RUN_LOST) {
		r = buf_add_str(to, ",\"error\":\"");
		if (r == 0)
			r = add_text(to, run->fault.text);
		if (r == 0)
			r = buf_add_str(to, "\"");
	}
	return r < 0 ? r : buf_add_str(to, "}");
}

/* --- Part 2 ------------------------------------------------------------------------------------ */

int exec_add_started(struct buf *to, const struct run *run)
{
	return buf_addf(to,
			"{\"event\":\"started\",\"id\":\"%s\",\"pid\":%u}\n",
			run->id, run->pid);
}

int exec_add_v2_output(struct buf *to, enum run_stream which, uint64_t offset,
		       const uint8_t *bytes, size_t n)
{
	const char *encoding = NULL;
	int r = buf_addf(to, "{\"event\":\"%s\",\"offset\":%llu,\"data\":\"",
			 stream_names[which], (unsigned long long)offset);

	if (r == 0)
		r = add_exact(to, bytes, n, &encoding);
	if (r == 0)
		r = buf_addf(to, "\",\"encoding\":\"%s\"}\n", encoding);
	return r;
}

static int add_usage(struct buf *to, const struct run *run,
		     const struct exec_host_usage *host)
{
	const struct guest_exit *g = &run->usage;
	uint64_t peak = u64_min(g->memory_peak_bytes, JSON_INTEGER_MAX);
	uint64_t cpu_ms =
		g->cpu_user_ns / NS_PER_MS + g->cpu_system_ns / NS_PER_MS;
	bool has_cpu = host->cpu_before_usec != UINT64_MAX &&
		       host->cpu_after_usec != UINT64_MAX &&
		       host->cpu_after_usec >= host->cpu_before_usec &&
		       host->known;
	uint64_t vcpu_ms = cpu_ms;
	uint64_t read = 0;
	uint64_t written = 0;

	if (has_cpu)
		vcpu_ms = (host->cpu_after_usec - host->cpu_before_usec) / 1000;
	if (host->known) {
		read = host->after.blk_read_bytes - host->before.blk_read_bytes;
		written = host->after.blk_write_bytes -
			  host->before.blk_write_bytes;
	}
	return buf_addf(
		to,
		",\"usage\":{\"wall_ms\":{\"value\":%llu,\"source\":\"host\"},"
		"\"vcpu_ms\":{\"value\":%llu,\"source\":\"%s\"},"
		"\"cpu_ms\":{\"value\":%llu,\"source\":\"guest\"},"
		"\"memory_peak_bytes\":{\"value\":%llu,\"source\":\"guest\"},"
		"\"disk_read_bytes\":{\"value\":%llu,\"source\":\"host\"},"
		"\"disk_write_bytes\":{\"value\":%llu,\"source\":\"host\"}}",
		(unsigned long long)(run->wall_ns / NS_PER_MS),
		(unsigned long long)vcpu_ms, has_cpu ? "host" : "guest",
		(unsigned long long)cpu_ms, (unsigned long long)peak,
		(unsigned long long)read, (unsigned long long)written);
}

/* The members that the reply and the last event share, without braces. */
static int add_v2_common(struct buf *to, const struct run *run,
			 const struct exec_host_usage *host)
{
	char created[WHEN_BYTES];
	char completed[WHEN_BYTES];
	char signal[16] = "null";

	when_format(run->created_ms, created);
	when_format(run->completed_ms, completed);
	if (run->reason == RUN_SIGNAL || run->reason == RUN_OOM)
		(void)snprintf(signal, sizeof(signal), "%u", run->code);
	else if (run->reason == RUN_TIMEOUT)
		(void)snprintf(signal, sizeof(signal), "9");
	int r = buf_addf(to,
			 "\"id\":\"%s\",\"sandbox_id\":\"%s\","
			 "\"exit_code\":%d,\"signal\":%s,\"reason\":\"%s\","
			 "\"created_at\":\"%s\",\"completed_at\":\"%s\"",
			 run->id, run->sandbox_id, run_exit_code(run), signal,
			 run_reason_name(run->reason), created, completed);
	return r < 0 ? r : add_usage(to, run, host);
}

static int add_v2_counts(struct buf *to, const struct run *run,
			 enum run_stream which)
{
	const struct run_output *out = &run->output[which];
	uint64_t limit =
		run->args.stream ? run->args.output_limit : out->kept.len;

	return buf_addf(to, ",\"%s_bytes\":%llu,\"%s_truncated\":%s",
			stream_names[which], (unsigned long long)out->bytes,
			stream_names[which],
			out->bytes > limit ? "true" : "false");
}

static int add_v2_stream(struct buf *to, const struct run *run,
			 enum run_stream which)
{
	const struct run_output *out = &run->output[which];
	const char *encoding = NULL;
	int r = buf_addf(to, ",\"%s\":\"", stream_names[which]);

	if (r == 0)
		r = add_exact(to, (const uint8_t *)out->kept.data,
			      out->kept.len, &encoding);
	if (r == 0)
		r = buf_addf(to, "\",\"%s_encoding\":\"%s\"",
			     stream_names[which], encoding);
	return r < 0 ? r : add_v2_counts(to, run, which);
}

int exec_add_v2_end(struct buf *to, const struct run *run,
		    const struct exec_host_usage *host, const char *request_id)
{
	int r;

	if (run->reason == RUN_LOST || run->reason == RUN_REFUSED) {
		r = buf_addf(to,
			     "{\"event\":\"error\",\"error\":{\"code\":\"%s\","
			     "\"message\":\"",
			     run->fault.code);
		if (r == 0)
			r = add_text(to, run->fault.text);
		if (r == 0)
			r = buf_addf(to, "\",\"request_id\":\"%s\"}}\n",
				     request_id);
		return r;
	}
	r = buf_add_str(to, "{\"event\":\"exit\",");
	if (r == 0)
		r = add_v2_common(to, run, host);
	if (r == 0)
		r = add_v2_counts(to, run, RUN_STDOUT);
	if (r == 0)
		r = add_v2_counts(to, run, RUN_STDERR);
	return r < 0 ? r : buf_add_str(to, "}\n");
}

int exec_add_v2_result(struct buf *to, const struct run *run,
		       const struct exec_host_usage *host)
{
	int r = buf_add_str(to, "{");

	if (r == 0)
		r = add_v2_common(to, run, host);
	if (r == 0)
		r = add_v2_stream(to, run, RUN_STDOUT);
	if (r == 0)
		r = add_v2_stream(to, run, RUN_STDERR);
	return r < 0 ? r : buf_add_str(to, "}");
}
