/* manifest.c - what a snapshot is made of, as text with a checksum.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Decoding ends by encoding what was understood: if that is not the text that
 * came, then something in it was not understood (a key too many, a key twice,
 * another layout), and it is refused. So the readers below only have to find
 * what they know.
 */
#include <errno.h>
#include <gnutls/crypto.h>
#include <jansson.h>
#include <string.h>

#include "auth.h"
#include "id.h"
#include "manifest.h"
#include "utf8.h"

#define ID_CHARS 24u
#define MIB (1ull << 20)

/* Checksum in hex and newline. */
#define TRAILER_BYTES (2 * AUTH_HASH_BYTES + 1)

/* Sorted keys, or the order would be that of the code. */
#define LAYOUT (JSON_SORT_KEYS | JSON_INDENT(1))

static const char *const kinds[] = {
	[SNAP_MEMORY] = "memory",
	[SNAP_DISK] = "disk",
	[SNAP_TEMPLATE] = "template",
};

enum object_role manifest_role(const struct manifest *m, unsigned int index)
{
	if (index < m->state_count)
		return OBJECT_STATE;
	if (index < m->state_count + m->memory_count)
		return OBJECT_MEMORY;
	return OBJECT_LAYER;
}

/* --- values ---------------------------------------------------------------- */

bool manifest_is_id(const char *id, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(id, prefix, n) == 0 && strlen(id) == n + ID_CHARS &&
	       strspn(id + n, "abcdefghijklmnopqrstuvwxyz0123456789") ==
		       ID_CHARS;
}

static bool is_name(const char *s)
{
	size_t n = strlen(s);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	}
	return n > 0 && utf8_is_valid((const uint8_t *)s, n);
}

static bool is_image_name(const char *s)
{
	return s[0] != '\0' && s[0] != '.' && s[0] != '-' &&
	       s[strspn(s, "abcdefghijklmnopqrstuvwxyz"
			   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] == '\0';
}

static const char *check_snap(const struct snap *s)
{
	if (!manifest_is_id(s->id, "snap_"))
		return "manifest: id";
	if (!is_name(s->name) || s->tenant < 0 || s->created_ms < 0)
		return "manifest: name, tenant or time";
	if (s->parent[0] != '\0' && !manifest_is_id(s->parent, "snap_"))
		return "manifest: parent";
	if (s->source_id[0] != '\0' && !manifest_is_id(s->source_id, "sb_"))
		return "manifest: source";
	if (s->source_name[0] != '\0' && !is_name(s->source_name))
		return "manifest: name of the source";
	return NULL;
}

static const char *check_shape(const struct shape *s)
{
	if (!is_image_name(s->image))
		return "manifest: name of the image";
	if (s->vcpus < 1 || s->vcpus > BRIG_VCPUS_MAX)
		return "manifest: vcpus";
	if (s->memory_mib < BRIG_MEMORY_MIB_MIN ||
	    s->memory_mib > BRIG_MEMORY_MIB_MAX)
		return "manifest: memory_mib";
	if (s->disk_bytes < BRIG_DISK_BYTES_MIN ||
	    s->disk_bytes > BRIG_DISK_BYTES_MAX || s->disk_bytes % MIB != 0)
		return "manifest: disk_bytes";
	if (s->base_bytes < 1 || s->base_bytes > s->disk_bytes)
		return "manifest: base_bytes";
	return NULL;
}

bool manifest_is_size(const struct manifest *m, unsigned int index)
{
	const struct shape *shape = &m->snap.shape;
	uint64_t bytes = m->objects[index].bytes;

	switch (manifest_role(m, index)) {
	case OBJECT_STATE:
		return bytes >= 1 && bytes <= SNAP_STATE_MAX;
	case OBJECT_MEMORY:
		return bytes == shape->memory_mib * MIB;
	case OBJECT_LAYER:
		break;
	}
	return bytes <= shape->disk_bytes && bytes % SPARSE_BLOCK == 0;
}

static const char *check_objects(const struct manifest *m)
{
	bool whole = m->snap.kind != SNAP_DISK;

	if (m->state_count != (whole ? 1 : 0) || (m->memory_count > 0) != whole)
		return "manifest: parts do not fit its kind";
	for (unsigned int i = 0; i < manifest_count(m); i++) {
		if (!manifest_is_id(m->objects[i].id, "obj_"))
			return "manifest: id of an object";
		if (!manifest_is_size(m, i))
			return "manifest: size of an object";
		for (unsigned int k = 0; k < i; k++) {
			if (strcmp(m->objects[i].id, m->objects[k].id) == 0)
				return "manifest: an object twice";
		}
	}
	return NULL;
}

static const char *check_head(const struct manifest *m)
{
	const char *problem = check_snap(&m->snap);

	if (problem == NULL)
		problem = check_shape(&m->snap.shape);
	if (problem == NULL &&
	    !settings_is_good(m->snap.settings, m->snap.shape.vcpus))
		problem = "manifest: settings";
	if (problem == NULL && m->hostname_hint[0] != '\0' &&
	    !id_is_label(m->hostname_hint))
		problem = "manifest: host name";
	return problem;
}

bool manifest_is_head(const struct manifest *m)
{
	return check_head(m) == NULL;
}

/* What is wrong with it, or NULL. */
static const char *check(const struct manifest *m)
{
	const char *problem = check_head(m);

	return problem != NULL ? problem : check_objects(m);
}

/* --- encoding -------------------------------------------------------------- */

static void to_hex(const uint8_t *bytes, size_t n, char *ret)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		ret[2 * i] = digits[bytes[i] >> 4];
		ret[2 * i + 1] = digits[bytes[i] & 15];
	}
	ret[2 * n] = '\0';
}

