# shellcheck shell=bash
# shellcheck disable=SC2154 # scripts/stack sets the names, ports and folders and sources this file
# Puts onto the machine what the stack and the build need, and nothing that is there already.

minimum_java=17

# Kafka 4 does not start on an older Java, and Debian's default is older on some releases.
runs_kafka() {
    local major
    major=$("$1" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p;T;q') || return 1
    [[ -n $major ]] && ((major >= minimum_java))
}

# JAVA_HOME may name an older Java for the sake of another program, or one that is gone.
java_program() {
    if [[ -n ${JAVA_HOME:-} ]] && runs_kafka "$JAVA_HOME/bin/java"; then echo "$JAVA_HOME/bin/java"; else echo java; fi
}

has_java() { runs_kafka "$(java_program)"; }

# PostgreSQL's server programs are not on the PATH of Debian; the newest installed version is taken.
postgres_bin() {
    local folder
    folder=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
    if [[ -x $folder ]]; then
        dirname "$folder"
    elif has postgres && has initdb && has psql; then
        dirname "$(command -v postgres)"
    else
        return 1
    fi
}

# No one package name for Java exists on all releases, so the first that this machine's apt offers is taken.
java_package() {
    local version
    for version in 17 21 25; do
        if apt-cache show "openjdk-$version-jre-headless" >/dev/null 2>&1; then
            echo "openjdk-$version-jre-headless"
            return
        fi
    done
    echo default-jre-headless
}

# Everything is looked for by its effect and not by its package, since there are other ways to have it.
missing_servers() {
    has redis-server && has redis-cli || echo redis-server
    postgres_bin >/dev/null || echo postgresql
    has_java || java_package
    kafka_jars_ready || has mvn || echo maven
}

# What cargo needs to build the crates, librdkafka above all.
missing_build_needs() {
    has cc && has make && has g++ || echo build-essential
    has cmake || echo cmake
    has curl || echo curl
    has pkg-config || echo pkg-config
    [[ -e /usr/include/zlib.h ]] || echo zlib1g-dev
    [[ -e /usr/include/openssl/ssl.h ]] || echo libssl-dev
}

# Containers need no servers of the machine, and where there is no apt the build needs have other names and places.
missing_packages() {
    [[ $mode == docker ]] || missing_servers
    ! has apt-get || missing_build_needs
}

# The list is made again after the update, since a machine without lists knows no Java package yet.
install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]})) || return 0
    need_apt "${packages[@]}"
    apt_update
    mapfile -t packages < <(missing_packages)
    say "installing ${packages[*]} (apt)"
    apt_install "${packages[@]}"
}

kafka_pom="$checkout/scripts/kafka/pom.xml"
kafka_libs="$stack_root/kafka-libs"

# The pom's digest marks a complete download, so that a broken one or a new version is noticed.
kafka_jars_ready() { [[ -f $kafka_libs/.pom.sha256 ]] && sha256sum --status -c "$kafka_libs/.pom.sha256" <"$kafka_pom"; }

download_kafka() {
    ! kafka_jars_ready || return 0
    # Maven takes it as well, whatever it names.
    [[ $(java_program) != java ]] || unset JAVA_HOME
    say "downloading Kafka's jars (Maven, once)"
    rm -rf "$kafka_libs" "$kafka_libs.partial"
    mvn -q -B -Dstyle.color=never -f "$kafka_pom" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$kafka_libs.partial" >"$stack_root/maven.log" 2>&1 </dev/null ||
        {
            tail -n 5 "$stack_root/maven.log" >&2
            die "Maven could not download Kafka; its whole output is in $stack_root/maven.log. Try again when Maven Central is reachable"
        }
    sha256sum <"$kafka_pom" >"$kafka_libs.partial/.pom.sha256"
    mv "$kafka_libs.partial" "$kafka_libs"
}

# Older servers lack what the Lua scripts and migrations rely on, and would fail later with a riddle.
check_versions() {
    local redis postgres
    redis=$(redis-server --version | sed -nE 's/.* v=([0-9]+).*/\1/p')
    postgres=$("$(postgres_bin)/postgres" --version | sed -nE 's/.* ([0-9]+).*/\1/p')
    has_java || die "Kafka needs Java $minimum_java or newer, and neither JAVA_HOME (${JAVA_HOME:-not set}) nor the PATH ($(command -v java || echo none)) has one: put it first on the PATH, or run a Docker engine"
    ((redis >= 7)) || die "redis-server here is version $redis and 7 is needed: install a newer one, or run a Docker engine"
    ((postgres >= 15)) || die "PostgreSQL here is version $postgres and 15 is needed: install a newer one, or run a Docker engine"
}

# Stacks of several names share the machine and the jars, so only one of them installs at a time.
install_missing() {
    lock 8 "$stack_root/install.lock" 900
    install_packages
    if [[ $mode == native ]]; then
        check_versions
        download_kafka
    fi
    exec 8>&-
}
