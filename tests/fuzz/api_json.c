/* api_json.c - request bodies and query values that a client chose.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: one byte that says which parser, then its text. What a parser
 * accepts keeps its promises; what it refuses has a status and leaves nothing.
 */
#include <jansson.h>

#include "src/brigd/args.h"
#include "src/brigd/args_make.h"
#include "src/brigd/id.h"
#include "src/brigd/utf8.h"
#include "src/brigd/when.h"
#include "wire/guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_fault(const struct fault *f)
{
	ASSERT(f->status == 400 || f->status == 422);
	ASSERT(f->code != NULL && f->text[0] != '\0');
}

static void parse_create(const char *text, size_t n)
{
	struct args_create a;
	struct fault f = { .status = 0 };

	if (args_parse_create(text, n, &a, &f) < 0) {
		check_fault(&f);
		ASSERT(a.json == NULL);
		return;
	}
	ASSERT(a.name == NULL || id_is_label(a.name));
	ASSERT(strchr(a.image, '/') == NULL && a.image[0] != '.');
	ASSERT(a.cpus >= 1 && a.cpus <= CPUS_MAX);
	ASSERT(a.memory_mib >= BRIG_MEMORY_MIB_MIN);
	ASSERT(a.memory_mib <= BRIG_MEMORY_MIB_MAX);
	ASSERT(a.storage_gb >= 1 && a.storage_gb <= STORAGE_GB_MAX);
	args_free_create(&a);
}

/* As many strings as the head says, each with its NUL, and no byte more. */
static void check_exec(const struct buf *b)
{
	struct guest_exec head;
	size_t strings = 0;

	ASSERT(b->len >= sizeof(head) && b->len <= BRIG_FRAME_MAX);
	memcpy(&head, b->data, sizeof(head));
	for (size_t i = sizeof(head); i < b->len; i++)
		strings += b->data[i] == '\0';
	ASSERT(strings == (size_t)2 + head.argc + head.envc);
	ASSERT(b->data[b->len - 1] == '\0');
	ASSERT(head.argc >= 1 && head.argc <= BRIG_ARGV_MAX);
	ASSERT(head.envc <= BRIG_ENV_MAX);
}

static void check_run(int r, struct args_run *a, struct fault *f)
{
	struct buf b = BUF_INIT(BRIG_FRAME_MAX);

	if (r < 0) {
		check_fault(f);
		ASSERT(a->json == NULL);
		return;
	}
	ASSERT((a->command != NULL) + (a->argv != NULL) +
		       (a->language != NULL) ==
	       1);
	ASSERT((a->language == NULL) == (a->code == NULL));
	ASSERT(a->timeout_ms <= RUN_TIMEOUT_MAX_S * 1000);
	if (args_encode_exec(a, NULL, &b, f) == 0)
		check_exec(&b);
	else
		check_fault(f);
	buf_free(&b);
	args_free_run(a);
}

static void parse_make(enum args_make_kind kind, const char *text, size_t n)
{
	struct args_make a;
	struct fault f = { .status = 0 };

	if (args_parse_make(kind, text, n, &a, &f) < 0) {
		check_fault(&f);
		ASSERT(a.json == NULL);
		return;
	}
	ASSERT(a.name == NULL || id_is_label(a.name));
	ASSERT(a.snapshot_name == NULL || id_is_label(a.snapshot_name));
	ASSERT(a.image == NULL || strchr(a.image, '/') == NULL);
	ASSERT(a.cpus <= CPUS_MAX && a.vcpus <= BRIG_VCPUS_MAX);
	ASSERT(a.memory_mib <= BRIG_MEMORY_MIB_MAX);
	ASSERT(a.disk_gib <= STORAGE_GB_MAX && a.count <= CREATE_COUNT_MAX);
	args_make_free(&a);
}

static void parse_query(const char *text)
{
	struct fault f = { .status = 0 };
	uint32_t n = 0;
	int64_t ms = 0;
	char again[WHEN_BYTES];

	if (args_query_number(text, "n", 1000, 1, &n, &f) == 0)
		ASSERT(n >= 1 && n <= 1000);
	else
		check_fault(&f);
	if (args_check_path(text, &f) < 0)
		check_fault(&f);
	if (when_parse(text, &ms) == 0) {
		int64_t same = 0;
		when_format(ms, again);
		if (ms >= 0 && strlen(again) == 24) {
			ASSERT(when_parse(again, &same) == 0 && same == ms);
		}
	}
}

static void add_text(const uint8_t *bytes, size_t n)
{
	struct buf b = BUF_INIT(1 << 20);
	size_t tail = utf8_tail(bytes, n);

	ASSERT(tail <= UTF8_TAIL_MAX && tail <= n);
	if (utf8_add_json(&b, bytes, n) == 0)
		ASSERT(n == 0 || utf8_is_valid((uint8_t *)b.data, b.len));
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct args_run a;
	struct fault f = { .status = 0 };

	if (size < 1)
		return 0;
	size_t n = size - 1;
	char *text = malloc(n + 1);
	if (text == NULL)
		return 0;
	memcpy(text, data + 1, n);
	text[n] = '\0';
	switch (data[0] % 16) {
	case 0:
		parse_create(text, n);
		break;
	case 1:
		check_run(args_parse_execute(text, n, false, &a, &f), &a, &f);
		break;
	case 2:
		check_run(args_parse_run(text, n, &a, &f), &a, &f);
		break;
	case 3:
		parse_query(text);
		break;
	case 4:
		add_text(data + 1, n);
		break;
	case 5:
		check_run(args_parse_code(text, n, &a, &f), &a, &f);
		break;
	default:
		parse_make((enum args_make_kind)(data[0] % 16 - 6), text, n);
	}
	free(text);
	return 0;
}
