/* key.h - the API key: where it comes from.
 * SPDX-License-Identifier: Apache-2.0
 *
 * BRIG_API_KEY; else, and only when brigd is asked on this machine, a key
 * file: that of the host VM while one runs, then brigd's own, then that of
 * the host VM. A key file is never sent to another machine.
 */
#ifndef BRIG_CLI_KEY_H
#define BRIG_CLI_KEY_H

#include <stdbool.h>

#include "cc.h"

#define KEY_MAX 512u
#define KEY_FROM_BYTES 256 /* a longer path is shown cut */
#define KEY_FILE "/var/lib/brig/key"

struct key {
	char text[KEY_MAX + 1];    /* "": none; visible ASCII */
	char from[KEY_FROM_BYTES]; /* "BRIG_API_KEY", or the file; "": nowhere */
	int error; /* why that file could not be read; 0: it was */
};

/* 0, or -EINVAL with *ret_why (static text) for a key that cannot be one. */
must_check int key_find(const char *url, struct key *ret, const char **ret_why);

/* The URL's host is this machine's loopback address. For tests too. */
bool key_is_local(const char *url);

#endif
