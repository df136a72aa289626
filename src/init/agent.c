/* agent.c - the agent: accepts connections, serves one operation on each.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A connection begins as a stream whose first frame is awaited under a
 * deadline. That frame decides who serves the rest: a run, a child process,
 * or the agent itself, which then only has one reply to get out.
 */
#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "fd.h"
#include "files.h"
#include "num.h"
#include "poweroff.h"
#include "status.h"

/* How long a connection may take for its request, and a reply to leave. */
#define REQUEST_NS (10 * NS_PER_S)

/* Rest after accept(2) found no descriptor or memory. */
#define ACCEPT_PAUSE_NS (20 * NS_PER_MS)

/* Connections and processes dealt with before others get their turn. */
#define ACCEPTS_PER_EVENT 16
#define REAPS_PER_EVENT 256

struct conn {
	struct agent *agent;
	struct stream stream; /* fd -1 once handed on */
	struct loop_fd socket;
	struct loop_timer deadline;
	struct run *run;
	struct child helper; /* process that serves a file */
};

static void close_conn(struct conn *c)
{
	struct agent *a = c->agent;

	loop_timer_del(a->loop, &c->deadline);
	loop_del(a->loop, &c->socket);
	reaper_del(&a->reaper, &c->helper);
	stream_fini(&c->stream);
	for (unsigned int i = 0; i < AGENT_CONNS_MAX; i++) {
		if (a->conns[i] == c)
			a->conns[i] = NULL;
	}
	a->conn_count--;
	free(c);
	loop_timer_set(a->loop, &a->idle, 0);
}

static void on_helper_exit(struct child *child, int status)
{
	(void)status;
	close_conn(container_of(child, struct conn, helper));
}

static void on_quiesce_done(void *owner)
{
	close_conn(owner);
}

static void on_run_done(void *owner)
{
	struct conn *c = owner;

	struct agent *a = c->agent;

	c->run = NULL;
	close_conn(c);
	warm_hurry(&a->warm);
}

static void on_deadline(struct loop_timer *timer)
{
	close_conn(container_of(timer, struct conn, deadline));
}

/* --- requests ---------------------------------------------------------------*/

static void reply_status(struct conn *c)
{
	struct guest_status status;

	status_read(c->agent->tree, &status);
	status.processes -= (uint32_t)u64_min(
		status.processes, warm_count_tasks(&c->agent->warm));
	stream_put(&c->stream, GUEST_STATUS_REPLY, &status, sizeof(status));
}

/* The child has its own copy of the socket; ours only waits for its end. */
static void start_helper(struct conn *c)
{
	pid_t pid = files_start(&c->stream);

	if (pid < 0) {
		stream_put_error(&c->stream, GUEST_AT_FORK, (int)-pid,
				 "process for the file");
		return;
	}
	reaper_add(&c->agent->reaper, &c->helper, pid);
	loop_timer_del(c->agent->loop, &c->deadline);
	loop_del(c->agent->loop, &c->socket);
	stream_fini(&c->stream);
}

static void start_run(struct conn *c)
{
	struct agent *a = c->agent;

	loop_timer_del(a->loop, &c->deadline);
	loop_del(a->loop, &c->socket);
	c->run = run_start(&a->host, &c->stream, c);
	if (c->run == NULL)
		close_conn(c);
}

/* Sends the reply; closes when it is out or cannot go out. */
static void send_reply(struct conn *c)
{
	int r = stream_flush(&c->stream);

	if (r == 0 && loop_mod(c->agent->loop, &c->socket, EPOLLOUT) == 0)
		return;
	close_conn(c);
}

static void start_quiesce(struct conn *c)
{
	struct agent *a = c->agent;

	loop_timer_del(a->loop, &c->deadline);
	loop_del(a->loop, &c->socket);
	int r = quiesce_start(&a->quiesce, &c->stream, c);
	if (r == 0)
		return;
	stream_put_error(&c->stream, GUEST_AT_REQUEST, -r, "QUIESCE");
	if (loop_add(a->loop, &c->socket, c->stream.fd, EPOLLOUT) < 0)
		close_conn(c);
	else
		send_reply(c);
}

