# lib.sh - what the image scripts share: steps with times, packages, ext4.
# SPDX-License-Identifier: Apache-2.0
#
# To be sourced by bash with -euo pipefail. The caller calls image_begin
# first; that sets
#
#   IMAGE   what is being built, for messages
#   OUT     directory of the results, build/images (or $BRIG_IMAGES)
#   LOG     where the output of every step goes
#   WORK    private directory under OUT, removed at exit
#
# No source of packages is named here: the Debian mirrors, proxies and
# signing keys are those of the machine that builds.
# shellcheck shell=bash

LIB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SUITE=bookworm

# Every time stamp in an image that is later than this becomes this. It says
# nothing about the versions of packages.
export SOURCE_DATE_EPOCH=1767225600
export LC_ALL=C.UTF-8 TZ=UTC
umask 022

die() {
	printf '%s: %s\n' "${IMAGE:-image}" "$*" >&2
	exit 1
}

image_begin() {
	IMAGE=$1
	OUT=${BRIG_IMAGES:-$LIB_DIR/../build/images}
	mkdir -p "$OUT"
	OUT=$(cd "$OUT" && pwd)
	LOG=$OUT/$IMAGE.log
	: >"$LOG"
	WORK=$(mktemp -d "$OUT/.$IMAGE.XXXXXX")
	trap 'rm -rf "$WORK"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

need() {
	local tool
	for tool in "$@"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
			die "$tool is not installed"
	done
	PATH=$PATH:/usr/sbin:/sbin
}

# step TEXT COMMAND...: one line with the seconds it took. The command runs in
# a subshell that stops at the first error; its output goes to the log.
step() {
	local text=$1 start=$SECONDS rc
	shift
	printf '  %-8s %s ... ' "$IMAGE" "$text"
	set +e
	(
		set -e
		echo "== $text"
		"$@"
	) >>"$LOG" 2>&1 </dev/null
	rc=$?
	set -e
	if [ "$rc" -ne 0 ]; then
		echo "failed"
		echo "--- the last lines of $LOG:" >&2
		tail -n 30 "$LOG" >&2
		exit 1
	fi
	echo "$((SECONDS - start)) s"
}

# recipe_hash FILE...: what the result depends on, besides the packages.
recipe_hash() {
	cat "$@" | sha256sum | cut -d ' ' -f 1
}

# image_is_current HASH FILE...: built from this recipe, and all there?
image_is_current() {
	local hash=$1 file
	shift
	for file in "$@"; do
		[ -s "$file" ] || return 1
	done
	[ "$(cat "$OUT/$IMAGE.stamp" 2>/dev/null)" = "$hash" ]
}

image_done() {
	echo "$1" >"$OUT/$IMAGE.stamp"
}

# The Debian archives this machine uses, as lines of a sources.list.
apt_sources() {
	apt-get indextargets \
		--format '$(ORIGIN) $(CREATED_BY) $(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
		awk -v suite="$SUITE" '$1 == "Debian" && $2 == "Packages" &&
			index($3, suite) == 1 && $3 !~ /-backports/ { print "deb", $4, $5, $6 }' |
		sort -u
}

# How this machine reaches them: proxies, retries, clock checks.
apt_options() {
	apt-config dump --format '%F "%v";%n' |
		grep -E '^Acquire::(https?::Proxy|Retries|Check-|ForceIPv)' || true
}

package_list() {
	sed 's/#.*//' "$1" | tr -s ' \t\n' ',' | sed 's/^,//; s/,$//'
}

# rootfs_tar VARIANT PACKAGES SETUP TAR: install what the file PACKAGES names,
# run SETUP with the root directory as its argument, pack the result.
rootfs_tar() {
	local variant=$1 packages=$2 setup=$3 tar=$4
	apt_sources >"$WORK/sources.list"
	[ -s "$WORK/sources.list" ] ||
		die "apt knows no Debian $SUITE archive here: run apt-get update"
	apt_options >"$WORK/apt.conf"
	mmdebstrap --variant="$variant" \
		--aptopt="$WORK/apt.conf" \
		--aptopt='Acquire::Languages "none"' \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/lintian/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--include="$(package_list "$packages")" \
		--customize-hook="$setup" \
		"$SUITE" "$tar" "$WORK/sources.list"
}

# root_run COMMAND...: as root, or with what looks like root to tar and mke2fs.
root_run() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		fakeroot -- "$@"
	fi
}

# ext4_from_tar TAR IMAGE LABEL UUID RESIZE_BLOCKS: a raw file system a little
# larger than its content. The same tar gives the same bytes.
ext4_from_tar() {
	rm -rf "$WORK/root"
	mkdir "$WORK/root"
	root_run bash -c '. "$1"; shift; _ext4_from_tar "$@"' \
		bash "$LIB_DIR/lib.sh" "$WORK/root" "$@"
	rm -rf "$WORK/root"
}

_ext4_from_tar() {
	local root=$1 tar=$2 image=$3 label=$4 uuid=$5 resize=$6 mib
	tar -x --numeric-owner --xattrs --xattrs-include='*' -f "$tar" -C "$root"
	mib=$(du -sm "$root" | cut -f 1)
	mib=$(((mib * 115 / 100 + 32 + 63) / 64 * 64))
	ext4_from_dir "$root" "$image" "$label" "$uuid" "${mib}M" \
		",resize=$resize" -J size=16
}

# ext4_from_dir DIR IMAGE LABEL UUID SIZE EXTENDED OPTION...: EXTENDED is added
# to the extended options, since only the last -E counts.
#
# The features are spelled out, so that mke2fs.conf of the machine plays no
# role. Chosen for a file system that a guest grows while it boots:
#   no 64bit         group descriptors of 32 bytes reach 16 TiB
#   no metadata_csum growing to 10 GiB would read the bitmaps of all new groups
#                    (140 requests, 0.3 s in an emulated host); uninit_bg keeps
#                    checksums of the group descriptors
#   -G 128           new groups are added in one step
#   inode tables     are holes of a new file and marked as zeroed: the kernel
#                    starts no thread that writes them after the first mount
EXT4_FEATURES=none,has_journal,ext_attr,resize_inode,dir_index,filetype
EXT4_FEATURES+=,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink
EXT4_FEATURES+=,extra_isize,uninit_bg
ext4_from_dir() {
	local dir=$1 image=$2 label=$3 uuid=$4 size=$5 extended=$6
	shift 6
	rm -f "$image"
	E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -F -t ext4 -b 4096 \
		-I 256 -i 16384 -G 128 -m 0 -L "$label" -U "$uuid" \
		-O "$EXT4_FEATURES" \
		-E "hash_seed=$uuid,lazy_itable_init=0,root_owner=0:0$extended" \
		"$@" -d "$dir" "$image" "$size"
	ext4_fix_times "$image"
}

# mke2fs -d copies ctime and atime of the files, which nothing can set: the
# time when they were unpacked. In a new file system the inodes in use are the
# first ones without a gap.
ext4_fix_times() {
	local image=$1 used
	used=$(dumpe2fs -h "$image" 2>/dev/null |
		awk -F ': *' '/^Inode count/ { n = $2 } /^Free inodes/ { f = $2 }
			END { print n - f }')
	awk -v used="$used" -v t="@$SOURCE_DATE_EPOCH" 'BEGIN {
		for (i = 2; i <= used; i = i == 2 ? 11 : i + 1) {
			print "sif <" i "> ctime", t
			print "sif <" i "> atime", t
		}
	}' >"$image.debugfs"
	E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH \
		debugfs -w -f "$image.debugfs" "$image" >/dev/null
	rm -f "$image.debugfs"
}
