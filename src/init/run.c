/* run.c - one EXEC: from the request to its EXIT.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 *   STARTING   the child is on its way to execve, or a warm interpreter to
 *              the code; the report pipe tells. Without a child: an
 *              interpreter is waited for
 *   RUNNING    STARTED was put; output and input flow
 *   DRAINING   the main process was reaped; the pipes still hold `left[i]`
 *              bytes that it (or its children) wrote before that
 *   ENDING     the last frame (EXIT or ERROR) was put; then close
 *
 * pump() is the only place that puts frames: while the stream is idle it
 * takes the next thing to send. settle() then tells the loop what to wait
 * for: the socket's room when a frame is stuck, the pipes otherwise. The
 * other side closing the socket in any state kills the run, but in a copy of
 * the machine (freezer.h).
 */
#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "num.h"
#include "run.h"
#include "spawn.h"

/* Frames sent before other runs get their turn. */
#define FRAMES_PER_EVENT 16

/* A program that writes a little at a time would wake the agent, which comes
 * before it, for each little: after a small read that soon follows another
 * one, the pipes are left alone for a moment, so that a frame is full. The
 * first output of a pause is sent at once. */
#define SMALL_BYTES (16u << 10)
#define SOON_NS (2 * NS_PER_MS)
#define REST_NS NS_PER_MS

/* How long the other side may leave the last frames in the socket. */
#define ENDING_NS (600 * NS_PER_S)

/* How long a warm interpreter may keep a run waiting: to become ready, then to
 * answer. When nothing but that is asked for, the first start. */
#define PATIENCE_NS (5 * NS_PER_S)
#define FIRST_PATIENCE_NS (30 * NS_PER_S)

enum run_state {
	STARTING,
	RUNNING,
	DRAINING,
	ENDING
};

struct run {
	struct run_host host;
	void *owner;
	enum run_state state;
	uint32_t socket_events;
	struct stream stream;
	struct loop_fd socket;
	struct loop_timer deadline; /* of the program, then of ENDING */

	uint64_t cgroup_id; /* 0: none */
	struct child main;
	struct loop_fd report_source;
	int report;
	uint32_t started_pid; /* to be told when it runs; 0: told already */

	int in;
	struct loop_fd in_source; /* in the loop only while `in` is full */
	size_t in_sent;           /* of the STDIN frame at hand */

	int out[2];
	struct loop_fd out_source[2];
	uint64_t out_bytes[2];
	uint64_t left[2]; /* DRAINING: bytes still to be taken */
	uint64_t last_out_ns;
	int next_out;           /* whose turn it is */
	struct loop_timer rest; /* armed: the pipes gather output */

	/* What was asked for, until the program begins: code may have to be
	 * given to one interpreter and then to another. */
	struct exec_request *request; /* owned, as is what it points into */
	char *payload;
	struct account who;
	char cwd[64]; /* for its failure */

	/* of code */
	struct warm_waiter waiter;
	struct loop_timer patience; /* with a warm interpreter */
	struct cgroup_usage before; /* what it had used before it was ours */
	enum warm_language language;
	bool warm; /* the process is such a one */

	bool timed_out;
	uint64_t started_ns;
	struct guest_exit exit;
};

static void settle(struct run *r);
static void start_over(struct run *r);

static void close_report(struct run *r)
{
	loop_del(r->host.loop, &r->report_source);
	fd_close(&r->report);
}

static void close_in(struct run *r)
{
	loop_del(r->host.loop, &r->in_source);
	fd_close(&r->in);
}

static void close_out(struct run *r, int i)
{
	loop_del(r->host.loop, &r->out_source[i]);
	fd_close(&r->out[i]);
	r->left[i] = 0;
}

/* The main process apart: as root it may have left its cgroup. */
static void kill_all(const struct run *r)
{
	if (r->cgroup_id != 0)
		cgroup_kill(r->host.tree, r->cgroup_id);
	if (r->main.pid > 0)
		(void)kill(r->main.pid, SIGKILL);
}

static void forget_request(struct run *r)
{
	free(r->request);
	free(r->payload);
	r->request = NULL;
	r->payload = NULL;
}

