# What the checks of the image ask of the engine, each bounded in time. Sourced by
# scripts/check/docker.sh, which owns the checks and sets $name, $image, $work, $fleet and $dev.
# Every container made here bears the label, every image the name, so that remove_all finds it.
# shellcheck shell=bash disable=SC2154

read -ra build_flags <<<"${DOCKER_BUILD_FLAGS:-}"

# No command may hang: each is given a minute, or $limit seconds. In the foreground, so that Ctrl-C
# reaches it.
bounded() {
    timeout --foreground --kill-after=5 "${limit:-60}" "$@"
}

compose() {
    if docker compose version >/dev/null 2>&1; then
        limit=900 bounded docker compose "$@"
    else
        limit=900 bounded docker-compose "$@"
    fi
}

fail() {
    printf '%s\n' "$*" >&2
    return 1
}

# holds TEXT PART: the text has the part in it.
holds() {
    case $1 in
        *"$2"*) ;;
        *) fail "no \"$2\" in: $1" ;;
    esac
}

# build OPTION... CONTEXT: with the options that all builds share.
build() {
    if ! limit=900 bounded docker build "${build_flags[@]}" "$@" \
        >"$work/build.log" 2>&1; then
        tail -n 40 "$work/build.log" >&2
        fail "the build failed: $*"
    fi
}

# start NAME [OPTION...] IMAGE [ARGUMENT...]: a container on a free port.
start() {
    local container=$name-$1
    shift
    bounded docker run --detach --label "$name=1" --name "$container" \
        --publish 127.0.0.1::8000 "$@" >/dev/null
}

# address NAME: where a container that was started answers.
address() {
    bounded docker port "$name-$1" 8000 | sed -n 1p
}

# service NAME: the id of a container of the fleet.
service() {
    compose "${fleet[@]}" ps --quiet "$1"
}

# state CONTAINER-OR-IMAGE TEMPLATE
state() {
    bounded docker inspect --format "$2" "$1"
}

# healthy CONTAINER: waits until its health check says so.
healthy() {
    local status='' tries
    for tries in {1..100}; do
        status=$(state "$1" '{{.State.Health.Status}}')
        if [ "$status" = healthy ]; then return; fi
        sleep 0.3
    done
    fail "$1 is $status after $tries looks"
}

# processes CONTAINER: state and name of each. From inside, as the engine's own list has no zombies.
processes() {
    bounded docker exec "$1" sh -c 'cat /proc/[0-9]*/stat 2>/dev/null || true' |
        sed -E 's/^[0-9]+ \((.*)\) ([A-Za-z]) .*$/\2 \1/'
}

mebibytes() {
    awk -v bytes="$1" 'BEGIN {printf "%.2f MiB", bytes / 1024 / 1024}'
}

remove_all() {
    local found
    compose "${dev[@]}" down --volumes --remove-orphans >/dev/null 2>&1 || true
    found=$(bounded docker ps --all --quiet --filter "label=$name=1")
    if [ -n "$found" ]; then
        xargs docker rm --force --volumes >/dev/null <<<"$found"
    fi
    if [ -z "${KEEP:-}" ]; then
        found=$(bounded docker images --format '{{.Repository}}:{{.Tag}}' "$image")
        if [ -n "$found" ]; then
            xargs docker rmi --force >/dev/null <<<"$found"
        fi
    fi
}
