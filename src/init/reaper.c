/* reaper.c - who waits for the end of which process.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "reaper.h"

void reaper_add(struct reaper *r, struct child *c, pid_t pid)
{
	ASSERT(c->pid == 0 && c->on_exit != NULL && pid > 0);
	c->pid = pid;
	c->next = r->first;
	r->first = c;
}

void reaper_del(struct reaper *r, struct child *c)
{
	for (struct child **p = &r->first; *p != NULL; p = &(*p)->next) {
		if (*p == c) {
			*p = c->next;
			break;
		}
	}
	c->pid = 0;
}

void reaper_exited(struct reaper *r, pid_t pid, int status)
{
	for (struct child *c = r->first; c != NULL; c = c->next) {
		if (c->pid != pid)
			continue;
		reaper_del(r, c);
		c->on_exit(c, status);
		return;
	}
}
