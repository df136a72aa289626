/* script.h - operations on memory, devices and ports, as a test lists them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Four 32-bit words each: {op, a, b, c}. tests/guest/tiny.py assembles them.
 */
#ifndef BRIG_TESTS_SCRIPT_H
#define BRIG_TESTS_SCRIPT_H

#include "guest.h"

enum op {
	OP_END = 0,
	OP_WRITE = 1,   /* mmio or memory: *(u32 *)a = b */
	OP_READ = 2,    /* say "a=value" of *(u32 *)a */
	OP_EXPECT = 3,  /* wait until (*(u32 *)a & c) == b, at most 100,000
	                  reads; say "timeout=a" if it never is */
	OP_OUT = 4,     /* port a, value b, width c (1, 2, 4) */
	OP_IN = 5,      /* say "in=value" of port a */
	OP_FILL = 6,    /* b words of value c from address a */
	OP_WRITE8 = 7,  /* *(u8 *)a = b */
	OP_WRITE16 = 8, /* *(u16 *)a = b */
	OP_SUM = 9,     /* say "sum=value" of b words from address a */
};

struct operation {
	uint32_t op, a, b, c;
};

static inline void expect(const struct operation *o)
{
	for (uint32_t i = 0; i < 100000; i++) {
		if ((mmio_read(o->a) & o->c) == o->b)
			return;
	}
	say("timeout", o->a);
}

static inline void out(const struct operation *o)
{
	if (o->c == 1)
		outb((uint16_t)o->a, (uint8_t)o->b);
	else if (o->c == 2)
		outw((uint16_t)o->a, (uint16_t)o->b);
	else
		outl((uint16_t)o->a, o->b);
}

static inline void fill(const struct operation *o)
{
	for (uint32_t i = 0; i < o->b; i++)
		mmio_write(o->a + i * 4, o->c);
}

static inline void sum(const struct operation *o)
{
	uint32_t total = 0;

	for (uint32_t i = 0; i < o->b; i++)
		total = total * 31 + mmio_read(o->a + i * 4);
	say("sum", total);
}

/* False at the end, which is any operation that this function does not know. */
static inline int script_step(const struct operation *o)
{
	switch ((enum op)o->op) {
	case OP_WRITE:
		mmio_write(o->a, o->b);
		return 1;
	case OP_READ:
		put_hex(o->a);
		say("", mmio_read(o->a));
		return 1;
	case OP_EXPECT:
		expect(o);
		return 1;
	case OP_OUT:
		out(o);
		return 1;
	case OP_IN:
		say("in", inb((uint16_t)o->a));
		return 1;
	case OP_FILL:
		fill(o);
		return 1;
	case OP_WRITE8:
		*(volatile uint8_t *)(uintptr_t)o->a = (uint8_t)o->b;
		return 1;
	case OP_WRITE16:
		*(volatile uint16_t *)(uintptr_t)o->a = (uint16_t)o->b;
		return 1;
	case OP_SUM:
		sum(o);
		return 1;
	case OP_END:
		return 0;
	}
	return 0;
}

static inline void script_run(const struct operation *o, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!script_step(&o[i]))
			break;
	}
}

#endif
