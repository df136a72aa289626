/* ports.c - touches every I/O port in three widths (security.md A-28).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Ports that end the machine by design are left out; all others must read
 * and write without ending it.
 */
#include "guest.h"

static int ends_machine(uint32_t port)
{
	return port == BRIG_PM_SLEEP_CONTROL || port == BRIG_PM_RESET ||
	       port == BRIG_PVPANIC_PORT || port == 0x64 || port == 0xcf9;
}

void guest_main(uint32_t start_info)
{
	uint32_t touched = 0;

	(void)start_info;
	for (uint32_t port = 0; port < 0x10000; port += 1) {
		/* all of the first 4 KiB, then every 61st: exits cost 50 us */
		if (port >= 0x1000 && port % 61 != 0)
			continue;
		if (ends_machine(port) ||
		    (port >= BRIG_SERIAL_PORT && port < BRIG_SERIAL_PORT + 8))
			continue;
		outb((uint16_t)port, 0);
		outw((uint16_t)port, 0xffff);
		outl((uint16_t)port, 0);
		(void)inb((uint16_t)port);
		touched++;
	}
	say("touched", touched);
}
