/* check.h - whether a saved vCPU or interrupt controller could be real.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Refuses what KVM or the processor would refuse, and what a guest of ours
 * cannot bring about; so that a file is refused before the first ioctl. All
 * that is looked at is hostile. Each returns NULL, or what is wrong in at most
 * STATE_NAME_MAX characters. No side effects.
 */
#ifndef BRIG_VMM_X86_CHECK_H
#define BRIG_VMM_X86_CHECK_H

#include "state.h"

/* `cpuid` passed cpuid_check(); v->msr_count is at most X86_MSRS_MAX. */
const char *check_vcpu(const struct x86_vcpu *v, uint32_t id,
		       const struct kvm_cpuid_table *cpuid);

const char *check_pic(const struct kvm_pic_state *pic, bool second);
const char *check_ioapic(const struct kvm_ioapic_state *ioapic);

#endif
