# SPDX-License-Identifier: GPL-2.0-or-later
# Shared by the scripts of this directory; sourced, not run (bash).

TLM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
TLM_BUILD=${TLM_BUILD:-$TLM_ROOT/build}
TLM_CACHE=${TLM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlm-qemu}
TLM_SCRIPT=${0##*/}

# Debian's own Python: another python3 may come first on PATH, and does not
# see the modules that Debian packages.
TLM_PYTHON=${TLM_PYTHON:-/usr/bin/python3}

# The release whose source and firmware packages are used, on whatever
# Debian release this runs: QEMU 10.0.x is the stable line of trixie.
TLM_SUITE=trixie

# For the project's own C: as QEMU compiles its own, warnings are errors, and
# a callback need not use all it is given.
# shellcheck disable=SC2034
TLM_WARNINGS=(-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare
              -Wno-missing-field-initializers)

note() { printf '%s: %s\n' "$TLM_SCRIPT" "$*" >&2; }
die() { printf '%s: error: %s\n' "$TLM_SCRIPT" "$*" >&2; exit 1; }

need_tool() { # TOOL PACKAGE
    command -v "$1" >/dev/null 2>&1 ||
        die "'$1' is missing: install the package '$2' (scripts/install-deps does)"
}

# Run apt with package lists of our own: neither the system's sources nor its
# lists are touched, and no privileges are needed. Arguments: apt tool, then
# its arguments. The lists are made by private_apt_update.
private_apt() {
    local tool=$1 dir=$TLM_CACHE/apt
    shift
    "$tool" -q \
        -o Dir::Etc::sourcelist="$dir/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::Lists="$dir/lists" \
        -o Dir::Cache="$dir/cache" \
        -o APT::Default-Release= \
        -o APT::Sandbox::User=root \
        -o APT::Get::List-Cleanup=false \
        -o Acquire::Languages=none \
        -o Acquire::Retries=3 \
        "$@"
}

# The mirror that this system's own apt uses for Debian.
debian_mirror() {
    local codename uri
    if [ -n "${TLM_DEBIAN_MIRROR:-}" ]; then
        echo "$TLM_DEBIAN_MIRROR"
        return
    fi
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
          'Origin: Debian' "Codename: $codename" 2>/dev/null | head -n 1)
    if [ -z "$uri" ]; then
        # Lists never fetched (a fresh container image): go by the name of
        # the release as the sources give it.
        uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' \
              'Created-By: Packages' 2>/dev/null |
              awk -v c="$codename" '$1 == c { print $2; exit }')
    fi
    [ -n "$uri" ] || die "found no Debian mirror for '$codename' in apt's" \
        "sources; name one in TLM_DEBIAN_MIRROR, or give the QEMU source" \
        "with --source (configure: --qemu-source)"
    echo "$uri"
}

# Fetch the lists of the given suites ("trixie", "bookworm-backports", ...)
# unless they are there and younger than a day.
private_apt_update() {
    local dir=$TLM_CACHE/apt mirror key suite want log
    need_tool apt-get apt
    mirror=$(debian_mirror) || exit 1
    for key in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [ -r "$key" ] && break
    done
    [ -r "$key" ] || die "no Debian archive keys: install the package" \
        "'debian-archive-keyring' (it verifies what is downloaded)"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    want=$(for suite in "$@"; do
        echo "deb-src [signed-by=$key] $mirror $suite main"
        case $suite in
        "$TLM_SUITE") echo "deb [signed-by=$key] $mirror $suite main" ;;
        esac
    done)
    if [ "$(cat "$dir/sources.list" 2>/dev/null)" = "$want" ] &&
       [ -n "$(find "$dir/stamp" -mmin -1440 2>/dev/null)" ]; then
        return 0
    fi
    rm -f "$dir/stamp"
    echo "$want" > "$dir/sources.list"
    note "reading the package lists of $* from $mirror"
    log=$dir/update.log
    # "any" makes apt report a mirror that it cannot reach as an error
    if ! private_apt apt-get -o APT::Update::Error-Mode=any update \
            >"$log" 2>&1; then
        sed 's/^/    /' "$log" >&2
        if grep -q NO_PUBKEY "$log"; then
            die "the archive's signature cannot be verified: upgrade the" \
                "package 'debian-archive-keyring'"
        fi
        die "cannot read the package lists: no network, or the mirror" \
            "$mirror cannot be reached. Without network give the QEMU" \
            "source with --source (configure: --qemu-source=DIR|TARBALL)"
    fi
    touch "$dir/stamp"
}

