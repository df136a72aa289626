/* image.h - root file system images on the host's disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Image NAME is DIR/NAME.ext4: a regular file, or a symlink to a block
 * device. The directory is the operator's.
 */
#ifndef BRIGD_IMAGE_H
#define BRIGD_IMAGE_H

#include <jansson.h>
#include <stdint.h>

#include "cc.h"
#include "saved.h"

/* Opens an image read-only. `name` was checked by args_parse_create: it holds
 * no slash and does not begin with a dot. Returns a descriptor that the caller
 * owns and writes the size; -ENOENT if there is no such image, -EINVAL if it
 * is neither file nor block device or empty, or another -errno. */
must_check int image_open(const char *dir, const char *name,
			  uint64_t *ret_bytes);

/* Opens the image that shape->image names and fills in image_hash and
 * base_bytes. Errors as of image_open. */
must_check int image_open_new(const char *dir, struct shape *shape);

/* Opens the image that `shape` names, if it still is the same one; -ESTALE if
 * not. Otherwise as image_open. */
must_check int image_open_shape(const char *dir, const struct shape *shape);

/* The names in the directory, as a JSON array (NULL: no memory). */
must_check json_t *image_list(const char *dir);

#endif
