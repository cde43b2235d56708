#!/bin/sh
# Sets up airpack from this medium alone: no network, no root, no compiler.
#
#     sh setup.sh [DIRECTORY]        (default: ~/airpack)
#
# Makes a virtual environment in DIRECTORY out of the wheels beside this script, each checked
# against SHA256SUMS; one that is damaged is taken from the payload's copy instead. Check the
# signature of SHA256SUMS first: READ-ME-FIRST.txt says how. Its second copy is taken only where
# SHA256SUMS itself is no sums any more, or contradicts the very index that it lists.
#
# A delta may bring no wheels, since its host was set up with those of an earlier bundle. Then this
# says whether DIRECTORY was, and if not, which bundle's setup.sh does it.
set -eu

# Nothing of the caller's shell chooses what Python or pip loads, or what a pattern matches.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP CDPATH
for variable in $(env | sed -n 's/^\(PIP_[A-Za-z0-9_]*\)=.*/\1/p'); do
    unset "$variable"
done
LC_ALL=C
export LC_ALL

here=$(cd -- "$(dirname -- "$0")" && pwd)
target=${1:-${HOME:+$HOME/airpack}}

fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'try: %s\n' "$2" >&2
    exit 1
}

quote() {
    printf '%s\n' "$1" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/'/"
}

# The path $1 as one word of a command.
shown() {
    case $1 in
        *[!A-Za-z0-9_./:@%+=,-]*) quote "$1" ;;
        *) printf '%s\n' "$1" ;;
    esac
}

is_file() {
    [ -f "$1" ] && [ ! -h "$1" ]
}

# Whether $1 is as airpack writes SHA256SUMS: digests, plain names, and wheels for some Python.
is_sums() {
    is_file "$1" && grep -q '  requirements-[0-9.]*\.txt$' "$1" 2>/dev/null &&
        ! grep -a -q -v '^[0-9a-f]\{64\}  [A-Za-z0-9._-]\{1,120\}$' "$1"
}

# Whether $2 is a file with the digest that the sums $1 list for the name $3.
is_listed() {
    digest=$(sed -n "s/^\([0-9a-f]\{64\}\)  $3\$/\1/p" "$1")
    [ -n "$digest" ] && is_file "$2" && [ "$(sha256sum <"$2" 2>/dev/null)" = "$digest  -" ]
}

# The index that the sums $1 list, or its second copy; nothing if both are damaged.
find_index() {
    for copy in "$here/bundle.json" "$here/spare.bundle.json"; do
        if is_listed "$1" "$copy" 'bundle\.json'; then
            printf '%s\n' "$copy"
            return
        fi
    done
}

# Of the files that the payload has for this script, by the index $1: sed's $2 of each.
in_payload() {
    tr '{' '\n' <"$1" | sed -n "s/^\"digest\":\"\([0-9a-f]\{64\}\)\",\"offset\":\([0-9]*\),\
\"path\":\"setup\/\([^\"]*\)\",\"size\":\([0-9]*\).*/$2/p"
}

# Whether the index that the sums $1 list has other digests than they. Then a bit of the sums has
# changed: nobody can make an index for a digest that is listed, so there is no leading this
# script from sums whose signature holds to others.
contradicts_itself() {
    index=$(find_index "$1")
    [ -n "$index" ] && in_payload "$index" '\1  \3' | grep -q -v -x -F -f "$1"
}

# The payload up to the end of the last file that it has for this script; without an index, all.
payload() {
    index=$(find_index "$sums")
    end=0
    [ -z "$index" ] || end=$(in_payload "$index" '\2 \4' | while read -r offset size; do
        [ $((offset + size)) -le "$end" ] || end=$((offset + size))
        printf '%s\n' "$end"
    done | tail -n 1)
    for volume in "$here"/payload.*; do
        ! is_file "$volume" || cat "$volume"
    done 2>/dev/null | if [ "${end:-0}" -gt 0 ]; then head -c "$((end + 1048576))"; else cat; fi
}

