/* log.h - one line per event, key=value, to standard error.
 * SPDX-License-Identifier: Apache-2.0
 *
 * error: someone must act. warn: we went on. info: life cycle. debug: off
 * unless BRIG_DEBUG is set. Bytes below 0x20 and above 0x7e are written as
 * \xNN, so that no text from outside can forge a line. A line is at most
 * LOG_LINE_MAX bytes and is written by one write(2). Nothing is allocated.
 * Thread-safe.
 */
#ifndef BRIG_BASE_LOG_H
#define BRIG_BASE_LOG_H

#include "cc.h"

#define LOG_LINE_MAX 1024

enum log_level {
	LOG_ERROR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG
};

/* Names the program in each line; `name` must live forever. */
void log_init(const char *name);

printf_like(2, 3) void log_line(enum log_level level, const char *fmt, ...);

/* Logs an error and ends the process with status 1: for set-up only. */
noreturn_fn printf_like(1, 2) void die(const char *fmt, ...);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
