/* snap_crash.c - brigd killed, or refused by the disk, at every step.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A child process does something to a store and is killed before its n-th
 * system call that changes a file, for every n there is. The store that is
 * opened then must be as if the child had done all of it or nothing. Steps
 * that fail instead of killing are in the same process.
 */
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/snap.h"

#define STEPS_MAX 200

static int steps_left;
static int fail_with; /* 0: kill */
static char trace[4096];

static int on_step(const char *step)
{
	size_t n = strlen(trace);

	(void)snprintf(trace + n, sizeof(trace) - n, "%s ", step);
	if (steps_left-- > 0)
		return 0;
	if (fail_with == 0)
		(void)kill(getpid(), SIGKILL);
	return fail_with;
}

/* Runs `act` in a child that is killed before its n-th step; true if it was,
 * false if it ended before. */
static bool act_and_die(struct env *v, int n,
			void (*act)(struct env *v, const char *id),
			const char *id)
{
	int status = 0;
	pid_t pid;

	env_close(v);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		env_open(v);
		steps_left = n;
		fail_with = 0;
		snapio_hook = on_step;
		act(v, id);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	env_open(v);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGKILL);
		return true;
	}
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static void act_publish(struct env *v, const char *id)
{
	char next[SNAP_ID_BYTES];
	struct saved *s;

	if (load(v, id, &s) < 0)
		_exit(1);
	struct saved *more = resumed(v, s, 50, 60, 99);
	saved_unref(s);
	if (publish(v, more, SNAP_MEMORY, next) < 0)
		_exit(1);
}

struct other {
	const char * not ;
	char id[SNAP_ID_BYTES];
};

static void find_other(void *arg, const struct snap *snap)
{
	struct other *o = arg;

	assert_int_equal(snap->status, SNAP_READY);
	if (strcmp(snap->id, o->not ) != 0)
		memcpy(o->id, snap->id, sizeof(o->id));
}

static void check_both(struct env *v, const char *id, bool second)
{
	struct other other = { .not = id };
	struct saved *s;

	assert_int_equal(load(v, id, &s), 0);
	assert_int_equal(get(s->base->fd, 1), 10);
	saved_unref(s);
	snapstore_each(v->st, 1, find_other, &other);
	assert_int_equal(other.id[0] != '\0', second);
	if (!second)
		return;
	assert_int_equal(load(v, other.id, &s), 0);
	assert_int_equal(get(s->base->fd, 1), 10);
	for (uint64_t b = 50; b < 60; b++)
		assert_int_equal(get(s->delta->fd, b), 99);
	assert_int_equal(get(s->delta->fd, 60), -1);
	assert_int_equal(get(s->layers[1]->fd, 3), 99);
	saved_unref(s);
	assert_int_equal(snapstore_delete(v->st, other.id), 0);
}

static void test_publish_killed(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	unsigned int seen[2] = { 0, 0 };
	int n = 0;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	for (; n < STEPS_MAX; n++) {
		bool killed = act_and_die(v, n, act_publish, id);
		bool second = env_snapshots(v) == 2;
		env_expect_objects(v, second ? 6 : 3);
		check_both(v, id, second);
		env_expect_objects(v, 3);
		seen[second]++;
		if (!killed)
			break;
	}
	assert_in_range(n, 15, STEPS_MAX - 1);
	/* Both outcomes were there, complete before the very last step. */
	assert_true(seen[0] > 10);
	assert_true(seen[1] >= 2);
}

static void act_delete(struct env *v, const char *id)
{
	if (snapstore_delete(v->st, id) < 0)
		_exit(1);
	env_expect_objects(v, 3);
}

static void test_delete_killed(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	char next[SNAP_ID_BYTES];
	struct saved *s;
	int n = 0;
	bool killed = true;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	for (; killed && n < STEPS_MAX; n++) {
		assert_int_equal(load(v, id, &s), 0);
		struct saved *more = resumed(v, s, 50, 60, 99);
		saved_unref(s);
		assert_int_equal(publish(v, more, SNAP_MEMORY, next), 0);
		killed = act_and_die(v, n, act_delete, next);
		bool second = env_snapshots(v) == 2;
		env_expect_objects(v, second ? 6 : 3);
		check_both(v, id, second);
		env_expect_objects(v, 3);
	}
	assert_in_range(n, 5, STEPS_MAX - 1);
}