static json_t *object_to_json(const struct manifest_object *o)
{
	char hash[2 * SPARSE_HASH + 1];

	to_hex(o->sha256, sizeof(o->sha256), hash);
	return json_pack("{s:s, s:I, s:s}", "object", o->id, "bytes",
			 (json_int_t)o->bytes, "sha256", hash);
}

static json_t *objects_to_json(const struct manifest_object *o, unsigned int n)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < n; i++) {
		if (json_array_append_new(list, object_to_json(&o[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *shape_to_json(const struct shape *s)
{
	char hash[2 * sizeof(s->image_hash) + 1];

	to_hex(s->image_hash, sizeof(s->image_hash), hash);
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "image", s->image,
			 "image_hash", hash, "base_bytes",
			 (json_int_t)s->base_bytes, "vcpus",
			 (json_int_t)s->vcpus, "memory_mib",
			 (json_int_t)s->memory_mib, "disk_bytes",
			 (json_int_t)s->disk_bytes);
}

static json_t *to_json(const struct manifest *m)
{
	const struct snap *s = &m->snap;
	const struct manifest_object *memory = m->objects + m->state_count;

	return json_pack(
		"{s:i, s:s, s:s, s:I, s:s, s:s, s:I, s:s, s:s, s:s, s:s, "
		"s:o, s:O*, s:o, s:o, s:o}",
		"format", MANIFEST_FORMAT, "id", s->id, "name", s->name,
		"tenant", (json_int_t)s->tenant, "kind", kinds[s->kind],
		"consistency", s->quiesced ? "application" : "crash",
		"created_ms", (json_int_t)s->created_ms, "parent", s->parent,
		"source_id", s->source_id, "source_name", s->source_name,
		"hostname", m->hostname_hint, "shape", shape_to_json(&s->shape),
		"settings", s->settings, "state",
		objects_to_json(m->objects, m->state_count), "memory",
		objects_to_json(memory, m->memory_count), "layers",
		objects_to_json(memory + m->memory_count, m->layer_count));
}

static int add_trailer(struct buf *b)
{
	uint8_t hash[AUTH_HASH_BYTES];
	char hex[2 * AUTH_HASH_BYTES + 1];

	auth_hash(b->data, b->len, hash);
	to_hex(hash, sizeof(hash), hex);
	return buf_addf(b, "%s\n", hex);
}

/* `ret` may hold something before. */
static int encode(const struct manifest *m, struct buf *ret)
{
	json_t *json = to_json(m);
	char *text = json == NULL ? NULL : json_dumps(json, LAYOUT);
	int r = text == NULL ? -ENOMEM : buf_addf(ret, "%s\n", text);

	free(text);
	json_decref(json);
	return r < 0 ? r : add_trailer(ret);
}

int manifest_encode(const struct manifest *m, struct buf *ret)
{
	if (check(m) != NULL)
		return -EINVAL;
	ret->len = 0;
	ret->max = MANIFEST_TEXT_MAX;
	return encode(m, ret);
}

/* --- decoding -------------------------------------------------------------- */

/* A text shorter than `size`, without NUL. */
static bool get_text(json_t *from, const char *key, char *ret, size_t size)
{
	json_t *v = json_object_get(from, key);
	size_t n = json_string_length(v);

	if (!json_is_string(v) || n >= size ||
	    memchr(json_string_value(v), '\0', n) != NULL)
		return false;
	memset(ret, 0, size);
	memcpy(ret, json_string_value(v), n);
	return true;
}

static bool get_number(json_t *from, const char *key, uint64_t max,
		       uint64_t *ret)
{
	json_t *v = json_object_get(from, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) > max)
		return false;
	*ret = (uint64_t)json_integer_value(v);
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool get_hash(json_t *from, const char *key, uint8_t ret[SPARSE_HASH])
{
	char text[2 * SPARSE_HASH + 1];

	if (!get_text(from, key, text, sizeof(text)))
		return false;
	for (size_t i = 0; i < SPARSE_HASH; i++) {
		int high = hex_digit(text[2 * i]);
		int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
		if (low < 0)
			return false;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static bool get_shape(json_t *from, struct shape *s)
{
	uint64_t vcpus = 0;
	uint64_t memory_mib = 0;

	if (!get_text(from, "image", s->image, sizeof(s->image)) ||
	    !get_hash(from, "image_hash", s->image_hash) ||
	    !get_number(from, "base_bytes", INT64_MAX, &s->base_bytes) ||
	    !get_number(from, "vcpus", UINT32_MAX, &vcpus) ||
	    !get_number(from, "memory_mib", UINT32_MAX, &memory_mib) ||
	    !get_number(from, "disk_bytes", INT64_MAX, &s->disk_bytes))
		return false;
	s->vcpus = (uint32_t)vcpus;
	s->memory_mib = (uint32_t)memory_mib;
	return true;
}

static bool get_kind(json_t *from, struct snap *s)
{
	char text[16];

	if (!get_text(from, "kind", text, sizeof(text)))
		return false;
	for (unsigned int i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(text, kinds[i]) == 0) {
			s->kind = (enum snap_kind)i;
			return true;
		}
	}
	return false;
}

static bool get_snap(json_t *from, struct snap *s)
{
	uint64_t tenant = 0;
	uint64_t created = 0;
	char consistency[16];

	if (!get_text(from, "id", s->id, sizeof(s->id)) ||
	    !get_text(from, "name", s->name, sizeof(s->name)) ||
	    !get_text(from, "parent", s->parent, sizeof(s->parent)) ||
	    !get_text(from, "source_id", s->source_id, sizeof(s->source_id)) ||
	    !get_text(from, "source_name", s->source_name,
		      sizeof(s->source_name)) ||
	    !get_text(from, "consistency", consistency, sizeof(consistency)) ||
	    !get_number(from, "tenant", INT64_MAX, &tenant) ||
	    !get_number(from, "created_ms", INT64_MAX, &created) ||
	    !get_kind(from, s))
		return false;
	s->tenant = (int64_t)tenant;
	s->created_ms = (int64_t)created;
	s->quiesced = strcmp(consistency, "application") == 0;
	s->settings = json_incref(json_object_get(from, "settings"));
	return true;
}

/* Appends the objects of one list to `m`. */
static bool get_objects(json_t *from, const char *key, struct manifest *m,
			unsigned int max, unsigned int *ret_count)
{
	json_t *list = json_object_get(from, key);
	json_t *item;
	size_t i;
	unsigned int n = manifest_count(m);

	if (!json_is_array(list) || json_array_size(list) > max)
		return false;
	json_array_foreach(list, i, item) {
		struct manifest_object *o = &m->objects[n++];
		if (!get_text(item, "object", o->id, sizeof(o->id)) ||
		    !get_number(item, "bytes", INT64_MAX, &o->bytes) ||
		    !get_hash(item, "sha256", o->sha256))
			return false;
	}
	*ret_count = (unsigned int)json_array_size(list);
	return true;
}

static bool get_all(json_t *from, struct manifest *m)
{
	return get_snap(from, &m->snap) &&
	       get_text(from, "hostname", m->hostname_hint,
			sizeof(m->hostname_hint)) &&
	       get_shape(json_object_get(from, "shape"), &m->snap.shape) &&
	       get_objects(from, "state", m, 1, &m->state_count) &&
	       get_objects(from, "memory", m, SAVED_MEMORY_MAX,
			   &m->memory_count) &&
	       get_objects(from, "layers", m, BRIG_LAYERS_MAX, &m->layer_count);
}

/* The length of what the checksum is over; 0 if it does not fit. */
static size_t check_trailer(const char *text, size_t n,
			    const char **ret_problem)
{
	uint8_t hash[AUTH_HASH_BYTES];
	char hex[2 * AUTH_HASH_BYTES + 1];

	if (n > MANIFEST_TEXT_MAX) {
		*ret_problem = "manifest: too long";
		return 0;
	}
	if (n < TRAILER_BYTES + 3 || text[n - 1] != '\n' ||
	    text[n - TRAILER_BYTES - 1] != '\n') {
		*ret_problem = "manifest: cut short";
		return 0;
	}
	auth_hash(text, n - TRAILER_BYTES, hash);
	to_hex(hash, sizeof(hash), hex);
	if (memcmp(hex, text + n - TRAILER_BYTES, TRAILER_BYTES - 1) != 0) {
		*ret_problem = "manifest: checksum differs";
		return 0;
	}
	return n - TRAILER_BYTES;
}

static bool is_canonical(const struct manifest *m, const char *text, size_t n)
{
	struct buf again = BUF_INIT(MANIFEST_TEXT_MAX);
	bool same = encode(m, &again) == 0 && again.len == n &&
		    memcmp(again.data, text, n) == 0;

	buf_free(&again);
	return same;
}

static int refuse(const char **ret_problem, const char *problem)
{
	*ret_problem = problem;
	return -EBADMSG;
}

static int understand(json_t *json, const char *id, struct manifest *ret,
		      const char **ret_problem)
{
	json_t *format = json_object_get(json, "format");

	if (!json_is_integer(format))
		return refuse(ret_problem, "manifest: no format");
	if (json_integer_value(format) != MANIFEST_FORMAT) {
		*ret_problem = json_integer_value(format) > MANIFEST_FORMAT
				       ? "made by a newer version of brig"
				       : "made by an older version of brig";
		return -ENOTSUP;
	}
	if (!get_all(json, ret))
		return refuse(ret_problem, "manifest: a value is wrong");
	const char *problem = check(ret);
	if (problem != NULL)
		return refuse(ret_problem, problem);
	if (id != NULL && strcmp(ret->snap.id, id) != 0)
		return refuse(ret_problem, "manifest: of another snapshot");
	return 0;
}

int manifest_decode(const char *text, size_t n, const char *id,
		    struct manifest *ret, const char **ret_problem)
{
	size_t body = check_trailer(text, n, ret_problem);

	memset(ret, 0, sizeof(*ret));
	if (body == 0)
		return -EBADMSG;
	json_t *json = json_loadb(text, body, 0, NULL);
	if (json == NULL)
		return refuse(ret_problem, "manifest: not JSON");
	int r = understand(json, id, ret, ret_problem);
	json_decref(json);
	if (r == 0 && !is_canonical(ret, text, n))
		r = refuse(ret_problem, "manifest: something else in it");
	if (r < 0) {
		json_decref(ret->snap.settings);
		ret->snap.settings = NULL;
	}
	return r;
}
