/* snapfile.c - streams that somebody wants to import.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: the stream, in which two things are made right, so that what lies
 * behind them is reached: the checksum of the manifest, and the hash that the
 * manifest says of each object. A store on a tmpfs takes it or refuses it, and
 * is empty again in the end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/fd.h"
#include "src/base/num.h"
#include "src/brigd/auth.h"
#include "src/brigd/snapstore_priv.h"

#define HEADER 16u
#define TRAILER 65u
#define RECORD 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop loop;
static struct worker *worker;
static struct snapstore *store;
static char dir[64];

static void finish(void)
{
	char path[128];

	worker_free(worker);
	snapstore_close(store);
	(void)snprintf(path, sizeof(path), "%s/objects", dir);
	(void)rmdir(path);
	(void)snprintf(path, sizeof(path), "%s/snapshots", dir);
	(void)rmdir(path);
	(void)rmdir(dir);
}

static void start(void)
{
	(void)snprintf(dir, sizeof(dir), "/dev/shm/brig_fuzz.XXXXXX");
	ASSERT(mkdtemp(dir) != NULL);
	ASSERT(loop_init(&loop) == 0);
	worker = worker_new(&loop);
	ASSERT(worker != NULL);
	store = snapstore_open(dir, worker);
	ASSERT(store != NULL);
	(void)atexit(finish);
}

static void to_hex(const uint8_t *hash, uint8_t *to)
{
	for (size_t i = 0; i < 32; i++) {
		to[2 * i] = (uint8_t) "0123456789abcdef"[hash[i] >> 4];
		to[2 * i + 1] = (uint8_t) "0123456789abcdef"[hash[i] & 15];
	}
}

/* Hashes the object at *at as the reader will, and moves behind it. */
static bool hash_object(const uint8_t *bytes, size_t n, size_t *at, bool plain,
			uint8_t ret[SPARSE_HASH])
{
	gnutls_hash_hd_t hash;
	bool ended = false;

	ASSERT(sparse_hash_start(&hash) == 0);
	while (!ended && n - *at >= RECORD) {
		uint64_t offset = load_le64(bytes + *at);
		uint64_t length = load_le64(bytes + *at + 8);
		*at += RECORD;
		ended = length == 0;
		if (length > n - *at || (!plain && length % SPARSE_BLOCK != 0))
			break;
		if (plain)
			(void)gnutls_hash(hash, bytes + *at, length);
		else
			(void)sparse_hash_add(hash, offset, bytes + *at,
					      length);
		*at += length;
	}
	gnutls_hash_deinit(hash, ret);
	return ended;
}

/* The text is sorted: layers, memory, state; the objects come the other way
 * round, as long as there is one of each, as in all seeds. Hashes are written
 * where the text has "sha256", as far as both go. */
static void set_hashes(uint8_t *bytes, size_t n, size_t text_end)
{
	static const char key[] = "\"sha256\": \"";
	static const char none[] = "\"state\": []";
	uint8_t *places[MANIFEST_OBJECTS_MAX];
	uint8_t hash[SPARSE_HASH];
	unsigned int count = 0;
	uint8_t *from = bytes + HEADER;
	uint8_t *end = bytes + text_end - TRAILER;
	uint8_t *hit;

	while (count < ARRAY_LEN(places) && from < end &&
	       (hit = memmem(from, (size_t)(end - from), key, strlen(key))) !=
		       NULL) {
		from = hit + strlen(key);
		if (end - from > 64)
			places[count++] = from;
	}
	size_t at = text_end;
	bool plain = memmem(bytes + HEADER, text_end - HEADER, none,
			    strlen(none)) == NULL;
	for (unsigned int i = count; i-- > 0; plain = false) {
		if (!hash_object(bytes, n, &at, plain, hash))
			return;
		to_hex(hash, places[i]);
	}
}

static void make_right(uint8_t *bytes, size_t n)
{
	uint8_t hash[AUTH_HASH_BYTES];
	uint32_t text = 0;

	if (n < HEADER)
		return;
	memcpy(&text, bytes + 12, sizeof(text));
	if (text < TRAILER || text > n - HEADER)
		return;
	set_hashes(bytes, n, HEADER + text);
	auth_hash(bytes + HEADER, text - TRAILER, hash);
	to_hex(hash, bytes + HEADER + text - TRAILER);
}

struct importing {
	struct snap_import im;
	bool done;
	int error;
};

static void on_imported(struct snap_import *im, int error)
{
	struct importing *x = container_of(im, struct importing, im);

	x->error = error;
	x->done = true;
}

static unsigned int files(const char *sub)
{
	char path[128];
	struct dirent *d;
	unsigned int n = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, sub);
	DIR *p = opendir(path);
	ASSERT(p != NULL);
	while ((d = readdir(p)) != NULL)
		n += d->d_name[0] != '.';
	(void)closedir(p);
	return n;
}

static void import(int fd)
{
	struct importing x = {
		.im = { .fd = fd, .tenant = 1, .on_done = on_imported },
	};

	ASSERT(snapstore_import(store, &x.im) == 0);
	while (!x.done)
		ASSERT(loop_once(&loop, 1000) == 0);
	if (x.error == 0) {
		ASSERT(files("snapshots") == 1);
		ASSERT(snapstore_find(store, 1, x.im.id) != NULL);
		ASSERT(snapstore_delete(store, x.im.id) == 0);
		while (files("objects") > 0)
			ASSERT(loop_once(&loop, 1) == 0);
	}
	ASSERT(files("snapshots") == 0);
	ASSERT(files("objects") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (store == NULL)
		start();
	uint8_t *bytes = malloc(size + 1);
	cleanup_fd int fd = memfd_create("stream", MFD_CLOEXEC);
	if (bytes == NULL || fd < 0) {
		free(bytes);
		return 0;
	}
	memcpy(bytes, data, size);
	make_right(bytes, size);
	ASSERT(pwrite(fd, bytes, size, 0) == (ssize_t)size);
	free(bytes);
	import(fd);
	return 0;
}
