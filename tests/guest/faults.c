/* faults.c - ends in the way its input names: one letter.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "guest.h"

static void triple_fault(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint32_t base;
	} none = { 0, 0 };

	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}

void guest_main(uint32_t start_info)
{
	struct input in = guest_input(start_info);

	put("going\n");
	switch (in.size > 0 ? in.data[0] : 0) {
	case 't':
		triple_fault();
		break;
	case 'r':
		outb(BRIG_PM_RESET, BRIG_PM_RESET_VALUE);
		break;
	case 'p':
		outb(BRIG_PVPANIC_PORT, BRIG_PVPANIC_PANICKED);
		break;
	case 'h':
		__asm__ volatile("cli; hlt");
		break;
	default:
		break;
	}
}
