/* opt.c - options of a command: one table that parses and explains them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "num.h"
#include "opt.h"
#include "ref.h"
#include "term.h"
#include "wire/limits.h"

/* getopt's values: letters for themselves, long-only ones from here. */
#define LONG_ONLY 0x100
#define HELP_VALUE 0x200

/* More than any limit of the API, and far from overflow. */
#define CPUS_MAX 1024u
#define DURATION_DAYS_MAX 366u

#define LINE_MAX_COLUMNS 79u

/* --- values ---------------------------------------------------------------- */

int opt_read_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (*text == '\0')
		return -EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (!u64_mul(v, 10, &v) ||
		    !u64_add(v, (uint64_t)(*text - '0'), &v))
			return -EINVAL;
	}
	if (v < min || v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

/* Reads "12", "12.5" or "12.125" as thousandths; *ret_rest is what follows. */
static int read_milli(const char *text, uint64_t max, uint64_t *ret,
		      const char **ret_rest)
{
	uint64_t v = 0;
	uint64_t scale = 1000;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++) {
		v = v * 10 + (uint64_t)(*text - '0');
		if (v > max)
			return -EINVAL;
	}
	v *= 1000;
	if (*text == '.') {
		text++;
		if (*text < '0' || *text > '9')
			return -EINVAL;
		for (; *text >= '0' && *text <= '9'; text++) {
			scale /= 10;
			v += (uint64_t)(*text - '0') * scale;
		}
	}
	*ret = v;
	*ret_rest = text;
	return 0;
}

int opt_read_cpus(const char *text, uint64_t *ret_quarters)
{
	uint64_t milli;
	const char *rest;

	if (read_milli(text, CPUS_MAX, &milli, &rest) < 0 || *rest != '\0')
		return -EINVAL;
	if (milli == 0 || milli % 250 != 0)
		return -EINVAL;
	*ret_quarters = milli / 250;
	return 0;
}

int opt_read_duration(const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = { { "", 1000 },   { "s", 1000 },    { "ms", 1 },
		      { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 } };
	const uint64_t max = DURATION_DAYS_MAX * 86400ull * 1000;
	uint64_t milli;
	const char *rest;

	if (read_milli(text, max, &milli, &rest) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		uint64_t ms;
		if (strcmp(rest, units[i].name) != 0)
			continue;
		if (!u64_mul(milli, units[i].ms, &ms))
			return -EINVAL;
		ms /= 1000;
		if (ms == 0 || ms > max)
			return -EINVAL;
		*ret_ms = ms;
		return 0;
	}
	return -EINVAL;
}

static int read_env(const char *text, json_t *env)
{
	const char *equals = strchr(text, '=');

	if (equals == NULL || equals == text ||
	    json_object_size(env) >= BRIG_ENV_MAX)
		return -EINVAL;
	char *name = strndup(text, (size_t)(equals - text));
	if (name == NULL)
		return -EINVAL;
	/* fails, with no harm, on what is not UTF-8 */
	int r = json_object_set_new(env, name, json_string(equals + 1));
	free(name);
	return r == 0 ? 0 : -EINVAL;
}

/* --- the table -------------------------------------------------------------- */

static int take_value(const struct opt *o, const char *text)
{
	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)o->to = true;
		return 0;
	case OPT_TEXT:
		*(const char **)o->to = text;
		return 0;
	case OPT_NUMBER:
		return opt_read_number(text, o->min, o->max, o->to);
	case OPT_CPUS:
		return opt_read_cpus(text, o->to);
	case OPT_DURATION:
		return opt_read_duration(text, o->to);
	case OPT_ENV:
		return read_env(text, o->to);
	}
	return -EINVAL;
}

