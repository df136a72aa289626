/* serial.c - the 16550A as Linux's driver meets it, and its console ring.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/vmm/dev/serial.h"

enum {
	DATA,
	IER,
	IIR,
	LCR,
	MCR,
	LSR,
	MSR,
	SCR
};

static struct vmm_console console;
static struct serial port;

static int set_up(void **state)
{
	(void)state;
	memset(&console, 0, sizeof(console));
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	serial_init(&port, fd);
	serial_set_console(&port, &console);
	return fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	return close(port.irq_fd);
}

static uint64_t interrupts(void)
{
	uint64_t n = 0;

	if (read(port.irq_fd, &n, sizeof(n)) < 0)
		assert_int_equal(errno, EAGAIN);
	return n;
}

static void send_text(const char *s)
{
	for (; *s != '\0'; s++)
		serial_write(&port, DATA, (uint8_t)*s);
}

static void test_text_reaches_ring(void **state)
{
	(void)state;
	send_text("Linux version");
	assert_int_equal(console.written, 13);
	assert_memory_equal(console.data, "Linux version", 13);
	assert_int_equal(console.data[13], 0);
	assert_int_equal(serial_dropped(&port), 0);
	assert_int_equal(interrupts(), 0);
}

static void test_ring_wraps(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < BRIG_CONSOLE_RING_BYTES + 10; i++)
		serial_write(&port, DATA, (uint8_t)(i * 7));
	assert_int_equal(console.written, BRIG_CONSOLE_RING_BYTES + 10);
	assert_int_equal(serial_dropped(&port), 10);
	for (uint32_t i = 10; i < BRIG_CONSOLE_RING_BYTES + 10; i++)
		assert_int_equal(console.data[i % BRIG_CONSOLE_RING_BYTES],
				 (uint8_t)(i * 7));
}

/* brigd shares the memory: what it writes there must not steer us. */
static void test_ring_header_is_not_read(void **state)
{
	(void)state;
	send_text("ab");
	console.written = UINT64_MAX;
	send_text("c");
	assert_int_equal(console.written, 3);
	assert_memory_equal(console.data, "abc", 3);
}

/* What autoconfig() in 8250_port.c asks, in its order. */
static void test_linux_finds_16550a(void **state)
{
	(void)state;
	serial_write(&port, IER, 0);
	assert_int_equal(serial_read(&port, IER) & 0x0f, 0);
	serial_write(&port, IER, 0xff);
	assert_int_equal(serial_read(&port, IER), 0x0f);
	serial_write(&port, IER, 0);

	serial_write(&port, MCR, 0x10 | 0x0a);
	assert_int_equal(serial_read(&port, MSR) & 0xf0, 0x90);
	serial_write(&port, MCR, 0);

	serial_write(&port, LCR, 0xbf);
	assert_int_not_equal(serial_read(&port, IIR), 0); /* no EFR */
	serial_write(&port, LCR, 0);
	serial_write(&port, IIR, 0x01);
	assert_int_equal(serial_read(&port, IIR) >> 6, 3); /* 16550A */
	serial_write(&port, IIR, 0x21);
	assert_int_equal(serial_read(&port, IIR) >> 5, 6); /* no 16750 */
	serial_write(&port, IIR, 0);
	assert_int_equal(serial_read(&port, IIR) >> 6, 0);

	assert_int_equal(serial_read(&port, LSR), 0x60);
	assert_int_equal(serial_read(&port, DATA), 0);
}

static void test_divisor_latch(void **state)
{
	(void)state;
	serial_write(&port, LCR, 0x83);
	serial_write(&port, DATA, 0x34);
	serial_write(&port, IER, 0x12);
	assert_int_equal(serial_read(&port, DATA), 0x34);
	assert_int_equal(serial_read(&port, IER), 0x12);
	serial_write(&port, LCR, 0x03);
	assert_int_equal(serial_read(&port, LCR), 0x03);
	assert_int_equal(serial_read(&port, IER), 0);
	assert_int_equal(console.written, 0);
	assert_int_equal(interrupts(), 0);
}

