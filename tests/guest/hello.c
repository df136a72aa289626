/* hello.c - computes a value that only a running guest can know, powers off.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "guest.h"

void guest_main(uint32_t start_info)
{
	struct input in = guest_input(start_info);
	uint32_t sum = 0;

	for (uint32_t i = 0; i < in.size; i++)
		sum = sum * 31 + in.data[i];
	say("sum", sum);
}