static void serve(struct conn *c)
{
	switch (c->stream.head.type) {
	case GUEST_EXEC:
		start_run(c);
		return;
	case GUEST_QUIESCE:
		start_quiesce(c);
		return;
	case GUEST_STATUS:
		reply_status(c);
		break;
	case GUEST_POWEROFF:
		poweroff(c->agent->loop, c->agent->tree);
		break;
	default: /* frames_check leaves READ, WRITE and STAT */
		start_helper(c);
		if (c->helper.pid != 0)
			return;
		break;
	}
	send_reply(c);
}

static void on_socket(struct loop_fd *source, uint32_t events)
{
	struct conn *c = container_of(source, struct conn, socket);

	(void)events;
	if (!stream_idle(&c->stream)) {
		send_reply(c);
		return;
	}
	int r = stream_read(&c->stream, FRAMES_REQUEST);
	if (r < 0)
		close_conn(c);
	else if (r == 1)
		serve(c);
}

/* --- accepting --------------------------------------------------------------*/

static struct conn *make_conn(struct agent *a, int fd)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->agent = a;
	c->socket = (struct loop_fd){ .fd = -1, .on_event = on_socket };
	c->deadline = (struct loop_timer){ .on_expire = on_deadline };
	c->helper = (struct child){ .on_exit = on_helper_exit };
	if (stream_init(&c->stream, fd) < 0) {
		free(c);
		return NULL;
	}
	if (loop_add(a->loop, &c->socket, fd, EPOLLIN) < 0) {
		c->stream.fd = -1;
		stream_fini(&c->stream);
		free(c);
		return NULL;
	}
	return c;
}

/* Says why and closes: one short frame fits into any fresh socket. */
static void turn_away(int fd, int error, const char *why)
{
	struct stream s;

	if (stream_init(&s, fd) < 0) {
		(void)close(fd);
		return;
	}
	stream_put_error(&s, GUEST_AT_FORK, error, "%s", why);
	int r = stream_flush(&s);
	(void)r;
	stream_fini(&s);
}

static void admit(struct agent *a, int fd)
{
	if (a->conn_count == AGENT_CONNS_MAX) {
		turn_away(fd, EAGAIN, "too many connections");
		return;
	}
	struct conn *c = make_conn(a, fd);
	if (c == NULL) {
		turn_away(fd, ENOMEM, "memory");
		return;
	}
	unsigned int slot = 0;
	while (a->conns[slot] != NULL)
		slot++;
	a->conns[slot] = c;
	a->conn_count++;
	loop_timer_set(a->loop, &c->deadline, REQUEST_NS);
}

static void on_listen(struct loop_fd *source, uint32_t events)
{
	struct agent *a = container_of(source, struct agent, listener);

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
		int fd = accept4(a->listen_fd, NULL, NULL,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			admit(a, fd);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		/* EMFILE, ENFILE, ENOMEM: they pass. */
		loop_del(a->loop, &a->listener);
		loop_timer_set(a->loop, &a->listen_again, ACCEPT_PAUSE_NS);
		return;
	}
}

static void on_listen_again(struct loop_timer *timer)
{
	struct agent *a = container_of(timer, struct agent, listen_again);

	if (loop_add(a->loop, &a->listener, a->listen_fd, EPOLLIN) < 0)
		loop_timer_set(a->loop, &a->listen_again, ACCEPT_PAUSE_NS);
}

/* --- processes that ended ---------------------------------------------------*/

static void reap(struct agent *a)
{
	for (int i = 0; i < REAPS_PER_EVENT; i++) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid <= 0)
			return;
		reaper_exited(&a->reaper, pid, status);
	}
	loop_timer_set(a->loop, &a->reap_again, 0);
}

static void on_signal(struct loop_fd *source, uint32_t events)
{
	struct agent *a = container_of(source, struct agent, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(a->signal_fd, &info, sizeof(info)) > 0)
		continue;
	reap(a);
}

static void on_reap_again(struct loop_timer *timer)
{
	reap(container_of(timer, struct agent, reap_again));
}