/* The end of every run. With `all_die` nothing of it stays alive. */
static void destroy(struct run *r, bool all_die)
{
	struct loop *loop = r->host.loop;

	loop_timer_del(loop, &r->deadline);
	loop_timer_del(loop, &r->rest);
	loop_timer_del(loop, &r->patience);
	warm_cancel(&r->waiter);
	forget_request(r);
	loop_del(loop, &r->socket);
	stream_fini(&r->stream);
	close_report(r);
	close_in(r);
	loop_del(loop, &r->out_source[0]);
	loop_del(loop, &r->out_source[1]);
	if (all_die) {
		kill_all(r);
		fd_close(&r->out[0]);
		fd_close(&r->out[1]);
	}
	reaper_del(r->host.reaper, &r->main);
	if (r->cgroup_id != 0)
		leftover_add(r->host.leftovers, r->cgroup_id, r->out);
	free(r);
}

static void finish(struct run *r, bool all_die)
{
	void (*on_done)(void *) = r->host.on_done;
	void *owner = r->owner;

	destroy(r, all_die);
	on_done(owner);
}

void run_abort(struct run *r)
{
	destroy(r, true);
}

/* The connection broke. While everything is frozen that may be because this
 * is a copy: there a program goes on, one that has not begun does not. */
static void lose(struct run *r)
{
	bool lives = r->state != STARTING && r->cgroup_id != 0 &&
		     freezer_adopt(r->host.freezer, r->cgroup_id);

	finish(r, !lives);
}

/* --- output ---------------------------------------------------------------*/

static void rest_if_hot(struct run *r, size_t got)
{
	uint64_t now = now_ns();

	if (got < SMALL_BYTES && now - r->last_out_ns < SOON_NS)
		loop_timer_set(r->host.loop, &r->rest, REST_NS);
	r->last_out_ns = now;
}

/* Takes what pipe `i` has into one frame; false when it has nothing now. */
static bool take_output(struct run *r, int i)
{
	static const enum guest_frame_type types[] = { GUEST_STDOUT,
						       GUEST_STDERR };
	size_t n = BRIG_FRAME_DATA_MAX;

	if (r->out[i] < 0 || (r->state == DRAINING && r->left[i] == 0))
		return false;
	if (r->state == DRAINING)
		n = (size_t)u64_min(n, r->left[i]);
	ssize_t got = read(r->out[i], stream_room(&r->stream), n);
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		r->left[i] = 0;
		return false;
	}
	if (got <= 0) {
		close_out(r, i);
		return false;
	}
	stream_commit(&r->stream, types[i], (size_t)got);
	r->out_bytes[i] += (uint64_t)got;
	if (r->state == DRAINING)
		r->left[i] -= (uint64_t)got;
	else
		rest_if_hot(r, (size_t)got);
	r->next_out = 1 - i;
	return true;
}

static void put_exit(struct run *r)
{
	r->exit.stdout_bytes = r->out_bytes[0];
	r->exit.stderr_bytes = r->out_bytes[1];
	stream_put(&r->stream, GUEST_EXIT, &r->exit, sizeof(r->exit));
	r->state = ENDING;
}

/* Puts the next frame, if there is anything to say. */
static bool put_next(struct run *r)
{
	if (r->state == STARTING || r->state == ENDING)
		return false;
	if (r->started_pid != 0) {
		struct guest_started started = { .pid = r->started_pid };
		r->started_pid = 0;
		stream_put(&r->stream, GUEST_STARTED, &started,
			   sizeof(started));
		return true;
	}
	if (r->rest.armed && r->state == RUNNING)
		return false;
	int first = r->next_out;
	if (take_output(r, first) || take_output(r, 1 - first))
		return true;
	if (r->state != DRAINING)
		return false;
	put_exit(r);
	return true;
}

