/* accounts.h - users of the guest, from /etc/passwd and /etc/group.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Read by hand: a static program has no name service switch. The files belong
 * to the guest: sizes, fields and group counts are bounded, other file types
 * than regular are refused without blocking.
 */
#ifndef BRIG_INIT_ACCOUNTS_H
#define BRIG_INIT_ACCOUNTS_H

#include <sys/types.h>

#include "cc.h"

/* As many supplementary groups as anybody was seen to need. */
#define ACCOUNTS_GROUPS_MAX 64
#define ACCOUNTS_NAME_BYTES 64
#define ACCOUNTS_HOME_BYTES 256

struct account {
	uid_t uid;
	gid_t gid;
	size_t group_count;
	gid_t groups[ACCOUNTS_GROUPS_MAX]; /* without `gid` */
	char name[ACCOUNTS_NAME_BYTES];
	char home[ACCOUNTS_HOME_BYTES];
};

/* Root, without looking anything up: an image may have no passwd file. */
void account_root(struct account *ret);

/* `user` is a name or a decimal uid in the file ETC/passwd; its groups are
 * those of ETC/group. `etc` is "/etc" but in tests. 0, -ENOENT when there is
 * no such user, or -errno when the file cannot be read. */
must_check int account_find(const char *etc, const char *user,
			    struct account *ret);

#endif
