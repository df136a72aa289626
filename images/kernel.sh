#!/bin/bash
# kernel.sh - fetch Debian's cloud kernel and unpack what brig boots from it.
# SPDX-License-Identifier: Apache-2.0
#
# usage: images/kernel.sh [--force]
# result, without installing the package and without root, in build/images:
#   vmlinux            the guest kernel: the ELF inside the bzImage, so that no
#                      guest ever runs a decompressor; the host VM's, too
#   modules/           what brig-init loads, in the order of modules/list
#   modules-full/      the whole module tree, for the host VM
#   kernel.version     package and version
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

# virtio over MMIO, then its drivers. ext4 and hw_random are built in. The
# order is that of the modules' dependencies.
guest_modules=(
	drivers/virtio/virtio_ring
	drivers/virtio/virtio
	drivers/virtio/virtio_mmio
	drivers/block/virtio_blk
	net/vmw_vsock/vsock
	net/vmw_vsock/vmw_vsock_virtio_transport_common
	net/vmw_vsock/vmw_vsock_virtio_transport
	drivers/char/hw_random/virtio-rng
	drivers/misc/pvpanic/pvpanic
	drivers/misc/pvpanic/pvpanic-mmio
)

# The newest kernel that the machine's apt knows.
find_version() {
	local meta=linux-image-cloud-amd64
	package=$(apt-cache depends --important "$meta" |
		sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
	[ -n "$package" ] || die "apt knows no package $meta: run apt-get update"
	version=$(apt-cache show --no-all-versions "$package" |
		sed -n 's/^Version: //p')
}

fetch() {
	(cd "$WORK" && apt-get -q download "$package=$version")
	dpkg-deb -x "$WORK"/linux-image-*.deb "$WORK/root"
}

# The setup header (Documentation/arch/x86/boot.rst): setup_sects at 0x1f1,
# payload_offset at 0x248, payload_length at 0x24c. The payload is an LZ4
# legacy stream with the unpacked size in its last four bytes.
field() { od -An -v -j "$2" -N "$3" -t "u$3" "$1" | tr -d ' '; }
unpack() {
	local bzimage start length
	bzimage=$(echo "$WORK"/root/boot/vmlinuz-*)
	start=$((($(field "$bzimage" $((0x1f1)) 1) + 1) * 512 +
		$(field "$bzimage" $((0x248)) 4)))
	length=$(($(field "$bzimage" $((0x24c)) 4) - 4))
	head -c $((start + length)) "$bzimage" | tail -c "$length" |
		lz4 -d -q - "$WORK/vmlinux"
	[ "$(head -c 4 "$WORK/vmlinux" | od -An -c | tr -d ' ')" = '177ELF' ] ||
		die "the payload is no ELF file"
}

pick_modules() {
	local module tree
	tree=$(echo "$WORK"/root/lib/modules/*)
	mkdir "$WORK/modules"
	for module in "${guest_modules[@]}"; do
		cp "$tree/kernel/$module.ko" "$WORK/modules/"
		echo "${module##*/}.ko" >>"$WORK/modules/list"
	done
}

image_begin kernel
find_version
echo "$package $version" >"$WORK/version"
hash=$(recipe_hash "$here/lib.sh" "$here/kernel.sh" "$WORK/version")
if [ "${1:-}" != --force ] && image_is_current "$hash" "$OUT/vmlinux" \
	"$OUT/modules/list" "$OUT/kernel.version"; then
	touch "$OUT/vmlinux" # newer than this script: make has no reason to ask
	echo "  kernel   up to date"
	exit 0
fi
need apt-get dpkg-deb lz4
step "$package $version" fetch
step "vmlinux" unpack
step "modules" pick_modules
rm -rf "$OUT/modules" "$OUT/modules-full" "$OUT/kernel.stamp"
mv "$WORK/modules" "$OUT/modules"
mv "$WORK/root/lib/modules" "$OUT/modules-full"
mv "$WORK/vmlinux" "$OUT/vmlinux"
mv "$WORK/version" "$OUT/kernel.version"
image_done "$hash"
echo "  kernel   $OUT/vmlinux: $(($(stat -c %s "$OUT/vmlinux") >> 20)) MiB"
