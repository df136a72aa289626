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

#include "configure.h"
#include "fd.h"
#include "identity.h"
#include "loop.h"

#define POST_RESTORE "/etc/brig/post-restore.d"

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

/* How far the clock was moved goes to *ret_step_ns. */
static int set_clock(uint64_t realtime_ns, int64_t *ret_step_ns)
{
	const struct timespec t = {
		.tv_sec = (time_t)(realtime_ns / NS_PER_S),
		.tv_nsec = (long)(realtime_ns % NS_PER_S),
	};
	struct timespec old;

	if (realtime_ns > INT64_MAX)
		return -EINVAL;
	if (clock_gettime(CLOCK_REALTIME, &old) < 0)
		return -errno;
#ifndef BRIG_TEST
	if (clock_settime(CLOCK_REALTIME, &t) < 0)
		return -errno;
#endif
	*ret_step_ns = (t.tv_sec - old.tv_sec) * (int64_t)NS_PER_S +
		       (t.tv_nsec - old.tv_nsec);
	return 0;
}

static int set_identity(struct configure *c, const struct guest_configure *want)
{
	c->what = "machine id";
	int r = identity_set_machine(want->machine_id);
	if (r < 0)
		return r;
	c->done.machine_id_set = 1;
	c->what = "boot id";
	r = identity_set_boot(want->boot_id);
	if (r < 0)
		return r;
	c->done.boot_id_set = 1;
	c->what = "host name";
	if (memchr(want->hostname, '\0', sizeof(want->hostname)) == NULL ||
	    want->hostname[0] == '\0')
		return -EINVAL;
	memcpy(c->hostname, want->hostname, sizeof(c->hostname));
	r = identity_set_hostname(c->hostname);
	if (r == 0)
		c->done.hostname_set = 1;
	return r;
}

static int set_all(struct configure *c, const struct guest_configure *want)
{
	c->what = "thaw of the root file system";
	int r = freezer_thaw_files(c->freezer);
	if (r < 0)
		return r;
	c->what = "entropy";
	r = add_entropy(want);
	if (r < 0)
		return r;
	c->done.entropy_added = 1;
	c->what = "clock";
	r = set_clock(want->realtime_ns, &c->done.clock_step_ns);
	if (r < 0)
		return r;
	c->done.clock_set = 1;
	return set_identity(c, want);
}

static int finish(struct configure *c)
{
	struct statvfs disk;

	c->what = "root file system";
	if (statvfs("/", &disk) < 0)
		return -errno;
	c->done.hooks_failed = c->hooks.failed;
	c->done.disk_grown = c->disk_grown;
	c->done.disk_bytes = disk.f_blocks * disk.f_frsize;
	c->done.disk_free_bytes = disk.f_bfree * disk.f_frsize;
	c->what = "thaw";
	int r = freezer_thaw(c->freezer, FREEZER_COPY);
	if (r == 0)
		c->generation = c->done.generation;
	return r;
}

static void end(struct configure *c, int error)
{
	c->busy = false;
	c->on_done(c, error);
}

static void on_hooks_done(struct hooks *h)
{
	struct configure *c = container_of(h, struct configure, hooks);

	end(c, finish(c));
}

/* True when there are hooks, and they run now. */
static bool start_hooks(struct configure *c)
{
	char *const env[] = { c->env_text[0], c->env_text[1], NULL };

	(void)snprintf(c->env_text[0], sizeof(c->env_text[0]),
		       "BRIG_GENERATION=%016llx",
		       (unsigned long long)c->done.generation);
	(void)snprintf(c->env_text[1], sizeof(c->env_text[1]),
		       "BRIG_SANDBOX=%s", c->hostname);
	return hooks_start(&c->hooks, POST_RESTORE, env);
}

void configure_start(struct configure *c, const struct guest_configure *want)
{
	ASSERT(!c->busy);
	c->busy = true;
	c->hooks.failed = 0;
	c->done = (struct guest_configured){ .generation = want->generation };
	int r = set_all(c, want);
	/* At the first time nothing was copied yet. */
	if (r == 0 && c->generation != 0) {
		c->what = "thaw of hooks";
		r = freezer_thaw_hooks(c->freezer);
		if (r == 0 && start_hooks(c))
			return;
	}
	end(c, r < 0 ? r : finish(c));
}

void configure_stop(struct configure *c)
{
	if (!c->busy)
		return;
	hooks_stop(&c->hooks);
	c->busy = false;
}

void configure_init(struct configure *c)
{
	hooks_init(&c->hooks);
	c->hooks.on_done = on_hooks_done;
}
