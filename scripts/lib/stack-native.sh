# shellcheck shell=bash
# shellcheck disable=SC2154 # scripts/stack sets the names, ports and folders and sources this file
# Redis, PostgreSQL and Kafka as plain processes of this machine, each with its folder, its pid file and its log.

start_seconds=180
stop_seconds=20

# --- processes ---

# A pid alone may belong to somebody else by now; together with its start time it names one process for good.
process_start() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra stat <<<"${stat##*) }"
    # The file of a process that is just ending may be empty.
    [[ ${stat[0]:-Z} != Z ]] && echo "${stat[19]}"
}

# Prints the pid of the server that this stack started, as long as it lives.
pid_of() {
    local file=$stack/$1/pid lines
    [[ -f $file ]] || return 1
    mapfile -t lines <"$file"
    [[ -n ${lines[1]:-} && $(process_start "${lines[0]}") == "${lines[1]}" ]] && echo "${lines[0]}"
}

native_runs() { pid_of "$1" >/dev/null; }
is_gone() { ! native_runs "$1"; }

# A session of its own keeps a Ctrl-C in the caller's terminal away, and the locks must not live on in the server.
# The shell between them writes the pid file even if the caller ends now, and reaps the server at its end: as a
# zombie left to a slow init it would still count as running.
detach() {
    local name=$1 folder=$stack/$1 keep
    shift
    # The inner shell expands its own arguments.
    # shellcheck disable=SC2016
    keep='"${@:2}" & printf "%s\n" $! "$(process_start $!)" >"$1"; wait'
    rm -f "$folder/pid"
    (
        cd /
        exec setsid bash -c "$(declare -f process_start); $keep" keeper "$folder/pid" "$@" \
            7>&- 9>&- </dev/null >>"$folder/$name.log" 2>&1
    ) &
    wait_until 5 test -s "$folder/pid" || die "$name could not be started; its log is $folder/$name.log"
}

# PostgreSQL's SIGTERM waits for its clients to leave; SIGINT is its fast and clean shutdown.
stop_signal() { if [[ $1 == postgres ]]; then echo INT; else echo TERM; fi; }

native_stop() { together stop_one "$@" || die "not all of the stack has stopped; see above"; }

stop_one() {
    local pid
    if pid=$(pid_of "$1"); then
        # It may have ended by itself since it was looked up.
        kill -s "$(stop_signal "$1")" "$pid" 2>/dev/null || true
        wait_until "$stop_seconds" is_gone "$1" || { say "$1 did not stop within $stop_seconds s and is killed"; native_kill "$1"; }
    fi
    rm -f "$stack/$1/pid"
}

