/* main.c - brig-vmm: one microVM, from an empty shell to its end.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "config.h"
#include "log.h"
#include "machine.h"
#include "probe.h"

static struct machine machine;

static int usage(void)
{
	(void)fputs("brig-vmm runs one microVM. It is started by brig-spawn "
		    "with its files as descriptors;\nsee brig-vmm(8). By hand "
		    "there is only:\n  brig-vmm --probe   say what kind of "
		    "KVM this machine has, as JSON\n",
		    stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static struct kvm_cpuid_table cpuid;
	struct vmm_config config;

	log_init("brig-vmm");
	if (argc == 2 && strcmp(argv[1], "--probe") == 0)
		return probe_main();
	if (argc > 1)
		return usage();

	if (prctl(PR_SET_DUMPABLE, 0) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("prctl: %m");
	int r = config_read(VMM_FD_CONFIG, &config, &cpuid);
	if (r < 0)
		die("configuration: %s (brig-spawn starts this program)",
		    strerrordesc_np(-r));
	vcpu_supports(&cpuid);
	machine_build(&machine, &config);
	machine_run(&machine);
	return 0;
}