/* Sends what there is. May free the run: the last thing a callback does. */
static void pump(struct run *r)
{
	for (int i = 0; i < FRAMES_PER_EVENT; i++) {
		int sent = stream_flush(&r->stream);
		if (sent < 0) {
			lose(r);
			return;
		}
		if (sent == 0)
			break;
		if (r->state == ENDING) {
			finish(r, r->timed_out);
			return;
		}
		if (!put_next(r))
			break;
	}
	settle(r);
}

/* --- input ----------------------------------------------------------------*/

/* Passes the STDIN frame at hand on; false while the pipe is full. */
static bool feed(struct run *r)
{
	struct stream *s = &r->stream;

	while (r->in >= 0 && r->in_sent < s->head.length) {
		ssize_t put = write(r->in, s->in + r->in_sent,
				    s->head.length - r->in_sent);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EAGAIN)
			return false;
		if (put < 0)
			close_in(r); /* the program reads no more */
		else
			r->in_sent += (size_t)put;
	}
	return true;
}

static void send_signal(const struct run *r)
{
	uint32_t number = load_le32(r->stream.in);

	/* The process leads its group, and keeps its pid until reaped. */
	if (r->main.pid > 0 && number >= 1 && number < (uint32_t)_NSIG)
		(void)kill(-r->main.pid, (int)number);
}

/* False while the frame has to wait. */
static bool take_frame(struct run *r)
{
	switch (r->stream.head.type) {
	case GUEST_STDIN:
		return feed(r);
	case GUEST_STDIN_EOF:
		close_in(r);
		return true;
	default: /* frames_check lets only SIGNAL through besides */
		send_signal(r);
		return true;
	}
}

/* Handles what the host sent; -errno when the connection is done for. */
static int take_input(struct run *r)
{
	for (int i = 0; i < FRAMES_PER_EVENT && r->request == NULL; i++) {
		int got = stream_read(&r->stream, FRAMES_RUN);
		if (got <= 0)
			return got;
		if (!take_frame(r))
			return 0;
		stream_next(&r->stream);
		r->in_sent = 0;
	}
	return 0;
}

static bool input_waits(const struct run *r)
{
	const struct stream *s = &r->stream;

	return r->in >= 0 && s->head_got == sizeof(s->head) &&
	       s->head.type == GUEST_STDIN && s->in_got == s->head.length;
}

/* --- the loop ---------------------------------------------------------------*/

static int watch(struct run *r, struct loop_fd *source, int fd, bool wanted,
		 uint32_t events)
{
	if (fd < 0 || wanted == (source->fd >= 0))
		return 0;
	if (!wanted) {
		loop_del(r->host.loop, source);
		return 0;
	}
	return loop_add(r->host.loop, source, fd, events);
}

/* Tells the loop what this run waits for. */
static void settle(struct run *r)
{
	bool stuck = !stream_idle(&r->stream);
	bool waits = input_waits(r);
	bool open =
		(r->state == RUNNING && !r->rest.armed) || r->state == DRAINING;
	/* Nothing is taken for a program that has not begun. */
	bool early = r->request != NULL;
	uint32_t events = EPOLLRDHUP | (stuck ? EPOLLOUT : 0u) |
			  (waits || early ? 0u : EPOLLIN);
	int bad = 0;

	for (int i = 0; i < 2; i++)
		bad |= watch(r, &r->out_source[i], r->out[i], open && !stuck,
			     EPOLLIN);
	bad |= watch(r, &r->in_source, r->in, waits, EPOLLOUT);
	if (events != r->socket_events)
		bad |= loop_mod(r->host.loop, &r->socket, events);
	r->socket_events = events;
	if (bad != 0)
		finish(r, true);
}

static void on_socket(struct loop_fd *source, uint32_t events)
{
	struct run *r = container_of(source, struct run, socket);

	if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) ||
	    ((events & EPOLLIN) && take_input(r) < 0)) {
		lose(r);
		return;
	}
	pump(r);
}

static void on_stdout(struct loop_fd *source, uint32_t events)
{
	(void)events;
	pump(container_of(source, struct run, out_source[0]));
}

static void on_stderr(struct loop_fd *source, uint32_t events)
{
	(void)events;
	pump(container_of(source, struct run, out_source[1]));
}

