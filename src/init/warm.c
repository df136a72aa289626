/* warm.c - interpreters that are started before there is code to run.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "fd.h"
#include "num.h"
#include "spawn.h"
#include "warm.h"
#include "warm_scripts.h" /* made from warm.py, warm.js, warm_reseed.c */

/* What a start may take: a slow machine imports a hundred files. */
#define START_NS (30 * NS_PER_S)

/* After a process was taken, its job has the CPU for so long. */
#define REFILL_NS (100 * NS_PER_MS)

/* Room in the channel: a job is sent at once or not at all. */
#define JOB_MAX ((size_t)2 * BRIG_FRAME_MAX)

/* Where warm.py and warm.js find their descriptors. */
#define KEEP_ASIDE 2u

static char python_boot[] =
	"exec(__import__('os').read(4, 65536), {'__name__': 'brig'})";
static char node_boot[] =
	"{const b = Buffer.alloc(65536);"
	"eval(b.toString('utf8', 0, require('fs').readSync(4, b)))}";

static const struct warm_process no_process = { .in = -1,
						.out = { -1, -1 },
						.channel = -1 };

static void start(struct warm_slot *s);

/* --- the end of a process ----------------------------------------------------*/

static void close_cgroup(struct warm *w, uint64_t *id)
{
	int none[2] = { -1, -1 };

	if (*id == 0)
		return;
	cgroup_kill(w->tree, *id);
	leftover_add(w->leftovers, *id, none);
	*id = 0;
}

static void drop_process(struct warm_slot *s)
{
	struct warm_process *p = &s->process;

	loop_del(s->all->loop, &s->source);
	reaper_del(s->all->reaper, &s->main);
	close_cgroup(s->all, &p->cgroup_id);
	fd_close(&p->in);
	fd_close(&p->out[0]);
	fd_close(&p->out[1]);
	fd_close(&p->channel);
	*p = no_process;
}

static void drop_zygote(struct warm_slot *s)
{
	reaper_del(s->all->reaper, &s->zygote);
	close_cgroup(s->all, &s->zygote_cgroup);
	fd_close(&s->control);
}

static void tell(struct warm_slot *s, struct warm_process *p)
{
	struct warm_waiter *waiter = s->waiter;

	s->waiter = NULL;
	waiter->slot = NULL;
	waiter->on_ready(waiter, p);
}

/* Tried again once where it has worked before, else when somebody asks. */
static void fail(struct warm_slot *s)
{
	loop_timer_del(s->all->loop, &s->timer);
	drop_process(s);
	drop_zygote(s);
	s->state = WARM_COLD;
	if (s->proven)
		loop_timer_set(s->all->loop, &s->timer, REFILL_NS);
	s->proven = false;
	if (s->waiter != NULL)
		tell(s, NULL);
}

/* What was ready has died: that is no reason to do without. */
static void replace(struct warm_slot *s)
{
	drop_process(s);
	s->state = WARM_COLD;
	loop_timer_set(s->all->loop, &s->timer, REFILL_NS);
}

static void lose(struct warm_slot *s)
{
	if (s->state == WARM_READY)
		replace(s);
	else
		fail(s);
}

static void on_main_exit(struct child *c, int status)
{
	(void)status;
	lose(container_of(c, struct warm_slot, main));
}

/* A process that is ready does without it. */
static void on_zygote_exit(struct child *c, int status)
{
	struct warm_slot *s = container_of(c, struct warm_slot, zygote);

	(void)status;
	drop_zygote(s);
	if (s->state == WARM_STARTING)
		fail(s);
}

/* --- a process that is ready -------------------------------------------------*/

/* Hands it over; the next is due in a while. */
static struct warm_process take_out(struct warm_slot *s)
{
	struct warm_process p = s->process;

	p.pid = s->main.pid;
	cgroup_read_usage(s->all->tree, p.cgroup_id, &p.before);
	loop_del(s->all->loop, &s->source);
	reaper_del(s->all->reaper, &s->main);
	s->process = no_process;
	s->state = WARM_COLD;
	loop_timer_set(s->all->loop, &s->timer, REFILL_NS);
	return p;
}

