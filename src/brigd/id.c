/* id.c - ids nobody can guess, names people can say.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "id.h"
#include "log.h"

#define ID_RANDOM_CHARS 24u

/* The largest multiple of 36 in a byte: above it a character would come up
 * more often than others. */
#define ID_BYTE_LIMIT 252u

static const char *const adjectives[] = {
	"amber",  "brave", "brisk",  "calm",   "clear",  "clever", "cool",
	"crisp",  "deep",  "eager",  "early",  "fair",   "fast",   "fine",
	"firm",   "fresh", "gentle", "glad",   "golden", "grand",  "green",
	"happy",  "keen",  "kind",   "large",  "light",  "lively", "lucky",
	"mellow", "merry", "mild",   "modest", "neat",   "noble",  "plain",
	"proud",  "quick", "quiet",  "rapid",  "ready",  "rich",   "round",
	"royal",  "sharp", "shiny",  "silent", "silver", "simple", "smart",
	"smooth", "solid", "steady", "still",  "strong", "sunny",  "swift",
	"tidy",   "true",  "vivid",  "warm",   "wise",   "witty",  "young",
	"bold",
};

static const char *const nouns[] = {
	"acorn",  "badger",  "beacon", "birch",  "bison",  "brook",  "canyon",
	"cedar",  "cliff",   "cloud",  "comet",  "coral",  "crane",  "creek",
	"delta",  "dove",    "eagle",  "ember",  "falcon", "fern",   "finch",
	"fjord",  "forest",  "fox",    "garden", "glade",  "harbor", "hawk",
	"heron",  "hill",    "island", "jay",    "lake",   "lark",   "lynx",
	"maple",  "marsh",   "meadow", "moon",   "moss",   "oak",    "ocean",
	"orchid", "otter",   "owl",    "panda",  "pebble", "pine",   "planet",
	"pond",   "prairie", "raven",  "reef",   "ridge",  "river",  "robin",
	"seal",   "spruce",  "star",   "stone",  "summit", "tiger",  "valley",
	"willow",
};

static void fill_random(void *bytes, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t got = getrandom((char *)bytes + done, n - done, 0);
		if (got < 0 && errno != EINTR)
			die("getrandom: %s", strerror(errno));
		if (got > 0)
			done += (size_t)got;
	}
}

void id_make(char ret[BRIG_ID_BYTES], const char *prefix)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	size_t at = strlen(prefix);
	size_t end = at + ID_RANDOM_CHARS;
	uint8_t pool[2 * ID_RANDOM_CHARS];

	ASSERT(at <= 5);
	memset(ret, 0, BRIG_ID_BYTES);
	(void)snprintf(ret, BRIG_ID_BYTES, "%s", prefix);
	while (at < end) {
		fill_random(pool, sizeof(pool));
		for (size_t i = 0; i < sizeof(pool) && at < end; i++) {
			if (pool[i] < ID_BYTE_LIMIT)
				ret[at++] = letters[pool[i] % 36];
		}
	}
}

void id_make_name(char ret[NAME_BYTES])
{
	uint8_t pick[3];

	fill_random(pick, sizeof(pick));
	(void)snprintf(ret, NAME_BYTES, "%s-%s-%02u",
		       adjectives[pick[0] % ARRAY_LEN(adjectives)],
		       nouns[pick[1] % ARRAY_LEN(nouns)], pick[2] % 100u);
}

static bool is_label_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

bool id_is_label(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n >= NAME_BYTES)
		return false;
	if (name[0] == '-' || name[n - 1] == '-')
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_label_char(name[i]))
			return false;
	}
	return true;
}
