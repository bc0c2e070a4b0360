#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Make a Linux guest of scripts/bench: Debian's cloud kernel, and an initramfs
# with programs of Debian packages (taken from the packages, nothing is
# installed), bench-init.c as process 1, and run.sh, which says what it does.
#
#   tests/guest/linux/build-bench.sh SET
#
# prints two lines: the kernel and the initramfs, both below the cache
# ($TLM_CACHE, by default ~/.cache/tlm-qemu). Sets:
#   npb         the programs of tests/guest/npb
#   stress-ng
#   redis, postgresql   with journal.c, a client that knows what was acknowledged
#   mpi         MPICH, and IS and CG of tests/guest/npb over several such guests
#   echo        echo.c, between two such guests
# Needs gcc and libc6-dev (static libc). A package is fetched once; to get
# newer ones, remove the directory bench of the cache.

set -u
here=$(cd "$(dirname "$0")" && pwd -P)
. "$here/../../../scripts/lib/common.sh"
. "$here/kernel.sh"

usage() { sed -n '4,19s/^# \{0,1\}//p' "$0" >&2; exit 1; }
[ $# -eq 1 ] || usage

set_name=$1
libs=usr/lib/x86_64-linux-gnu
packages=busybox-static programs=usr/bin/busybox arguments=()
case $set_name in
npb|echo) ;;
stress-ng)
    packages="$packages stress-ng" programs="$programs usr/bin/stress-ng" ;;
redis)
    packages="$packages redis-tools"
    programs="$programs usr/bin/redis-cli usr/bin/redis-benchmark
              usr/bin/redis-check-rdb"
    # one program, which goes by the name that it is called by
    arguments+=(--link usr/bin/redis-server=/usr/bin/redis-check-rdb) ;;
postgresql)
    # initdb makes use of the first two of the libraries
    pg=postgresql/17
    packages="$packages postgresql-17 postgresql-client-17"
    for program in initdb postgres psql pgbench pg_amcheck; do
        programs="$programs usr/lib/$pg/bin/$program"
    done
    for program in dict_snowball plpgsql amcheck; do
        programs="$programs usr/lib/$pg/lib/$program.so"
    done
    arguments+=(--tree usr/share/$pg) ;;
mpi)
    # libmpich-dev is for us, who compile. UCX has more transports than TCP in
    # plug-ins, which are left out.
    packages="$packages mpich libmpich12 libmpich-dev libucx0 libgomp1"
    programs="$programs usr/bin/mpiexec.hydra usr/bin/hydra_pmi_proxy
              $libs/libmpich.so.12 $libs/libgomp.so.1" ;;
*) usage ;;
esac

dir=$TLM_CACHE/bench
root=$dir/$set_name.root        # what is in the packages
mkdir -p "$dir" || die "cannot create $dir"

# Several tests may ask at the same time.
exec 9>"$dir/.lock"
flock 9 || die "cannot lock $dir"

# Modules that some guest loads
wanted='failover net_failover virtio_net virtio_blk'

mkbench() { "$TLM_PYTHON" "$here/mkbench.py" "$@"; }

# The kernel, and its modules, which load into it only
fetch_kernel() {
    local tmp=$dir/kernel.new module
    unpack_kernel "$tmp"
    rm -rf "$dir/kernel" "$dir/kernel.part"
    mkdir "$dir/kernel.part" && cp "$kernel_image" "$dir/kernel.part/vmlinuz" &&
        cp "$tmp/usr/share/doc/$kernel_package/copyright" "$dir/kernel.part/" ||
        exit 1
    for module in $wanted; do
        find "$tmp" -name "$module.ko*" -exec cp -t "$dir/kernel.part" {} + ||
            exit 1
    done
    echo "$wanted" >"$dir/kernel.part/wanted"
    rm -rf "$tmp"
    mv "$dir/kernel.part" "$dir/kernel"
}