/* Python's was forked by another process: into a cgroup of its own. */
static int settle_fork(struct warm_slot *s, uint32_t pid)
{
	struct warm *w = s->all;
	int cgroup_fd = -1;

	if (pid <= 1 || pid > INT32_MAX || (pid_t)pid == getpid())
		return -EINVAL;
	int r = cgroup_take(w->tree, &s->process.cgroup_id, &cgroup_fd);
	if (r < 0)
		return r;
	fd_close(&cgroup_fd);
	reaper_add(w->reaper, &s->main, (pid_t)pid);
	return cgroup_move(w->tree, s->process.cgroup_id, (pid_t)pid);
}

static void on_channel(struct loop_fd *source, uint32_t events)
{
	struct warm_slot *s = container_of(source, struct warm_slot, source);
	uint8_t text[sizeof(uint32_t)];
	ssize_t got = read(s->process.channel, text, sizeof(text));

	(void)events;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (s->state != WARM_STARTING || got != (ssize_t)sizeof(text) ||
	    (s->main.pid == 0 && settle_fork(s, load_le32(text)) < 0)) {
		lose(s);
		return;
	}
	loop_timer_del(s->all->loop, &s->timer);
	s->state = WARM_READY;
	s->proven = true;
	if (s->waiter != NULL) {
		struct warm_process p = take_out(s);
		tell(s, &p);
	}
}

/* --- starting ---------------------------------------------------------------*/

static int make_pair(int type, int fds[2])
{
	int room = (int)JOB_MAX;

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	/* Where it is refused, large jobs go to plain interpreters. */
	(void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &room,
			 sizeof(room));
	return fd_set_nonblock(fds[0]);
}

static int send_all(int fd, const void *data, size_t n)
{
	ssize_t put = send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (put < 0)
		return -errno;
	return (size_t)put == n ? 0 : -EMSGSIZE;
}

/* The interpreter `argv` (ends with NULL) with `aside` as its descriptors 4 and 5. */
static int start_interpreter(struct warm_slot *s, char *const *argv,
			     const int aside[KEEP_ASIDE], uint64_t *cgroup_id,
			     struct child *child, struct spawned *ret)
{
	char store[SPAWN_STORE_BYTES];
	struct account who;
	cleanup_fd int cgroup_fd = -1;
	struct exec_request *req = calloc(1, sizeof(*req));

	if (req == NULL)
		return -ENOMEM;
	req->flags = GUEST_EXEC_STDIN;
	req->cwd = "";
	for (; argv[req->argc] != NULL; req->argc++)
		req->argv[req->argc] = argv[req->argc];
	account_root(&who);
	spawn_add_defaults(req, &who, store);
	int r = cgroup_take(s->all->tree, cgroup_id, &cgroup_fd);
	if (r == 0)
		r = spawn_start(req, &who, cgroup_fd, aside, ret);
	free(req);
	if (r < 0)
		return r;
	fd_close(&ret->report); /* that it is ready says more */
	reaper_add(s->all->reaper, child, ret->pid);
	return 0;
}

static int start_zygote(struct warm_slot *s)
{
	static char program[] = "python3";
	static char option[] = "-c";
	char *const argv[] = { program, option, python_boot, NULL };
	int pair[2] = { -1, -1 };
	struct spawned io = { .in = -1, .out = { -1, -1 }, .report = -1 };

	int r = make_pair(SOCK_SEQPACKET, pair);
	if (r == 0)
		r = send_all(pair[0], warm_python, sizeof(warm_python) - 1);
	if (r == 0) {
		const int aside[KEEP_ASIDE] = { pair[1], -1 };
		r = start_interpreter(s, argv, aside, &s->zygote_cgroup,
				      &s->zygote, &io);
	}
	if (r == 0)
		s->control = fd_take(&pair[0]);
	fd_close(&pair[0]);
	fd_close(&pair[1]);
	fd_close(&io.in);
	fd_close(&io.out[0]);
	fd_close(&io.out[1]);
	return r;
}

