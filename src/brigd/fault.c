/* fault.c - why a request is refused, as the client will read it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "fault.h"

int fault_set(struct fault *ret, unsigned int status, const char *code,
	      const char *fmt, ...)
{
	va_list ap;

	if (ret == NULL)
		return -EINVAL;
	ret->status = status;
	ret->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(ret->text, sizeof(ret->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}
