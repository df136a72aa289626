/* serial.c - any sequence of port accesses to the serial port.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two input bytes are one access: offset in bits 0 to 3 and write in bit 7,
 * then the value. Checked: what is sent is in the ring and counted, and an
 * interrupt that IIR reports was signalled.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/vmm/dev/serial.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vmm_console console;

static bool was_signalled(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct serial port;
	uint8_t lcr = 0;
	uint8_t mcr = 0;
	uint64_t sent = 0;
	bool signalled = false;

	if (fd < 0)
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	(void)was_signalled(fd);
	memset(&console, 0, sizeof(console));
	serial_init(&port, fd);
	serial_set_console(&port, &console);
	for (size_t i = 0; i + 1 < size; i += 2) {
		uint16_t offset = data[i] & 15;
		uint8_t v = data[i + 1];
		if (!(data[i] & 0x80)) {
			v = serial_read(&port, offset);
			signalled |= was_signalled(fd);
			bool claims = offset == 2 && (v & 1) == 0;
			ASSERT(!claims || signalled);
			if (claims)
				signalled = false;
			continue;
		}
		serial_write(&port, offset, v);
		if (offset == 0 && !(lcr & 0x80) && !(mcr & 0x10)) {
			ASSERT(console.data[sent % BRIG_CONSOLE_RING_BYTES] ==
			       v);
			sent++;
		}
		lcr = offset == 3 ? v : lcr;
		mcr = offset == 4 ? v : mcr;
		ASSERT(console.written == sent);
		ASSERT(serial_read(&port, 5) == 0x60);
	}
	return 0;
}
