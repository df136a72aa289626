/* answer.c - the guest of the benchmarks: multiplies as often as it is asked.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A benchmark saves it while it waits for a question and puts one into the
 * memory of each copy: the answer shows that the copy has run. Before it
 * answers it writes to as many pages as the question says.
 */
#include "guest.h"
#include "tests/bench/question.h"

static volatile struct question *const question = (void *)QUESTION_AT;

static void dirty(uint32_t pages, uint32_t value)
{
	for (uint32_t i = 0; i < pages; i++)
		*(volatile uint32_t *)(uintptr_t)question_page(i) = value;
}

void guest_main(uint32_t start_info)
{
	uint32_t answered = 0;

	(void)start_info;
	put("up\n");
	for (;;) {
		if (question->number == answered)
			continue;
		answered = question->number;
		uint32_t value = question->a * question->b;
		dirty(question->dirty_pages, value);
		put_char((char)value);
		put_char((char)(value >> 8));
		if (question->then_halt)
			__asm__ volatile("cli; hlt");
	}
}
