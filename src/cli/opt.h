/* opt.h - options of a command: one table that parses and explains them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Options may stand anywhere before `--`, but for commands that pass the rest
 * on: there they end at the first operand. --help is in every table.
 */
#ifndef BRIG_CLI_OPT_H
#define BRIG_CLI_OPT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cc.h"

struct cmd;

#define OPT_TABLE_MAX 16

/* As many operands as there are. */
#define OPT_ANY INT_MAX

/* The row that all commands have which print what brigd says. */
/* clang-format off */
#define OPT_JSON(to)                                                   \
	{ "json", 0, OPT_FLAG, NULL, "print the reply as JSON", (to), 0, 0 }
/* clang-format on */

enum opt_kind {
	OPT_FLAG,     /* bool */
	OPT_TEXT,     /* const char *, borrowed from argv */
	OPT_NUMBER,   /* uint64_t within min..max */
	OPT_CPUS,     /* uint64_t: quarters of a CPU */
	OPT_DURATION, /* uint64_t: milliseconds, 1 or more */
	OPT_ENV,      /* json_t *: an object that gains NAME: value */
};

struct opt {
	const char *name; /* long name; NULL: only the letter */
	char letter;      /* short name; 0: only the long one */
	enum opt_kind kind;
	const char *arg; /* what --help calls the value; NULL for a flag */
	const char *help;
	void *to; /* as `kind` says; left alone when not given */
	uint64_t min;
	uint64_t max;
};

struct usage {
	const char *name;        /* the command */
	const char *operands;    /* after [OPTION]...; "" for none */
	const char *about;       /* a paragraph, in one line */
	const char *examples;    /* lines, each with its newline */
	const struct cmd *words; /* --help lists them; NULL: none */
	int least;               /* operands */
	int most;
	bool ids;       /* each operand is an id, or a name like one */
	bool passes_on; /* what follows the first operand is not for us: least,
	                   most and ids do not count */
};

enum opt_result {
	OPT_HELPED = -1, /* --help was asked for and printed */
	OPT_WRONG = -2,  /* what is wrong was printed to stderr */
};

/* Returns the index of the first operand, or enum opt_result. Operands are
 * moved to the end of argv; there are as many as `u` says. */
must_check int opt_parse(const struct usage *u, const struct opt *opts,
			 size_t n, int argc, char **argv);

/* The exit code for a negative result of opt_parse. */
int opt_exit(int result);

/* Says what is wrong with the operands; returns the exit code. */
printf_like(2, 3) int opt_wrong(const struct usage *u, const char *fmt, ...);

/* Runs the word of u->words that is the first operand; u->passes_on is set. */
must_check int opt_run_word(const struct usage *u, int argc, char **argv);

/* --- values, also for tests: 0 or -EINVAL --- */

must_check int opt_read_number(const char *text, uint64_t min, uint64_t max,
			       uint64_t *ret);

/* "2", "0.25", "1.5": quarters of a CPU, 1 or more. */
must_check int opt_read_cpus(const char *text, uint64_t *ret_quarters);

/* "90" and "90s" are seconds; also "1.5s", "500ms", "10m", "2h", "1d". */
must_check int opt_read_duration(const char *text, uint64_t *ret_ms);

#endif
