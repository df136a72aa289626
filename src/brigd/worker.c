/* worker.c - one thread for what blocks.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two lists under one lock: jobs to do, jobs done. An eventfd in the loop says
 * that the second is not empty.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "worker.h"

struct job_list {
	struct worker_job *first;
	struct worker_job *last;
};

struct worker {
	struct loop *loop;
	struct loop_fd source;
	int event_fd;
	pthread_t thread;
	bool freed;      /* loop only: worker_free() was called from done() */
	bool delivering; /* loop only */

	atomic_bool stopping; /* set with the lock held */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct job_list waiting;
	struct job_list finished;
};

static _Thread_local struct worker *current; /* worker threads only */

static void list_add(struct job_list *l, struct worker_job *job)
{
	job->next = NULL;
	if (l->first == NULL)
		l->first = job;
	else
		l->last->next = job;
	l->last = job;
}

static struct worker_job *list_take(struct job_list *l)
{
	struct worker_job *job = l->first;

	if (job != NULL)
		l->first = job->next;
	return job;
}

/* With the lock held. */
static void finish(struct worker *w, struct worker_job *job)
{
	uint64_t one = 1;

	list_add(&w->finished, job);
	ssize_t n = write(w->event_fd, &one, sizeof(one));
	ASSERT(n == (ssize_t)sizeof(one));
}

static void *run(void *arg)
{
	struct worker *w = arg;

	current = w;
	(void)pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->stopping && w->waiting.first == NULL)
			(void)pthread_cond_wait(&w->more, &w->lock);
		if (w->stopping)
			break;
		struct worker_job *job = list_take(&w->waiting);
		(void)pthread_mutex_unlock(&w->lock);
		job->work(job);
		(void)pthread_mutex_lock(&w->lock);
		finish(w, job);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

static struct worker_job *take_finished(struct worker *w)
{
	(void)pthread_mutex_lock(&w->lock);
	struct worker_job *job = list_take(&w->finished);
	(void)pthread_mutex_unlock(&w->lock);
	return job;
}

static void destroy(struct worker *w)
{
	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_cond_destroy(&w->more);
	fd_close(&w->event_fd);
	free(w);
}

static void on_finished(struct loop_fd *source, uint32_t events)
{
	struct worker *w = container_of(source, struct worker, source);
	struct worker_job *job;
	uint64_t count;

	(void)events;
	ssize_t n = read(w->event_fd, &count, sizeof(count));
	ASSERT(n == (ssize_t)sizeof(count));
	w->delivering = true;
	while (!w->freed && (job = take_finished(w)) != NULL)
		job->done(job);
	w->delivering = false;
	if (w->freed)
		destroy(w);
}

/* Signals are the loop's: the thread takes none. */
static int start_thread(struct worker *w)
{
	sigset_t all;
	sigset_t old;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = pthread_create(&w->thread, NULL, run, w);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static int start(struct worker *w)
{
	w->event_fd = eventfd(0, EFD_CLOEXEC);
	if (w->event_fd < 0)
		return -errno;
	int r = loop_add(w->loop, &w->source, w->event_fd, EPOLLIN);
	if (r < 0)
		return r;
	r = start_thread(w);
	if (r < 0)
		loop_del(w->loop, &w->source);
	return r;
}

struct worker *worker_new(struct loop *loop)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (w == NULL) {
		log_error("worker: no memory");
		return NULL;
	}
	w->loop = loop;
	w->event_fd = -1;
	w->source = (struct loop_fd){ .fd = -1, .on_event = on_finished };
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->more, NULL);
	int r = start(w);
	if (r < 0) {
		log_error("worker: not started error=%s", strerror(-r));
		destroy(w);
		return NULL;
	}
	return w;
}

void worker_add(struct worker *w, struct worker_job *job)
{
	(void)pthread_mutex_lock(&w->lock);
	if (job->work == NULL) {
		finish(w, job);
	} else {
		list_add(&w->waiting, job);
		(void)pthread_cond_signal(&w->more);
	}
	(void)pthread_mutex_unlock(&w->lock);
}

bool worker_is_stopping(void)
{
	return current != NULL && current->stopping;
}

struct loop *worker_loop(struct worker *w)
{
	return w->loop;
}

void worker_free(struct worker *w)
{
	if (w == NULL)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->stopping = true;
	(void)pthread_cond_signal(&w->more);
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->thread, NULL);
	loop_del(w->loop, &w->source);
	if (w->delivering)
		w->freed = true; /* on_finished() does the rest */
	else
		destroy(w);
}
