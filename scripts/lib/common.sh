# shellcheck shell=bash
# What every script of the checkout needs: where it is, how it speaks, and how it waits.

# The checkout is found from this file, so that scripts work from any folder and through any clone.
# shellcheck disable=SC2034 # the scripts that source this file use it
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# What cargo is to build in the dev profile, for every script: all packages, and examples, though there are none. Asked for those,
# cargo gives the dependencies the features that the tests need, so that they are compiled once; with fewer packages, or without
# examples, those of many would be others.
# shellcheck disable=SC2034
everything=(--workspace --bins --examples)

say() { printf '%s\n' "$*"; }

# Errors go to standard error, so that `eval "$(scripts/stack env)"` never evaluates one.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Every wait has a deadline, because a script that hangs tells nobody what is wrong.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# Runs a function for each of several names at once and fails when one of them failed.
together() {
    local action=$1 each started=() failed=0
    shift
    for each in "$@"; do
        "$action" "$each" &
        started+=($!)
    done
    for each in "${started[@]}"; do wait "$each" || failed=1; done
    return $failed
}

# Redis waits for the disk with each decision, and would wait for what the compiler has written as well.
build_programs() {
    (cd "$checkout" && cargo build --locked --quiet "$@") && sync
}

# A second run with the same servers would take them, and in the end the data, from the first. What `scripts/demo --keep` leaves
# running holds the lock too. Before any trap that ends servers.
only_run() { lock 7 "$checkout/.stack/$1.run" 5 "$checkout/.run/$1/pids"; }

# Two scripts may start at the same moment; the lock file's descriptor is given by the caller and closed in daemons. The fourth
# argument names where their pids are, if anywhere.
lock() {
    local descriptor=$1 file=$2 seconds=$3 pids=${4:-} who=''
    [[ -z $pids || ! -f $pids ]] || who=" (its processes: kill \$(cat $pids))"
    command -v flock >/dev/null 2>&1 || die "missing: flock, which keeps two runs apart. Install util-linux"
    mkdir -p "$(dirname "$file")"
    eval "exec $descriptor>\"\$file\""
    flock -w "$seconds" "$descriptor" || die "another run holds $file; wait for it or end it$who, then try again"
}