/* Asks the zygote for a process. */
static int start_python(struct warm_slot *s)
{
	struct warm_process *p = &s->process;
	int theirs[4] = { -1, -1, -1, -1 };
	int pair[2] = { -1, -1 };
	int r = s->control < 0 ? start_zygote(s) : 0;

	if (r == 0)
		r = make_pair(SOCK_STREAM, pair);
	if (r == 0) {
		p->channel = pair[0];
		theirs[0] = pair[1];
		r = spawn_make_pipe(&theirs[1], &p->in, true);
	}
	for (int i = 0; i < 2 && r == 0; i++)
		r = spawn_make_pipe(&theirs[2 + i], &p->out[i], false);
	if (r == 0)
		r = fd_send_packet(s->control, "f", 1, theirs,
				   ARRAY_LEN(theirs));
	for (size_t i = 0; i < ARRAY_LEN(theirs); i++)
		fd_close(&theirs[i]);
	return r;
}

static int make_library(void)
{
	cleanup_fd int fd = memfd_create("brig-reseed", MFD_CLOEXEC);
	int r = fd < 0 ? -errno
		       : fd_write_all(fd, warm_library, sizeof(warm_library));

	return r < 0 ? r : fd_take(&fd);
}

static int start_node(struct warm_slot *s)
{
	static char program[] = "node";
	static char flag[] = "--experimental-vm-modules";
	static char option[] = "-e";
	char *const argv[] = { program, flag, option, node_boot, NULL };
	struct warm_process *p = &s->process;
	int pair[2] = { -1, -1 };
	struct spawned io = { .in = -1, .out = { -1, -1 }, .report = -1 };
	cleanup_fd int library = make_library();

	int r = library < 0 ? library : make_pair(SOCK_STREAM, pair);
	if (r == 0) {
		p->channel = pair[0];
		r = send_all(pair[0], warm_node, sizeof(warm_node) - 1);
	}
	if (r == 0) {
		const int aside[KEEP_ASIDE] = { pair[1], library };
		r = start_interpreter(s, argv, aside, &p->cgroup_id, &s->main,
				      &io);
	}
	fd_close(&pair[1]);
	p->in = io.in;
	p->out[0] = io.out[0];
	p->out[1] = io.out[1];
	return r;
}

static void start(struct warm_slot *s)
{
	s->state = WARM_STARTING;
	loop_timer_set(s->all->loop, &s->timer, START_NS);
	int r = s->language == WARM_PYTHON ? start_python(s) : start_node(s);
	if (r == 0)
		r = loop_add(s->all->loop, &s->source, s->process.channel,
			     EPOLLIN);
	if (r < 0)
		fail(s);
}

static void on_timer(struct loop_timer *timer)
{
	struct warm_slot *s = container_of(timer, struct warm_slot, timer);

	if (s->state == WARM_COLD)
		start(s);
	else
		fail(s);
}

/* --- for runs -----------------------------------------------------------------*/

enum warm_answer warm_take(struct warm *w, enum warm_language language,
			   bool patient, struct warm_waiter *waiter,
			   struct warm_process *ret)
{
	struct warm_slot *s = &w->slots[language];

	if (s->state == WARM_READY) {
		*ret = take_out(s);
		return WARM_TAKEN;
	}
	if (s->waiter != NULL)
		return WARM_NONE;
	if (s->state == WARM_COLD && (patient || s->control >= 0))
		start(s);
	if (s->state == WARM_STARTING) {
		s->waiter = waiter;
		waiter->slot = s;
		return WARM_WAIT;
	}
	/* A first start takes longer than a plain interpreter. */
	if (!patient && !s->timer.armed)
		loop_timer_set(w->loop, &s->timer, REFILL_NS);
	return WARM_NONE;
}

void warm_cancel(struct warm_waiter *waiter)
{
	if (waiter->slot == NULL)
		return;
	waiter->slot->waiter = NULL;
	waiter->slot = NULL;
}

