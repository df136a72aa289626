/* script.c - the hostile guest: does what its script says, byte for byte.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The script is the initrd.
 */
#include "script.h"

void guest_main(uint32_t start_info)
{
	struct input in = guest_input(start_info);

	script_run((const void *)in.data, in.size / sizeof(struct operation));
	put("end\n");
}
