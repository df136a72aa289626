/* host.c - brig host: hands over to brig-host, which runs the host VM.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "opt.h"
#include "term.h"
#include "where.h"

static const struct usage host_usage = {
	.name = "host",
	.operands = "start|stop|status|ssh|logs [ARG]...",
	.about = "Runs brigd in a virtual machine of its own, for machines "
		 "whose KVM cannot run sandboxes (`brig doctor` says so). "
		 "Everything after the word goes to brig-host.",
	.examples = "  brig host start\n"
		    "  brig host status\n"
		    "  brig host stop\n",
	.passes_on = true,
};

int cmd_host(int argc, char **argv)
{
	char path[WHERE_BYTES];
	char name[] = "brig-host";
	int at = opt_parse(&host_usage, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (at == argc)
		return opt_wrong(&host_usage, "start, stop or what?");
	if (where_find("brig-host", "../../../host/brig-host", path) < 0) {
		complain("brig-host is not installed (BRIG_LIBEXEC may say "
			 "where it is)");
		return CMD_FAILED;
	}
	argv[at - 1] = name;
	(void)execv(path, argv + at - 1);
	complain("%s: %s", path, strerror(errno));
	return CMD_FAILED;
}
