/* base.c - buffers keep their maximum, packets keep their descriptors, the
 * loop survives sources that delete each other.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/buf.h"
#include "src/base/fd.h"
#include "src/base/loop.h"

static void buf_stops_at_its_maximum(void **state)
{
	cleanup_buf struct buf b = BUF_INIT(10);

	assert_int_equal(buf_add(&b, "123456789", 9), 0);
	assert_int_equal(buf_add(&b, "ab", 2), -ENOSPC);
	assert_int_equal(b.len, 9);
	assert_int_equal(buf_add_str(&b, "x"), 0);
	assert_int_equal(buf_addf(&b, "%d", 1), -ENOSPC);
	assert_string_equal(b.data, "123456789x");
	buf_consume(&b, 8);
	assert_int_equal(b.len, 2);
	assert_memory_equal(b.data, "9x", 2);
}

static void packets_carry_descriptors(void **state)
{
	int pair[2];
	int fds[2] = { 0, 1 };
	int got[2];
	size_t n;
	char text[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(fd_send_packet(pair[0], "hi", 2, fds, 2), 0);
	assert_int_equal(fd_recv_packet(pair[1], text, 8, got, 2, &n), 2);
	assert_int_equal(n, 2);
	fd_close(&got[0]);
	fd_close(&got[1]);
	close(pair[0]);
	close(pair[1]);
}

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++) {
		int copy = dup(fd);
		if (copy >= 0) {
			n++;
			close(copy);
		}
	}
	return n;
}

static void too_much_is_refused_and_nothing_leaks(void **state)
{
	int pair[2];
	int fds[2] = { 0, 1 };
	int got[1];
	size_t n;
	char text[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	int before = open_descriptors();
	assert_int_equal(fd_send_packet(pair[0], "hi", 2, fds, 2), 0);
	assert_int_equal(fd_recv_packet(pair[1], text, 2, got, 1, &n),
			 -EMSGSIZE);
	assert_int_equal(fd_send_packet(pair[0], "long", 4, fds, 1), 0);
	assert_int_equal(fd_recv_packet(pair[1], text, 2, got, 1, &n),
			 -EMSGSIZE);
	assert_int_equal(open_descriptors(), before);
	close(pair[0]);
	close(pair[1]);
}

static struct loop loop;
static struct loop_fd one;
static struct loop_fd two;
static int calls;

static void delete_both(struct loop_fd *source, uint32_t events)
{
	calls++;
	loop_del(&loop, &one);
	loop_del(&loop, &two);
}

static void a_deleted_source_is_not_called(void **state)
{
	int a = eventfd(1, 0);
	int b = eventfd(1, 0);

	one.on_event = two.on_event = delete_both;
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(loop_add(&loop, &one, a, EPOLLIN), 0);
	assert_int_equal(loop_add(&loop, &two, b, EPOLLIN), 0);
	calls = 0;
	assert_int_equal(loop_once(&loop, 0), 0);
	assert_int_equal(loop_once(&loop, 0), 0);
	assert_int_equal(calls, 1);
	loop_fini(&loop);
	close(a);
	close(b);
}

static char order[8];
static size_t fired;

static void say_a(struct loop_timer *t)
{
	order[fired++] = 'a';
}

static void say_b(struct loop_timer *t)
{
	order[fired++] = 'b';
	loop_stop(&loop);
}

static void timers_fire_in_order_and_once(void **state)
{
	struct loop_timer a = { .on_expire = say_a };
	struct loop_timer b = { .on_expire = say_b };
	struct loop_timer never = { .on_expire = say_b };

	assert_int_equal(loop_init(&loop), 0);
	loop_timer_set(&loop, &never, NS_PER_MS);
	loop_timer_set(&loop, &b, 20 * NS_PER_MS);
	loop_timer_set(&loop, &a, NS_PER_S);
	loop_timer_set(&loop, &a, 10 * NS_PER_MS);
	loop_timer_del(&loop, &never);
	uint64_t start = now_ns();
	assert_int_equal(loop_run(&loop), 0);
	assert_true(now_ns() - start >= 20 * NS_PER_MS);
	assert_string_equal(order, "ab");
	loop_fini(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_stops_at_its_maximum),
		cmocka_unit_test(packets_carry_descriptors),
		cmocka_unit_test(too_much_is_refused_and_nothing_leaks),
		cmocka_unit_test(a_deleted_source_is_not_called),
		cmocka_unit_test(timers_fire_in_order_and_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
