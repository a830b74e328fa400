#!/usr/bin/env bash
# Puts the stack of examples/deploy/swarm under a steady load, and updates it, scales it, has it roll a broken
# image back, and kills a task. No request may fail, but those that the killed task had.
#
#   scripts/check/swarm.sh                     some five minutes, 60,000 requests
#   FAAS_IMAGE=faas-worker scripts/check/swarm.sh       of that image, which has sh and /handlers/echo
#
# Needs a Docker engine of this machine and python3: left out without. Where the engine is in no swarm, one is made and left
# again; else the stack is one more on it. BALANCER_IMAGE names an image with HAProxy, which is else made of
# Debian's. Everything bears one random name, and is removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

needs_docker
needs python3 python3
name=faas-swarm-$$-$RANDOM
work=$(mktemp -d)
service=${name}_decode
made_swarm=''
export DOCKER_CLI_HINTS=false DOCKER_BUILDKIT=0
read -ra build_flags <<<"${DOCKER_BUILD_FLAGS:-}"

bounded() {
    timeout --foreground --kill-after=5 "${limit:-120}" "$@"
}

fail() {
    printf 'check/swarm.sh: %s\n' "$*" >&2
    exit 1
}

at_exit() {
    local status=$? left
    if [ "$status" -ne 0 ]; then
        bounded docker stack ps --no-trunc "$name" 2>/dev/null | cut -c 1-220 | head -n 40 >&2 || true
        bounded docker service logs --tail 20 "${name}_balancer" >&2 || true
    fi
    bounded docker stack rm "$name" >/dev/null 2>&1 || true
    # Tasks end after their drain; the network goes last.
    for _ in {1..60}; do
        left=$(bounded docker ps --quiet --filter "label=com.docker.stack.namespace=$name" || true)
        [ -n "$left" ] || break
        sleep 1
    done
    if [ -n "$made_swarm" ]; then
        bounded docker swarm leave --force >/dev/null || true
        bounded docker network rm docker_gwbridge >/dev/null 2>&1 || true
    fi
    # The engine removes them by itself, too; their images can go when all are gone.
    for _ in {1..30}; do
        left=$(bounded docker ps --all --quiet --filter "label=com.docker.stack.namespace=$name" || true)
        [ -n "$left" ] || break
        xargs docker rm --force >/dev/null 2>&1 <<<"$left" || true
        sleep 1
    done
    left=$(bounded docker images --format '{{.Repository}}:{{.Tag}}' "$name" || true)
    [ -z "$left" ] || xargs docker rmi --force >/dev/null 2>&1 <<<"$left"
    rm -rf "$work"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- Images -------------------------------------------------------------------------------------------

# image TAG: builds the Dockerfile on standard input.
image() {
    mkdir -p "$work/$1"
    cat >"$work/$1/Dockerfile"
    limit=600 bounded docker build --quiet "${build_flags[@]}" --tag "$name:$1" "$work/$1" >/dev/null 2>"$work/build.log" ||
        fail "no image $1: $(cat "$work/build.log")"
}

if [ -n "${FAAS_IMAGE:-}" ]; then
    bounded docker tag "$FAAS_IMAGE" "$name:first"
else
    limit=1800 bounded docker build --quiet "${build_flags[@]}" --tag "$name:first" . >/dev/null
fi
# Another image, so that each task is replaced.
printf 'FROM %s\nLABEL version=second\n' "$name:first" | image second
printf 'FROM %s\nUSER 0\nRUN rm /handlers/echo\nUSER 65532:65532\n' "$name:first" | image broken
if [ -z "${BALANCER_IMAGE:-}" ]; then
    image balancer <<'END'
FROM debian:bookworm-slim
RUN apt-get update -q && apt-get install -q -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
END
    BALANCER_IMAGE=$name:balancer
fi

# ---- Stack --------------------------------------------------------------------------------------------

case $(bounded docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}') in
    'active true') ;;
    inactive*)
        bounded docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377 >/dev/null
        made_swarm=yes
        ;;
    *) leave_out 'the engine is in a swarm that it does not manage' ;;
esac
port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
mkdir "$work/stack"
cp examples/deploy/swarm/haproxy.cfg "$work/stack"
sed "s/published: 8080/published: $port/" examples/deploy/swarm/stack.yaml >"$work/stack/stack.yaml"
FAAS_IMAGE=$name:first HANDLER_FUNCTION=/handlers/echo BALANCER_IMAGE=$BALANCER_IMAGE \
    bounded docker stack deploy --detach=true --resolve-image never --compose-file "$work/stack/stack.yaml" "$name" >/dev/null

# healthy: prints the ids of the containers whose health check passes.
healthy() {
    bounded docker ps --quiet --filter "label=com.docker.swarm.service.name=$service" --filter health=healthy
}

# until_healthy N: waits until so many tasks are healthy, and no more run.
until_healthy() {
    local count='' all=''
    for _ in {1..300}; do
        count=$(healthy | wc -l)
        all=$(bounded docker ps --quiet --filter "label=com.docker.swarm.service.name=$service" | wc -l)
        if [ "$count" = "$1" ] && [ "$all" = "$1" ]; then return; fi
        sleep 0.5
    done
    fail "$count healthy of $all tasks instead of $1"
}

# update TAG STATE: has all tasks replaced by such of another image, and waits until it ends in this state.
update() {
    local state='' format='{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' begun=''
    bounded docker service update --quiet --detach --no-resolve-image --image "$name:$1" "$service" >/dev/null
    for _ in {1..600}; do
        state=$(bounded docker service inspect --format "$format" "$service")
        case $state in
            updating | rollback_started) begun=yes ;;
            # Until it begins, the state is that of the update before.
            *) if [ -n "$begun" ]; then break; fi ;;
        esac
        sleep 0.3
    done
    [ "$state" = "$2" ] || fail "the update to $1 is $state instead of $2"
    until_healthy 6
}

until_healthy 6
python3 tests/docker/client.py until "127.0.0.1:$port" hello hello >/dev/null

# ---- Phases -------------------------------------------------------------------------------------------

scale() {
    bounded docker service scale --detach "$service=$1" >/dev/null
    until_healthy "$1"
    sleep 3
}

kill_one() {
    local one
    one=$(healthy | sed -n 1p)
    bounded docker kill --signal KILL "$one" >/dev/null
    sleep 2
    until_healthy 8
    sleep 2
}

export -f bounded fail healthy until_healthy update scale kill_one
export name service
limit=900 bounded python3 scripts/check/load.py "127.0.0.1:$port" --rate "${RATE:-300}" --requests "${REQUESTS:-60000}" \
    --allow SIGKILL=20 \
    quiet='sleep 5' \
    update='update second completed' \
    'broken image'='update broken rollback_completed' \
    '6 to 2'='scale 2' \
    '2 to 8'='scale 8' \
    SIGKILL=kill_one
image=$(bounded docker service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' "$service")
[ "$image" = "$name:second" ] || fail "after the rollback it runs $image"
echo 'updated, rolled back, scaled and killed'
