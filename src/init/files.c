/* files.c - READ, WRITE and STAT, each in a child process of its own.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "fd.h"
#include "files.h"
#include "num.h"
#include "spawn.h"

#define HOME "/root"

/* How long the other side may leave a transfer alone. */
#define IDLE_SECONDS 300
/* How long the rest of a refused upload is read, so that the answer is not
 * lost in a reset. */
#define REFUSED_SECONDS 5

#define TEMPORARY_TRIES 100

struct upload {
	char path[PATH_MAX]; /* of the file, symbolic links followed */
	char temporary[NAME_MAX + 1];
	int dir; /* of both */
	int fd;
	uint64_t size;
	mode_t mode;
	bool replaces;
	uid_t uid; /* of the file it replaces */
	gid_t gid;
};

static void set_timeout(int fd, time_t seconds)
{
	const struct timeval t = { .tv_sec = seconds };

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

/* Sends what was put; the child has nothing left to do when that fails. */
static void send_out(struct stream *s)
{
	if (stream_flush(s) != 1)
		_exit(1);
}

static noreturn_fn void refuse(struct stream *s, enum guest_error_stage stage,
			       int error, const char *what, const char *path)
{
	char scratch[4096];

	stream_put_error(s, stage, error, "%s %s", what, path);
	send_out(s);
	(void)shutdown(s->fd, SHUT_WR);
	set_timeout(s->fd, REFUSED_SECONDS);
	while (recv(s->fd, scratch, sizeof(scratch), 0) > 0)
		continue;
	_exit(0);
}

static void put_info(struct stream *s, const struct stat *st)
{
	struct guest_file_info info = {
		.size = (uint64_t)st->st_size,
		.mtime_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000u +
			    (uint64_t)st->st_mtim.tv_nsec,
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
	};

	stream_put(s, GUEST_FILE_INFO, &info, sizeof(info));
	send_out(s);
}

/* --- STAT and READ --------------------------------------------------------*/

static void serve_stat(struct stream *s, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		refuse(s, GUEST_AT_OPEN, errno, "stat", path);
	put_info(s, &st);
}

/* What is opened is a regular file: others may block or have side effects. */
static int open_regular(const char *path, struct stat *st)
{
	if (stat(path, st) < 0)
		return -errno;
	if (S_ISDIR(st->st_mode))
		return -EISDIR;
	if (!S_ISREG(st->st_mode))
		return -EINVAL;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, st) == 0 && S_ISREG(st->st_mode))
		return fd;
	(void)close(fd);
	return -EINVAL;
}

/* How much to send: a file that grows meanwhile ends where it ended when it
 * was opened. Files of the kernel say size 0 and have text all the same. */
static uint64_t readable(const struct stat *st, const struct guest_read *want)
{
	uint64_t size = (uint64_t)st->st_size;

	if (size == 0)
		return want->length;
	if (want->offset >= size)
		return 0;
	return u64_min(want->length, size - want->offset);
}

