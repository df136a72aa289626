/* boot.c - from the initramfs to a running root file system.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "boot.h"
#include "cc.h"
#include "fd.h"
#include "loop.h"
#include "poweroff.h"
#include "textfile.h"
#include "wire/boot.h"
#include "wire/limits.h"

#define ROOT_DEVICE "/dev/vda"
#define NEW_ROOT "/newroot"
#define MODULES "/modules"

/* How long the root disk may take to show up. */
#define DEVICE_NS (2 * NS_PER_S)

/* Not in the C library's headers (linux: fs/ext4/ext4.h). */
#define EXT4_RESIZE_FS _IOW('f', 16, uint64_t)

/* The agent holds up to six descriptors for each connection. What it starts
 * inherits the hard limit; systemd gives the same. */
#define NOFILE_SOFT 8192
#define NOFILE_HARD 524288

struct mount_step {
	const char *type;
	const char *target;
	unsigned long flags;
	const char *options;
};

/* In the new root; /dev comes along from the initramfs. */
static const struct mount_step mounts[] = {
	{ "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
	{ "sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
	{ "cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
	{ "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
	  "gid=5,mode=620,ptmxmode=666" },
	{ "tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777" },
	{ "tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755" },
};

static const struct {
	const char *target;
	const char *name;
} links[] = {
	{ "/proc/self/fd", "/dev/fd" },
	{ "fd/0", "/dev/stdin" },
	{ "fd/1", "/dev/stdout" },
	{ "fd/2", "/dev/stderr" },
};

/* --- modules ----------------------------------------------------------------*/

static void load_module(const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), MODULES "/%s", name) >= PATH_MAX)
		poweroff_failed(MODULES, ENAMETOOLONG);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 ||
	    (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		poweroff_failed(name, errno);
	(void)unlink(path);
}

/* The list was made with the modules, in the order of their dependencies. */
static void load_modules(void)
{
	char list[4096];
	int r = textfile_read(AT_FDCWD, MODULES "/list", list, sizeof(list));

	if (r < 0)
		poweroff_failed(MODULES "/list", -r);
	for (char *name = list; name[0] != '\0';) {
		char *end = strchr(name, '\n');
		if (end == NULL)
			poweroff_failed(MODULES "/list", EINVAL);
		*end = '\0';
		load_module(name);
		name = end + 1;
	}
	(void)unlink(MODULES "/list");
}

/* --- file systems -----------------------------------------------------------*/

static void make_dir(const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		poweroff_failed(path, errno);
}

static void wait_for(const char *device)
{
	const struct timespec pause = { .tv_nsec = 500000 };
	uint64_t end = now_ns() + DEVICE_NS;

	while (access(device, F_OK) < 0) {
		if (now_ns() > end)
			poweroff_failed(device, ENODEV);
		(void)nanosleep(&pause, NULL);
	}
}

/* A kernel without a console starts init without descriptors. */
static void open_standard(void)
{
	int fd = open("/dev/null", O_RDWR);

	while (fd >= 0 && fd < STDERR_FILENO)
		fd = dup(fd);
	if (fd > STDERR_FILENO)
		(void)close(fd);
}

/* The initramfs keeps its memory until its files are gone. */
static void switch_root(void)
{
	(void)unlink("/init");
	make_dir(NEW_ROOT "/dev");
	if (mount("/dev", NEW_ROOT "/dev", NULL, MS_MOVE, NULL) < 0)
		poweroff_failed("move of /dev", errno);
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 ||
	    chroot(".") < 0 || chdir("/") < 0)
		poweroff_failed("change of root", errno);
}

/* Without lazy initialisation of inode tables in the end: its thread would
 * write to every group of the private layer. But the tables of new groups are
 * left alone by the resize only while that option is on, hence not yet. */
static void mount_disk(void)
{
	wait_for(ROOT_DEVICE);
	if (mount(ROOT_DEVICE, NEW_ROOT, "ext4", MS_NOATIME, "") < 0)
		poweroff_failed("mount of " ROOT_DEVICE, errno);
}

void boot_mount_root(void)
{
	make_dir("/dev");
	if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0)
		poweroff_failed("mount of /dev", errno);
	open_standard();
	(void)reboot(RB_DISABLE_CAD);
	load_modules();
	make_dir(NEW_ROOT);
	mount_disk();
	switch_root();
	for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
		const struct mount_step *m = &mounts[i];
		make_dir(m->target);
		if (mount(m->type, m->target, m->type, m->flags, m->options) <
		    0)
			poweroff_failed(m->target, errno);
	}
	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		if (symlink(links[i].target, links[i].name) < 0 &&
		    errno != EEXIST)
			poweroff_failed(links[i].name, errno);
	}
}

bool boot_grow_root(void)
{
	struct statfs fs;
	uint64_t bytes = 0;
	cleanup_fd int disk = open(ROOT_DEVICE, O_RDONLY | O_CLOEXEC);
	cleanup_fd int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (disk < 0 || root < 0 || ioctl(disk, BLKGETSIZE64, &bytes) < 0 ||
	    fstatfs(root, &fs) < 0)
		poweroff_failed("size of " ROOT_DEVICE, errno);
	uint64_t blocks = bytes / (uint64_t)fs.f_bsize;
	bool grown = ioctl(root, EXT4_RESIZE_FS, &blocks) == 0;
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_NOATIME, "noinit_itable") <
	    0)
		poweroff_failed("remount of /", errno);
	return grown;
}

/* --- the rest ---------------------------------------------------------------*/

static void raise_loopback(void)
{
	struct ifreq req = { .ifr_name = "lo" };
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	req.ifr_flags = IFF_UP | IFF_RUNNING;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &req) < 0)
		poweroff_failed("loopback", errno);
}

/* Real-time, but only the agent itself: it runs for microseconds at a time,
 * and what it starts begins as an ordinary process. Its memory needs no lock:
 * the binary lies in the initramfs's memory, and there is no swap. */
static void protect_self(void)
{
	const struct sched_param first = { .sched_priority = 1 };
	const struct rlimit files = { NOFILE_SOFT, NOFILE_HARD };

	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first) < 0)
		poweroff_failed("scheduling policy", errno);
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		poweroff_failed("descriptor limit", errno);
	int r = textfile_write(AT_FDCWD, "/proc/self/oom_score_adj", "-1000");
	if (r < 0)
		poweroff_failed("oom_score_adj", -r);
}

void boot_settle(void)
{
	static const char name[] = "brig";

	raise_loopback();
	if (sethostname(name, sizeof(name) - 1) < 0)
		poweroff_failed("host name", errno);
	protect_self();
}

int boot_connect_host(void)
{
	const struct sockaddr_vm host = {
		.svm_family = AF_VSOCK,
		.svm_cid = BRIG_CID_HOST,
		.svm_port = BRIG_READY_PORT,
	};
	cleanup_fd int fd =
		socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    (connect(fd, (const struct sockaddr *)&host, sizeof(host)) < 0 &&
	     errno != EINPROGRESS))
		return -errno;
	return fd_take(&fd);
}

int boot_listen(void)
{
	const struct sockaddr_vm any = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = BRIG_AGENT_PORT,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 ||
	    bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0 ||
	    listen(fd, BRIG_VSOCK_CONNS_MAX) < 0)
		poweroff_failed("vsock listener", errno);
	return fd;
}
