/* state.c - the guest that is saved: counts for ever, answers in between.
 * SPDX-License-Identifier: Apache-2.0
 *
 * First it does what its initrd says (script.h, and the operations below),
 * then it says "up" and counts. Each vCPU has a counter and a number in
 * registers that follows from it, and writes both to its line of COUNTERS. The
 * boot processor also looks into the mailbox: a test changes that page of a
 * saved machine and so asks the copy something. What a copy says can come from
 * nowhere but the registers and the memory that were saved.
 */
#include "script.h"

#define MAILBOX 0x200000u
#define COUNTERS 0x201000u
#define COUNTER_BYTES 64u
#define TABLES 0x210000u
#define TRAMPOLINE 0x8000u
#define SCRIPT_MAX 1024u

#define PAGE 4096u
#define LARGE (2u << 20)
#define WINDOW 0xc0000000u

#define MSR_EFER 0xc0000080u
#define EFER_LME 0x100u

#define APIC_SPURIOUS 0xfee000f0u
#define APIC_ICR 0xfee00300u
#define ICR_OTHERS_INIT 0xc4500u
#define ICR_OTHERS_STARTUP 0xc4600u

enum state_op {
	/* Starts the other vCPUs, a of them. */
	OP_START_VCPUS = 16,
	/* Writes to b pages, from page a on, every OP >> 8, what follows from
	 * the page and c: first and last word. Says "painted". */
	OP_PAINT = 17,
	/* Says "same" and how many of these pages are as OP_PAINT left them. */
	OP_SAME = 18,
	/* a: 1 makes pages above the hole reachable for these two, at the price
	 * of all others being slow on the development machine; 0 ends that. */
	OP_PAGING = 19,
	OP_WRMSR = 20,   /* a: index, b: low half, c: high half */
	OP_RDMSR = 21,   /* says "msr" twice: high, low */
	OP_FXRSTOR = 22, /* a: 512 bytes */
	OP_FXSAVE = 23,
	OP_SET_DR0 = 24,
	OP_GET_DR0 = 25,
};

struct mailbox {
	uint32_t number; /* a new one: run `ops` */
	uint32_t count;
	uint32_t talk; /* not 0: the boot processor says each of its numbers */
	uint32_t zero;
	struct operation ops[];
};

static struct operation script[SCRIPT_MAX];
static volatile struct mailbox *const mailbox = (void *)MAILBOX;

/* --- other vCPUs ------------------------------------------------------------ */

/* In real mode at TRAMPOLINE; then each takes a number and a stack. */
__asm__(".pushsection .text\n"
	"ap_start:\n"
	".code16\n"
	"	cli\n"
	"	lgdtl %cs:(ap_gdtr - ap_start)\n"
	"	movl %cr0, %eax\n"
	"	orl $1, %eax\n"
	"	movl %eax, %cr0\n"
	"	ljmpl $8, $ap_protected\n"
	".code32\n"
	"ap_gdtr: .word 23\n"
	"	.long ap_gdt\n"
	"ap_end:\n"
	"	.balign 8\n"
	"ap_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	"ap_protected:\n"
	"	movl $16, %eax\n"
	"	movl %eax, %ds\n"
	"	movl %eax, %es\n"
	"	movl %eax, %ss\n"
	"	movl $1, %eax\n"
	"	lock xaddl %eax, ap_count\n"
	"	movl %eax, %ecx\n"
	"	shll $9, %ecx\n"
	"	leal ap_stacks(%ecx), %esp\n"
	"	pushl %eax\n"
	"	call ap_main\n"
	".popsection\n");

extern const uint8_t ap_start[], ap_end[];
extern uint32_t ap_count;
extern uint8_t ap_stacks[];
void ap_main(uint32_t id);

uint32_t ap_count = 1;
uint8_t ap_stacks[8 * 512] __attribute__((aligned(16)));

static volatile uint32_t *counter_of(uint32_t id)
{
	return (void *)(uintptr_t)(COUNTERS + id * COUNTER_BYTES);
}

void ap_main(uint32_t id)
{
	volatile uint32_t *line = counter_of(id);
	uint32_t number = id;

	for (uint32_t count = 1;; count++) {
		number = number * 1664525u + 1013904223u;
		line[1] = number;
		line[0] = count;
	}
}

static void start_vcpus(uint32_t others)
{
	__builtin_memcpy((void *)TRAMPOLINE, ap_start,
			 (size_t)(ap_end - ap_start));
	mmio_write(APIC_SPURIOUS, 0x1ff);
	mmio_write(APIC_ICR, ICR_OTHERS_INIT);
	mmio_write(APIC_ICR, ICR_OTHERS_STARTUP | TRAMPOLINE / PAGE);
	for (uint32_t id = 1; id <= others; id++) {
		while (counter_of(id)[0] == 0)
			;
	}
}

/* --- registers -------------------------------------------------------------- */

static void write_msr(uint32_t index, uint32_t low, uint32_t high)
{
	__asm__ volatile("wrmsr" : : "c"(index), "a"(low), "d"(high));
}

static void read_msr(uint32_t index)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	say("msr", high);
	say("msr", low);
}

/* SSE's registers are part of what FXSAVE writes once CR4 says so. */
static void allow_sse(void)
{
	uint32_t v;

	__asm__ volatile("movl %%cr4, %0; orl $0x600, %0; movl %0, %%cr4"
			 : "=r"(v));
}

