/* identity.h - names by which the programs of a guest tell machines apart.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each function sets one and reads it back; 0 or -errno. Files of the image
 * are written as far as it lets them be (it may have no /etc, be read-only or
 * full): what counts is what a program that asks is told.
 */
#ifndef BRIG_INIT_IDENTITY_H
#define BRIG_INIT_IDENTITY_H

#include <stdint.h>

#include "cc.h"

#define IDENTITY_ID_BYTES 16

/* `name` is not empty. The kernel's name, /etc/hostname, /etc/hosts. */
must_check int identity_set_hostname(const char *name);

/* /etc/machine-id (machine-id(5)), and D-Bus's copy where there is one. */
must_check int identity_set_machine(const uint8_t id[IDENTITY_ID_BYTES]);

/* /proc/sys/kernel/random/boot_id, which the kernel makes up only once: a
 * file that is mounted over it. Not seen by who mounts another procfs. */
must_check int identity_set_boot(const uint8_t id[IDENTITY_ID_BYTES]);

#endif
