#!/bin/bash
# kernel.sh - fetch Debian's cloud kernels and unpack what brig boots from them.
# SPDX-License-Identifier: Apache-2.0
#
# usage: images/kernel.sh [--force]
# result, without installing a package and without root, in build/images:
#   vmlinux            the guest kernel: the ELF inside the bzImage, so that no
#                      guest ever runs a decompressor
#   modules/           what brig-init loads, in the order of modules/list
#   modules-peer/      what QEMU's guest in `make bench` loads besides
#   host/vmlinux       the kernel of the host VM: of backports where apt knows
#                      them (docs/decisions/0009), else the same
#   modules-full/      its whole module tree
#   kernel.version     packages and versions
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
peer_module=drivers/char/virtio_console

# package OPTION...: name=version of the kernel that apt-cache finds with these
# options.
package() {
	local meta=linux-image-cloud-amd64 name
	name=$(apt-cache "$@" depends --important "$meta" |
		sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
	[ -n "$name" ] || die "apt knows no package $meta: run apt-get update"
	echo "$name=$(apt-cache "$@" show --no-all-versions "$name" |
		sed -n 's/^Version: //p')"
}

backports() {
	apt-cache policy | sed -n 's/.*n=\([a-z]*-backports\).*/\1/p' |
		sed -n 1p
}

fetch() { # package DIR
	mkdir "$2"
	(cd "$2" && apt-get -q download "$1")
	dpkg-deb -x "$2"/linux-image-*.deb "$2/root"
}

# unpack BZIMAGE ELF. The setup header (Documentation/arch/x86/boot.rst):
# setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c. The
# payload is a stream of LZ4 (legacy) or Zstandard, with the unpacked size in
# its last four bytes.
field() { od -An -v -j "$2" -N "$3" -t "$4$3" "$1" | tr -d ' '; }
unpack() {
	local start length program
	start=$((($(field "$1" $((0x1f1)) 1 u) + 1) * 512 +
		$(field "$1" $((0x248)) 4 u)))
	length=$(($(field "$1" $((0x24c)) 4 u) - 4))
	case $(field "$1" "$start" 4 x) in
	184c2102) program=lz4 ;;
	fd2fb528) program=zstd ;;
	*) die "$1 is packed in a way that is not known here" ;;
	esac
	head -c $((start + length)) "$1" | tail -c "$length" |
		"$program" -d -q -c >"$2"
	[ "$(head -c 4 "$2" | od -An -c | tr -d ' ')" = '177ELF' ] ||
		die "the payload of $1 is no ELF file"
}

unpack_both() {
	unpack "$(echo "$WORK"/guest/root/boot/vmlinuz-*)" "$WORK/vmlinux"
	unpack "$(echo "$WORK"/host/root/boot/vmlinuz-*)" "$WORK/host-vmlinux"
}

# Their compression is known to few programs, and to none of the initrds'.
pick_modules() {
	local module tree
	find "$WORK"/*/root/lib/modules -name '*.ko.xz' -print0 |
		xargs -0 -r -n 64 xz -d
	tree=$(echo "$WORK"/guest/root/lib/modules/*)
	mkdir "$WORK/modules"
	for module in "${guest_modules[@]}"; do
		cp "$tree/kernel/$module.ko" "$WORK/modules/"
		echo "${module##*/}.ko" >>"$WORK/modules/list"
	done
	mkdir "$WORK/modules-peer"
	cp "$tree/kernel/$peer_module.ko" "$WORK/modules-peer/"
}

image_begin kernel
guest=$(package)
suite=$(backports)
host=$(package ${suite:+-o "APT::Default-Release=$suite"})
printf '%s\n' "guest $guest" "host $host" >"$WORK/version"
hash=$(recipe_hash "$here/lib.sh" "$here/kernel.sh" "$WORK/version")
if [ "${1:-}" != --force ] && image_is_current "$hash" "$OUT/vmlinux" \
	"$OUT/host/vmlinux" "$OUT/modules/list" "$OUT/kernel.version"; then
	touch "$OUT/vmlinux" # newer than this script: make has no reason to ask
	echo "  kernel   up to date"
	exit 0
fi
need apt-get dpkg-deb lz4 zstd xz
step "for guests ${guest/=/ }" fetch "$guest" "$WORK/guest"
step "for the host VM ${host/=/ }" fetch "$host" "$WORK/host"
step "vmlinux" unpack_both
step "modules" pick_modules
mkdir -p "$OUT/host"
rm -rf "$OUT"/modules{,-full,-peer} "$OUT/kernel.stamp"
mv "$WORK/modules" "$OUT/modules"
mv "$WORK/modules-peer" "$OUT/modules-peer"
mv "$WORK/host/root/lib/modules" "$OUT/modules-full"
mv "$WORK/host-vmlinux" "$OUT/host/vmlinux"
mv "$WORK/vmlinux" "$OUT/vmlinux"
mv "$WORK/version" "$OUT/kernel.version"
image_done "$hash"
echo "  kernel   $OUT/vmlinux: $(($(stat -c %s "$OUT/vmlinux") >> 20)) MiB"
