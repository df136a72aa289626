/* cmd.c - tables of commands.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "cmd.h"

const struct cmd *cmd_find(const struct cmd *table, const char *name)
{
	for (const struct cmd *c = table; c->name != NULL; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

void cmd_print(const struct cmd *table)
{
	for (const struct cmd *c = table; c->name != NULL; c++)
		(void)printf("  %-12s %s\n", c->name, c->help);
}
