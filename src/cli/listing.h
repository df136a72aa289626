/* listing.h - lists of things: as a table, as ids, as JSON; removing them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is in a list comes from the server and is untrusted: what is not there
 * or of the wrong kind becomes "-" in a table and is left out of ids.
 */
#ifndef BRIG_CLI_LISTING_H
#define BRIG_CLI_LISTING_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "api.h"
#include "opt.h"

enum cell_kind {
	CELL_TEXT,
	CELL_NUMBER, /* times `scale`, with `unit` */
	CELL_BYTES,  /* a number in KiB, MiB or GiB */
	CELL_AGE,    /* a time, as how long ago it was */
};

struct column {
	const char *title;
	const char *key; /* of the member of each object */
	enum cell_kind kind;
	double scale;
	const char *unit;
};

struct listing {
	const char *what;        /* for messages */
	const char *member;      /* of the reply: the array */
	const char *id_key;      /* NULL: no ids */
	const char *delete_path; /* the id goes behind it; NULL: none */
	const struct column *columns;
	size_t count; /* of columns */
};

/* Prints an array and returns enum cmd_exit. `quiet`: ids only. */
must_check int listing_print(const struct listing *l, const json_t *all,
			     bool quiet, bool json);

/* Gets `path` and prints the array in the reply. */
must_check int listing_show(struct api *a, const struct listing *l,
			    const char *path, bool quiet, bool json);

/* A command that does this, with -q and --json. */
must_check int listing_ls(const struct listing *l, const struct usage *u,
			  const char *path, int argc, char **argv);

/* Deletes one after the other, whatever happens to each, and prints the ids
 * of those that are gone, or an array of brigd's replies. */
must_check int listing_delete(struct api *a, const struct listing *l,
			      char **ids, bool json);

/* A command that does this, with --json. */
must_check int listing_rm(const struct listing *l, const struct usage *u,
			  int argc, char **argv);

#endif
