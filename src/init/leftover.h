/* leftover.h - what outlives its run: background processes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Their output is read and thrown away, so that they neither stop nor die of
 * it; their cgroup goes when the last of them has gone. Bounded: when too
 * many runs leave something behind, the pipes of the oldest are closed, and
 * of still older ones nothing is kept but the cgroup itself. One thread.
 */
#ifndef BRIG_INIT_LEFTOVER_H
#define BRIG_INIT_LEFTOVER_H

#include "cgroup.h"
#include "loop.h"

/* Runs that are watched at all: three descriptors each. */
#define LEFTOVERS_MAX 512u

struct leftover;

struct leftovers {
	struct loop *loop;
	struct cgroup_tree *tree;
	struct leftover *slots[LEFTOVERS_MAX];
};

/* Takes over the run's cgroup and pipes (-1: closed already). */
void leftover_add(struct leftovers *all, uint64_t id, int out[2]);

/* Frees everything; processes are not touched. */
void leftover_fini(struct leftovers *all);

#endif