# The first Python here that the bundle has wheels for: its version, and the program itself, not
# a link to it, a wrapper around it, or a virtual environment made from it.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        found=$("$candidate" -I -c '
import os, sys
program = getattr(sys, "_base_executable", None) or sys.executable
print("%d.%d" % sys.version_info[:2], os.path.realpath(program))' 2>/dev/null) || continue
        version=${found%% *}
        python=${found#* }
        if grep -q "  requirements-$version\.txt\$" "$sums"; then
            return 0
        fi
    done
    wanted=$(sed -n 's/.*  requirements-\([0-9.]*\)\.txt$/\1/p' "$sums" | tr '\n' ' ')
    fail "no Python that this bundle has wheels for; it has them for: $wanted" \
        "install one of these from your system's own medium (Debian: apt install python3)"
}

# Put the file $1 into $work: the one beside this script if its digest is right, else the
# payload's copy, and that only if its digest is right.
# Fail where it is this host's disk, and not the medium, that lacks what was copied.
check_room() {
    head -c 65536 /dev/zero >"$work/room" 2>/dev/null ||
        fail "$work: no space left" "free some there; or sh setup.sh ANOTHER-DIRECTORY"
    rm -f "$work/room"
}

fetch() {
    grep -q "^[0-9a-f]\{64\}  $1\$" "$sums" || fail "$1: SHA256SUMS does not list it"
    ! is_file "$here/$1" || cp "$here/$1" "$work/$1" 2>/dev/null || :
    if ! is_listed "$sums" "$work/$1" "$1"; then
        check_room
        printf 'note: %s is missing or damaged here; taking the copy in the payload\n' "$1" >&2
        payload | tar -x -O -f - "setup/$1" >"$work/$1" 2>/dev/null || :
        is_listed "$sums" "$work/$1" "$1" || check_room
        is_listed "$sums" "$work/$1" "$1" ||
            fail "$1: damaged or missing, and so is its copy in the payload" \
                "setup.sh of another medium of this bundle; or copy the bundle again"
    fi
}

# Say what comes next, with the airpack that is $installed.
say_next() {
    printf '%s is ready. Next, with the public key that reached you another way:\n' "$installed"
    printf '    %s trust add KEY.pub\n' "$(shown "$target/bin/airpack")"
    printf '    %s install %s\n' "$(shown "$target/bin/airpack")" "$(shown "$here")"
    printf 'Where it says "airpack", that program is meant. To have it by this name:\n'
    printf '    PATH=$PATH:%s\n' "$(shown "$target/bin")"
}

# This bundle brings no wheels: well and good if $target was set up with the same, else a failure.
end_without_wheels() {
    earlier=
    record=$target/lib/airpack/requirements.txt
    if is_file "$record" && digest=$(sha256sum <"$record") &&
        grep -q "^${digest%% *}  requirements-[0-9.]*\.txt\$" "$sums" &&
        installed=$("$target/bin/airpack" --version); then
        say_next
        exit 0
    fi
    index=$(find_index "$sums")
    [ -z "$index" ] || earlier=$(tr '{' '\n' <"$index" |
        sed -n 's/^"bundle":"\([a-z0-9._-]*\)","files":\[$/\1/p')
    earlier=${earlier:-the earlier bundle that READ-ME-FIRST.txt names}
    fail "this bundle is a delta without airpack, for a host that was set up with $earlier; \
$target was not" "sh setup.sh $(shown "$target"), in the directory of $earlier, then \
$(shown "$target/bin/airpack") install $(shown "$here"); or ask for this bundle built --with-setup"
}