# Unpack the packages, then what they depend on, until no library is missing
fetch_packages() {
    local todo=$packages seen=' ' missing pkg new=$root.new
    rm -rf "$root" "$new"
    mkdir "$new" || exit 1
    private_apt_update "$TLM_SUITE"
    while [ -n "$todo" ]; do
        note "taking" $todo
        # shellcheck disable=SC2086
        (unpack_debs "$new" $todo) || exit 1
        # shellcheck disable=SC2086
        missing=$(mkbench missing "$new" $programs) || exit 1
        [ -n "$missing" ] || break
        seen="$seen$todo "
        # shellcheck disable=SC2086
        todo=$(private_apt apt-cache -o APT::Architecture=amd64 \
               -o APT::Architectures=amd64 depends $todo |
               sed -n 's/^ [ |]\(Pre\)\?Depends: \(z\?lib[^ ]*\)$/\2/p' | sort -u |
               while read -r pkg; do
                   # LLVM is for PostgreSQL's JIT, which is left out
                   case $pkg$seen in
                   libllvm*|*" $pkg "*) ;;
                   *) echo "$pkg" ;;
                   esac
               done | tr '\n' ' ')
        todo=${todo% }
    done
    [ -z "$missing" ] || die "no package has" $missing
    echo "$packages" >"$new/.packages"
    mv "$new" "$root"
}

[ "$(cat "$dir/kernel/wanted" 2>/dev/null)" = "$wanted" ] ||
    (fetch_kernel) || exit 1
[ "$(cat "$root/.packages" 2>/dev/null)" = "$packages" ] ||
    (fetch_packages) || exit 1

need_tool gcc gcc
out=$dir/$set_name
mkdir -p "$out" || die "cannot create $out"
compile() { # PROGRAM ARGUMENT...
    local program=$out/$1
    shift
    gcc -std=gnu11 -O2 "${TLM_WARNINGS[@]}" -o "$program" "$@" >&2 ||
        die "cannot build ${program##*/} (the static libc is in libc6-dev)"
}

# Rebuilt when any of its parts has changed
key=$({ cat "$here"/{*.c,counter.h,run.sh,rsh.sh,mkbench.py,mkinitramfs.py} \
            "$0" "$here"/../npb/* && stat -c '%n %Y' "$root" "$dir/kernel"; } |
      sha256sum)
if [ "$(cat "$out/key" 2>/dev/null)" != "$key" ] ||
   [ ! -s "$out/initramfs" ]; then
    rm -f "$out/key"
    compile init -static -pthread "$here/bench-init.c"
    case $set_name in
    npb)
        "$here/../npb/build.sh" "$out/npb" >/dev/null ||
            die "cannot build tests/guest/npb"
        for program in "$out"/npb/npb-*; do
            arguments+=(--file "usr/bin/${program##*/}=$program")
        done
        ;;
    mpi)
        # The library is that of the guest, and may need a newer C library
        for kernel in is,is-keys cg,cg-matrix; do
            program=npb-${kernel%,*}-mpi
            compile "$program" -fopenmp -isystem "$root/$libs/mpich/include" \
                "$here/../npb/${kernel%,*}-mpi.c" \
                "$here/../npb/${kernel#*,}.c" \
                "$here"/../npb/{processes,common}.c \
                "$root/$libs/libmpich.so.12" -Wl,--allow-shlib-undefined -lm
            arguments+=(--file "usr/bin/$program=$out/$program")
        done
        arguments+=(--file "bin/tlm-rsh=$here/rsh.sh") ;;
    echo)
        compile echo -static "$here/echo.c"
        arguments+=(--file "usr/bin/tlm-echo=$out/echo") ;;
    redis|postgresql)
        compile count-sends.so -shared -fPIC "$here/count-sends.c"
        compile journal -static -pthread "$here/journal.c"
        arguments+=(--file "lib/count-sends.so=$out/count-sends.so"
                    --file "usr/bin/tlm-journal=$out/journal") ;;
    esac
    case $set_name in
    mpi|echo) modules='failover net_failover virtio_net' ;;
    redis|postgresql) modules=virtio_blk ;;
    *) modules= ;;
    esac
    for module in $modules; do
        arguments+=(--module "$(echo "$dir/kernel/$module".ko*)")
    done
    for program in $programs; do
        arguments+=(--program "$program")
    done
    mkbench make "$out/initramfs.new" "$root" --init "$out/init" \
        --file "run.sh=$here/run.sh" --link bin/tlm-state=/init \
        --link bin/tlm-wait=/init --link bin/busybox=/usr/bin/busybox \
        --link bin/sh=/usr/bin/busybox "${arguments[@]}" &&
        mv "$out/initramfs.new" "$out/initramfs" &&
        echo "$key" >"$out/key" || die "cannot make the initramfs"
fi
printf '%s\n%s\n' "$dir/kernel/vmlinuz" "$out/initramfs"
