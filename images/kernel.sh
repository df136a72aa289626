#!/bin/bash
# kernel.sh - fetch Debian's cloud kernel and unpack what brig boots from it.
# SPDX-License-Identifier: Apache-2.0
#
# Usage: images/kernel.sh [OUTPUT_DIR]      (default: build/images)
#
# Makes, without installing the package and without root:
#   vmlinux            the guest kernel: the ELF inside the bzImage, so that no
#                      guest ever runs a decompressor
#   modules/           what brig-init loads, in the order of modules/list
#   modules-full/      the whole module tree, for the host VM
#   kernel.version     the package's version
#
# Does nothing when that version is there already.
set -euo pipefail

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

out=${1:-build/images}
mkdir -p "$out"
out=$(cd "$out" && pwd)

meta=linux-image-cloud-amd64
image=$(apt-cache depends --important "$meta" |
	sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
[ -n "$image" ] || { echo "kernel.sh: no package $meta" >&2; exit 1; }
version=$(apt-cache show --no-all-versions "$image" |
	sed -n 's/^Version: //p')
stamp="$image $version"
if [ -f "$out/kernel.version" ] &&
	[ "$(cat "$out/kernel.version")" = "$stamp" ]; then
	exit 0
fi

work=$(mktemp -d "$out/.kernel.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -q download "$image=$version" 2>&1 |
	grep -v unsandboxed >&2) || true
dpkg-deb -x "$work"/linux-image-*.deb "$work/root"
bzimage=$(echo "$work"/root/boot/vmlinuz-*)
modules=$(echo "$work"/root/lib/modules/*)

# The setup header (Documentation/arch/x86/boot.rst): setup_sects at 0x1f1,
# payload_offset at 0x248, payload_length at 0x24c. The payload is an LZ4
# legacy stream with the unpacked size in its last four bytes.
field() { od -An -v -j "$1" -N "$2" -t "u$2" "$bzimage" | tr -d ' '; }
start=$((($(field $((0x1f1)) 1) + 1) * 512 + $(field $((0x248)) 4)))
length=$(($(field $((0x24c)) 4) - 4))
head -c $((start + length)) "$bzimage" | tail -c "$length" |
	lz4 -d -q - "$work/vmlinux"
[ "$(head -c 4 "$work/vmlinux" | od -An -c | tr -d ' ')" = '177ELF' ] ||
	{ echo "kernel.sh: the payload is no ELF file" >&2; exit 1; }

mkdir "$work/modules"
for module in "${guest_modules[@]}"; do
	cp "$modules/kernel/$module.ko" "$work/modules/"
	echo "${module##*/}.ko" >>"$work/modules/list"
done

rm -rf "$out/modules" "$out/modules-full"
mv "$work/modules" "$out/modules"
mv "$work/root/lib/modules" "$out/modules-full"
mv "$work/vmlinux" "$out/vmlinux"
echo "$stamp" >"$out/kernel.version"
echo "  built $out/vmlinux ($version)"
