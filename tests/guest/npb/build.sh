#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Build the NPB-like kernels statically, so that they run in any Linux guest:
#
#   tests/guest/npb/build.sh [DIR]
#
# makes DIR/npb-is, DIR/npb-mg, ... (by default below the cache, $TLM_CACHE)
# and prints DIR. Needs gcc with its libgomp, and libc6-dev.

set -u
here=$(cd "$(dirname "$0")" && pwd -P)
. "$here/../../../scripts/lib/common.sh"

case $#${1:-} in
    0 | 1[!-]*) ;;
    *) sed -n '4,9s/^# \{0,1\}//p' "$0" >&2; exit 1 ;;
esac

dir=${1:-$TLM_CACHE/guest/npb}
mkdir -p "$dir" || die "cannot create $dir"

# Several tests may ask at the same time.
exec 9>"$dir/.lock"
flock 9 || die "cannot lock $dir"

build() { # NAME SOURCE...
    local name=$1
    shift
    # The linker's remark on libgomp's dlopen(), which nothing here calls, is
    # no reason to worry anybody: shown only when something fails.
    (cd "$here" && gcc -std=gnu11 -O2 "${TLM_WARNINGS[@]}" -fopenmp -static \
        -o "$dir/npb-$name" "$name.c" "$@" common.c -lm) >"$dir/log" 2>&1 ||
        { cat "$dir/log" >&2; die "cannot build npb-$name"; }
}

# Rebuilt when any of the sources has changed
key=$(cat "$here"/*.[ch] "$here/../linux/counter.h" "$0" | sha256sum)
if [ "$(cat "$dir/key" 2>/dev/null)" != "$key" ]; then
    need_tool gcc gcc
    rm -f "$dir/key"
    build is is-keys.c
    build cg cg-matrix.c
    for name in mg ft; do
        build "$name"
    done
    for name in sp bt; do
        build "$name" cfd.c
    done
    echo "$key" >"$dir/key"
fi
echo "$dir"
