/* init_frames.c - tests of what the agent takes for a request.
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/init/frames.h"

static struct exec_request req;

struct payload {
	char bytes[512];
	size_t n;
};

static void add(struct payload *p, const void *bytes, size_t n)
{
	memcpy(p->bytes + p->n, bytes, n);
	p->n += n;
}

static struct payload exec_with(uint32_t flags, uint32_t argc, uint32_t envc,
				const char *strings, size_t n)
{
	struct payload p = { .n = 0 };
	struct guest_exec head = {
		.flags = flags,
		.timeout_ms = 77,
		.argc = argc,
		.envc = envc,
	};

	add(&p, &head, sizeof(head));
	add(&p, strings, n);
	return p;
}

#define EXEC(flags, argc, envc, strings) \
	exec_with(flags, argc, envc, strings, sizeof(strings) - 1)

static void assert_refused(struct payload p)
{
	assert_int_equal(frames_parse_exec(p.bytes, p.n, &req), -EINVAL);
}

static void exec_is_taken_apart(void **state)
{
	struct payload p =
		EXEC(GUEST_EXEC_STDIN, 2, 1, "joe\0/tmp\0ls\0-l\0A=\0");

	assert_int_equal(frames_parse_exec(p.bytes, p.n, &req), 0);
	assert_int_equal(req.flags, GUEST_EXEC_STDIN);
	assert_int_equal(req.timeout_ms, 77);
	assert_string_equal(req.user, "joe");
	assert_string_equal(req.cwd, "/tmp");
	assert_string_equal(req.argv[0], "ls");
	assert_string_equal(req.argv[1], "-l");
	assert_null(req.argv[2]);
	assert_string_equal(req.env[0], "A=");
	assert_null(req.env[1]);
}

static void empty_strings_are_strings(void **state)
{
	struct payload p = EXEC(0, 2, 0, "\0\0x\0\0");

	assert_int_equal(frames_parse_exec(p.bytes, p.n, &req), 0);
	assert_string_equal(req.user, "");
	assert_string_equal(req.argv[1], "");
}

static void exec_of_the_wrong_shape_is_refused(void **state)
{
	assert_refused(EXEC(0, 1, 0, "\0\0x"));       /* no last NUL */
	assert_refused(EXEC(0, 1, 0, "\0\0"));        /* argv missing */
	assert_refused(EXEC(0, 1, 0, "\0\0x\0y\0"));  /* one too many */
	assert_refused(EXEC(0, 0, 0, "\0\0"));        /* no argv */
	assert_refused(EXEC(0, 1, 1, "\0\0x\0"));     /* env missing */
	assert_refused(EXEC(0, 1, 1, "\0\0x\0A\0"));  /* no value */
	assert_refused(EXEC(0, 1, 1, "\0\0x\0=A\0")); /* no name */
	assert_refused(EXEC(8, 1, 0, "\0\0x\0"));     /* unknown flag */
	assert_refused(EXEC(GUEST_EXEC_SHELL, 2, 0, "\0\0x\0y\0"));
	assert_refused(EXEC(GUEST_EXEC_CODE, 1, 0, "\0\0x\0"));
	assert_refused(EXEC(GUEST_EXEC_CODE, 3, 0, "\0\0x\0y\0z\0"));
	assert_refused(
		EXEC(GUEST_EXEC_CODE | GUEST_EXEC_SHELL, 2, 0, "\0\0x\0y\0"));
	assert_refused(EXEC(0, BRIG_ARGV_MAX + 1, 0, "\0\0x\0"));
	assert_refused(EXEC(0, UINT32_MAX, 0, "\0\0x\0"));
	assert_refused(EXEC(0, 1, UINT32_MAX, "\0\0x\0"));
	assert_refused((struct payload){ .n = 0 });
}

static void every_cut_is_refused(void **state)
{
	struct payload p = EXEC(0, 2, 1, "u\0c\0a\0b\0N=v\0");

	assert_int_equal(frames_parse_exec(p.bytes, p.n, &req), 0);
	for (size_t n = 0; n < p.n; n++)
		assert_int_equal(frames_parse_exec(p.bytes, n, &req), -EINVAL);
}

static void most_arguments_and_variables_fit(void **state)
{
	static char bytes[BRIG_FRAME_MAX];
	struct guest_exec head = {
		.argc = BRIG_ARGV_MAX,
		.envc = BRIG_ENV_MAX,
	};
	size_t n = sizeof(head) + 2;

	memcpy(bytes, &head, sizeof(head));
	for (uint32_t i = 0; i < head.argc; i++, n += 2)
		bytes[n] = 'a';
	for (uint32_t i = 0; i < head.envc; i++, n += 3)
		memcpy(bytes + n, "A=", 3);
	assert_int_equal(frames_parse_exec(bytes, n, &req), 0);
	assert_null(req.argv[BRIG_ARGV_MAX]);
	assert_null(req.env[BRIG_ENV_MAX]);
}

