/* request.c - what brig-spawn lets brigd ask for.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "num.h"
#include "request.h"
#include "wire/vmm.h"

#define MIB (1ull << 20)
#define SECTOR_BYTES 512u
#define QUOTA_PERCENT_MAX (100u * BRIG_VCPUS_MAX)

static_assert(REQUEST_FD_CONSOLE + 1 == SPAWN_START_FDS, "one name for each");

int request_check_id(const char *id, size_t size)
{
	if (size <= BRIG_ID_LEN || memcmp(id, "sb_", 3) != 0)
		return -EINVAL;
	for (size_t i = 3; i < BRIG_ID_LEN; i++) {
		bool ok = (id[i] >= 'a' && id[i] <= 'z') ||
			  (id[i] >= '0' && id[i] <= '9');
		if (!ok)
			return -EINVAL;
	}
	for (size_t i = BRIG_ID_LEN; i < size; i++) {
		if (id[i] != '\0')
			return -EINVAL;
	}
	return 0;
}

int request_check_start(const struct spawn_msg *m, size_t nfds)
{
	if (m->type != SPAWN_START || nfds != SPAWN_START_FDS)
		return -EINVAL;
	if (m->zero != 0 ||
	    (m->flags & ~(uint32_t)VMM_CONFIG_CONSOLE_VERBOSE) != 0)
		return -EINVAL;
	if (m->vcpus < 1 || m->vcpus > BRIG_VCPUS_MAX)
		return -ERANGE;
	if (m->memory_mib < BRIG_MEMORY_MIB_MIN ||
	    m->memory_mib > BRIG_MEMORY_MIB_MAX)
		return -ERANGE;
	if (m->disk_bytes < BRIG_DISK_BYTES_MIN ||
	    m->disk_bytes > BRIG_DISK_BYTES_MAX ||
	    !is_aligned(m->disk_bytes, MIB))
		return -ERANGE;
	if (m->base_bytes > m->disk_bytes ||
	    !is_aligned(m->base_bytes, SECTOR_BYTES))
		return -ERANGE;
	if (m->cpu_quota_percent > QUOTA_PERCENT_MAX)
		return -ERANGE;
	return request_check_id(m->id, sizeof(m->id));
}

/* --- descriptors ---------------------------------------------------------- */

/* Type and size of a file that was opened with exactly this access mode. */
static int look_at(int fd, int access_mode, struct stat *ret)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & O_PATH) || (flags & O_ACCMODE) != access_mode)
		return -EBADF;
	return fstat(fd, ret) < 0 ? -errno : 0;
}

static int check_control(int fd)
{
	int type = 0;
	int domain = 0;
	socklen_t n = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
		return -EBADF;
	return type == SOCK_SEQPACKET && domain == AF_UNIX ? 0 : -EBADF;
}

static int check_read_only_file(int fd)
{
	struct stat st;
	int r = look_at(fd, O_RDONLY, &st);

	if (r == 0 && !S_ISREG(st.st_mode))
		return -EBADF;
	return r;
}

static int check_base(int fd, uint64_t base_bytes)
{
	struct stat st;
	uint64_t size = 0;
	int r = look_at(fd, O_RDONLY, &st);

	if (r < 0)
		return r;
	if (S_ISREG(st.st_mode))
		size = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode) || ioctl(fd, BLKGETSIZE64, &size) < 0)
		return -EBADF;
	return size < base_bytes ? -ERANGE : 0;
}

/* The layer has no name and nothing in it, so it is nobody else's data. With
 * O_APPEND every write would go to the end, whatever offset it names. */
static int check_layer(int fd)
{
	struct stat st;
	int r = look_at(fd, O_RDWR, &st);

	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 0 || st.st_size != 0 ||
	    (fcntl(fd, F_GETFL) & O_APPEND))
		return -EBADF;
	return 0;
}

/* Sealed, or brigd could shrink it under brig-vmm's mapping. */
static int check_console(int fd)
{
	const int need = F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	int r = look_at(fd, O_RDWR, &st);

	if (r < 0)
		return r;
	int seals = fcntl(fd, F_GET_SEALS); /* only a memfd has them */
	if (seals < 0 || (seals & need) != need ||
	    st.st_size != (off_t)sizeof(struct vmm_console))
		return -EBADF;
	return 0;
}

int request_check_files(const struct spawn_msg *m, const int *fds)
{
	int r = check_control(fds[REQUEST_FD_CONTROL]);

	if (r == 0)
		r = check_read_only_file(fds[REQUEST_FD_KERNEL]);
	if (r == 0)
		r = check_read_only_file(fds[REQUEST_FD_INITRD]);
	if (r == 0)
		r = check_base(fds[REQUEST_FD_BASE], m->base_bytes);
	if (r == 0)
		r = check_layer(fds[REQUEST_FD_LAYER]);
	if (r == 0)
		r = check_console(fds[REQUEST_FD_CONSOLE]);
	return r;
}