static void serve_read(struct stream *s, const struct guest_read *want,
		       const char *path)
{
	struct stat st;
	int fd = open_regular(path, &st);

	if (fd < 0)
		refuse(s, GUEST_AT_OPEN, -fd, "open", path);
	if (want->offset > INT64_MAX ||
	    lseek(fd, (off_t)want->offset, SEEK_SET) < 0)
		refuse(s, GUEST_AT_IO, EINVAL, "seek", path);
	put_info(s, &st);
	uint64_t left = readable(&st, want);
	while (left > 0) {
		size_t n = (size_t)u64_min(left, BRIG_FRAME_DATA_MAX);
		ssize_t got = read(fd, stream_room(s), n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			refuse(s, GUEST_AT_IO, errno, "read", path);
		if (got == 0)
			break;
		stream_commit(s, GUEST_DATA, (size_t)got);
		send_out(s);
		left -= (uint64_t)got;
	}
	stream_put(s, GUEST_END, NULL, 0);
	send_out(s);
}

/* --- WRITE ------------------------------------------------------------------*/

/* Makes every directory on the way to the last component. */
static int make_parents(char *path)
{
	for (char *at = strchr(path + 1, '/'); at != NULL;
	     at = strchr(at + 1, '/')) {
		*at = '\0';
		int r = mkdir(path, 0755);
		int error = errno;
		*at = '/';
		if (r < 0 && error != EEXIST)
			return -error;
	}
	return 0;
}

/* What is there now decides the mode and owner of what replaces it. */
static int look_at_target(struct upload *u, const char *path)
{
	struct stat st;

	if (realpath(path, u->path) == NULL) {
		if (errno != ENOENT || strlen(path) >= sizeof(u->path))
			return -errno;
		memcpy(u->path, path, strlen(path) + 1);
	}
	if (lstat(u->path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return -EINVAL;
	if (S_ISLNK(st.st_mode))
		return 0; /* it points nowhere: replaced by the file */
	u->replaces = true;
	u->uid = st.st_uid;
	u->gid = st.st_gid;
	if (u->mode == 0)
		u->mode = st.st_mode & 07777;
	return 0;
}

static int open_directory(struct upload *u)
{
	int r = make_parents(u->path);

	if (r < 0)
		return r;
	char *name = strrchr(u->path, '/') + 1;
	if (name[0] == '\0')
		return -EISDIR;
	char first = name[0];
	name[0] = '\0';
	u->dir = open(u->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = u->dir < 0 ? -errno : 0;
	name[0] = first;
	return r;
}

static int open_temporary(struct upload *u)
{
	for (int i = 0; i < TEMPORARY_TRIES; i++) {
		(void)snprintf(u->temporary, sizeof(u->temporary),
			       ".brig-upload-%d-%d", (int)getpid(), i);
		u->fd = openat(u->dir, u->temporary,
			       O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (u->fd >= 0)
			return 0;
		if (errno != EEXIST)
			break;
	}
	return -errno;
}

static noreturn_fn void abandon(struct stream *s, const struct upload *u,
				enum guest_error_stage stage, int error)
{
	(void)unlinkat(u->dir, u->temporary, 0);
	refuse(s, stage, error, "write", u->path);
}

/* Takes the DATA frames up to END. */
static void take_data(struct stream *s, const struct upload *u)
{
	uint64_t total = 0;

	for (;;) {
		stream_next(s);
		if (stream_read(s, FRAMES_UPLOAD) != 1) {
			(void)unlinkat(u->dir, u->temporary, 0);
			_exit(1);
		}
		if (s->head.type == GUEST_END)
			break;
		total += s->head.length;
		if (total > u->size)
			abandon(s, u, GUEST_AT_REQUEST, EFBIG);
		int r = fd_write_all(u->fd, s->in, s->head.length);
		if (r < 0)
			abandon(s, u, GUEST_AT_IO, -r);
	}
	if (u->size != UINT64_MAX && total != u->size)
		abandon(s, u, GUEST_AT_REQUEST, EINVAL);
}

/* Not synced: a sandbox's disk does not outlive its machine's crash, and the
 * order of rename and data is ext4's own care (auto_da_alloc). */
static void publish(struct stream *s, struct upload *u)
{
	struct stat st;
	mode_t mode = u->mode != 0 ? u->mode : 0644;

	if (u->replaces && fchown(u->fd, u->uid, u->gid) < 0)
		abandon(s, u, GUEST_AT_IO, errno);
	if (fchmod(u->fd, mode) < 0 || fstat(u->fd, &st) < 0)
		abandon(s, u, GUEST_AT_IO, errno);
	if (renameat(u->dir, u->temporary, u->dir, strrchr(u->path, '/') + 1) <
	    0)
		abandon(s, u, GUEST_AT_IO, errno);
	put_info(s, &st);
}

static void serve_write(struct stream *s, const struct guest_write *want,
			const char *path)
{
	struct upload u = {
		.dir = -1,
		.fd = -1,
		.size = want->size,
		.mode = want->mode & 07777,
	};
	int r = look_at_target(&u, path);

	if (r == 0)
		r = open_directory(&u);
	if (r == 0)
		r = open_temporary(&u);
	if (r < 0)
		refuse(s, GUEST_AT_OPEN, -r, "open", path);
	take_data(s, &u);
	publish(s, &u);
}

/* --- the child --------------------------------------------------------------*/

/* The absolute path that ends the request. */
static void find_path(struct stream *s, size_t head, char ret[PATH_MAX])
{
	const char *path = frames_parse_path(s->in, s->head.length, head);

	if (path == NULL)
		refuse(s, GUEST_AT_REQUEST, EINVAL, "path", "of the request");
	int n = snprintf(ret, PATH_MAX, "%s%s", path[0] == '/' ? "" : HOME "/",
			 path);
	if (n >= PATH_MAX)
		refuse(s, GUEST_AT_REQUEST, ENAMETOOLONG, "path", path);
}

static noreturn_fn void serve(struct stream *s)
{
	char path[PATH_MAX];
	struct guest_read r;
	struct guest_write w;

	set_timeout(s->fd, IDLE_SECONDS);
	switch (s->head.type) {
	case GUEST_READ:
		find_path(s, sizeof(r), path);
		memcpy(&r, s->in, sizeof(r));
		serve_read(s, &r, path);
		break;
	case GUEST_WRITE:
		find_path(s, sizeof(w), path);
		memcpy(&w, s->in, sizeof(w));
		serve_write(s, &w, path);
		break;
	default:
		find_path(s, 0, path);
		serve_stat(s, path);
		break;
	}
	_exit(0);
}

static int set_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

pid_t files_start(struct stream *s)
{
	int r = set_blocking(s->fd);

	if (r < 0)
		return r;
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0)
		return pid;
	const int fds[] = { s->fd, STDERR_FILENO, STDERR_FILENO };
	spawn_keep_only(fds, ARRAY_LEN(fds));
	s->fd = 0;
	serve(s);
}
