/* guest.h - what a tiny guest has: ports, MMIO, a ring, a line of output.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Tiny guests are freestanding 32-bit programs that brig-vmm boots like a
 * kernel. They say what they found on the serial port, and the test compares.
 * Guest kernel code is interpreted on the development machine's KVM, about
 * 1.5 us an instruction: keep loops short.
 */
#ifndef BRIG_TESTS_GUEST_H
#define BRIG_TESTS_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include "wire/boot.h"

void guest_main(uint32_t start_info);

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint32_t mmio_read(uint32_t at)
{
	return *(volatile uint32_t *)(uintptr_t)at;
}

static inline void mmio_write(uint32_t at, uint32_t v)
{
	*(volatile uint32_t *)(uintptr_t)at = v;
}

static inline void put_char(char c)
{
	outb(BRIG_SERIAL_PORT, (uint8_t)c);
}

static inline void put(const char *s)
{
	while (*s != '\0')
		put_char(*s++);
}

static inline void put_hex(uint32_t v)
{
	for (int shift = 28; shift >= 0; shift -= 4)
		put_char("0123456789abcdef"[(v >> shift) & 15]);
}

/* "name=value\n" */
static inline void say(const char *name, uint32_t v)
{
	put(name);
	put_char('=');
	put_hex(v);
	put_char('\n');
}

/* The initrd: the test's input. */
struct input {
	const uint8_t *data;
	uint32_t size;
};

static inline struct input guest_input(uint32_t start_info)
{
	const uint32_t *info = (const uint32_t *)(uintptr_t)start_info;
	struct input in = { NULL, 0 };

	if (info[3] == 1) { /* nr_modules */
		const uint32_t *module = (const uint32_t *)(uintptr_t)info[4];
		in.data = (const uint8_t *)(uintptr_t)module[0];
		in.size = module[2];
	}
	return in;
}

#endif
