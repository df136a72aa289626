#!/bin/bash
# initrd.sh - pack brig-init and its modules into the guest's initramfs.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: images/initrd.sh [BRIG_INIT [OUTPUT_DIR]]
#        (default: build/gcc/bin/brig-init build/images)
#
# Reads OUTPUT_DIR/modules (kernel.sh), makes OUTPUT_DIR/initrd.img: a newc
# archive, not compressed, since the guest would pay for unpacking it. The
# same inputs give the same bytes. /dev and /dev/console come from the
# archive that is built into the kernel.
set -euo pipefail

init=${1:-build/gcc/bin/brig-init}
out=${2:-build/images}

work=$(mktemp -d "$out/.initrd.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree" "$work/tree/modules" "$work/tree/newroot"
strip -o "$work/tree/init" "$init"
cp "$out"/modules/* "$work/tree/modules/"
chmod 0755 "$work/tree/init" "$work"/tree/modules "$work"/tree/newroot
chmod 0644 "$work"/tree/modules/*
find "$work/tree" -exec touch -h -d @0 {} +
(cd "$work/tree" && find . -mindepth 1 | LC_ALL=C sort |
	cpio --quiet --reproducible -o -H newc -R 0:0 --renumber-inodes) \
	>"$work/initrd.img"
mv "$work/initrd.img" "$out/initrd.img"
echo "  built $out/initrd.img"