# Returns when the process is gone, so that a test may go on at once.
native_kill() {
    local pid
    pid=$(pid_of "$1") || { say "$1 was not running"; return 0; }
    kill -9 "$pid" 2>/dev/null || true
    wait_until "$stop_seconds" is_gone "$1" || die "$1 (pid $pid) survived kill -9 for $stop_seconds s; look at its state with ps"
    rm -f "$stack/$1/pid"
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port_free() { ! port_taken "$1"; }

# A foreign server on our port would be mistaken for ours, and ours would fail with a riddle in its log.
check_port() {
    wait_until 3 port_free "$2" ||
        die "port $2 ($1) is taken by a process that this stack did not start; end it, or choose another BOXOFFICE_STACK_PORT_BASE (now $port_base)"
}

# The three do not depend on each other, so they start together; each reports its own failure.
native_up() {
    together native_start "${servers[@]}" ||
        die "the stack is not up; see above. What did start keeps running: mend it and run up again, or run down"
}

native_start() {
    local name=$1
    if native_runs "$name"; then
        wait_until "$start_seconds" native_health "$name" || fail_start "$name"
        return
    fi
    check_port "$name" "$(port_of "$name")"
    [[ $name != kafka ]] || check_port "kafka controller" "$kafka_controller_port"
    mkdir -p "$stack/$name"
    "start_$name"
    wait_until "$start_seconds" healthy_or_dead "$name" || fail_start "$name"
    native_health "$name" || fail_start "$name"
}

# A server that ended at once will not become healthy, so nobody waits the whole deadline for it.
healthy_or_dead() { ! native_runs "$1" || native_health "$1"; }

fail_start() {
    local problem="is not healthy $start_seconds s after its start"
    native_runs "$1" || problem="ended right after its start"
    tail -n 8 "$stack/$1/$1.log" >&2 || true
    die "$1 $problem; its log is $stack/$1/$1.log"
}

native_health() { native_runs "$1" && "healthy_$1"; }

native_version() { "version_$1"; }

# PostgreSQL's data may live behind a link.
native_forget() { rm -rf "$(readlink -m "$stack/postgres/home")"; }

# --- Redis ---

start_redis() {
    cat >"$stack/redis/redis.conf" <<CONF
# Written by scripts/stack at every start; change it there.
bind 127.0.0.1
port $redis_port
dir "$stack/redis"
daemonize no
# A decision is only answered when it is on disk.
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
save ""
# Rewriting a small file again and again would take a processor from the sale.
auto-aof-rewrite-min-size 256mb
# A full Redis refuses writes; it never forgets a booking.
maxmemory $redis_maxmemory
maxmemory-policy noeviction
# Bookings are small hashes and stay in the compact encoding.
hash-max-listpack-entries 512
hash-max-listpack-value 1024
CONF
    detach redis redis-server "$stack/redis/redis.conf"
}

redis_cli() { timeout 3 redis-cli -h 127.0.0.1 -p "$redis_port" "$@" 2>/dev/null; }
healthy_redis() { [[ $(redis_cli ping) == PONG ]]; }
version_redis() { redis_cli info server | sed -nE 's/^redis_version:([0-9.]+).*/\1/p'; }

# --- PostgreSQL ---

# PostgreSQL refuses to run as root, so root hands its processes and files to the user of the package.
postgres_user() { if ((EUID == 0)); then echo postgres; else id -un; fi; }

as_postgres() {
    if ((EUID == 0)); then
        (cd / && setpriv --reuid=postgres --regid=postgres --init-groups -- "$@")
    else
        "$@"
    fi
}

# A checkout in root's home is closed to the user postgres; the data then lives elsewhere, behind a link.
make_postgres_home() {
    local home=$stack/postgres/home
    [[ ! -e $home ]] || return 0
    if as_postgres test -x "$stack/postgres"; then
        install -d -m 700 -o "$(postgres_user)" "$home"
    else
        home=/var/lib/boxoffice-stack/$(printf %s "$stack" | sha256sum | cut -c 1-12)
        say "the user postgres may not enter $stack: PostgreSQL's data goes to $home"
        install -d -m 755 /var/lib/boxoffice-stack
        rm -rf "$home"
        install -d -m 700 -o postgres "$home"
        ln -sfn "$home" "$stack/postgres/home"
    fi
}

# Made aside and moved into place, so that an interrupted initdb is never taken for a cluster.
make_cluster() {
    local home=$1
    rm -rf "$home/partial"
    install -m 600 -o "$(postgres_user)" /dev/stdin "$home/password" <<<boxoffice
    as_postgres "$(postgres_bin)/initdb" --pgdata="$home/partial" --username=boxoffice --pwfile="$home/password" \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >"$stack/postgres/postgres.log" 2>&1 ||
        fail_start postgres
    rm -f "$home/password"
    mv "$home/partial" "$home/data"
}

start_postgres() {
    local home command
    make_postgres_home
    home=$(readlink -f "$stack/postgres/home")
    as_postgres test -d "$home/data" || make_cluster "$home"
    # No unix sockets: everything here speaks TCP, and a socket's path may be too long for the kernel.
    command=("$(postgres_bin)/postgres" -D "$home/data" -p "$postgres_port" -c listen_addresses=127.0.0.1
        -c unix_socket_directories= -c max_connections=300 -c fsync=on)
    ((EUID != 0)) || command=(setpriv --reuid=postgres --regid=postgres --init-groups -- "${command[@]}")
    wait_until 10 end_orphans "$home/data" || die "backends of the last PostgreSQL in $home/data do not end; look at them with ps"
    detach postgres "${command[@]}"
    wait_until "$start_seconds" accepts_or_dead || fail_start postgres
    native_runs postgres || fail_start postgres
    make_database
}

# Backends of a server that was killed may finish a long query first, and no new server starts beside them. They
# are known by their folder; only their own user may look there on every machine. Fails while it still finds one.
end_orphans() {
    # The inner shell expands its own arguments.
    # shellcheck disable=SC2016
    as_postgres bash -c 'found=0
        for each in /proc/[0-9]*; do
            [[ $each/cwd -ef $1 && $(<"$each/comm") == postgres ]] || continue
            found=1
            kill -9 "${each#/proc/}"
        done
        exit $found' _ "$1" 2>/dev/null
}

accepts_or_dead() { ! native_runs postgres || "$(postgres_bin)/pg_isready" -q -t 2 -h 127.0.0.1 -p "$postgres_port"; }

sql() {
    PGPASSWORD=boxoffice PGCONNECT_TIMEOUT=3 timeout 10 "$(postgres_bin)/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$postgres_port" -U boxoffice -d "$1" -c "$2" 2>/dev/null
}

make_database() {
    [[ $(sql postgres "select 1 from pg_database where datname = 'boxoffice'") == 1 ]] ||
        sql postgres 'create database boxoffice'
}

healthy_postgres() { [[ $(sql boxoffice 'select 1') == 1 ]]; }
version_postgres() { sql boxoffice 'show server_version' | cut -d ' ' -f 1; }

# --- Kafka ---

start_kafka() {
    local folder=$stack/kafka
    cat >"$folder/server.properties" <<CONF
# Written by scripts/stack at every start; change it there.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$kafka_controller_port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$kafka_controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_advertised_port
log.dirs=$folder/data
# Topics are made on purpose, with their partitions and retention; a typing mistake must not make one.
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# After a crash the broker waits until its old lease has run out; the default of 9 s makes fault tests slow.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
# There is no crowd of consumers to wait for.
group.initial.rebalance.delay.ms=0
CONF
    [[ -f $folder/data/meta.properties ]] || format_kafka "$folder"
    # On two processors that everything shares: with its default compiler and collector a broker spends its first minutes,
    # which are all that a test has, on compiling itself, and that takes as much as all the records.
    detach kafka "$(java_program)" -Xms256m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
        "-Dlog4j2.configurationFile=$checkout/scripts/kafka/log4j2.properties" -cp "$kafka_libs/*" kafka.Kafka \
        "$folder/server.properties"
}

# A cluster id is 16 bytes in base64; letters stand for the two signs that an option parser could misread.
format_kafka() {
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'xy' | cut -c 1-22)
    kafka_java kafka.tools.StorageTool format --ignore-formatted -t "$id" -c "$1/server.properties" \
        >>"$1/kafka.log" 2>&1 || fail_start kafka
}

kafka_java() {
    "$(java_program)" -Dboxoffice.kafka.log.level=warn "-Dlog4j2.configurationFile=$checkout/scripts/kafka/log4j2.properties" \
        -cp "$kafka_libs/*" "$@"
}

# Asks for the cluster's metadata in Kafka's own protocol (Metadata version 1, no topics, correlation id 7) and wants
# one registered broker in the answer; a Java client would take a second to ask the same.
healthy_kafka() {
    local answer
    # The inner shell expands its own argument.
    # shellcheck disable=SC2016
    answer=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf "\0\0\0\016\0\003\0\001\0\0\0\007\377\377\0\0\0\0" >&3
        head -c 12 <&3 | od -A n -v -t x1 | tr -d " \n"' _ "$kafka_port" 2>/dev/null) || return 1
    [[ ${answer:8} == 0000000700000001 ]]
}

version_kafka() { basename "$kafka_libs"/kafka_2.13-*.jar .jar | cut -d - -f 2; }
