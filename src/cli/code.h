/* code.h - code of this machine that is to run in a sandbox.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_CLI_CODE_H
#define BRIG_CLI_CODE_H

#include <jansson.h>

#include "cc.h"

/* More than a request to brigd may carry. */
#define CODE_MAX (1u << 20)

/* The text of a file, or with "-" of standard input, to its end: a new
 * string, or NULL after complaining. */
must_check json_t *code_read(const char *path);

#endif
