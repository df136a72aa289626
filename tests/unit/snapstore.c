/* snapstore.c - snapshots that are made, loaded, shared and deleted.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/unit/snap.h"

static int set_up(void **state)
{
	*state = env_new();
	return 0;
}

static int tear_down(void **state)
{
	env_free(*state);
	return 0;
}

static void test_round_trip(void **state)
{
	struct env *v = *state;
	char id[SNAP_ID_BYTES];
	struct saved *s;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, id), 0);
	env_reopen(v);
	const struct snap *snap = snapstore_find(v->st, 1, id);
	assert_non_null(snap);
	assert_int_equal(snap->status, SNAP_READY);
	assert_string_equal(snap->name, "test");
	assert_int_equal(load(v, id, &s), 0);
	assert_int_equal(get(s->base->fd, 1), 10);
	assert_int_equal(get(s->base->fd, 5), 11);
	assert_int_equal(get(s->base->fd, 2), -1);
	assert_null(s->delta);
	assert_int_equal(get(s->layers[0]->fd, 3), 10);
	assert_int_equal(get(s->state->fd, 0), 10);
	saved_unref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
