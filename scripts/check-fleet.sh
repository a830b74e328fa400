#!/usr/bin/env bash
# Has the worker run on every engine that this machine has: prints a table of what passed and failed, and names
# what was left out because the machine lacks something. Exits with 1 if a check failed.
#
#   scripts/check-fleet.sh                               everything; up to an hour, most of it builds
#   scripts/check-fleet.sh --only swarm --only podman    these alone
#
#   kubernetes  manifests against schemas, and their lint; brings kubectl for podman
#   balancers   rolling restarts behind nginx, HAProxy and Caddy
#   systemd     the unit by systemd's checks, and under a systemd of its own
#   lambda      AWS Lambda's runtime API, with AWS's own clients
#   docker      the image and the fleet of Docker Compose
#   swarm       a Docker Swarm under load
#   podman      the Deployment, played by podman
#
# Each is scripts/check/NAME.sh, which says what it needs; one that takes over 40 minutes is stopped, and has
# failed. Output lies in target/check-fleet. Swarm and podman share an image, which is built here and removed;
# FAAS_IMAGE names another, with sh and /handlers. Status 77 if all was left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
}

readonly all=(kubernetes balancers systemd lambda docker swarm podman) limit=2400 logs=target/check-fleet
only=()
while [ $# -gt 0 ]; do
    case $1 in
        --help)
            usage
            exit 0
            ;;
        --only)
            [[ " ${all[*]} " == *" ${2:-none} "* ]] || {
                printf 'check-fleet.sh: --only: no such check, expected one of %s: %s\n' "${all[*]}" "${2:-}" >&2
                exit 2
            }
            only+=("$2")
            shift
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    shift
done
[ "${#only[@]}" -gt 0 ] || only=("${all[@]}")

built='' running=''
at_exit() {
    [ -z "$built" ] || docker images --format '{{.Repository}}:{{.Tag}}' "$built" |
        xargs --no-run-if-empty docker rmi --force >/dev/null || true
}
# The check is in a process group of its own, which `timeout` hands the signal on to.
stop() {
    [ -z "$running" ] || { kill -TERM "$running" && wait "$running"; } 2>/dev/null || true
    exit "$1"
}
trap at_exit EXIT
trap 'stop 130' INT
trap 'stop 143' TERM

# bounded LOG COMMAND...: with its output on the screen and in the file.
bounded() {
    local log=$1 status=0 screen
    shift
    timeout --kill-after=60 "$limit" "$@" >"$log" 2>&1 </dev/null &
    running=$!
    tail --lines +1 --follow --pid "$running" "$log" &
    screen=$!
    wait "$running" || status=$?
    running=''
    wait "$screen" || true
    return "$status"
}

# An image for both checks that need one. Each stage has a tag, so that all can be removed. Without an engine
# nothing is built, and the checks say so.
build_image() {
    local log=$logs/image.log stage flags
    if [ -n "${FAAS_IMAGE:-}" ] || ! timeout --kill-after=5 60 docker info >/dev/null 2>&1; then return; fi
    read -ra flags <<<"${DOCKER_BUILD_FLAGS:-}"
    built=faas-fleet-$$-$RANDOM
    for stage in dependencies build ''; do
        bounded "$log" docker build --quiet "${flags[@]}" ${stage:+--target "$stage"} \
            --tag "$built:${stage:-latest}" . || return
    done
    export FAAS_IMAGE=$built:latest
}

# check NAME
check() {
    local log=$logs/$1.log command=("scripts/check/$1.sh") begun=$SECONDS status=0 outcome
    printf '\n==== %s\n' "$1"
    case $1 in
        kubernetes) command+=(--lint) ;;
        swarm | podman) log=$logs/image.log; build_image || status=$? ;;
    esac
    if [ "$status" -eq 0 ]; then
        log=$logs/$1.log
        bounded "$log" "${command[@]}" || status=$?
    fi
    case $status in
        0) outcome=passed passed=$((passed + 1)) ;;
        77) outcome='left out' ;;
        124 | 137) outcome="FAILED: over $((limit / 60)) minutes, or killed" failed=$((failed + 1)) ;;
        *) outcome="FAILED: status $status, $log" failed=$((failed + 1)) ;;
    esac
    table+=("$(printf '%-10s %5s s  %s' "$1" $((SECONDS - begun)) "$outcome")")
}

mkdir -p "$logs"
for name in "${only[@]}"; do
    : >"$logs/$name.log"
done
table=() passed=0 failed=0
for name in "${only[@]}"; do
    check "$name"
done

printf '\n'
printf '%s\n' "${table[@]}"
# A check that passed may have left out a part.
if lines=$(cd "$logs" && grep --no-filename '^left out: ' "${only[@]/%/.log}"); then
    printf '\nleft out:\n'
    sort --unique <<<"${lines//left out:/ }"
fi
printf '\n%s passed, %s failed, %s left out\n' "$passed" "$failed" $((${#only[@]} - passed - failed))
if [ "$failed" -gt 0 ]; then exit 1; fi
if [ "$passed" -eq 0 ]; then exit 77; fi
