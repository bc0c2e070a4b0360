#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Take the kernel of Debian 12, Linux 6.1, from its package; nothing is
# installed. For tests of what other kernels do differently.
#
#   tests/guest/debian12/build.sh
#
# prints the directory that holds vmlinuz, below the cache ($TLM_CACHE, by
# default ~/.cache/tlm-qemu).

set -u
here=$(cd "$(dirname "$0")" && pwd -P)
. "$here/../../../scripts/lib/common.sh"
. "$here/../linux/kernel.sh"

[ $# -eq 0 ] || { sed -n '4,10s/^# \{0,1\}//p' "$0" >&2; exit 1; }

# The lists of the release's packages are kept apart from those of the
# release that all else comes from.
TLM_SUITE=bookworm
TLM_CACHE=$TLM_CACHE/debian12
dir=$TLM_CACHE/kernel
mkdir -p "$dir" || die "cannot create $dir"

# Several tests may ask at the same time.
exec 9>"$dir/.lock"
flock 9 || die "cannot lock $dir"

fetch_kernel() {
    local tmp=$dir/kernel.new
    unpack_kernel "$tmp"
    cp "$tmp/usr/share/doc/$kernel_package/copyright" \
       "$dir/kernel-copyright.txt" &&
        cp "$kernel_image" "$dir/vmlinuz.new" &&
        mv "$dir/vmlinuz.new" "$dir/vmlinuz" || exit 1
    rm -rf "$tmp"
}

[ -s "$dir/vmlinuz" ] || (fetch_kernel) || exit 1
echo "$dir"
