#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Make the Linux test guest: Debian's cloud kernel (taken from the package,
# nothing is installed) and an initramfs with one program, init.c, and the
# modules that drive a virtio balloon and a virtio disk.
#
#   tests/guest/linux/build.sh
#
# prints the directory that holds vmlinuz and initramfs.gz, below the cache
# ($TLM_CACHE, by default ~/.cache/tlm-qemu). TLM_GUEST_KERNEL names a bzImage
# to use instead of Debian's, without the modules then. Needs gcc and libc6-dev
# (static libc).
#
# Start it with
#   qemu-system-x86_64 -m 256 -nodefaults -display none -serial stdio \
#     -kernel vmlinuz -initrd initramfs.gz -append "console=ttyS0 SETTINGS"
# Settings: tlm.ws=MiB (64) tlm.threads=N (1) tlm.pattern=seq|uniform|hotcold
# tlm.rate=PAGES_PER_S (0: no limit) tlm.hot=PERCENT of the set that is hot
# tlm.share=PERCENT of the writes that go there, tlm.words=N per page, 2 to 512
# tlm.beat=MS between two lines of output (100) tlm.scan=MS between two checks
# of the whole set (2000; 0: none) tlm.start=MS before the first write (0)
# tlm.litter=MiB to fill and give back before that (0) tlm.churn=MiB to take,
# fill, check and give back all the time (0) tlm.disk=N threads that write to
# /dev/vda and check it (0)

set -u
here=$(cd "$(dirname "$0")" && pwd -P)
. "$here/../../../scripts/lib/common.sh"
. "$here/kernel.sh"

[ $# -eq 0 ] || { sed -n '4,27s/^# \{0,1\}//p' "$0" >&2; exit 1; }

dir=$TLM_CACHE/guest
mkdir -p "$dir" || die "cannot create $dir"

# Several tests may ask at the same time.
exec 9>"$dir/.lock"
flock 9 || die "cannot lock $dir"

wanted='virtio_balloon virtio_blk'

fetch_kernel() {
    local tmp=$dir/kernel.new module
    unpack_kernel "$tmp"
    rm -rf "$dir/modules"
    mkdir "$dir/modules" || exit 1
    # A kernel that has it built in needs no module
    for module in $wanted; do
        find "$tmp" -name "$module.ko*" -exec cp -t "$dir/modules" {} + ||
            exit 1
    done
    echo "$wanted" >"$dir/modules/wanted" &&
        cp "$kernel_image" "$dir/vmlinuz.new" &&
        mv "$dir/vmlinuz.new" "$dir/vmlinuz" &&
        cp "$tmp/usr/share/doc/$kernel_package/copyright" \
           "$dir/kernel-copyright.txt"
    rm -rf "$tmp"
}

if [ -n "${TLM_GUEST_KERNEL:-}" ]; then
    ln -sfn "$(realpath "$TLM_GUEST_KERNEL")" "$dir/vmlinuz" ||
        die "cannot link $TLM_GUEST_KERNEL"
    rm -rf "$dir/modules"
elif [ -L "$dir/vmlinuz" ] || [ ! -s "$dir/vmlinuz" ] ||
     [ "$(cat "$dir/modules/wanted" 2>/dev/null)" != "$wanted" ]; then
    rm -f "$dir/vmlinuz"
    (fetch_kernel) || exit 1
fi

# Rebuilt when any of its parts has changed
modules=()
for module in "$dir"/modules/*.ko*; do
    [ ! -f "$module" ] || modules+=("$module")
done
key=$(cat "$here/init.c" "$here/mkinitramfs.py" \
          ${modules[@]+"${modules[@]}"} | sha256sum)
if [ "$(cat "$dir/initramfs.key" 2>/dev/null)" != "$key" ] ||
   [ ! -s "$dir/initramfs.gz" ]; then
    need_tool gcc gcc
    gcc -std=gnu11 -O2 "${TLM_WARNINGS[@]}" -static -pthread \
        -o "$dir/init" "$here/init.c" >&2 ||
        die "cannot build init.c (the static libc is in libc6-dev)"
    "$TLM_PYTHON" "$here/mkinitramfs.py" "$dir/init" "$dir/initramfs.new" \
        ${modules[@]+"${modules[@]}"} &&
        mv "$dir/initramfs.new" "$dir/initramfs.gz" &&
        echo "$key" >"$dir/initramfs.key" || die "cannot make the initramfs"
fi
echo "$dir"
