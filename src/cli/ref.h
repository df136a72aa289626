/* ref.h - what users type to name a sandbox, or a file in one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pure. Ids become parts of URLs, so they are checked, not escaped.
 */
#ifndef BRIG_CLI_REF_H
#define BRIG_CLI_REF_H

#include <stdbool.h>

#include "cc.h"

#define REF_ID_MAX 63

/* Letters, digits, '_' and '-'; at most REF_ID_MAX of them. */
bool ref_is_id(const char *text);

struct ref_file {
	char id[REF_ID_MAX + 1]; /* "": a file on this machine */
	const char *path;        /* borrowed from the text; not empty */
};

/* "ID:PATH" or a local "PATH"; one with a colon in it is written "./a:b".
 * 0 or -EINVAL. */
must_check int ref_read_file(const char *text, struct ref_file *ret);

/* The part of a path behind its last slash; never empty, "." or "..": NULL
 * then. Borrowed. */
const char *ref_base_name(const char *path);

#endif
