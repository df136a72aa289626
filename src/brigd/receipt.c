/* receipt.c - what was made sure of before a sandbox was handed out.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "auth.h"
#include "loop.h"
#include "receipt.h"

static bool fill_random(void *to, size_t n)
{
	return getrandom(to, n, 0) == (ssize_t)n;
}

/* RFC 4122, 4.4: version 4. */
static void make_uuid(uint8_t id[16])
{
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
}

bool receipt_make_configure(const char *sandbox_id, const char *name,
			    struct guest_configure *ret)
{
	uint8_t hash[AUTH_HASH_BYTES];

	memset(ret, 0, sizeof(*ret));
	/* The same after a pause or a rollback, another for each sandbox. */
	auth_hash(sandbox_id, strlen(sandbox_id), hash);
	memcpy(ret->machine_id, hash, sizeof(ret->machine_id));
	make_uuid(ret->machine_id);
	(void)snprintf(ret->hostname, sizeof(ret->hostname), "%s", name);
	if (!fill_random(&ret->generation, sizeof(ret->generation)) ||
	    !fill_random(ret->boot_id, sizeof(ret->boot_id)) ||
	    !fill_random(ret->entropy, sizeof(ret->entropy)))
		return false;
	make_uuid(ret->boot_id);
	ret->generation |= 1; /* 0 means none */
	ret->realtime_ns = clock_ns(CLOCK_REALTIME);
	return true;
}

bool receipt_check(const struct guest_configure *sent,
		   const struct guest_configured *got)
{
	return got->generation == sent->generation && got->clock_set == 1 &&
	       got->entropy_added == 1 && got->hostname_set == 1 &&
	       got->machine_id_set == 1 && got->boot_id_set == 1 &&
	       got->zero == 0;
}

void receipt_fill(struct receipt *r, const struct guest_configure *sent,
		  const struct guest_configured *got)
{
	uint64_t now = clock_ns(CLOCK_REALTIME);

	/* The guest set its clock at some time between the two. */
	r->clock_error_ns =
		now > sent->realtime_ns ? now - sent->realtime_ns : 0;
	r->hooks_failed = got->hooks_failed;
	memcpy(r->hostname, sent->hostname, sizeof(r->hostname));
	for (size_t i = 0; i < sizeof(sent->machine_id); i++)
		(void)snprintf(r->machine_id + 2 * i, 3, "%02x",
			       sent->machine_id[i]);
	r->valid = true;
}

json_t *receipt_json(const struct receipt *r)
{
	if (!r->valid)
		return json_null();
	return json_pack("{s:b, s:b, s:f, s:s, s:s, s:b, s:I, "
			 "s:{s:I, s:I, s:I, s:I}}",
			 "entropy_reseeded", 1, "clock_set", 1,
			 "clock_error_ms", (double)r->clock_error_ns / 1e6,
			 "hostname", r->hostname, "machine_id", r->machine_id,
			 "connections_reset", r->connections_reset,
			 "hooks_failed", (json_int_t)r->hooks_failed,
			 "steps_us", "claim", (json_int_t)r->claim_us,
			 "restore", (json_int_t)r->restore_us, "configure",
			 (json_int_t)r->configure_us, "total",
			 (json_int_t)r->total_us);
}
