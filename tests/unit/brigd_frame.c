/* brigd_frame.c - frames from a guest: the reader, and a connection of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/brigd/frame.h"
#include "src/brigd/limits.h"
#include "src/brigd/peer_guest.h"

static size_t put(uint8_t *to, uint32_t type, uint32_t length)
{
	struct guest_frame head = { .length = length, .type = (uint16_t)type };

	memcpy(to, &head, sizeof(head));
	return sizeof(head);
}

/* Every type and length against the table of wire/guest.h. */
static void test_shapes(void **state)
{
	static const struct {
		uint32_t type;
		uint32_t min;
		uint32_t max;
	} allowed[] = {
		{ 1, 24, 24 },    { 3, 64, 64 },    { 5, 0, 64 },
		{ 40, 1, 32768 }, { 41, 0, 0 },     { 64, 8, 8 },
		{ 65, 1, 32768 }, { 66, 1, 32768 }, { 67, 56, 56 },
		{ 68, 32, 32 },   { 69, 72, 72 },   { 70, 128, 128 },
		{ 71, 8, 8 },     { 72, 0, 0 },
	};
	static uint8_t bytes[8 + 40000];
	struct frame f;

	for (uint32_t type = 0; type < 300; type++) {
		uint32_t min = 1;
		uint32_t max = 0;
		for (size_t i = 0; i < ARRAY_LEN(allowed); i++) {
			if (allowed[i].type == type) {
				min = allowed[i].min;
				max = allowed[i].max;
			}
		}
		for (uint32_t n = 0; n < 140; n++) {
			int want =
				n >= min && n <= max ? (int)(8 + n) : -EPROTO;
			put(bytes, type, n);
			assert_int_equal(frame_take(bytes, sizeof(bytes), &f),
					 want);
			if (want > 0) {
				assert_int_equal(f.type, type);
				assert_int_equal(f.length, n);
				assert_ptr_equal(f.payload, bytes + 8);
			}
		}
	}
	static const uint32_t lengths[] = {
		32769, 262144, 262145, 0x7fffffff, 0x80000000, 0xffffffff
	};
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		put(bytes, GUEST_STDOUT, lengths[i]);
		assert_int_equal(frame_take(bytes, sizeof(bytes), &f), -EPROTO);
	}
}

static void test_partial(void **state)
{
	uint8_t bytes[8 + 24] = { 0 };
	struct frame f;

	put(bytes, GUEST_HELLO, 24);
	for (size_t n = 0; n < sizeof(bytes); n++)
		assert_int_equal(frame_take(bytes, n, &f), 0);
	assert_int_equal(frame_take(bytes, sizeof(bytes), &f), 32);
	bytes[6] = 1; /* must be zero */
	assert_int_equal(frame_take(bytes, sizeof(bytes), &f), -EPROTO);
	assert_int_equal(frame_take(bytes, 8, &f), -EPROTO);
}

static void test_error_needs_nul(void **state)
{
	uint8_t bytes[8 + 128];
	struct frame f;

	memset(bytes, 'x', sizeof(bytes));
	put(bytes, GUEST_ERROR, 128);
	assert_int_equal(frame_take(bytes, sizeof(bytes), &f), -EPROTO);
	bytes[sizeof(bytes) - 1] = '\0';
	assert_int_equal(frame_take(bytes, sizeof(bytes), &f), 136);
}

/* --- A connection ----------------------------------------------------------- */

struct side {
	struct loop loop;
	struct guest_conn *conn;
	int fd; /* the guest's end */
	size_t frames;
	size_t bytes;
	int closed; /* 1: never */
	unsigned int writable;
	bool close_in_frame;
	bool pause_in_frame;
};

static void on_frame(void *arg, const struct frame *f)
{
	struct side *s = arg;

	s->frames++;
	s->bytes += f->length;
	if (s->pause_in_frame)
		guest_conn_pause(s->conn, true);
	if (s->close_in_frame) {
		guest_conn_close(s->conn);
		s->conn = NULL;
	}
}

static void on_closed(void *arg, int error)
{
	struct side *s = arg;

	s->closed = error;
	guest_conn_close(s->conn);
	s->conn = NULL;
}

static void on_writable(void *arg)
{
	struct side *s = arg;

	s->writable++;
}