# What was downloaded to a directory, which goes: unpack_downloaded DEBS DIR
unpack_downloaded() {
    local pkg
    for pkg in "$1"/*.deb; do
        dpkg-deb -x "$pkg" "$2" || die "cannot unpack ${pkg##*/}"
    done
    rm -rf "$1"
}

# Download packages of TLM_SUITE and unpack them below a directory, without
# installing anything: unpack_debs DIR PACKAGE...
unpack_debs() {
    local dest=$1 pkg debs
    shift
    need_tool dpkg-deb dpkg
    private_apt_update "$TLM_SUITE"
    debs=$(mktemp -d "$TLM_CACHE/debs.XXXXXX") || exit 1
    for pkg in "$@"; do
        (cd "$debs" && private_apt apt-get download "$pkg/$TLM_SUITE") \
            >"$debs/log" 2>&1 || {
            sed 's/^/    /' "$debs/log" >&2
            rm -rf "$debs"
            die "cannot download Debian's package '$pkg'"
        }
    done
    unpack_downloaded "$debs" "$dest"
}

# The same with all that the packages depend on, libc included:
# unpack_with_dependencies DIR PACKAGE...
unpack_with_dependencies() {
    local dest=$1 debs
    shift
    need_tool dpkg-deb dpkg
    private_apt_update "$TLM_SUITE"
    debs=$(mktemp -d "$TLM_CACHE/debs.XXXXXX") || exit 1
    mkdir "$debs/partial" && : >"$debs/status" || exit 1
    # To apt, nothing is installed; what it locks is ours
    private_apt apt-get install --download-only --no-install-recommends --yes \
            -o Dir::State::status="$debs/status" \
            -o Dir::Cache::archives="$debs" -o Debug::NoLocking=true \
            "$@" >"$debs/log" 2>&1 || {
        sed 's/^/    /' "$debs/log" >&2
        rm -rf "$debs"
        die "cannot download Debian's packages '$*' and what they need"
    }
    unpack_downloaded "$debs" "$dest"
}

# Versions in which the lists of private_apt_update offer a source package:
# offered_sources PACKAGE
offered_sources() {
    private_apt apt-cache madison "$1" 2>/dev/null |
        awk -F'|' '/Sources/ { gsub(/ /, "", $2); print $2 }' | sort -uV
}

# Upstream's part of a Debian version: 1:10.0.13+ds-0+deb13u1 is 10.0.13
upstream_version() {
    local version=${1#*:}
    echo "${version%%[+-]*}"
}

# Download the tarball of a source package, without Debian's patches, and
# print its path: fetch_source PACKAGE VERSION DIR
fetch_source() {
    local tmp got
    note "fetching the source of $1 $2"
    tmp=$(mktemp -d "$3/fetch.XXXXXX") || exit 1
    # shellcheck disable=SC2064
    trap "rm -rf '$tmp'" EXIT
    if ! (cd "$tmp" && private_apt apt-get source --download-only --tar-only \
            --only-source "$1=$2") >"$tmp/log" 2>&1; then
        sed 's/^/    /' "$tmp/log" >&2
        die "cannot download the source: no network, or the mirror has just" \
            "been updated (then run this again)"
    fi
    got=$(find "$tmp" -maxdepth 1 -name "$1_*.orig.tar.*")
    [ -n "$got" ] || die "apt-get source left no tarball"
    mv "$got" "$3/" || exit 1
    echo "$3/${got##*/}"
}

# Compare a tarball with the sums on standard input ("SHA256 NAME" each), and
# fail if it has the name of one that is known, but another sum.
check_sum() { # TARBALL
    local known name=${1##*/} want sum
    known=$(cat)
    sum=$(sha256sum <"$1") || die "cannot read $1"
    sum=${sum%% *}
    # A local file may have any name, so look for the sum first.
    if grep -q "^$sum " <<<"$known"; then
        note "$name: checksum verified"
        return
    fi
    want=$(awk -v n="$name" '$2 == n { print $1 }' <<<"$known")
    [ -z "$want" ] ||
        die "$1 is damaged or has been tampered with: its sha256 is $sum," \
            "expected $want; remove it and try again"
    note "$name: checksum not known to this script (sha256 $sum)"
}

# The release that a source tree or a tarball is of; empty if it is none of QEMU
qemu_version() { # DIR|TARBALL
    if [ -d "$1" ]; then
        cat "$1/VERSION" 2>/dev/null
    else
        # The file VERSION of its top directory
        tar -xOf "$1" --wildcards --no-wildcards-match-slash --occurrence=1 \
            '*/VERSION' 2>/dev/null
    fi
}

# The list in patches/ that is for this release of QEMU
series_for() { # DIR|TARBALL
    case $(qemu_version "$1") in
    10.2.*) echo series-10.2 ;;
    *) echo series ;;
    esac
}
