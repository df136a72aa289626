/* identity.c - names by which the programs of a guest tell machines apart.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "fd.h"
#include "identity.h"
#include "textfile.h"
#include "wire/limits.h"

#define HOSTS_MAX ((size_t)64 << 10)

/* The address by which Debian's /etc/hosts maps a host's own name. */
#define OWN_ADDRESS "127.0.1.1"

#define RUN_DIR "/run/brig"
#define MACHINE_ID "/etc/machine-id"
#define DBUS_ID "/var/lib/dbus/machine-id"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* 32 digits, with dashes for a UUID, a line feed, NUL. */
#define ID_TEXT_BYTES 40

/* Mounts over one file that are taken away: ours, and a guest's own. */
#define LAYERS_MAX 16

/* --- host name --------------------------------------------------------------*/

static int replace_file(const char *path, const struct buf *text)
{
	cleanup_fd int fd = open(
		path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC,
		0644);

	return fd < 0 ? -errno : fd_write_all(fd, text->data, text->len);
}

static bool names_this_host(const char *line)
{
	size_t n = strlen(OWN_ADDRESS);

	return strncmp(line, OWN_ADDRESS, n) == 0 &&
	       (line[n] == ' ' || line[n] == '\t');
}

/* Copies the lines of `text`, our own of an earlier time left out. */
static int keep_others(struct buf *to, const char *text)
{
	int r = 0;

	while (text[0] != '\0' && r == 0) {
		size_t n = strcspn(text, "\n");
		n += text[n] == '\n';
		if (!names_this_host(text))
			r = buf_add(to, text, n);
		text += n;
	}
	return r;
}

static int update_hosts(const char *hostname)
{
	cleanup_buf struct buf old = BUF_INIT(HOSTS_MAX);
	cleanup_buf struct buf hosts = BUF_INIT(2 * HOSTS_MAX);
	cleanup_fd int fd =
		open("/etc/hosts", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int r = 0;

	if (fd >= 0) {
		char *room = buf_reserve(&old, HOSTS_MAX - 1);
		ssize_t got = room == NULL
				      ? -ENOMEM
				      : fd_read_all(fd, room, HOSTS_MAX - 1);
		if (got < 0)
			return (int)got;
		if ((size_t)got == HOSTS_MAX - 1)
			return -EFBIG; /* not ours to cut short */
		room[got] = '\0';
		r = keep_others(&hosts, room);
	}
	if (r == 0 && hosts.len == 0)
		r = buf_add_str(&hosts, "127.0.0.1\tlocalhost\n"
					"::1\tlocalhost\n");
	if (r == 0 && hosts.data[hosts.len - 1] != '\n')
		r = buf_add_str(&hosts, "\n");
	if (r == 0)
		r = buf_addf(&hosts, OWN_ADDRESS "\t%s\n", hostname);
	return r < 0 ? r : replace_file("/etc/hosts", &hosts);
}

static int write_hostname(const char *hostname)
{
	cleanup_buf struct buf text = BUF_INIT(BRIG_HOSTNAME_BYTES + 1);
	int r = buf_addf(&text, "%s\n", hostname);

	return r < 0 ? r : replace_file("/etc/hostname", &text);
}

int identity_set_hostname(const char *name)
{
	char now[HOST_NAME_MAX + 1];

	if (sethostname(name, strlen(name)) < 0 ||
	    gethostname(now, sizeof(now)) < 0)
		return -errno;
	if (strcmp(now, name) != 0)
		return -EIO;
	int r = write_hostname(name);
	if (r == 0)
		r = update_hosts(name);
	(void)r;
	return 0;
}

/* --- ids --------------------------------------------------------------------*/

/* Digits in lower case and a line feed; with dashes for a UUID. */
static void format_id(char text[ID_TEXT_BYTES],
		      const uint8_t id[IDENTITY_ID_BYTES], bool uuid)
{
	static const char digits[] = "0123456789abcdef";
	size_t n = 0;

	for (size_t i = 0; i < IDENTITY_ID_BYTES; i++) {
		if (uuid && (i == 4 || i == 6 || i == 8 || i == 10))
			text[n++] = '-';
		text[n++] = digits[id[i] >> 4];
		text[n++] = digits[id[i] & 15];
	}
	text[n++] = '\n';
	text[n] = '\0';
}

static bool holds(const char *path, const char *text)
{
	char now[ID_TEXT_BYTES + 1];

	return textfile_read(AT_FDCWD, path, now, sizeof(now)) == 0 &&
	       strcmp(now, text) == 0;
}

/* Takes away what is mounted over `path`, so that a clone of a clone does not
 * pile its layers up. */
static void uncover(const char *path)
{
	for (int i = 0; i < LAYERS_MAX; i++) {
		if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
			return;
	}
}

/* Mounts a new file `name` of RUN_DIR that holds `text` over `path`. */
static int cover(const char *path, const char *name, const char *text)
{
	char file[64];

	(void)snprintf(file, sizeof(file), RUN_DIR "/%s", name);
	if (mkdir(RUN_DIR, 0755) < 0 && errno != EEXIST)
		return -errno;
	(void)unlink(file);
	cleanup_fd int fd =
		open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0)
		return -errno;
	int r = fd_write_all(fd, text, strlen(text));
	if (r < 0)
		return r;
	uncover(path);
	if (mount(file, path, NULL, MS_BIND, NULL) < 0)
		return -errno;
	return holds(path, text) ? 0 : -EIO;
}

static int write_id(const char *path, const char *text)
{
	cleanup_buf struct buf b = BUF_INIT(ID_TEXT_BYTES);

	int r = buf_add_str(&b, text);
	if (r == 0)
		r = replace_file(path, &b);
	if (r == 0 && !holds(path, text))
		r = -EIO;
	return r;
}

int identity_set_machine(const uint8_t id[IDENTITY_ID_BYTES])
{
	char text[ID_TEXT_BYTES];

	format_id(text, id, false);
	uncover(MACHINE_ID);
	int r = write_id(MACHINE_ID, text);
	if (r < 0)
		r = cover(MACHINE_ID, "machine-id", text);
	/* An image without that file tells nobody any id. */
	if (r < 0 && access(MACHINE_ID, F_OK) < 0 && errno == ENOENT)
		r = 0;
	if (r < 0 || access(DBUS_ID, F_OK) < 0 || holds(DBUS_ID, text))
		return r;
	uncover(DBUS_ID);
	r = write_id(DBUS_ID, text);
	return r < 0 ? cover(DBUS_ID, "dbus-machine-id", text) : 0;
}

int identity_set_boot(const uint8_t id[IDENTITY_ID_BYTES])
{
	char text[ID_TEXT_BYTES];

	format_id(text, id, true);
	return cover(BOOT_ID, "boot_id", text);
}