static void test_modem_lines(void **state)
{
	(void)state;
	assert_int_equal(serial_read(&port, MSR), 0xb0);
	for (uint8_t out = 0; out < 16; out++) {
		serial_write(&port, MCR, (uint8_t)(0xf0 | out));
		assert_int_equal(serial_read(&port, MCR), 0x10 | out);
		uint8_t in = serial_read(&port, MSR);
		assert_int_equal(!!(in & 0x20), !!(out & 1));
		assert_int_equal(!!(in & 0x10), !!(out & 2));
		assert_int_equal(!!(in & 0x40), !!(out & 4));
		assert_int_equal(!!(in & 0x80), !!(out & 8));
	}
	send_text("lost in loopback");
	assert_int_equal(console.written, 0);
	serial_write(&port, MCR, 0);
	assert_int_equal(serial_read(&port, MSR), 0xb0);
}

/* The THRE test of serial8250_do_startup(): enabling must interrupt, twice. */
static void test_enabling_interrupts(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		serial_write(&port, IER, 0x02);
		assert_int_equal(interrupts(), 1);
		assert_int_equal(serial_read(&port, IIR) & 0x0f, 0x02);
		assert_int_equal(serial_read(&port, IIR) & 0x0f, 0x01);
		serial_write(&port, IER, 0x00);
	}
	serial_write(&port, IER, 0x02);
	assert_int_equal(interrupts(), 1);
	serial_write(&port, IER, 0x00); /* not acknowledged, but masked */
	assert_int_equal(serial_read(&port, IIR) & 0x0f, 0x01);
	assert_int_equal(interrupts(), 0);
}

/* A driver fills the FIFO in its handler: one more interrupt must come. */
static void test_sending_interrupts(void **state)
{
	(void)state;
	serial_write(&port, IER, 0x02);
	(void)interrupts();
	for (int round = 0; round < 3; round++) {
		assert_int_equal(serial_read(&port, IIR) & 0x0f, 0x02);
		send_text("sixteen bytes...");
		assert_int_equal(interrupts(), 1);
	}
	assert_int_equal(serial_read(&port, IIR) & 0x0f, 0x02);
	assert_int_equal(interrupts(), 0);
}

/* the counter is full and nobody reads it. */
static void test_eventfd_is_full(void **state)
{
	const uint64_t most = UINT64_MAX - 1;

	(void)state;
	assert_int_equal(write(port.irq_fd, &most, sizeof(most)), 8);
	serial_write(&port, IER, 0x02);
	send_text("goes on");
	assert_int_equal(console.written, 7);
	assert_int_equal(serial_read(&port, IIR) & 0x0f, 0x02);
}

static void test_every_register_and_value(void **state)
{
	(void)state;
	for (uint16_t offset = 0; offset < 16; offset++) {
		for (unsigned int v = 0; v < 256; v++) {
			serial_write(&port, LCR, 0);
			serial_write(&port, offset, (uint8_t)v);
			for (uint16_t r = 0; r < 16; r++)
				(void)serial_read(&port, r);
		}
	}
	assert_int_equal(console.written, 256);
	serial_write(&port, SCR, 0x5a);
	assert_int_equal(serial_read(&port, SCR), 0x5a);
	assert_int_equal(serial_read(&port, 8), 0xff);
	assert_int_equal(serial_read(&port, UINT16_MAX), 0xff);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_text_reaches_ring),
		TEST(test_ring_wraps),
		TEST(test_ring_header_is_not_read),
		TEST(test_linux_finds_16550a),
		TEST(test_divisor_latch),
		TEST(test_modem_lines),
		TEST(test_enabling_interrupts),
		TEST(test_sending_interrupts),
		TEST(test_eventfd_is_full),
		TEST(test_every_register_and_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