[ -n "$target" ] || fail "HOME is not set, and no directory was named" "sh setup.sh DIRECTORY"
newline='
'
case $target in
    *"$newline"*) fail "the directory's name holds a line break" "sh setup.sh ANOTHER-DIRECTORY" ;;
    /*) ;;
    *) target=$PWD/$target ;;
esac
# Where a relative entry of PATH finds nothing of the medium's.
cd /

sums=$here/SHA256SUMS
if ! is_sums "$sums" || contradicts_itself "$sums"; then
    spare=$here/spare.SHA256SUMS
    if ! is_sums "$spare" || contradicts_itself "$spare"; then
        fail "$sums: missing or damaged, and so is its second copy" \
            "setup.sh of another medium of this bundle; or copy the bundle again"
    fi
    sums=$spare
    printf 'note: SHA256SUMS is missing or damaged; taking its second copy, %s\n' "$sums" >&2
    printf 'note: check the signature of that file, if you have not\n' >&2
fi

grep -q '\.whl$' "$sums" || end_without_wheels

find_python
new=
if [ -z "$(ls -A "$target" 2>/dev/null)" ]; then
    new=$target
elif [ ! -f "$target/pyvenv.cfg" ]; then
    fail "$target exists and is not a virtual environment" "sh setup.sh ANOTHER-DIRECTORY"
fi

mkdir -p "$target" || fail "$target cannot be made" "sh setup.sh ANOTHER-DIRECTORY"
target=$(cd "$target" && pwd -P)
case $target in
    *"$newline"*) fail "$target: the directory's name holds a line break" ;;
esac
work=$target/setup
rm -rf "$work"
mkdir "$work"
# Whatever stops this, no half of an environment stays behind.
trap 'rm -rf "${new:-$work}"' EXIT
trap 'exit 130' INT TERM

printf 'checking the wheels\n' >&2
fetch "requirements-$version.txt"
fetch libgomp.so.1
# What only another Python needs may be damaged as it likes.
for wheel in $(sed -n 's/^\([0-9a-f]\{64\}\)  \([A-Za-z0-9._-]*\.whl\)$/\1:\2/p' "$sums"); do
    case $wheel in
        *:pip-*) ;;
        *) grep -q ":${wheel%%:*}" "$work/requirements-$version.txt" || continue ;;
    esac
    fetch "${wheel#*:}"
done

# What "python3 -m venv --without-pip" makes, without the module that a bare system may lack.
mkdir -p "$target/bin" "$target/lib/python$version/site-packages" "$target/lib/airpack"
ln -sf "$python" "$target/bin/python"
ln -sf python "$target/bin/python3"
printf 'home = %s\ninclude-system-site-packages = false\nversion = %s\n' \
    "$(dirname "$python")" "$version" >"$target/pyvenv.cfg"
record=$target/lib/airpack/requirements.txt
rm -f "$record"
cp "$work/libgomp.so.1" "$target/lib/airpack/libgomp.so.1"
# Only a Python that takes the directory for its home installs there, and not into the system.
prefix=$("$target/bin/python" -I -c 'import sys; print(sys.prefix)') || prefix=
[ "$prefix" = "$target" ] || fail "$python makes no virtual environment in $target"

printf 'installing airpack into %s\n' "$target" >&2
PIP_CONFIG_FILE=/dev/null "$target/bin/python" -I "$(ls "$work"/pip-*.whl)/pip" \
    install --quiet --isolated --disable-pip-version-check --no-index --no-cache-dir \
    --force-reinstall --root-user-action ignore \
    --find-links "$work" --require-hashes --requirement "$work/requirements-$version.txt" ||
    fail "the wheels could not be installed into $target"

# pip's own launcher would let PYTHONPATH choose what airpack loads.
rm -f "$target/bin/airpack"
printf '#!/bin/sh\nexec %s -I -c %s %s "$@"\n' "$(quote "$target/bin/python")" \
    "'import sys; del sys.argv[0]; from packager.cli.main import main; main()'" \
    "$(quote "$target/bin/airpack")" >"$target/bin/airpack"
chmod 755 "$target/bin/airpack"
installed=$("$target/bin/airpack" --version) || fail "airpack does not start in $target"
# What airpack was set up from here: `airpack inventory` tells the sender by it.
cp "$work/requirements-$version.txt" "$record"
new=

say_next