static void on_rest(struct loop_timer *t)
{
	pump(container_of(t, struct run, rest));
}

static void on_in(struct loop_fd *source, uint32_t events)
{
	struct run *r = container_of(source, struct run, in_source);

	(void)events;
	if (feed(r)) {
		stream_next(&r->stream);
		r->in_sent = 0;
	}
	settle(r);
}

/* Ends the run with an ERROR instead of an EXIT. */
static void put_failure(struct run *r, enum guest_error_stage stage, int error,
			const char *what)
{
	stream_put_error(&r->stream, stage, error, "%s", what);
	r->state = ENDING;
	loop_timer_set(r->host.loop, &r->deadline, ENDING_NS);
}

/* The child is about to begin, or says why not. */
static void take_report(struct run *r)
{
	struct spawn_failure f;
	ssize_t got = read(r->report, &f, sizeof(f));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r->warm && got <= 0 && !r->timed_out) {
		start_over(r);
		return;
	}
	close_report(r);
	loop_timer_del(r->host.loop, &r->patience);
	if (got == (ssize_t)sizeof(f))
		put_failure(r, (enum guest_error_stage)f.stage, (int)f.error,
			    f.stage == GUEST_AT_CWD ? r->cwd
						    : r->request->argv[0]);
	else
		r->state = RUNNING;
	forget_request(r);
}

static void on_report(struct loop_fd *source, uint32_t events)
{
	struct run *r = container_of(source, struct run, report_source);

	(void)events;
	take_report(r);
	pump(r);
}

static void on_deadline(struct loop_timer *timer)
{
	struct run *r = container_of(timer, struct run, deadline);

	if (r->state == DRAINING || r->state == ENDING) {
		finish(r, true);
		return;
	}
	r->timed_out = true;
	kill_all(r);
}

/* --- beginning and end ------------------------------------------------------*/

static void fill_exit(struct run *r, int status)
{
	struct cgroup_usage used;
	struct guest_exit *e = &r->exit;

	e->wall_ns = now_ns() - r->started_ns;
	cgroup_read_usage(r->host.tree, r->cgroup_id, &used);
	e->cpu_user_ns =
		used.user_ns - u64_min(used.user_ns, r->before.user_ns);
	e->cpu_system_ns =
		used.system_ns - u64_min(used.system_ns, r->before.system_ns);
	e->memory_peak_bytes = used.memory_peak_bytes;
	e->reason = GUEST_EXITED;
	e->code = (uint32_t)WEXITSTATUS(status);
	if (WIFSIGNALED(status)) {
		e->reason = GUEST_SIGNALED;
		e->code = (uint32_t)WTERMSIG(status);
		if (WTERMSIG(status) == SIGKILL && used.oom_kills > 0)
			e->reason = GUEST_OOM;
	}
	if (r->timed_out) {
		e->reason = GUEST_TIMED_OUT;
		e->code = SIGKILL;
	}
}

static void on_main_exit(struct child *c, int status)
{
	struct run *r = container_of(c, struct run, main);

	if (r->state == STARTING)
		take_report(r);
	if (r->main.pid > 0)
		return; /* another one was started instead */
	if (r->state != RUNNING) {
		pump(r);
		return;
	}
	fill_exit(r, status);
	close_in(r);
	r->state = DRAINING;
	for (int i = 0; i < 2; i++) {
		int held = 0;
		if (r->out[i] >= 0 && ioctl(r->out[i], FIONREAD, &held) == 0)
			r->left[i] = (uint64_t)held;
	}
	loop_timer_set(r->host.loop, &r->deadline, ENDING_NS);
	pump(r);
}

/* The process `pid` is the run's; the program in it has not begun. */
static void adopt(struct run *r, pid_t pid)
{
	reaper_add(r->host.reaper, &r->main, pid);
	r->started_pid = (uint32_t)pid;
	r->started_ns = now_ns();
	if (r->request->timeout_ms != 0)
		loop_timer_set(r->host.loop, &r->deadline,
			       r->request->timeout_ms * NS_PER_MS);
	if (loop_add(r->host.loop, &r->report_source, r->report, EPOLLIN) < 0) {
		kill_all(r);
		put_failure(r, GUEST_AT_FORK, ENOMEM, "event loop");
	}
}

