# shellcheck shell=bash
# Starting Boxoffice's own processes beside a script, and ending exactly those.

started_processes=()

# In a session of its own, so that a Ctrl-C reaches the script alone, which then ends the process in order.
start_process() {
    local name=$1 dir=$2
    shift 2
    setsid "$@" >"$dir/$name.log" 2>&1 &
    started_processes+=($!)
}

process_ids() { printf '%s ' "${started_processes[@]}"; }

# In the order opposite to the start: the API goes before the reconciler that serves it.
end_processes() {
    local i pid
    for ((i = ${#started_processes[@]} - 1; i >= 0; i--)); do
        pid=${started_processes[i]}
        kill "$pid" 2>/dev/null || continue
        wait_until 35 process_ended "$pid" || kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

# A zombie has ended: its parent, this script, has only not asked for its status yet.
process_ended() {
    [[ ! -d /proc/$1 ]] || grep --quiet '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

need_port_free() {
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
        die "port $1 is taken by another process; set $2 to a free port"
    fi
}

target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$checkout/target}"; }