static void test_open_killed(void **state)
{
	struct env *v = *state;
	int n = 0;

	for (; n < STEPS_MAX; n++) {
		int status = 0;
		env_close(v);
		env_remove(v);
		v = calloc(1, sizeof(*v));
		(void)snprintf(v->dir, sizeof(v->dir), "/tmp/brig_snap.XXXXXX");
		assert_non_null(mkdtemp(v->dir));
		pid_t pid = fork();
		if (pid == 0) {
			steps_left = n;
			fail_with = 0;
			snapio_hook = on_step;
			env_open(v);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		env_open(v);
		assert_int_equal(env_snapshots(v), 0);
		if (WIFEXITED(status))
			break;
	}
	*state = v;
	assert_in_range(n, 3, STEPS_MAX - 1);
}

/* --- steps that fail ---------------------------------------------------------- */

/* What the disk says is what the caller hears; the machine it is about goes
 * on, its next snapshot works, and of the failed one nothing stays. */
static void fail_everywhere(struct env *v, int error)
{
	char id[SNAP_ID_BYTES];
	struct publishing p;
	struct saved *s;
	int n = 0;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	assert_int_equal(load(v, id, &s), 0);
	for (; n < STEPS_MAX; n++) {
		struct saved *more = resumed(v, s, 50, 60, 99);
		draft(&p, more, SNAP_MEMORY, "full");
		steps_left = n;
		fail_with = error;
		snapio_hook = on_step;
		snapstore_publish(v->st, &p.draft);
		env_until(v, &p.done);
		snapio_hook = NULL;
		if (p.error == 0) {
			saved_unref(more);
			break;
		}
		assert_int_equal(p.error, error);
		assert_int_equal(env_snapshots(v), 1);
		draft(&p, more, SNAP_MEMORY, "again");
		snapstore_publish(v->st, &p.draft);
		env_until(v, &p.done);
		assert_int_equal(p.error, 0);
		saved_unref(more);
		check_both(v, id, true);
		env_expect_objects(v, 3);
	}
	assert_in_range(n, 15, STEPS_MAX - 1);
	assert_int_equal(env_snapshots(v), 2);
	saved_unref(s);
}

static void test_disk_full(void **state)
{
	fail_everywhere(*state, -ENOSPC);
}

static void test_disk_broken(void **state)
{
	fail_everywhere(*state, -EIO);
}

/* Not tried again: all is gone. */
static void test_nothing_left(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	int n = 0;

	for (; n < STEPS_MAX; n++) {
		struct saved *s = booted(v, 10);
		steps_left = n;
		fail_with = -ENOSPC;
		snapio_hook = on_step;
		int r = publish(v, s, SNAP_MEMORY, id);
		snapio_hook = NULL;
		if (r == 0)
			break;
		env_expect_objects(v, 0);
		/* A manifest may be there that could not be unlinked. */
		assert_int_equal(env_snapshots(v), 0);
	}
	assert_in_range(n, 12, STEPS_MAX - 1);
}

static void test_load_fails(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct saved *s = NULL;
	int n = 0;
	int r = -1;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	for (; r != 0 && n < STEPS_MAX; n++) {
		steps_left = n;
		fail_with = -ENOSPC;
		snapio_hook = on_step;
		r = load(v, id, &s);
		snapio_hook = NULL;
		assert_true(r == 0 || r == -ENOSPC);
		assert_int_equal(snapstore_find(v->st, 1, id)->status,
				 SNAP_READY);
	}
	assert_in_range(n, 3, STEPS_MAX - 1);
	saved_unref(s);
}

/* --- order ---------------------------------------------------------------------- */

/* Durable before visible: what a crash of the host may reorder is synced in
 * between. Three objects (state, memory, layer), then the manifest. */
static void test_order(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct saved *s = booted(v, 10);

	trace[0] = '\0';
	steps_left = STEPS_MAX;
	snapio_hook = on_step;
	assert_int_equal(publish(v, s, SNAP_MEMORY, id), 0);
	assert_string_equal(trace, "chmod sync link "
				   "chmod sync link "
				   "chmod sync link "
				   "sync "
				   "create write chmod sync link sync ");
	trace[0] = '\0';
	steps_left = STEPS_MAX;
	assert_int_equal(snapstore_delete(v->st, id), 0);
	env_expect_objects(v, 0);
	assert_string_equal(trace, "unlink sync unlink unlink unlink ");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, env_set_up, env_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_publish_killed), TEST(test_delete_killed),
		TEST(test_open_killed),    TEST(test_disk_full),
		TEST(test_disk_broken),    TEST(test_nothing_left),
		TEST(test_load_fails),     TEST(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
