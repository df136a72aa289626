/* banned.h - functions that have no place here; included into every file by
 * the compiler's -include.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef BRIG_BASE_BANNED_H
#define BRIG_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* glibc's FORTIFY makes these macros under clang. */
#undef sprintf
#undef vsprintf

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf gets strtok
#pragma GCC poison atoi atol atoll atof system popen mktemp tmpnam

#endif