static const struct guest_events events = {
	.on_frame = on_frame,
	.on_closed = on_closed,
	.on_writable = on_writable,
};

static void set_up(struct side *s)
{
	int pair[2];

	*s = (struct side){ .closed = 1 };
	assert_int_equal(loop_init(&s->loop), 0);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	s->fd = pair[1];
	s->conn = guest_conn_new(&s->loop, pair[0], &events, s);
	assert_non_null(s->conn);
}

static void tear_down(struct side *s)
{
	guest_conn_close(s->conn);
	if (s->fd >= 0)
		(void)close(s->fd);
	loop_fini(&s->loop);
}

static void spin(struct side *s)
{
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_once(&s->loop, 0), 0);
}

static void say(struct side *s, uint32_t type, uint32_t length)
{
	static uint8_t bytes[8 + 32768];
	size_t n = put(bytes, type, length) + length;

	assert_int_equal(write(s->fd, bytes, n), (ssize_t)n);
}

static void test_conn_bytewise(void **state)
{
	struct side s;
	uint8_t bytes[16];
	size_t n = put(bytes, GUEST_STDOUT, 3) + 3;

	set_up(&s);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(write(s.fd, bytes + i, 1), 1);
			assert_int_equal(loop_once(&s.loop, 0), 0);
			assert_int_equal(s.frames, round + (i == n - 1));
		}
	}
	assert_int_equal(s.bytes, 9);
	(void)close(s.fd);
	s.fd = -1;
	spin(&s);
	assert_int_equal(s.closed, 0);
	tear_down(&s);
}

static void test_conn_nonsense(void **state)
{
	struct side s;

	set_up(&s);
	say(&s, GUEST_STDOUT, 5);
	say(&s, GUEST_EXEC, 5);
	spin(&s);
	assert_int_equal(s.frames, 1);
	assert_int_equal(s.closed, -EPROTO);
	tear_down(&s);
}

/* Nothing is given out during a pause, nothing is lost, and the end comes
 * after the last frame. */
static void test_conn_pause(void **state)
{
	struct side s;

	set_up(&s);
	s.pause_in_frame = true;
	for (int i = 0; i < 5; i++)
		say(&s, GUEST_STDOUT, 10000);
	(void)close(s.fd);
	s.fd = -1;
	for (size_t i = 1; i <= 5; i++) {
		spin(&s);
		assert_int_equal(s.frames, i);
		assert_int_equal(s.closed, 1);
		guest_conn_pause(s.conn, false);
		assert_int_equal(s.frames, i); /* never from within */
	}
	spin(&s);
	assert_int_equal(s.frames, 5);
	assert_int_equal(s.closed, 0);
	tear_down(&s);
}

static void test_conn_close_in_callback(void **state)
{
	struct side s;

	set_up(&s);
	s.close_in_frame = true;
	say(&s, GUEST_STDOUT, 5);
	say(&s, GUEST_STDOUT, 5);
	spin(&s);
	assert_int_equal(s.frames, 1);
	assert_int_equal(s.closed, 1);
	tear_down(&s);
}

/* A guest that does not read costs a bounded amount of memory. */
static void test_conn_full(void **state)
{
	struct side s;
	static uint8_t bytes[BRIG_FRAME_DATA_MAX];
	static uint8_t sink[65536];
	size_t sent = 0;
	size_t got = 0;

	set_up(&s);
	while (guest_conn_send_data(s.conn, GUEST_STDIN, bytes,
				    sizeof(bytes)) == 0) {
		sent++;
		spin(&s);
		assert_true(sent < 1000);
	}
	assert_true(guest_conn_full(s.conn));
	assert_int_equal(s.writable, 0);
	for (;;) {
		spin(&s);
		ssize_t n = recv(s.fd, sink, sizeof(sink), MSG_DONTWAIT);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	assert_int_equal(got, sent * (8 + sizeof(bytes)));
	assert_int_equal(s.writable, 1);
	assert_false(guest_conn_full(s.conn));
	tear_down(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_partial),
		cmocka_unit_test(test_error_needs_nul),
		cmocka_unit_test(test_conn_bytewise),
		cmocka_unit_test(test_conn_nonsense),
		cmocka_unit_test(test_conn_pause),
		cmocka_unit_test(test_conn_close_in_callback),
		cmocka_unit_test(test_conn_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
