/* spawn.h - starts the main process of a run.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The child is born in its cgroup, in a session of its own, with no
 * descriptor but its three. Why it could not become the program comes back
 * through a pipe that execve closes.
 */
#ifndef BRIG_INIT_SPAWN_H
#define BRIG_INIT_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "accounts.h"
#include "frames.h"

struct spawned {
	pid_t pid;
	/* Non-blocking ends of the agent, owned by the caller. */
	int in;     /* -1 without GUEST_EXEC_STDIN */
	int out[2]; /* stdout, stderr */
	int report; /* end of file: running; else a struct spawn_failure */
};

struct spawn_failure {
	uint32_t stage; /* enum guest_error_stage */
	uint32_t error;
};

/* Adds the default environment to `req` where it names no other value. The
 * added strings are kept in `store`, which must live as long as `req`. */
#define SPAWN_STORE_BYTES 1024
void spawn_add_defaults(struct exec_request *req, const struct account *who,
			char store[SPAWN_STORE_BYTES]);

/* The program gets copies of the descriptors in `aside` (-1: none) as 4 and
 * 5. 0, or -errno when pipes or the process could not be made. */
#define SPAWN_ASIDE 2
must_check int spawn_start(struct exec_request *req, const struct account *who,
			   int cgroup_fd, const int aside[SPAWN_ASIDE],
			   struct spawned *ret);

/* A pipe as runs have it: *ret_mine is non-blocking, and the end that is
 * written to if `mine_writes`. */
must_check int spawn_make_pipe(int *ret_theirs, int *ret_mine,
			       bool mine_writes);

/* Starts a program of the guest as root, with no input and its output thrown
 * away. The pid, or -errno. */
must_check pid_t spawn_quiet(const char *path, char *const *env, int cgroup_fd);

/* In any child of the agent: `fds[i]` becomes descriptor i, all others are
 * closed, no signal is blocked. Ends the child when it fails. */
void spawn_keep_only(const int *fds, int count);

#endif