void warm_hurry(struct warm *w)
{
	for (size_t i = 0; i < ARRAY_LEN(w->slots); i++) {
		struct warm_slot *s = &w->slots[i];
		if (s->state == WARM_COLD && s->timer.armed)
			start(s);
	}
}

bool warm_is_settled(const struct warm *w)
{
	for (size_t i = 0; i < ARRAY_LEN(w->slots); i++) {
		if (w->slots[i].timer.armed)
			return false;
	}
	return true;
}

uint32_t warm_count_ready(const struct warm *w)
{
	uint32_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(w->slots); i++)
		n += w->slots[i].state == WARM_READY;
	return n;
}

uint32_t warm_count_tasks(const struct warm *w)
{
	uint32_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(w->slots); i++) {
		const struct warm_slot *s = &w->slots[i];
		if (s->zygote_cgroup != 0)
			n += cgroup_count_run(w->tree, s->zygote_cgroup);
		if (s->process.cgroup_id != 0)
			n += cgroup_count_run(w->tree, s->process.cgroup_id);
	}
	return n;
}

bool warm_fits(enum warm_language language, const struct exec_request *req,
	       const struct account *who)
{
	/* Beginnings of names. */
	static const char *const early[] = {
		"PYTHON", "NODE_",   "PATH=", "LANG",    "LC_",    "LD_",
		"UV_",    "OPENSSL", "SSL_",  "MALLOC_", "GLIBC_",
	};

	/* Node cannot become a user whose /proc/self is readable to himself. */
	if (language == WARM_NODE && who->uid != 0)
		return false;
	for (uint32_t i = 0; i < req->envc; i++) {
		for (size_t k = 0; k < ARRAY_LEN(early); k++) {
			if (strncmp(req->env[i], early[k], strlen(early[k])) ==
			    0)
				return false;
		}
	}
	return true;
}

static int add_string(struct buf *b, const char *s)
{
	return buf_add(b, s, strlen(s) + 1);
}

static int add_account(struct buf *b, const struct account *who)
{
	int r = buf_addf(b, "%u", who->uid);

	if (r == 0)
		r = buf_add(b, "", 1);
	if (r == 0)
		r = buf_addf(b, "%u", who->gid);
	if (r == 0)
		r = buf_add(b, "", 1);
	for (size_t i = 0; i < who->group_count && r == 0; i++)
		r = buf_addf(b, "%u ", who->groups[i]);
	if (r == 0)
		r = buf_add(b, "", 1);
	return r < 0 ? r : add_string(b, who->home);
}

int warm_send_job(int channel, const struct exec_request *req,
		  const struct account *who)
{
	cleanup_buf struct buf job = BUF_INIT(JOB_MAX);
	uint32_t size = 0;

	int r = buf_add(&job, &size, sizeof(size));
	if (r == 0)
		r = add_account(&job, who);
	if (r == 0)
		r = add_string(&job, req->cwd);
	if (r == 0)
		r = add_string(&job, req->argv[1]);
	for (size_t i = 0; req->env[i] != NULL && r == 0; i++)
		r = add_string(&job, req->env[i]);
	if (r < 0)
		return r;
	size = (uint32_t)(job.len - sizeof(size));
	memcpy(job.data, &size, sizeof(size));
	return send_all(channel, job.data, job.len);
}

/* --- beginning and end --------------------------------------------------------*/

void warm_init(struct warm *w)
{
	for (size_t i = 0; i < ARRAY_LEN(w->slots); i++) {
		w->slots[i] = (struct warm_slot){
			.all = w,
			.language = (enum warm_language)i,
			.timer = { .on_expire = on_timer },
			.zygote = { .on_exit = on_zygote_exit },
			.control = -1,
			.main = { .on_exit = on_main_exit },
			.process = no_process,
			.source = { .fd = -1, .on_event = on_channel },
		};
	}
}

void warm_fini(struct warm *w)
{
	for (size_t i = 0; i < ARRAY_LEN(w->slots); i++) {
		struct warm_slot *s = &w->slots[i];
		loop_timer_del(w->loop, &s->timer);
		drop_process(s);
		drop_zygote(s);
	}
}
