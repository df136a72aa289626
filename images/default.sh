#!/bin/bash
# default.sh - build the root file system of the default image.
# SPDX-License-Identifier: Apache-2.0
#
# usage: images/default.sh [--force]
# result: build/images/default.ext4
#
# The guest grows the file system to the size of the sandbox's disk; the group
# descriptors reserved here reach 256 GiB (wire/limits.h).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

image_begin default
image=$OUT/default.ext4
hash=$(recipe_hash "$here/lib.sh" "$here/default.sh" "$here"/default/*)
if [ "${1:-}" != --force ] && image_is_current "$hash" "$image"; then
	echo "  default  up to date"
	exit 0
fi
need mmdebstrap mke2fs debugfs dumpe2fs tar apt-get

count=$(package_list "$here/default/packages" | tr , '\n' | wc -l)
step "Debian $SUITE with $count packages and what they need" \
	rootfs_tar minbase "$here/default/packages" "$here/default/setup" \
	"$WORK/root.tar"
step "file system" \
	ext4_from_tar "$WORK/root.tar" "$WORK/image" brig-default \
	6b000000-0000-4000-8000-000000000001 $((256 << 18))
mv "$WORK/image" "$image"
image_done "$hash"
echo "  default  $image: $(($(stat -c %s "$image") >> 20)) MiB"
