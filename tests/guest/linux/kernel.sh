# SPDX-License-Identifier: GPL-2.0-or-later
# Debian's cloud kernel, from the package, without installing anything; to be
# sourced after scripts/lib/common.sh.

# Unpack the newest one below a new directory TMP, and set kernel_image and
# kernel_package: unpack_kernel TMP
unpack_kernel() {
    local meta=linux-image-cloud-amd64 tmp=$1
    private_apt_update "$TLM_SUITE"
    kernel_package=$(private_apt apt-cache -o APT::Architecture=amd64 \
              -o APT::Architectures=amd64 depends "$meta" |
              sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$kernel_package" ] || die "$meta names no kernel package"
    note "taking the kernel of Debian's package $kernel_package"
    rm -rf "$tmp"
    mkdir "$tmp" || exit 1
    # in a subshell: it ends the shell when it fails
    (unpack_debs "$tmp" "$kernel_package") || exit 1
    set -- "$tmp"/boot/vmlinuz-*
    [ -f "$1" ] || die "$kernel_package holds no boot/vmlinuz-*"
    kernel_image=$1
}
