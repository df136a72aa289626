/* freezer.c - users' processes stopped while the machine is copied.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fd.h"
#include "freezer.h"

/* FIFREEZE or FITHAW on the root file system. A test build has none of its
 * own. */
static int control_root(unsigned long request)
{
#ifdef BRIG_TEST
	(void)request;
	return 0;
#else
	cleanup_fd int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || ioctl(fd, request, 0) < 0 ? -errno : 0;
#endif
}

int freezer_freeze(struct freezer *f)
{
	f->frozen = true;
	f->lost_count = 0;
	int r = cgroup_freeze(f->runs, true);
	if (r == 0)
		r = cgroup_freeze(f->hooks, true);
	return r;
}

bool freezer_is_done(const struct freezer *f)
{
	return cgroup_is_frozen(f->runs) && cgroup_is_frozen(f->hooks);
}

int freezer_freeze_files(void)
{
	return control_root(FIFREEZE);
}

int freezer_thaw_files(struct freezer *f)
{
	int r = f->files_frozen ? control_root(FITHAW) : 0;

	/* EINVAL: root of the guest did it before us. */
	if (r < 0 && r != -EINVAL)
		return r;
	f->files_frozen = false;
	return 0;
}

int freezer_thaw_hooks(struct freezer *f)
{
	return f->frozen ? cgroup_freeze(f->hooks, false) : 0;
}

static void kill_lost(struct freezer *f)
{
	for (unsigned int i = 0; i < f->lost_count; i++)
		cgroup_kill(f->runs, f->lost[i]);
}

int freezer_thaw(struct freezer *f, enum freezer_side side)
{
	int r = freezer_thaw_files(f);

	if (r < 0 || !f->frozen)
		return r;
	if (side == FREEZER_SOURCE)
		kill_lost(f);
	r = cgroup_freeze(f->hooks, false);
	if (r == 0)
		r = cgroup_freeze(f->runs, false);
	if (r < 0)
		return r;
	f->lost_count = 0;
	f->frozen = false;
	return 0;
}

bool freezer_adopt(struct freezer *f, uint64_t id)
{
	if (!f->frozen || f->lost_count == ARRAY_LEN(f->lost))
		return false;
	f->lost[f->lost_count++] = id;
	return true;
}