static void print_opt(const struct opt *o)
{
	char left[40];

	(void)snprintf(left, sizeof(left), "%c%c%s%s%s%s%s",
		       o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
		       o->name != NULL ? (o->letter ? ", " : "  ") : "",
		       o->name != NULL ? "--" : "",
		       o->name != NULL ? o->name : "",
		       o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
	(void)printf("  %-22s %s\n", left, o->help);
}

/* Lines as long as a terminal is wide. */
static void print_text(const char *text)
{
	size_t column = 0;

	while (*text != '\0') {
		size_t n = strcspn(text, " ");
		bool fits = column + 1 + n <= LINE_MAX_COLUMNS;
		if (column > 0)
			(void)putchar(fits ? ' ' : '\n');
		(void)printf("%.*s", (int)n, text);
		column = n + (column > 0 && fits ? column + 1 : 0);
		text += n + strspn(text + n, " ");
	}
	(void)putchar('\n');
}

static void print_help(const struct usage *u, const struct opt *opts, size_t n)
{
	static const struct opt help = { .name = "help",
					 .letter = 'h',
					 .help = "print this text" };

	(void)printf("usage: brig %s [OPTION]...%s%s\n\n", u->name,
		     *u->operands != '\0' ? " " : "", u->operands);
	print_text(u->about);
	if (u->words != NULL) {
		(void)printf("\nCommands:\n");
		cmd_print(u->words);
	}
	(void)printf("\nOptions:\n");
	for (size_t i = 0; i < n; i++)
		print_opt(&opts[i]);
	print_opt(&help);
	(void)printf("\nExamples:\n%s", u->examples);
}

static int value_of(const struct opt *opts, size_t i)
{
	return opts[i].letter ? opts[i].letter : LONG_ONLY + (int)i;
}

/* Fills what getopt_long wants to see. */
static void build_tables(const struct usage *u, const struct opt *opts,
			 size_t n, struct option *longs, char *shorts)
{
	if (u->passes_on)
		*shorts++ = '+'; /* stop at the first operand */
	*shorts++ = ':'; /* tell a missing value from an unknown option */
	*shorts++ = 'h';
	*longs++ = (struct option){ "help", no_argument, NULL, HELP_VALUE };
	for (size_t i = 0; i < n; i++) {
		int has = opts[i].kind == OPT_FLAG ? no_argument
						   : required_argument;
		if (opts[i].name != NULL)
			*longs++ = (struct option){ opts[i].name, has, NULL,
						    value_of(opts, i) };
		if (opts[i].letter == 0)
			continue;
		*shorts++ = opts[i].letter;
		if (has == required_argument)
			*shorts++ = ':';
	}
	*shorts = '\0';
	*longs = (struct option){ NULL, 0, NULL, 0 };
}

static int wrong_value(const struct usage *u, const struct opt *o)
{
	static const char *const wanted[] = {
		[OPT_CPUS] = "a multiple of 0.25",
		[OPT_DURATION] = "a time such as 30, 1.5s or 10m",
		[OPT_ENV] = "NAME=VALUE in UTF-8",
	};

	if (o->kind == OPT_NUMBER)
		(void)opt_wrong(u,
				"--%s wants a number from %llu to %llu, "
				"not '%s'",
				o->name, (unsigned long long)o->min,
				(unsigned long long)o->max, optarg);
	else
		(void)opt_wrong(u, "--%s wants %s, not '%s'", o->name,
				wanted[o->kind], optarg);
	return OPT_WRONG;
}

static int check_operands(const struct usage *u, int count, char **operands)
{
	if (u->passes_on)
		return 0;
	if (count < u->least) {
		(void)opt_wrong(u, "%s needed", u->operands);
		return OPT_WRONG;
	}
	if (count > u->most) {
		(void)opt_wrong(u, "'%s' is too much", operands[u->most]);
		return OPT_WRONG;
	}
	for (int i = 0; u->ids && i < count; i++) {
		if (!ref_is_id(operands[i])) {
			(void)opt_wrong(u, "'%s' is no id and no name",
					operands[i]);
			return OPT_WRONG;
		}
	}
	return 0;
}

int opt_parse(const struct usage *u, const struct opt *opts, size_t n, int argc,
	      char **argv)
{
	struct option longs[OPT_TABLE_MAX + 2];
	char shorts[2 * OPT_TABLE_MAX + 4];
	int got;

	ASSERT(n <= OPT_TABLE_MAX);
	build_tables(u, opts, n, longs, shorts);
	opterr = 0;
	optind = 0; /* start anew: `brig help CMD` parses twice */
	while ((got = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		size_t i = 0;
		if (got == 'h' || got == HELP_VALUE) {
			print_help(u, opts, n);
			return OPT_HELPED;
		}
		while (i < n && value_of(opts, i) != got)
			i++;
		if (i == n) {
			(void)opt_wrong(u, "%s '%s'",
					got == ':' ? "no value after"
						   : "wrong option",
					argv[optind - 1]);
			return OPT_WRONG;
		}
		if (take_value(&opts[i], optarg) < 0)
			return wrong_value(u, &opts[i]);
	}
	int r = check_operands(u, argc - optind, argv + optind);
	return r < 0 ? r : optind;
}

int opt_exit(int result)
{
	return result == OPT_HELPED ? CMD_OK : CMD_USAGE;
}

int opt_wrong(const struct usage *u, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	complain("%s: %s (`brig help %s` explains)", u->name, text, u->name);
	return CMD_USAGE;
}

int opt_run_word(const struct usage *u, int argc, char **argv)
{
	int at = opt_parse(u, NULL, 0, argc, argv);

	if (at < 0)
		return opt_exit(at);
	if (at == argc)
		return opt_wrong(u, "which command?");
	const struct cmd *c = cmd_find(u->words, argv[at]);
	if (c == NULL)
		return opt_wrong(u, "no command '%s'", argv[at]);
	return c->run(argc - at, argv + at);
}
