/* rng.c - any driver of the entropy device; see device.h for the script.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Checked besides what the sanitizers see: no request gets more than the
 * bucket held and one byte.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "device.h"
#include "src/vmm/dev/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
ssize_t __wrap_getrandom(void *to, size_t n, unsigned int flags);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

static struct device_fuzz fuzz;
static struct rng rng;
static uint64_t given;

/* The fuzzer wants the same bytes for the same input, and time stands. */
ssize_t __wrap_getrandom(void *to, size_t n, unsigned int flags)
{
	(void)flags;
	memset(to, 0xa5, n);
	given += n;
	return (ssize_t)n;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	*ts = (struct timespec){ .tv_sec = 1 };
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int irq_fd = -1;

	if (irq_fd < 0) {
		irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		guest_init(&fuzz.guest);
	}
	rng_init(&rng, &fuzz.guest.mem, irq_fd);
	fuzz.dev = &rng.dev;
	given = 0;
	device_run(&fuzz, data, size);
	/* an operation takes a byte of input and makes 256 chains at most */
	if (given > RNG_BURST_BYTES + 256 * (size + 1))
		abort();
	if (rng.tokens > RNG_BURST_BYTES)
		abort();
	return 0;
}
