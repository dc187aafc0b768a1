# shellcheck shell=bash
# shellcheck disable=SC2154 # scripts/stack sets the names, ports and folders and sources this file
# The same three servers as containers of docker-compose.yml, where a Docker engine runs.

# In bytes, one and a half times what Redis may fill: past its container's limit the kernel kills it.
redis_memory_limit() {
    local unit=0
    case ${redis_maxmemory,,} in
        *g | *gb) unit=30 ;;
        *m | *mb) unit=20 ;;
        *k | *kb) unit=10 ;;
    esac
    echo $(((${redis_maxmemory%%[!0-9]*} << unit) * 3 / 2))
}

compose() {
    BOXOFFICE_REDIS_PORT=$redis_port BOXOFFICE_POSTGRES_PORT=$postgres_port BOXOFFICE_KAFKA_PORT=$kafka_port \
        BOXOFFICE_REDIS_MAXMEMORY=$redis_maxmemory BOXOFFICE_REDIS_MEMORY_LIMIT=$(redis_memory_limit) \
        BOXOFFICE_POSTGRES_PASSWORD=boxoffice \
        docker compose -p "boxoffice-$name" -f "$checkout/docker-compose.yml" "$@"
}

# A client without an engine, or without the compose plugin, is no use.
engine_answers() {
    has docker && timeout 10 docker compose version >/dev/null 2>&1 && timeout 10 docker info >/dev/null 2>&1
}

docker_up() { docker_start "${servers[@]}"; }
docker_start() { compose up -d --wait --wait-timeout 120 "$@"; }
docker_stop() { compose stop "$@"; }
docker_kill() { compose kill -s KILL "$1"; }

docker_forget() { compose down --volumes --remove-orphans; }
docker_runs() { [[ -n $(compose ps -q --status running "$1" 2>/dev/null) ]]; }

docker_health() {
    local container
    container=$(compose ps -q "$1" 2>/dev/null) || return 1
    [[ -n $container && $(docker inspect -f '{{.State.Health.Status}}' "$container" 2>/dev/null) == healthy ]]
}

# The image's tag is the version that was pinned.
docker_version() { sed -nE "s|^ *image: .*$1:([0-9.]+).*|\1|p" "$checkout/docker-compose.yml" | head -n 1; }
