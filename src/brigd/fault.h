/* fault.h - why a request is refused, as the client will read it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIGD_FAULT_H
#define BRIGD_FAULT_H

#include "cc.h"

#define FAULT_TEXT_BYTES 256

struct fault {
	unsigned int status;         /* of HTTP */
	const char *code;            /* stable, for programs; lives forever */
	char text[FAULT_TEXT_BYTES]; /* for people; may quote the client */
};

/* Fills *ret (which may be NULL: then nobody wants to know) and returns
 * -EINVAL, so that a check can end in `return fault_set(...)`. */
printf_like(4, 5) int fault_set(struct fault *ret, unsigned int status,
				const char *code, const char *fmt, ...);

#endif
