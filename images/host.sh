#!/bin/bash
# host.sh - build the host VM: its root file system and its initrd.
# SPDX-License-Identifier: Apache-2.0
#
# usage: images/host.sh [--force]
# result: build/images/host/root.ext4 and build/images/host/initrd.img
#
# Needs what images/kernel.sh made: the modules and the kernel's version.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

# Loaded by host/initrd-init; what they depend on comes along.
modules=(virtio_pci virtio_blk virtio_net qemu_fw_cfg kvm-amd)

image_begin host
mkdir -p "$OUT/host"
root=$OUT/host/root.ext4
initrd=$OUT/host/initrd.img
[ -s "$OUT/kernel.version" ] || die "run images/kernel.sh first"
hash=$(recipe_hash "$here/lib.sh" "$here/host.sh" "$here"/host/* \
	"$OUT/kernel.version")
if [ "${1:-}" != --force ] && image_is_current "$hash" "$root" "$initrd"; then
	echo "  host     up to date"
	exit 0
fi
need mmdebstrap mke2fs debugfs dumpe2fs tar cpio depmod modinfo

is_built_in() { # tree module
	grep -q "/${2//_/[_-]}\.ko$" "$1/modules.builtin"
}

# The modules with all they need, and modules.dep for busybox's modprobe.
copy_modules() {
	local tree version name file wanted=("${modules[@]}") next
	tree=$(echo "$OUT"/modules-full/*)
	version=${tree##*/}
	mkdir -p "$WORK/initrd/lib/modules/$version"
	while [ ${#wanted[@]} -gt 0 ]; do
		next=()
		for name in "${wanted[@]}"; do
			file=$(find "$tree" -name "${name//_/[_-]}.ko")
			if [ -z "$file" ] && is_built_in "$tree" "$name"; then
				continue
			fi
			[ -f "$file" ] || die "no module $name in $tree"
			cp "$file" "$WORK/initrd/lib/modules/$version/"
			mapfile -t -O ${#next[@]} next < <(modinfo -F depends \
				"$file" | tr -s ',' '\n' | sed '/^$/d')
		done
		wanted=("${next[@]}")
	done
	cp "$tree/modules.builtin" "$WORK/initrd/lib/modules/$version/"
	depmod -b "$WORK/initrd" "$version"
	(cd "$WORK/initrd/lib/modules/$version" && find . -name 'modules.*' \
		! -name modules.dep ! -name modules.builtin -delete)
}

make_initrd() {
	mkdir -p "$WORK"/initrd/{bin,dev,root}
	tar -x -O -f "$WORK/root.tar" ./usr/bin/busybox \
		>"$WORK/initrd/bin/busybox"
	install -m 0755 "$here/host/initrd-init" "$WORK/initrd/init"
	chmod 0755 "$WORK/initrd/bin/busybox"
	copy_modules
	find "$WORK/initrd" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	(cd "$WORK/initrd" && find . -print0 | sort -z |
		cpio --null -o -H newc -R 0:0 --reproducible) >"$WORK/initrd.img"
}

step "Debian $SUITE with what brigd needs" \
	rootfs_tar essential "$here/host/packages" "$here/host/setup" \
	"$WORK/root.tar"
step "initrd" make_initrd
step "file system" \
	ext4_from_tar "$WORK/root.tar" "$WORK/root.ext4" brig-host \
	6b000000-0000-4000-8000-000000000002 $((1 << 18))
mv "$WORK/root.ext4" "$root"
mv "$WORK/initrd.img" "$initrd"
image_done "$hash"
echo "  host     $root: $(($(stat -c %s "$root") >> 20)) MiB," \
	"initrd $(($(stat -c %s "$initrd") >> 10)) KiB"
