/* snap_power.c - the host loses power at every step of a snapshot.
 * SPDX-License-Identifier: Apache-2.0
 *
 * C-17. What a process has written is not what a disk has after a loss of
 * power: the data of a file may be lost in any part until the file is synced,
 * and a name may be there or not until its directory is. So a change of the
 * store is recorded once, step by step; then, for every step, each state that
 * the disk may be in is built anew and opened. There, a snapshot is absent, or
 * complete; what was reported as done is done; nothing else is left behind.
 */
#include <sys/stat.h>

#include "tests/unit/snap.h"

#define EVENTS_MAX 200
#define FILES_MAX 32
#define PENDING_MAX 12

enum place {
	OBJECTS,
	SNAPSHOTS,
	PLACES,
};

static const char *const place_names[PLACES] = { "objects", "snapshots" };

enum what {
	LINK,
	UNLINK,
	WRITE,
	SYNC_FILE,
	SYNC_PLACE,
};

struct event {
	enum what what;
	enum place place;  /* LINK, UNLINK, SYNC_PLACE */
	unsigned int file; /* LINK, UNLINK */
	ino_t inode;       /* WRITE, SYNC_FILE: it may have no name yet */
};

/* A file that had a name in the store; `fd` keeps its content. */
struct file {
	int fd;
	ino_t inode;
	enum place place;
	char name[64];
	bool before; /* it was there, all of it, at the beginning */
};

/* What happened, and to which files. */
struct record {
	struct file files[FILES_MAX];
	unsigned int file_count;
	struct event events[EVENTS_MAX];
	unsigned int event_count;
	ino_t places[PLACES];
};

static struct record rec;

/* --- recording -------------------------------------------------------------- */

static ino_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static enum place place_of(int dir_fd)
{
	ino_t inode = inode_of(dir_fd);

	for (unsigned int i = 0; i < PLACES; i++) {
		if (rec.places[i] == inode)
			return (enum place)i;
	}
	fail_msg("a name in a directory that is not of the store");
	return PLACES;
}

static unsigned int add_file(int fd, enum place place, const char *name)
{
	struct file *f = &rec.files[rec.file_count];

	assert_in_range(rec.file_count, 0, FILES_MAX - 1);
	*f = (struct file){ .fd = dup(fd), .place = place };
	assert_true(f->fd >= 0);
	f->inode = inode_of(fd);
	(void)snprintf(f->name, sizeof(f->name), "%s", name);
	return rec.file_count++;
}

static unsigned int find_file(enum place place, const char *name)
{
	for (unsigned int i = 0; i < rec.file_count; i++) {
		if (rec.files[i].place == place &&
		    strcmp(rec.files[i].name, name) == 0)
			return i;
	}
	fail_msg("%s was never there", name);
	return 0;
}

static void add_sync(struct event *e)
{
	e->what = SYNC_FILE;
	e->inode = inode_of(snapio_step.fd);
	for (unsigned int i = 0; i < PLACES; i++) {
		if (rec.places[i] == e->inode) {
			e->what = SYNC_PLACE;
			e->place = (enum place)i;
		}
	}
}

static int on_step(const char *step)
{
	struct event *e = &rec.events[rec.event_count];

	assert_in_range(rec.event_count, 0, EVENTS_MAX - 1);
	if (strcmp(step, "sync") == 0) {
		add_sync(e);
	} else if (strcmp(step, "link") == 0) {
		e->what = LINK;
		e->place = place_of(snapio_step.dir_fd);
		e->file = add_file(snapio_step.fd, e->place, snapio_step.name);
	} else if (strcmp(step, "unlink") == 0) {
		e->what = UNLINK;
		e->place = place_of(snapio_step.dir_fd);
		e->file = find_file(e->place, snapio_step.name);
	} else if (strcmp(step, "write") == 0 || strcmp(step, "resize") == 0) {
		e->what = WRITE;
		e->inode = inode_of(snapio_step.fd);
	} else {
		return 0;
	}
	rec.event_count++;
	return 0;
}

static int open_place(const struct env *v, enum place place)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", v->dir, place_names[place]);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* What is in the store now is on the disk. */
static void record_start(const struct env *v)
{
	rec = (struct record){ .file_count = 0 };
	for (unsigned int i = 0; i < PLACES; i++) {
		struct dirent *d;
		int dir_fd = open_place(v, (enum place)i);
		rec.places[i] = inode_of(dir_fd);
		DIR *dir = fdopendir(dir_fd);
		while ((d = readdir(dir)) != NULL) {
			if (d->d_name[0] == '.')
				continue;
			int fd = openat(dir_fd, d->d_name, O_RDONLY);
			assert_true(fd >= 0);
			unsigned int at =
				add_file(fd, (enum place)i, d->d_name);
			rec.files[at].before = true;
			(void)close(fd);
		}
		(void)closedir(dir);
	}
	snapio_hook = on_step;
}

