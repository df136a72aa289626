/* saved.c - saved machines: who holds which descriptors.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "saved.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct saved *saved_new(const struct shape *shape)
{
	struct saved *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->refs = 1;
	s->shape = *shape;
	return s;
}

struct saved *saved_ref(struct saved *s)
{
	ASSERT(s->refs > 0);
	s->refs++;
	return s;
}

void saved_unref(struct saved *s)
{
	if (s == NULL)
		return;
	ASSERT(s->refs > 0);
	if (--s->refs > 0)
		return;
	saved_file_unref(s->state);
	saved_memory_unref(s->base);
	saved_memory_unref(s->delta);
	for (unsigned int i = 0; i < s->memory_count; i++)
		saved_file_unref(s->memory[i]);
	for (unsigned int i = 0; i < s->layer_count; i++)
		saved_file_unref(s->layers[i]);
	free(s);
}

static int add_file(struct saved_file **list, unsigned int *count,
		    unsigned int max, struct saved_file *f)
{
	if (f == NULL)
		return -ENOMEM;
	if (*count >= max) {
		saved_file_unref(f);
		return -E2BIG;
	}
	list[(*count)++] = f;
	return 0;
}

int saved_add_memory(struct saved *s, struct saved_file *f)
{
	return add_file(s->memory, &s->memory_count, SAVED_MEMORY_MAX, f);
}

int saved_add_layer(struct saved *s, struct saved_file *f)
{
	return add_file(s->layers, &s->layer_count, BRIG_LAYERS_MAX, f);
}

struct saved_file *saved_file_new(int fd)
{
	struct saved_file *f = calloc(1, sizeof(*f));

	if (f == NULL) {
		fd_close(&fd);
		return NULL;
	}
	f->refs = 1;
	f->fd = fd;
	return f;
}

struct saved_file *saved_file_ref(struct saved_file *f)
{
	ASSERT(f->refs > 0);
	f->refs++;
	return f;
}

void saved_file_unref(struct saved_file *f)
{
	if (f == NULL)
		return;
	ASSERT(f->refs > 0);
	if (--f->refs > 0)
		return;
	fd_close(&f->fd);
	free(f);
}

struct saved_memory *saved_memory_new(int fd)
{
	struct saved_memory *m = calloc(1, sizeof(*m));

	if (m == NULL) {
		fd_close(&fd);
		return NULL;
	}
	m->refs = 1;
	m->fd = fd;
	m->working_set_fd = -1;
	return m;
}

struct saved_memory *saved_memory_ref(struct saved_memory *m)
{
	ASSERT(m->refs > 0);
	m->refs++;
	return m;
}

void saved_memory_unref(struct saved_memory *m)
{
	if (m == NULL)
		return;
	ASSERT(m->refs > 0);
	if (--m->refs > 0)
		return;
	fd_close(&m->fd);
	fd_close(&m->working_set_fd);
	free(m);
}

uint64_t saved_memory_bytes(const struct saved_memory *m)
{
	struct stat st;

	if (fstat(m->fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

static int open_readonly(int fd)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_RDONLY | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

int saved_freeze(int fd)
{
	cleanup_fd int held = fd;
	int seals = fcntl(held, F_GET_SEALS);

	/* Files of a tmpfs have seals too, but may not get others. */
	if (seals < 0 || (seals & F_SEAL_SEAL) != 0)
		return open_readonly(held);
	if (fcntl(held, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	return fd_take(&held);
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
	return strcmp(a->image, b->image) == 0 &&
	       memcmp(a->image_hash, b->image_hash, sizeof(a->image_hash)) ==
		       0 &&
	       a->base_bytes == b->base_bytes && a->vcpus == b->vcpus &&
	       a->memory_mib == b->memory_mib && a->disk_bytes == b->disk_bytes;
}