static void on_idle(struct loop_timer *timer)
{
	struct agent *a = container_of(timer, struct agent, idle);

	cgroup_prepare(a->tree);
}

/* --- beginning and end ------------------------------------------------------*/

/* Every signal is blocked: PID 1 ends for none, a write to a closed pipe is
 * an error like others, and SIGCHLD comes through a descriptor. */
static int open_signals(struct agent *a)
{
	sigset_t all;
	sigset_t wanted;

	(void)sigfillset(&all);
	(void)sigemptyset(&wanted);
	(void)sigaddset(&wanted, SIGCHLD);
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0)
		return -errno;
	a->signal_fd = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
	return a->signal_fd < 0 ? -errno : 0;
}

static void link_parts(struct agent *a, const struct agent_config *config)
{
	const struct hooks hooks = {
		.loop = a->loop,
		.reaper = &a->reaper,
		.tree = config->hooks,
		.leftovers = &a->hook_leftovers,
	};

	a->freezer = (struct freezer){
		.runs = config->runs,
		.hooks = config->hooks,
	};
	a->warm = (struct warm){
		.loop = a->loop,
		.tree = config->runs,
		.reaper = &a->reaper,
		.leftovers = &a->leftovers,
	};
	a->host = (struct run_host){
		.loop = a->loop,
		.tree = config->runs,
		.leftovers = &a->leftovers,
		.reaper = &a->reaper,
		.freezer = &a->freezer,
		.warm = &a->warm,
		.on_done = on_run_done,
	};
	a->quiesce = (struct quiesce){
		.loop = a->loop,
		.reaper = &a->reaper,
		.freezer = &a->freezer,
		.ready = &a->ready,
		.warm = &a->warm,
		.hooks = hooks,
		.on_done = on_quiesce_done,
	};
	a->ready = (struct ready){
		.loop = a->loop,
		.connect = config->connect,
		.configure = {
			.freezer = &a->freezer,
			.hooks = hooks,
			.disk_grown = config->disk_grown,
		},
	};
}

int agent_init(struct agent *a, struct loop *loop,
	       const struct agent_config *config)
{
	*a = (struct agent){
		.loop = loop,
		.tree = config->runs,
		.leftovers = { .loop = loop, .tree = config->runs },
		.hook_leftovers = { .loop = loop, .tree = config->hooks },
		.listen_fd = config->listen_fd,
		.listener = { .fd = -1, .on_event = on_listen },
		.listen_again = { .on_expire = on_listen_again },
		.signal_fd = -1,
		.signals = { .fd = -1, .on_event = on_signal },
		.reap_again = { .on_expire = on_reap_again },
		.idle = { .on_expire = on_idle },
	};
	link_parts(a, config);
	int r = open_signals(a);
	if (r == 0)
		r = fd_set_nonblock(a->listen_fd);
	if (r == 0)
		r = loop_add(loop, &a->signals, a->signal_fd, EPOLLIN);
	if (r == 0)
		r = loop_add(loop, &a->listener, a->listen_fd, EPOLLIN);
	if (r < 0)
		return r;
	warm_init(&a->warm);
	quiesce_init(&a->quiesce);
	ready_init(&a->ready);
	loop_timer_set(loop, &a->idle, 0);
	return 0;
}

void agent_fini(struct agent *a)
{
	ready_fini(&a->ready);
	quiesce_fini(&a->quiesce);
	for (unsigned int i = 0; i < AGENT_CONNS_MAX; i++) {
		if (a->conns[i] == NULL)
			continue;
		if (a->conns[i]->run != NULL)
			run_abort(a->conns[i]->run);
		close_conn(a->conns[i]);
	}
	warm_fini(&a->warm);
	leftover_fini(&a->leftovers);
	leftover_fini(&a->hook_leftovers);
	loop_timer_del(a->loop, &a->listen_again);
	loop_timer_del(a->loop, &a->reap_again);
	loop_timer_del(a->loop, &a->idle);
	loop_del(a->loop, &a->listener);
	loop_del(a->loop, &a->signals);
	fd_close(&a->listen_fd);
	fd_close(&a->signal_fd);
}
