/* ref.c - what users type to name a sandbox, or a file in one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <string.h>

#include "ref.h"

bool ref_is_id(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz"
				"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				"0123456789_-");

	return n > 0 && n <= REF_ID_MAX && text[n] == '\0';
}

int ref_read_file(const char *text, struct ref_file *ret)
{
	const char *colon = strchr(text, ':');
	const char *slash = strchr(text, '/');

	*ret = (struct ref_file){ .path = text };
	if (*text == '\0')
		return -EINVAL;
	if (colon == NULL || (slash != NULL && slash < colon))
		return 0;
	size_t n = (size_t)(colon - text);
	if (n > REF_ID_MAX || colon[1] == '\0')
		return -EINVAL;
	memcpy(ret->id, text, n);
	ret->path = colon + 1;
	return ref_is_id(ret->id) ? 0 : -EINVAL;
}

const char *ref_base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;

	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return NULL;
	return name;
}
