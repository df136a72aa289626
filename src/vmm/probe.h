/* probe.h - what kind of KVM this machine has, by measuring it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_VMM_PROBE_H
#define BRIG_VMM_PROBE_H

/* Opens /dev/kvm, runs a short counting loop in guest ring 0 and prints one
 * line of JSON (the form is at the end of wire/vmm.h). Returns the exit
 * status: 0 whenever the line was printed. Takes at most about 0.1 s. */
int probe_main(void);

#endif