static void get_dr0(void)
{
	uint32_t v;

	__asm__ volatile("movl %%dr0, %0" : "=r"(v));
	say("dr0", v);
}

/* --- memory ----------------------------------------------------------------- */

/* Entry `at` of one of the tables: 0 and 1 are the upper levels, then comes one
 * for each GiB. */
static volatile uint64_t *entry(uint32_t table, uint32_t at)
{
	return (void *)(uintptr_t)(TABLES + table * PAGE + at * 8);
}

static uint32_t address_of(volatile uint64_t *table)
{
	return (uint32_t)(uintptr_t)table;
}

static void load_tables(void)
{
	__asm__ volatile("movl %0, %%cr3" : : "r"(TABLES) : "memory");
}

/* Long mode's tables, under code of 32 bits, with large pages. Each is at its
 * own address; but the first of the hole is a window that show() moves. */
static void start_paging(void)
{
	uint32_t v;

	*entry(0, 0) = address_of(entry(1, 0)) | 7;
	for (uint32_t gib = 0; gib < 4; gib++) {
		*entry(1, gib) = address_of(entry(2 + gib, 0)) | 7;
		for (uint32_t i = 0; i < 512; i++)
			*entry(2 + gib, i) = (gib << 30 | i * LARGE) | 0x83;
	}
	__asm__ volatile("movl %%cr4, %0; orl $0x20, %0; movl %0, %%cr4"
			 : "=r"(v));
	load_tables();
	write_msr(MSR_EFER, EFER_LME, 0);
	__asm__ volatile("movl %%cr0, %0; orl $0x80000000, %0; movl %0, %%cr0"
			 : "=r"(v));
}

static void end_paging(void)
{
	uint32_t v;

	__asm__ volatile("movl %%cr0, %0; andl $0x7fffffff, %0; movl %0, %%cr0"
			 : "=r"(v));
}

static volatile uint32_t *show(uint32_t page)
{
	volatile uint64_t *window = entry(2 + (WINDOW >> 30), 0);
	uint64_t at = (uint64_t)page * PAGE;
	uint64_t large = at & ~(uint64_t)(LARGE - 1);

	if (at < WINDOW)
		return (void *)(uintptr_t)(uint32_t)at;
	if ((*window & ~0xfffull) != large) {
		*window = large | 0x83;
		load_tables();
	}
	return (void *)(uintptr_t)(WINDOW + (uint32_t)(at - large));
}

static uint32_t colour(uint32_t page, uint32_t seed)
{
	return (page + 1) * 2654435761u ^ seed;
}

static void paint(const struct operation *o)
{
	for (uint32_t i = 0; i < o->b; i++) {
		uint32_t page = o->a + i * (o->op >> 8);
		volatile uint32_t *words = show(page);
		words[0] = colour(page, o->c);
		words[PAGE / 4 - 1] = ~colour(page, o->c);
	}
	say("painted", o->b);
}

static void same(const struct operation *o)
{
	uint32_t good = 0;

	for (uint32_t i = 0; i < o->b; i++) {
		uint32_t page = o->a + i * (o->op >> 8);
		volatile uint32_t *words = show(page);
		good += words[0] == colour(page, o->c) &&
			words[PAGE / 4 - 1] == ~colour(page, o->c);
	}
	say("same", good);
}

/* --- what to do ------------------------------------------------------------- */

static int step(const struct operation *o)
{
	switch ((enum state_op)(o->op & 0xff)) {
	case OP_START_VCPUS:
		start_vcpus(o->a);
		return 1;
	case OP_PAINT:
		paint(o);
		return 1;
	case OP_SAME:
		same(o);
		return 1;
	case OP_PAGING:
		if (o->a)
			start_paging();
		else
			end_paging();
		return 1;
	case OP_WRMSR:
		write_msr(o->a, o->b, o->c);
		return 1;
	case OP_RDMSR:
		read_msr(o->a);
		return 1;
	case OP_FXRSTOR:
		__asm__ volatile("fxrstor (%0)" : : "r"(o->a) : "memory");
		return 1;
	case OP_FXSAVE:
		__asm__ volatile("fxsave (%0)" : : "r"(o->a) : "memory");
		return 1;
	case OP_SET_DR0:
		__asm__ volatile("movl %0, %%dr0" : : "r"(o->a));
		return 1;
	case OP_GET_DR0:
		get_dr0();
		return 1;
	}
	return script_step(o);
}

static void run(const struct operation *ops, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!step(&ops[i]))
			break;
	}
}

static void answer(void)
{
	run((const struct operation *)mailbox->ops, mailbox->count);
	say("done", mailbox->number);
}

void guest_main(uint32_t start_info)
{
	struct input in = guest_input(start_info);
	uint32_t count = in.size / sizeof(struct operation);
	volatile uint32_t *line = counter_of(0);
	uint32_t number = 0;
	uint32_t answered = 0;

	/* The script may paint over itself. */
	if (count > SCRIPT_MAX)
		count = SCRIPT_MAX;
	__builtin_memcpy(script, in.data, count * sizeof(*script));
	allow_sse();
	run(script, count);
	put("up\n");
	for (uint32_t i = 1;; i++) {
		number = number * 1664525u + 1013904223u;
		line[1] = number;
		line[0] = i;
		if (mailbox->talk)
			say("n", number);
		if (mailbox->number != answered) {
			answered = mailbox->number;
			answer();
		}
	}
}
