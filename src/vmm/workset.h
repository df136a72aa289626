/* workset.h - the pages that a guest needs first, made ready before it runs.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A guest that goes on from a template has none of its pages: each costs an
 * exit, a fault of this process and often a copy. Which pages will be needed
 * was seen in another guest of the same template: its working set. Here they
 * are copied (MADV_POPULATE_WRITE) and entered into the nested page table
 * (KVM_PRE_FAULT_MEMORY, Linux 6.11; Documentation/virt/kvm/api.rst) in a few
 * system calls.
 *
 * A working set is a hint: nothing depends on its being right or complete, and
 * where the kernel cannot do this the pages come one by one as they always did.
 */
#ifndef BRIG_VMM_WORKSET_H
#define BRIG_VMM_WORKSET_H

#include <stddef.h>
#include <stdint.h>

#include "cc.h"
#include "memory.h"
#include "wire/vmm.h"

/* Call before the guest runs and workset_write() tells what it used: the
 * kernel else brings the neighbours of a page, too. 0 or -errno. */
must_check int workset_watch(const struct memory *m);

/* Writes the runs of pages which this process has, written or only read, to
 * the empty file `fd`. Guests may run meanwhile. The first
 * VMM_WORKING_SET_MAX runs; 0 or -errno. *ret_bytes: written. */
must_check int workset_write(const struct memory *m, int fd,
			     uint64_t *ret_bytes);

/* Reads such a file, whose content is untrusted, and makes the pages ready.
 * `vcpu_fd` has its registers and is not running. -EBADMSG: runs that are not
 * in order, or not in RAM; nothing has happened then. -EFBIG, -EIO. */
must_check int workset_apply(const struct memory *m, int fd, int vcpu_fd);

#endif
