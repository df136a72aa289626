/* api_system.c - health and the host.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "api.h"
#include "image.h"
#include "meminfo.h"
#include "peer_spawn.h"
#include "pool.h"
#include "standby.h"

void api_health(struct request *rq)
{
	http_reply_json(rq, json_pack("{s:s, s:s}", "status", "ok", "version",
				      BRIG_VERSION));
}

static const char *kvm_name(enum spawn_kvm_kind kind)
{
	switch (kind) {
	case SPAWN_KVM_HARDWARE:
		return "hardware";
	case SPAWN_KVM_EMULATED:
		return "emulated";
	case SPAWN_KVM_NONE:
		break;
	}
	return "none";
}

void api_host(struct request *rq)
{
	const struct app *app = api_app(rq);
	const struct sandbox *sb;
	uint64_t iterations = 0;
	uint64_t committed = 0;
	enum spawn_kvm_kind kind = spawn_peer_kvm(app->spawn, &iterations);

	TAILQ_FOREACH(sb, &app->sandboxes->list, link) {
		if (sb->shell != NULL)
			committed += sb->shape.memory_mib;
	}
	http_reply_json(
		rq,
		json_pack("{s:s, s:{s:s, s:I}, s:I, s:I, s:I, "
			  "s:{s:I, s:I}, s:I, s:o}",
			  "version", BRIG_VERSION, "kvm", "kind",
			  kvm_name(kind), "iterations_per_s",
			  (json_int_t)iterations, "sandboxes",
			  (json_int_t)app->sandboxes->count, "memory_mib_total",
			  (json_int_t)meminfo_mib("MemTotal"),
			  "memory_mib_committed", (json_int_t)committed, "pool",
			  "size", (json_int_t)app->pool_size, "ready",
			  (json_int_t)pool_ready(app->pool), "standby",
			  (json_int_t)standby_ready(app->standbys), "images",
			  image_list(app->images_dir)));
}
