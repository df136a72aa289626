/* agent_frames.c - a run whose agent says anything, up to the reply's JSON.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: one byte of options, then pieces: a length byte and as many bytes,
 * each of which arrives by itself. The whole path of brigd is real (frames,
 * connection, request, run, JSON) but the sandbox behind it, which is here.
 * Whatever comes, there is a result, and its JSON is valid.
 */
#include <errno.h>
#include <jansson.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/brigd/exec_reply.h"
#include "src/brigd/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEEP_MAX 4096u

static struct loop loop;
static struct app app = { .loop = &loop };
static struct sandbox_set set = { .app = &app };
static struct sandbox box;
static int guest_fd;
static bool done;
static struct buf stream = BUF_INIT(1 << 20);

/* --- The sandbox ------------------------------------------------------------- */

int sandbox_check_running(const struct sandbox *sb, struct fault *fault)
{
	return fault_set(fault, 422, "sandbox_not_running", "%s", sb->reason);
}

int sandbox_op_begin(struct sandbox *sb, struct sandbox_op *op,
		     struct fault *fault)
{
	(void)sb;
	(void)op;
	(void)fault;
	return 0;
}

void sandbox_op_end(struct sandbox *sb, struct sandbox_op *op)
{
	(void)sb;
	(void)op;
}

int vmm_peer_connect(struct vmm_peer *p, uint32_t port, struct vmm_call *call)
{
	int pair[2];

	(void)p;
	(void)port;
	ASSERT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	guest_fd = pair[1];
	call->on_reply(call, 0, pair[0], NULL);
	return 0;
}

void vmm_peer_cancel(struct vmm_peer *p, struct vmm_call *call)
{
	(void)p;
	(void)call;
}

/* --- The run ----------------------------------------------------------------- */

static void on_started(struct run *run)
{
	ASSERT(!done);
	stream.len = 0;
	ASSERT(exec_add_started(&stream, run) == 0);
}

static void on_output(struct run *run, enum run_stream which,
		      const uint8_t *bytes, size_t n)
{
	ASSERT(!done && run->started && n > 0 && n <= BRIG_FRAME_DATA_MAX);
	ASSERT(run->output[which].kept.len <= KEEP_MAX);
	stream.len = 0;
	ASSERT(exec_add_v1_output(&stream, which, bytes, n) == 0);
	ASSERT(exec_add_v2_output(&stream, which, 0, bytes, n) == 0);
}

static void on_done(struct run *run)
{
	(void)run;
	ASSERT(!done);
	done = true;
}

static const struct run_events events = {
	.on_started = on_started,
	.on_output = on_output,
	.on_done = on_done,
};

static void check_json(struct buf *text)
{
	json_t *v = json_loadb(text->data, text->len, JSON_ALLOW_NUL, NULL);

	ASSERT(json_is_object(v));
	json_decref(v);
	text->len = 0;
}

static void check_result(const struct run *run)
{
	struct exec_host_usage host = { .cpu_before_usec = UINT64_MAX };
	struct buf text = BUF_INIT(1 << 20);
	int code = run_exit_code(run);

	ASSERT(code >= -1 && code <= 255);
	ASSERT(exec_add_v1_result(&text, run) == 0);
	check_json(&text);
	ASSERT(exec_add_v1_end(&text, run) == 0);
	check_json(&text);
	ASSERT(exec_add_v2_result(&text, run, &host) == 0);
	check_json(&text);
	ASSERT(exec_add_v2_end(&text, run, &host, "req_x") == 0);
	check_json(&text);
	buf_free(&text);
}

static void feed(const uint8_t *data, size_t size)
{
	uint8_t sink[4096];

	while (size > 0 && !done) {
		size_t n = data[0] < size - 1 ? data[0] : size - 1;
		ssize_t put = send(guest_fd, data + 1, n,
				   MSG_DONTWAIT | MSG_NOSIGNAL);
		ASSERT(put == (ssize_t)n || put < 0);
		ASSERT(loop_once(&loop, 0) == 0);
		while (recv(guest_fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
		data += 1 + n;
		size -= 1 + n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const bodies[] = {
		"{\"command\":\"x\",\"timeout_s\":5}",
		"{\"command\":\"x\",\"stdin\":\"text\"}",
	};
	struct args_run args;
	struct fault fault;
	struct run run;

	if (size < 1)
		return 0;
	const char *body = bodies[data[0] & 1];
	ASSERT(args_parse_run(body, strlen(body), &args, &fault) == 0);
	ASSERT(loop_init(&loop) == 0);
	box.set = &set;
	done = false;
	ASSERT(run_start(&run, &box, &args, KEEP_MAX, &events, &fault) == 0);
	feed(data + 1, size - 1);
	(void)close(guest_fd);
	for (int i = 0; i < 8 && !done; i++)
		ASSERT(loop_once(&loop, 0) == 0);
	ASSERT(done);
	check_result(&run);
	run_free(&run);
	loop_fini(&loop);
	buf_free(&stream);
	return 0;
}
