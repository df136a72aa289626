/* x86_state.c - fuzz target: what a file says of vCPUs and interrupt
 * controllers (security.md C-15, C-16).
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first byte chooses: 0: the rest is a file; else the rest are changes to
 * a good file, each an offset (two bytes) and a byte. Header and checksum are
 * made right. What is accepted has to be accepted again when it is saved, and
 * be the same file.
 */
#include <stdint.h>

#include "script.h"
#include "tests/unit/x86_machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t good[MACHINE_FILE_MAX];
static size_t good_bytes;

static void make_good(void)
{
	static struct x86_machine x;
	struct state_stream s;

	ASSERT(x86_init(0) == 0);
	machine_make(&x);
	ASSERT(machine_save(&x, good, &good_bytes, &s) == 0);
}

static void check(uint8_t *file, size_t bytes)
{
	static struct x86_machine x;
	static uint8_t again[MACHINE_FILE_MAX];
	struct state_stream s;
	size_t again_bytes;

	machine_sign(file, bytes);
	int r = machine_load(&x, file, bytes, &s);
	ASSERT(r == 0 || (r < 0 && s.where[0] != '\0'));
	if (r < 0)
		return;
	ASSERT(x.vcpus == MACHINE_VCPUS && x.cpuid.nent <= KVM_CPUID_MAX);
	ASSERT(machine_save(&x, again, &again_bytes, &s) == 0);
	ASSERT(again_bytes == bytes && memcmp(again, file, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[MACHINE_FILE_MAX];
	struct script s = { data, size };

	if (good_bytes == 0)
		make_good();
	if (script_u8(&s) == 0) {
		if (s.left > sizeof(file))
			return 0;
		size_t bytes = s.left;
		script_take(&s, file, bytes);
		check(file, bytes);
		return 0;
	}
	memcpy(file, good, good_bytes);
	while (s.left > 0) {
		uint16_t at = script_u16(&s);
		uint8_t v = script_u8(&s);
		if (at < good_bytes)
			file[at] = v;
	}
	check(file, good_bytes);
	return 0;
}
