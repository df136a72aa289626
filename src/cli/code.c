/* code.c - code of this machine that is to run in a sandbox.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "code.h"
#include "fd.h"
#include "term.h"

static json_t *read_text(int fd, const char *path, char *bytes)
{
	ssize_t n = fd < 0 ? -errno : fd_read_all(fd, bytes, CODE_MAX + 1);

	if (n < 0) {
		complain("%s: %s", path, strerror((int)-n));
		return NULL;
	}
	if (n > CODE_MAX) {
		complain("%s: larger than %u bytes", path, CODE_MAX);
		return NULL;
	}
	json_t *text = json_stringn(bytes, (size_t)n);
	if (text == NULL)
		complain("%s: not valid UTF-8", path);
	return text;
}

json_t *code_read(const char *path)
{
	int fd cleanup_fd = strcmp(path, "-") == 0
				    ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
				    : open(path, O_RDONLY | O_CLOEXEC);
	char *bytes = malloc(CODE_MAX + 1);
	json_t *text = NULL;

	if (bytes == NULL)
		complain("out of memory");
	else
		text = read_text(fd, path, bytes);
	free(bytes);
	return text;
}