static void paths(void **state)
{
	static char longest[BRIG_PATH_BYTES + 1];

	char good[] = "xx/a";
	char inner[] = "a\0b";

	assert_string_equal(frames_parse_path(good, 5, 2), "/a");
	assert_null(frames_parse_path(good, 4, 2));
	assert_null(frames_parse_path(good, 2, 2));
	assert_null(frames_parse_path(good + 2, 3, 3));
	assert_null(frames_parse_path(good, 1, 2));
	assert_null(frames_parse_path(inner, 4, 0));
	memset(longest, 'a', sizeof(longest) - 1);
	assert_null(frames_parse_path(longest, sizeof(longest), 0));
	longest[sizeof(longest) - 2] = '\0';
	assert_non_null(frames_parse_path(longest, sizeof(longest) - 1, 0));
}

static int check(enum frames_phase phase, uint16_t type, uint32_t length)
{
	struct guest_frame f = { .length = length, .type = type };

	return frames_check(&f, phase);
}

static void lengths_have_bounds(void **state)
{
	assert_int_equal(check(FRAMES_REQUEST, GUEST_EXEC, 18), -EMSGSIZE);
	assert_int_equal(check(FRAMES_REQUEST, GUEST_EXEC, 19), 0);
	assert_int_equal(check(FRAMES_REQUEST, GUEST_EXEC, BRIG_FRAME_MAX), 0);
	assert_int_equal(check(FRAMES_REQUEST, GUEST_EXEC, BRIG_FRAME_MAX + 1),
			 -EMSGSIZE);
	assert_int_equal(check(FRAMES_REQUEST, GUEST_STAT, UINT32_MAX),
			 -EMSGSIZE);
	assert_int_equal(check(FRAMES_RUN, GUEST_STDIN, BRIG_FRAME_DATA_MAX),
			 0);
	assert_int_equal(
		check(FRAMES_RUN, GUEST_STDIN, BRIG_FRAME_DATA_MAX + 1),
		-EMSGSIZE);
	assert_int_equal(check(FRAMES_READY, GUEST_CONFIGURE, 176), 0);
	assert_int_equal(check(FRAMES_READY, GUEST_CONFIGURE, 175), -EMSGSIZE);
	assert_int_equal(check(FRAMES_REQUEST, GUEST_QUIESCE, 8), 0);
	assert_int_equal(check(FRAMES_REQUEST, GUEST_QUIESCE, 9), -EMSGSIZE);
}

/* Each type has one phase; all others are answers or belong elsewhere. */
static void types_have_their_phase(void **state)
{
	static const struct {
		uint16_t type;
		enum frames_phase phase;
	} homes[] = {
		{ GUEST_CONFIGURE, FRAMES_READY },
		{ GUEST_PING, FRAMES_READY },
		{ GUEST_EXEC, FRAMES_REQUEST },
		{ GUEST_READ, FRAMES_REQUEST },
		{ GUEST_WRITE, FRAMES_REQUEST },
		{ GUEST_STAT, FRAMES_REQUEST },
		{ GUEST_STATUS, FRAMES_REQUEST },
		{ GUEST_POWEROFF, FRAMES_REQUEST },
		{ GUEST_QUIESCE, FRAMES_REQUEST },
		{ GUEST_STDIN, FRAMES_RUN },
		{ GUEST_STDIN_EOF, FRAMES_RUN },
		{ GUEST_SIGNAL, FRAMES_RUN },
		{ GUEST_DATA, FRAMES_UPLOAD },
		{ GUEST_END, FRAMES_UPLOAD },
		{ GUEST_THAW, FRAMES_QUIESCE },
	};
	size_t allowed = 0;

	for (uint32_t type = 0; type <= UINT16_MAX; type++) {
		for (int phase = FRAMES_READY; phase <= FRAMES_QUIESCE; phase++)
			allowed += check((enum frames_phase)phase,
					 (uint16_t)type, 0) != -EPROTO;
	}
	assert_int_equal(allowed, ARRAY_LEN(homes));
	for (size_t i = 0; i < ARRAY_LEN(homes); i++)
		assert_int_not_equal(check(homes[i].phase, homes[i].type, 0),
				     -EPROTO);
}

static void reserved_bits_are_zero(void **state)
{
	struct guest_frame f = { .type = GUEST_STATUS, .zero = 1 };

	assert_int_equal(frames_check(&f, FRAMES_REQUEST), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exec_is_taken_apart),
		cmocka_unit_test(empty_strings_are_strings),
		cmocka_unit_test(exec_of_the_wrong_shape_is_refused),
		cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(most_arguments_and_variables_fit),
		cmocka_unit_test(paths),
		cmocka_unit_test(lengths_have_bounds),
		cmocka_unit_test(types_have_their_phase),
		cmocka_unit_test(reserved_bits_are_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