static void start_program(struct run *r)
{
	static const int none[SPAWN_ASIDE] = { -1, -1 };
	char store[SPAWN_STORE_BYTES];
	struct spawned child;
	cleanup_fd int cgroup_fd = -1;

	spawn_add_defaults(r->request, &r->who, store);
	int error = cgroup_take(r->host.tree, &r->cgroup_id, &cgroup_fd);
	if (error < 0) {
		put_failure(r, GUEST_AT_FORK, -error, "cgroup of the run");
		return;
	}
	error = spawn_start(r->request, &r->who, cgroup_fd, none, &child);
	if (error < 0) {
		put_failure(r, GUEST_AT_FORK, -error, "fork");
		return;
	}
	r->in = child.in;
	r->out[0] = child.out[0];
	r->out[1] = child.out[1];
	r->report = child.report;
	adopt(r, child.pid);
}

/* --- code -------------------------------------------------------------------*/

/* Code in an interpreter that starts for it. */
static void start_plain(struct run *r)
{
	static char python[] = "python3";
	static char node[] = "node";
	static char option[2][3] = { "-c", "-e" };
	struct exec_request *req = r->request;
	const char *code = req->argv[1];
	char *eval = NULL;

	req->argv[0] = r->language == WARM_PYTHON ? python : node;
	if (r->language == WARM_NODE && code[0] == '-') {
		/* Node would take it for an option. */
		if (asprintf(&eval, "--eval=%s", code) < 0) {
			put_failure(r, GUEST_AT_FORK, ENOMEM, "memory");
			return;
		}
		req->argv[1] = eval;
		req->argv[2] = NULL;
	} else {
		req->argv[2] = req->argv[1];
		req->argv[1] = option[r->language];
		req->argv[3] = NULL;
	}
	start_program(r);
	free(eval);
}

/* The warm interpreter did not come up to the code. */
static void start_over(struct run *r)
{
	loop_timer_del(r->host.loop, &r->patience);
	loop_timer_del(r->host.loop, &r->deadline);
	close_report(r);
	close_in(r);
	close_out(r, 0);
	close_out(r, 1);
	kill_all(r);
	reaper_del(r->host.reaper, &r->main);
	leftover_add(r->host.leftovers, r->cgroup_id, r->out);
	r->cgroup_id = 0;
	r->before = (struct cgroup_usage){ .user_ns = 0 };
	r->started_pid = 0;
	r->warm = false;
	start_plain(r);
}

static void start_warm(struct run *r, const struct warm_process *p)
{
	char store[SPAWN_STORE_BYTES];

	r->warm = true;
	r->cgroup_id = p->cgroup_id;
	r->before = p->before;
	r->in = p->in;
	r->out[0] = p->out[0];
	r->out[1] = p->out[1];
	r->report = p->channel;
	if (!(r->request->flags & GUEST_EXEC_STDIN))
		fd_close(&r->in);
	spawn_add_defaults(r->request, &r->who, store);
	int error = warm_send_job(r->report, r->request, &r->who);
	adopt(r, p->pid);
	if (error < 0)
		start_over(r);
	else
		loop_timer_set(r->host.loop, &r->patience, PATIENCE_NS);
}

static void on_warm(struct warm_waiter *waiter, struct warm_process *p)
{
	struct run *r = container_of(waiter, struct run, waiter);

	loop_timer_del(r->host.loop, &r->patience);
	if (p == NULL)
		start_plain(r);
	else
		start_warm(r, p);
	pump(r);
}

static void on_patience(struct loop_timer *timer)
{
	struct run *r = container_of(timer, struct run, patience);

	if (r->warm) {
		start_over(r);
	} else {
		warm_cancel(&r->waiter);
		start_plain(r);
	}
	pump(r);
}

