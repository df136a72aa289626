/* manifest.c - manifests that somebody else wrote and signed.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: the text without its checksum, which is added here. What is accepted
 * must be within the limits, be safe as names of files, and be written again
 * as the same text.
 */
#include <errno.h>

#include "src/brigd/auth.h"
#include "src/brigd/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct manifest *m, const char *text, size_t n)
{
	const struct shape *s = &m->snap.shape;
	struct buf again = BUF_INIT(MANIFEST_TEXT_MAX);

	ASSERT(manifest_is_id(m->snap.id, "snap_"));
	ASSERT(strchr(s->image, '/') == NULL && s->image[0] != '.');
	ASSERT(s->vcpus >= 1 && s->vcpus <= BRIG_VCPUS_MAX);
	ASSERT(s->memory_mib >= BRIG_MEMORY_MIB_MIN);
	ASSERT(s->memory_mib <= BRIG_MEMORY_MIB_MAX);
	ASSERT(s->disk_bytes <= BRIG_DISK_BYTES_MAX);
	ASSERT(s->base_bytes <= s->disk_bytes);
	ASSERT(m->state_count <= 1 && m->memory_count <= SAVED_MEMORY_MAX);
	ASSERT(m->layer_count <= BRIG_LAYERS_MAX);
	for (unsigned int i = 0; i < manifest_count(m); i++) {
		ASSERT(manifest_is_id(m->objects[i].id, "obj_"));
		ASSERT(manifest_is_size(m, i));
	}
	ASSERT(settings_is_good(m->snap.settings, s->vcpus));
	ASSERT(manifest_encode(m, &again) == 0);
	ASSERT(again.len == n && memcmp(again.data, text, n) == 0);
	buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	static struct manifest m;
	const char *problem = NULL;
	uint8_t hash[AUTH_HASH_BYTES];
	struct buf text = BUF_INIT(2 * MANIFEST_TEXT_MAX);
	int r = buf_add(&text, data, size);

	if (r < 0)
		return 0;
	auth_hash(data, size, hash);
	for (size_t i = 0; r == 0 && i < sizeof(hash); i++)
		r = buf_addf(&text, "%c%c", digits[hash[i] >> 4],
			     digits[hash[i] & 15]);
	if (r == 0)
		r = buf_add_str(&text, "\n");
	if (r == 0) {
		r = manifest_decode(text.data, text.len, NULL, &m, &problem);
		if (r == 0)
			check(&m, text.data, text.len);
		else
			ASSERT(r == -ENOTSUP || r == -EBADMSG);
		ASSERT(r == 0 || problem != NULL);
		json_decref(m.snap.settings);
	}
	buf_free(&text);
	return 0;
}