static void record_end(void)
{
	snapio_hook = NULL;
}

static void record_free(void)
{
	for (unsigned int i = 0; i < rec.file_count; i++)
		(void)close(rec.files[i].fd);
	rec.file_count = 0;
}

/* --- building what a disk may have ------------------------------------------- */

/* What became of data that was not synced. */
enum loss {
	NOTHING_LOST,
	ZEROS,
	EMPTY,
	HALF,
	LOSSES,
};

static bool is_synced(unsigned int file, unsigned int end)
{
	bool synced = rec.files[file].before;

	for (unsigned int i = 0; i < end; i++) {
		const struct event *e = &rec.events[i];
		if (e->inode != rec.files[file].inode)
			continue;
		if (e->what == WRITE)
			synced = false;
		if (e->what == SYNC_FILE)
			synced = true;
	}
	return synced;
}

static void copy_data(int from, int to, off_t end)
{
	uint8_t block[SPARSE_BLOCK];
	off_t at = 0;

	while (at < end && (at = lseek(from, at, SEEK_DATA)) >= 0 && at < end) {
		at -= at % (off_t)sizeof(block);
		ssize_t n = pread(from, block, sizeof(block), at);
		assert_true(n > 0);
		assert_int_equal(pwrite(to, block, (size_t)n, at), n);
		at += n;
	}
}

static void build_file(const struct env *v, unsigned int file, enum loss loss)
{
	const struct file *f = &rec.files[file];
	int dir_fd = open_place(v, f->place);
	struct stat st;

	assert_int_equal(fstat(f->fd, &st), 0);
	int fd = openat(dir_fd, f->name, O_RDWR | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	if (loss != EMPTY)
		assert_int_equal(ftruncate(fd, st.st_size), 0);
	if (loss == NOTHING_LOST)
		copy_data(f->fd, fd, st.st_size);
	if (loss == HALF)
		copy_data(f->fd, fd, st.st_size / 2);
	assert_int_equal(fchmod(fd, 0400), 0);
	(void)close(fd);
	(void)close(dir_fd);
}

static void empty_places(const struct env *v)
{
	for (unsigned int i = 0; i < PLACES; i++) {
		struct dirent *d;
		int dir_fd = open_place(v, (enum place)i);
		DIR *dir = fdopendir(dir_fd);
		while ((d = readdir(dir)) != NULL) {
			if (d->d_name[0] != '.')
				(void)unlinkat(dir_fd, d->d_name, 0);
		}
		(void)closedir(dir);
	}
}

/* Names that have come or gone before `end` and were not synced. */
static unsigned int list_pending(unsigned int end,
				 unsigned int ret[PENDING_MAX])
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < end; i++) {
		const struct event *e = &rec.events[i];
		bool synced = false;
		if (e->what != LINK && e->what != UNLINK)
			continue;
		for (unsigned int j = i + 1; j < end; j++)
			synced |= rec.events[j].what == SYNC_PLACE &&
				  rec.events[j].place == e->place;
		if (synced)
			continue;
		assert_in_range(n, 0, PENDING_MAX - 1);
		ret[n++] = i;
	}
	return n;
}

/* The disk when power went before step `end`: of the pending names those in
 * `mask` have happened. False: no file of it can have lost data. */
static bool build(const struct env *v, unsigned int end, unsigned int mask,
		  enum loss loss)
{
	unsigned int pending[PENDING_MAX];
	unsigned int n = list_pending(end, pending);
	bool there[FILES_MAX];
	bool lossy = false;

	for (unsigned int i = 0; i < rec.file_count; i++)
		there[i] = rec.files[i].before;
	for (unsigned int i = 0; i < end; i++) {
		const struct event *e = &rec.events[i];
		bool happened = true;
		for (unsigned int j = 0; j < n; j++) {
			if (pending[j] == i)
				happened = (mask >> j & 1) != 0;
		}
		if (happened && e->what == LINK)
			there[e->file] = true;
		if (happened && e->what == UNLINK)
			there[e->file] = false;
	}
	empty_places(v);
	for (unsigned int i = 0; i < rec.file_count; i++) {
		if (!there[i])
			continue;
		bool whole = is_synced(i, end);
		lossy |= !whole;
		build_file(v, i, whole ? NOTHING_LOST : loss);
	}
	return lossy;
}

/* --- what must be true of each ------------------------------------------------ */

