/* boot.h - from the initramfs to a running root file system.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Only brig-init as PID 1 calls these, once, in this order. They return 0 or
 * more, or do not return: when a step fails the machine is switched off with
 * one line on the console.
 */
#ifndef BRIG_INIT_BOOT_H
#define BRIG_INIT_BOOT_H

#include <stdbool.h>

/* Loads the modules and makes the ext4 file system on /dev/vda the root, with
 * the kernel's file systems mounted in it. */
void boot_mount_root(void);

/* Makes the root file system as large as the disk. True when it is. */
bool boot_grow_root(void);

/* Loopback up, a host name, and the agent out of the reach of what users do:
 * the OOM killer, a full run queue, a low descriptor limit. */
void boot_settle(void);

/* A non-blocking stream socket that is connected to the host's BRIG_READY_PORT
 * or on its way to be, or -errno. May be called at any time. */
int boot_connect_host(void);

/* A listening stream socket on BRIG_AGENT_PORT. */
int boot_listen(void);

#endif
