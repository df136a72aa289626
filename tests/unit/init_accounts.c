/* init_accounts.c - tests of reading /etc/passwd and /etc/group by hand.
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/init/accounts.h"

static char etc[64];
static char path[128];
static struct account a;

static const char *in_etc(const char *name)
{
	(void)snprintf(path, sizeof(path), "%s/%s", etc, name);
	return path;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(in_etc(name), "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int make_etc(void **state)
{
	(void)snprintf(etc, sizeof(etc), "/tmp/brig-etc-XXXXXX");
	return mkdtemp(etc) == NULL;
}

static int remove_etc(void **state)
{
	(void)unlink(in_etc("passwd"));
	(void)unlink(in_etc("group"));
	return rmdir(etc);
}

static void user_by_name_and_number(void **state)
{
	put("passwd", "root:x:0:0:root:/root:/bin/sh\n"
		      "joe:x:1000:100:Joe,,,:/home/joe:/bin/sh\n");
	assert_int_equal(account_find(etc, "joe", &a), 0);
	assert_int_equal(a.uid, 1000);
	assert_int_equal(a.gid, 100);
	assert_string_equal(a.name, "joe");
	assert_string_equal(a.home, "/home/joe");
	assert_int_equal(account_find(etc, "1000", &a), 0);
	assert_string_equal(a.name, "joe");
	assert_int_equal(account_find(etc, "1001", &a), -ENOENT);
	assert_int_equal(account_find(etc, "jo", &a), -ENOENT);
	assert_int_equal(account_find(etc, "", &a), -ENOENT);
}

static void groups_that_name_the_user(void **state)
{
	put("passwd", "joe:x:1000:100::/home/joe:/bin/sh");
	put("group", "users:x:100:joe\nwheel:x:10:ann,joe\nx:x:11:joey,ajoe\n"
		     "y:x:12:\nbad:x:nan:joe\nshort:x\nz:x:13:joe,ann");
	assert_int_equal(account_find(etc, "joe", &a), 0);
	assert_int_equal(a.group_count, 2);
	assert_int_equal(a.groups[0], 10);
	assert_int_equal(a.groups[1], 13);
}

static void lines_of_the_wrong_shape_are_skipped(void **state)
{
	put("passwd",
	    "\n:\njoe\njoe:x\njoe:x:-1:0::/:\njoe:x:4294967295:0::/:\n"
	    "joe:x:99999999999:0::/:\njoe:x:1:0\n"
	    "joe:x:5:6:gecos:home\n");
	assert_int_equal(account_find(etc, "joe", &a), 0);
	assert_int_equal(a.uid, 5);
	assert_string_equal(a.home, "/");
}

static void long_fields_are_skipped(void **state)
{
	static char text[2048];
	int n = snprintf(text, sizeof(text), "joe:x:1:1::/");

	memset(text + n, 'h', ACCOUNTS_HOME_BYTES);
	put("passwd", text);
	assert_int_equal(account_find(etc, "joe", &a), -ENOENT);
}

static void group_count_is_bounded(void **state)
{
	static char text[8192];
	size_t n = 0;

	for (int i = 0; i < ACCOUNTS_GROUPS_MAX + 10; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "g%d:x:%d:joe\n", i, 2000 + i);
	put("passwd", "joe:x:1000:100::/home/joe:/bin/sh\n");
	put("group", text);
	assert_int_equal(account_find(etc, "joe", &a), 0);
	assert_int_equal(a.group_count, ACCOUNTS_GROUPS_MAX);
}

static void files_that_are_none(void **state)
{
	assert_int_equal(account_find(etc, "joe", &a), -ENOENT);
	assert_int_equal(mkfifo(in_etc("passwd"), 0600), 0);
	assert_int_equal(account_find(etc, "joe", &a), -EINVAL);
	assert_int_equal(unlink(in_etc("passwd")), 0);
	put("passwd", "");
	assert_int_equal(truncate(in_etc("passwd"), 2 << 20), 0);
	assert_int_equal(account_find(etc, "joe", &a), -EINVAL);
}

static void root_needs_no_file(void **state)
{
	account_root(&a);
	assert_int_equal(a.uid, 0);
	assert_string_equal(a.home, "/root");
}

#define WITH_ETC(f) cmocka_unit_test_setup_teardown(f, make_etc, remove_etc)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ETC(user_by_name_and_number),
		WITH_ETC(groups_that_name_the_user),
		WITH_ETC(lines_of_the_wrong_shape_are_skipped),
		WITH_ETC(long_fields_are_skipped),
		WITH_ETC(group_count_is_bounded),
		WITH_ETC(files_that_are_none),
		cmocka_unit_test(root_needs_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
