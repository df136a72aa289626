/* worker.c - jobs of the worker thread: order, threads, ends.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/brigd/worker.h"

struct test_job {
	struct worker_job job;
	pthread_t worked_in;
	int number;
	bool done;
};

static int order[16];
static int order_count;

static void work(struct worker_job *job)
{
	struct test_job *t = container_of(job, struct test_job, job);

	t->worked_in = pthread_self();
	(void)usleep(1000);
}

static void done(struct worker_job *job)
{
	struct test_job *t = container_of(job, struct test_job, job);

	t->done = true;
	order[order_count++] = t->number;
}

static void until(struct loop *l, const bool *flag)
{
	for (int i = 0; i < 1000 && !*flag; i++)
		assert_int_equal(loop_once(l, 10), 0);
	assert_true(*flag);
}

static void test_order(void **state)
{
	struct loop l;
	struct test_job jobs[4];

	(void)state;
	order_count = 0;
	assert_int_equal(loop_init(&l), 0);
	struct worker *w = worker_new(&l);
	assert_ptr_equal(worker_loop(w), &l);
	for (int i = 0; i < 4; i++) {
		jobs[i] = (struct test_job){ .number = i };
		/* The last does not wait for those before it. */
		jobs[i].job.work = i == 3 ? NULL : work;
		jobs[i].job.done = done;
		worker_add(w, &jobs[i].job);
	}
	assert_int_equal(order_count, 0); /* never from worker_add() */
	until(&l, &jobs[2].done);
	assert_int_equal(order_count, 4);
	int expect = 0;
	for (int i = 0; i < 4; i++) {
		if (order[i] == 3)
			continue;
		assert_int_equal(order[i], expect++);
		assert_false(pthread_equal(jobs[order[i]].worked_in,
					   pthread_self()));
	}
	assert_int_not_equal(order[3], 3);
	worker_free(w);
	loop_fini(&l);
}

static void test_free_drops(void **state)
{
	struct loop l;
	struct test_job jobs[5];

	(void)state;
	order_count = 0;
	assert_int_equal(loop_init(&l), 0);
	struct worker *w = worker_new(&l);
	for (int i = 0; i < 5; i++) {
		jobs[i] =
			(struct test_job){ .job.work = work, .job.done = done };
		worker_add(w, &jobs[i].job);
	}
	worker_free(w);
	assert_int_equal(loop_once(&l, 0), 0);
	assert_int_equal(order_count, 0);
	worker_free(NULL);
	loop_fini(&l);
}

struct last_job {
	struct worker_job job;
	struct worker *worker;
	bool done;
};

static void work_little(struct worker_job *job)
{
	(void)job;
}

static void done_frees(struct worker_job *job)
{
	struct last_job *t = container_of(job, struct last_job, job);

	worker_free(t->worker);
	t->done = true;
}

static void test_free_in_done(void **state)
{
	struct loop l;
	struct last_job last = {
		.job = { .work = work_little, .done = done_frees },
	};
	struct test_job next = { .job.done = done };

	(void)state;
	order_count = 0;
	assert_int_equal(loop_init(&l), 0);
	last.worker = worker_new(&l);
	worker_add(last.worker, &last.job);
	(void)usleep(20000); /* so that both are finished in one round */
	worker_add(last.worker, &next.job);
	until(&l, &last.done);
	assert_int_equal(loop_once(&l, 0), 0);
	assert_int_equal(order_count, 0);
	loop_fini(&l);
}

static void work_until_stopped(struct worker_job *job)
{
	(void)job;
	while (!worker_is_stopping())
		(void)usleep(100);
}

static void test_stopping(void **state)
{
	struct loop l;
	struct test_job endless = {
		.job = { .work = work_until_stopped, .done = done },
	};

	(void)state;
	assert_int_equal(loop_init(&l), 0);
	struct worker *w = worker_new(&l);
	worker_add(w, &endless.job);
	assert_false(worker_is_stopping());
	(void)usleep(5000);
	worker_free(w);
	assert_false(endless.done);
	loop_fini(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_free_drops),
		cmocka_unit_test(test_free_in_done),
		cmocka_unit_test(test_stopping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
