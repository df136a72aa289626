/* stop.c - the one way a running machine ends.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "stop.h"

static int event_fd = -1;
static _Atomic uint64_t detail;
static _Atomic uint32_t reason; /* 0: running */
static atomic_flag claimed = ATOMIC_FLAG_INIT;

int stop_init(void)
{
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return event_fd < 0 ? -errno : event_fd;
}

void stop_machine(enum vmm_stop_reason why, uint64_t more)
{
	uint64_t one = 1;

	if (atomic_flag_test_and_set(&claimed))
		return;
	atomic_store(&detail, more);
	atomic_store(&reason, (uint32_t)why);
	ssize_t n = write(event_fd, &one, sizeof(one));
	(void)n; /* the counter starts at 0: this cannot fail */
}

bool stop_requested(void)
{
	return atomic_load(&reason) != 0;
}

enum vmm_stop_reason stop_reason(uint64_t *ret_detail)
{
	*ret_detail = atomic_load(&detail);
	return (enum vmm_stop_reason)atomic_load(&reason);
}
