#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Make the nested guest: a Linux that runs QEMU under kvm-amd, so that KVM as
# of real hardware is tested wherever QEMU's TCG runs.
#
#   tests/guest/nested/build.sh
#
# prints two lines: the kernel and the initramfs, both below the cache
# ($TLM_CACHE, by default ~/.cache/tlm-qemu). The kernel and its kvm modules
# are Debian's cloud kernel, taken from the package; nothing is installed.
# What is in the initramfs, see mkimage.py. Exit status 2: the kernel is not
# in the cache and cannot be fetched.

set -u
here=$(cd "$(dirname "$0")" && pwd -P)
. "$here/../../../scripts/lib/common.sh"

[ $# -eq 0 ] || { sed -n '4,14s/^# \{0,1\}//p' "$0" >&2; exit 1; }

dir=$TLM_CACHE/nested
mkdir -p "$dir" || die "cannot create $dir"

# Several tests may ask at the same time.
exec 9>"$dir/.lock"
flock 9 || die "cannot lock $dir"

# Modules only load into the very kernel that they were built with: both come
# from one package, whatever kernel the Linux guest has.
fetch_kernel() {
    local meta=linux-image-cloud-amd64 package tmp=$dir/kernel.new name
    private_apt_update "$TLM_SUITE"
    package=$(private_apt apt-cache -o APT::Architecture=amd64 \
              -o APT::Architectures=amd64 depends "$meta" |
              sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || die "$meta names no kernel package"
    note "taking the kernel and kvm of Debian's package $package"
    rm -rf "$tmp"
    mkdir "$tmp" || exit 1
    # in a subshell: it ends the shell when it fails
    (unpack_debs "$tmp" "$package") || exit 1
    set -- "$tmp"/boot/vmlinuz-*
    [ -f "$1" ] || die "$package holds no boot/vmlinuz-*"
    rm -rf "$dir/kernel" "$dir/kernel.part"
    mkdir "$dir/kernel.part" && cp "$1" "$dir/kernel.part/vmlinuz" &&
        cp "$tmp/usr/share/doc/$package/copyright" "$dir/kernel.part/" ||
        exit 1
    # kvm-amd and all it may depend on; mkimage.py reads what that is
    find "$tmp" \( -path '*/arch/x86/kvm/*' -o -path '*/virt/*' \
        -o -path '*/drivers/crypto/ccp/*' \) -name '*.ko*' \
        -exec cp -t "$dir/kernel.part" {} + || exit 1
    set -- "$dir"/kernel.part/kvm-amd.ko*
    [ -f "$1" ] || die "$package holds no kvm-amd module"
    rm -rf "$tmp"
    mv "$dir/kernel.part" "$dir/kernel"
}

[ -s "$dir/kernel/vmlinuz" ] || (fetch_kernel) || exit 2

# Images of other binaries, no longer in use
find "$dir" -maxdepth 1 -name 'image-*' -mmin +1440 -delete

image=$("$TLM_PYTHON" "$here/mkimage.py" "$dir/kernel" "$dir") ||
    die "cannot make the initramfs"
printf '%s\n%s\n' "$dir/kernel/vmlinuz" "$image"