struct other {
	const char *first;
	char id[SNAP_ID_BYTES];
};

static void find_other(void *arg, const struct snap *snap)
{
	struct other *o = arg;

	assert_int_equal(snap->status, SNAP_READY);
	if (strcmp(snap->id, o->first) != 0)
		memcpy(o->id, snap->id, sizeof(o->id));
}

/* True: there are two, and both are complete. */
static bool check_store(struct env *v, const char *first)
{
	struct other other = { .first = first };
	unsigned int n = env_snapshots(v);
	struct saved *s;

	assert_in_range(n, 1, 2);
	env_expect_objects(v, n == 2 ? 6 : 3);
	assert_int_equal(env_count(v, "snapshots"), n);
	assert_int_equal(load(v, first, &s), 0);
	assert_int_equal(get(s->base->fd, 1), 10);
	assert_int_equal(get(s->layers[0]->fd, 9), 10);
	saved_unref(s);
	if (n == 1)
		return false;
	snapstore_each(v->st, 1, find_other, &other);
	assert_int_equal(load(v, other.id, &s), 0);
	assert_int_equal(get(s->base->fd, 5), 11);
	for (uint64_t b = 50; b < 60; b++)
		assert_int_equal(get(s->delta->fd, b), 99);
	assert_int_equal(get(s->layers[1]->fd, 3), 99);
	saved_unref(s);
	return true;
}

struct seen {
	unsigned int states;
	unsigned int complete;
	unsigned int absent;
};

static void check_state(struct env *v, const char *first, struct seen *seen)
{
	env_open(v);
	bool second = check_store(v, first);
	seen->states++;
	seen->complete += second;
	seen->absent += !second;
	env_close(v);
}

/* Every state at every step; what is true after the last goes to *ret_last. */
static struct seen check_all(struct env *v, const char *first,
			     struct seen *ret_last)
{
	unsigned int pending[PENDING_MAX];
	struct seen all = { 0 };

	env_close(v);
	for (unsigned int end = 0; end <= rec.event_count; end++) {
		struct seen here = { 0 };
		unsigned int n = list_pending(end, pending);
		for (unsigned int mask = 0; mask < 1u << n; mask++) {
			for (int loss = 0; loss < LOSSES; loss++) {
				bool lossy =
					build(v, end, mask, (enum loss)loss);
				check_state(v, first, &here);
				if (!lossy)
					break;
			}
		}
		all.states += here.states;
		all.complete += here.complete;
		all.absent += here.absent;
		*ret_last = here;
	}
	env_open(v);
	return all;
}

/* --- tests --------------------------------------------------------------------- */

static int set_up(void **state)
{
	snapio_hook = NULL;
	*state = env_new();
	return 0;
}

static int tear_down(void **state)
{
	snapio_hook = NULL;
	record_free();
	env_free(*state);
	return 0;
}

static void publish_second(struct env *v, const char *first,
			   char ret_id[SNAP_ID_BYTES])
{
	struct saved *s;

	assert_int_equal(load(v, first, &s), 0);
	struct saved *more = resumed(v, s, 50, 60, 99);
	saved_unref(s);
	assert_int_equal(publish(v, more, SNAP_MEMORY, ret_id), 0);
}

static void test_c17_power_lost_while_publishing(void **state)
{
	struct env *v = *state;
	char first[SNAP_ID_BYTES];
	char second[SNAP_ID_BYTES];
	struct seen last;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, first), 0);
	record_start(v);
	publish_second(v, first, second);
	record_end();
	struct seen all = check_all(v, first, &last);
	print_message("%u states: %u complete, %u absent\n", all.states,
		      all.complete, all.absent);
	assert_true(all.absent > 15 && all.complete > 0);
	/* Who was told that it is there will find it. */
	assert_int_equal(last.absent, 0);
}

static void test_c17_power_lost_while_deleting(void **state)
{
	struct env *v = *state;
	char first[SNAP_ID_BYTES];
	char second[SNAP_ID_BYTES];
	struct seen last;

	assert_int_equal(publish(v, booted(v, 10), SNAP_MEMORY, first), 0);
	publish_second(v, first, second);
	record_start(v);
	assert_int_equal(snapstore_delete(v->st, second), 0);
	env_expect_objects(v, 3);
	record_end();
	struct seen all = check_all(v, first, &last);
	print_message("%u states: %u complete, %u absent\n", all.states,
		      all.complete, all.absent);
	assert_true(all.absent > 5 && all.complete > 1);
	/* Its content went only after its name was gone for good. */
	assert_int_equal(last.complete, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_c17_power_lost_while_publishing),
		TEST(test_c17_power_lost_while_deleting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
