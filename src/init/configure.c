/* configure.c - what makes this guest differ from its template: CONFIGURE.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "configure.h"
#include "fd.h"
#include "loop.h"

#define HOSTS_MAX ((size_t)64 << 10)

/* The address by which Debian's /etc/hosts maps a host's own name. */
#define OWN_ADDRESS "127.0.1.1"

struct entropy {
	int bits;
	int bytes;
	uint8_t data[sizeof(((struct guest_configure *)0)->entropy)];
};
static_assert(offsetof(struct entropy, data) == sizeof(struct rand_pool_info),
	      "the kernel's struct rand_pool_info");

static int add_entropy(const struct guest_configure *want)
{
	struct entropy e = {
		.bits = 8 * (int)sizeof(want->entropy),
		.bytes = (int)sizeof(want->entropy),
	};
	cleanup_fd int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	int r = 0;

	memcpy(e.data, want->entropy, sizeof(e.data));
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &e) < 0 ||
	    ioctl(fd, RNDRESEEDCRNG) < 0)
		r = -errno;
	explicit_bzero(&e, sizeof(e));
	return r;
}

static int set_clock(uint64_t realtime_ns)
{
	const struct timespec t = {
		.tv_sec = (time_t)(realtime_ns / NS_PER_S),
		.tv_nsec = (long)(realtime_ns % NS_PER_S),
	};

	return clock_settime(CLOCK_REALTIME, &t) < 0 ? -errno : 0;
}

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

/* The kernel's name is what counts; the files follow as far as the image lets
 * them (it may have no /etc, or no space). */
static int set_hostname(const struct guest_configure *want)
{
	const char *name = want->hostname;

	if (memchr(name, '\0', sizeof(want->hostname)) == NULL ||
	    name[0] == '\0')
		return -EINVAL;
	if (sethostname(name, strlen(name)) < 0)
		return -errno;
	int r = write_hostname(name);
	if (r == 0)
		r = update_hosts(name);
	(void)r;
	return 0;
}

int configure_guest(const struct guest_configure *want,
		    struct guest_configured *ret, const char **ret_what)
{
	struct statvfs disk;

	*ret_what = "entropy";
	int r = add_entropy(want);
	if (r < 0)
		return r;
	*ret_what = "clock";
	r = set_clock(want->realtime_ns);
	if (r < 0)
		return r;
	*ret_what = "host name";
	r = set_hostname(want);
	if (r < 0)
		return r;
	*ret_what = "root file system";
	if (statvfs("/", &disk) < 0)
		return -errno;
	*ret = (struct guest_configured){
		.clock_set = 1,
		.entropy_added = 1,
		.hostname_set = 1,
		.disk_bytes = disk.f_blocks * disk.f_frsize,
		.disk_free_bytes = disk.f_bfree * disk.f_frsize,
	};
	return 0;
}
