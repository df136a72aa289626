/* receipt.h - what was made sure of before a sandbox was handed out.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each guest, whether it booted or was restored, gets its own identity before
 * any code of a user runs in it, and has to confirm each step. A sandbox
 * whose guest does not is not handed out.
 */
#ifndef BRIGD_RECEIPT_H
#define BRIGD_RECEIPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "wire/guest.h"

struct receipt {
	bool valid; /* the guest confirmed */
	bool connections_reset;
	uint32_t hooks_failed;
	uint64_t clock_error_ns; /* at most */
	char hostname[BRIG_HOSTNAME_BYTES];
	char machine_id[33];
	uint64_t claim_us;     /* from the start to a shell that is built */
	uint64_t restore_us;   /* until its vCPUs run */
	uint64_t configure_us; /* until the guest confirmed */
	uint64_t total_us;
};

/* Fills in a CONFIGURE for a sandbox: its name, a machine id that follows
 * from its id, random numbers. False: no randomness to be had. */
bool receipt_make_configure(const char *sandbox_id, const char *name,
			    struct guest_configure *ret);

/* True if the guest confirmed every step of `sent`. */
bool receipt_check(const struct guest_configure *sent,
		   const struct guest_configured *got);

/* Fills in what `sent` and `got` say. */
void receipt_fill(struct receipt *r, const struct guest_configure *sent,
		  const struct guest_configured *got);

/* The API's object; null if it is not valid. */
json_t *receipt_json(const struct receipt *r);

#endif
