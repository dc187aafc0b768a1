# shellcheck shell=bash
# shellcheck disable=SC2154 # common.sh sets the checkout
# Installs Debian packages without starting anything.

has() { command -v "$1" >/dev/null 2>&1; }

# Root needs no help and everybody else needs sudo.
as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

# Without apt, or without the right to use it, a person is told what to install.
need_apt() {
    has apt-get || die "missing: $*. There is no apt-get here: install them by other means (the names are Debian's)"
    ((EUID == 0)) || has sudo || die "missing: $*. Neither root nor sudo here: ask for 'apt-get install $*'"
}

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 "$@"; }

# A fresh machine has no lists; an unreachable mirror may still leave what is needed in the cache.
apt_update() { apt_get update >/dev/null 2>&1 || say "apt-get update failed; going on with the lists that are there"; }

# The distribution's own servers must neither start now, nor at the next boot, nor get a database cluster: guards
# stand while apt runs, are taken away afterwards, and never replace what the machine's owner has put there.
apt_install() {
    local log=$checkout/.stack/apt.log guards=() file
    mkdir -p "$checkout/.stack"
    for file in /usr/sbin/policy-rc.d /etc/postgresql-common/createcluster.d/boxoffice-stack.conf; do
        [[ -e $file ]] || guards+=("$file")
    done
    # Expanded now on purpose: the local names are gone when the trap runs.
    # shellcheck disable=SC2064
    trap "as_root rm -f ${guards[*]}" EXIT
    for file in "${guards[@]}"; do place_guard "$file"; done
    apt_get install --no-install-recommends "$@" >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        die "apt could not install $*; its whole output is in $log"
    }
    for file in redis-server postgresql; do
        [[ " $* " != *" $file "* ]] || as_root update-rc.d "$file" disable >/dev/null 2>&1 || true
    done
    as_root rm -f "${guards[@]}"
    trap - EXIT
}

place_guard() {
    as_root mkdir -p "$(dirname "$1")"
    case $1 in
        */policy-rc.d)
            printf '#!/bin/sh\nexit 101\n' | as_root tee "$1" >/dev/null
            as_root chmod 755 "$1"
            ;;
        *) echo 'create_main_cluster = false' | as_root tee "$1" >/dev/null ;;
    esac
}