/* Without code only the interpreter is asked for, warm. */
static void launch_code(struct run *r)
{
	struct exec_request *req = r->request;
	bool empty = req->argv[1][0] == '\0';
	struct warm_process p;
	enum warm_answer answer = WARM_NONE;

	/* While all is frozen a process does not answer. */
	if (!r->host.freezer->frozen && warm_fits(r->language, req, &r->who))
		answer = warm_take(r->host.warm, r->language, empty, &r->waiter,
				   &p);
	if (answer == WARM_TAKEN)
		start_warm(r, &p);
	else if (answer == WARM_NONE)
		start_plain(r);
	else
		loop_timer_set(r->host.loop, &r->patience,
			       empty ? FIRST_PATIENCE_NS : PATIENCE_NS);
}

/* --- beginning and end ------------------------------------------------------*/

/* False for one that is not known. Bash becomes a shell line: there is nothing
 * to be had from a warm one. */
static bool set_language(struct run *r)
{
	struct exec_request *req = r->request;
	const char *name = req->argv[0];

	r->language = strcmp(name, "node") == 0 ? WARM_NODE : WARM_PYTHON;
	if (strcmp(name, "bash") == 0) {
		req->flags ^= GUEST_EXEC_CODE | GUEST_EXEC_SHELL;
		req->argv[0] = req->argv[1];
		return true;
	}
	return r->language == WARM_NODE || strcmp(name, "python") == 0;
}

static void launch(struct run *r)
{
	struct exec_request *req = r->request;

	(void)snprintf(r->cwd, sizeof(r->cwd), "%s", req->cwd);
	account_root(&r->who);
	int error = req->user[0] == '\0'
			    ? 0
			    : account_find("/etc", req->user, &r->who);
	if (error < 0)
		put_failure(r, GUEST_AT_USER, -error, req->user);
	else if ((req->flags & GUEST_EXEC_CODE) && !set_language(r))
		put_failure(r, GUEST_AT_REQUEST, EINVAL, "language");
	else if (req->flags & GUEST_EXEC_CODE)
		launch_code(r);
	else
		start_program(r);
}

/* What the request asks for; a frame is put when that cannot be done. */
static void begin(struct run *r)
{
	size_t n = r->stream.head.length;

	r->payload = stream_take(&r->stream);
	r->request = calloc(1, sizeof(*r->request));
	if (r->request == NULL)
		put_failure(r, GUEST_AT_FORK, ENOMEM, "memory");
	else if (frames_parse_exec(r->payload, n, r->request) < 0)
		put_failure(r, GUEST_AT_REQUEST, EINVAL, "EXEC frame");
	else
		launch(r);
}

static void prepare(struct run *r)
{
	r->socket = (struct loop_fd){ .fd = -1, .on_event = on_socket };
	r->report_source = (struct loop_fd){ .fd = -1, .on_event = on_report };
	r->in_source = (struct loop_fd){ .fd = -1, .on_event = on_in };
	r->out_source[0] = (struct loop_fd){ .fd = -1, .on_event = on_stdout };
	r->out_source[1] = (struct loop_fd){ .fd = -1, .on_event = on_stderr };
	r->deadline = (struct loop_timer){ .on_expire = on_deadline };
	r->rest = (struct loop_timer){ .on_expire = on_rest };
	r->main = (struct child){ .on_exit = on_main_exit };
	r->patience = (struct loop_timer){ .on_expire = on_patience };
	r->waiter = (struct warm_waiter){ .on_ready = on_warm };
	r->report = -1;
	r->in = -1;
	r->out[0] = -1;
	r->out[1] = -1;
}

struct run *run_start(const struct run_host *host, struct stream *s,
		      void *owner)
{
	struct run *r = calloc(1, sizeof(*r));

	if (r == NULL) {
		stream_fini(s);
		return NULL;
	}
	r->host = *host;
	r->owner = owner;
	r->stream = *s;
	*s = (struct stream){ .fd = -1 };
	prepare(r);
	begin(r);
	r->socket_events = EPOLLRDHUP | EPOLLIN | EPOLLOUT;
	int bad = loop_add(host->loop, &r->socket, r->stream.fd,
			   r->socket_events);
	if (bad != 0) {
		run_abort(r);
		return NULL;
	}
	return r;
}
