#!/usr/bin/env bash
# The image and the compose fleet on the real engine: builds them, runs them, attacks them a little.
#
#   scripts/check/docker.sh            some minutes; leaves no container, network, volume or image
#   KEEP=1 scripts/check/docker.sh     keeps the images, so that the next run builds faster
#   DOCKER_BUILD_FLAGS='--network host' scripts/check/docker.sh
#
# Needs docker, docker compose (v2) or docker-compose (1.29), python3, and the ports 8001 to 8003: left out without
# an engine, as is what needs podman.
# Owns only what bears its own random name. One line a check, a table at the end, status 1 if any
# failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

needs_docker
needs python3 python3
name=faas-check-$$-$RANDOM
image=$name
base=$(awk '$1 == "FROM" {base = $2} END {print base}' Dockerfile)
work=$(mktemp -d)
client=tests/docker/client.py
# docker-compose.yaml has it too: with another commit it would build again.
FAAS_REVISION=$(git rev-parse HEAD)
export FAAS_REVISION FAAS_IMAGE=$image COMPOSE_PROJECT_NAME=$name
export DOCKER_CLI_HINTS=false

fleet=(-f docker-compose.yaml)
dev=(-f docker-compose.yaml -f examples/deploy/compose/dev.yaml)

# The goals, in bytes.
most_image=$((13 * 1024 * 1024))
most_binary=$((8 * 1024 * 1024))

# shellcheck source=/dev/null
source tests/docker/engine.sh

at_exit() {
    remove_all
    rm -rf "$work"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- Image ------------------------------------------------------------------------------------------

# Each stage has a tag, so that all can be found and removed.
image_builds() {
    local begin=$SECONDS
    build --target dependencies --tag "$image:dependencies" .
    build --build-arg "REVISION=$FAAS_REVISION" --target build --tag "$image:build" .
    build --build-arg "REVISION=$FAAS_REVISION" --target worker --tag "$image:bare" .
    build --build-arg "REVISION=$FAAS_REVISION" --tag "$image:latest" .
    echo "$((SECONDS - begin)) s"
}

edit_reuses_dependencies() {
    local begin=$SECONDS source=$work/source before after
    mkdir "$source"
    # With their modes, which the classic builder counts.
    cp -rp Cargo.toml Cargo.lock Dockerfile .dockerignore src examples "$source"
    echo '// edited' >>"$source/src/main.rs"
    sed -i 's/processed_as_string/edited/' "$source/examples/default.rs"
    build --target dependencies --tag "$image:dependencies-2" "$source"
    build --target build --tag "$image:build-2" "$source"
    build --tag "$image:edited" "$source"
    echo "$((SECONDS - begin)) s"
    before=$(state "$image:dependencies" '{{.Id}}')
    after=$(state "$image:dependencies-2" '{{.Id}}')
    [ "$before" = "$after" ] || fail 'the dependencies were built again'
    start edited "$image:edited"
    python3 "$client" until "$(address edited)" text '"edited"' >/dev/null
}

image_is_small() {
    local above binary
    above=$(($(state "$image:latest" '{{.Size}}') - $(state "$base" '{{.Size}}')))
    binary=$(bounded docker run --rm --label "$name=1" --entrypoint stat "$image" \
        --format %s /usr/local/bin/faas-worker)
    echo "$(mebibytes "$above") above $base, program $(mebibytes "$binary")"
    [ "$above" -le "$most_image" ] || fail 'the image is over 13 MiB above its base'
    [ "$binary" -le "$most_binary" ] || fail 'the program is over 8 MiB'
}

# ---- Container --------------------------------------------------------------------------------------

default_handler_answers() {
    start plain "$image"
    python3 "$client" until "$(address plain)" hello hello >/dev/null
    python3 "$client" cases "$(address plain)" default
    local who
    who=$(bounded docker exec "$name-plain" cat /proc/1/status)
    holds "$who" $'Name:\tfaas-worker'
    holds "$who" $'Uid:\t65532\t65532'
}

turns_healthy() {
    local begin=$SECONDS
    healthy "$name-plain"
    echo "within $((SECONDS - begin)) s more"
    holds "$(bounded docker exec "$name-plain" faas-worker health)" ': ok'
}

command_line_passes_through() {
    local once=(docker run --rm --label "$name=1" "$image") seen
    seen=$(bounded "${once[@]}" --help)
    holds "$seen" 'Usage: faas-worker'
    # Nobody listens in a container of its own: one line, status 1.
    if seen=$(bounded "${once[@]}" health); then fail "healthy without a worker: $seen"; fi
    holds "$seen" 127.0.0.1:8000
    start minimal "$image" -- shell/minimal.sh
    python3 "$client" until "$(address minimal)" text '{"result":"text"}' >/dev/null
    python3 "$client" cases "$(address minimal)" identity
}

# One version and one commit: in Cargo.toml and git, the labels, the program and its metrics.
version_is_one() {
    local tag label part seen version labelled
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    for tag in bare latest; do
        labelled=''
        for part in version revision licenses; do
            label="{{index .Config.Labels \"org.opencontainers.image.$part\"}}"
            labelled+="$(state "$image:$tag" "$label") "
        done
        [ "$labelled" = "$version $FAAS_REVISION Apache-2.0 " ] || fail "the labels of $tag: $labelled"
        seen=$(bounded docker run --rm --label "$name=1" "$image:$tag" --version)
        [ "$seen" = "faas-worker $version ($FAAS_REVISION)" ] || fail "$tag --version: $seen"
    done
    seen=$(python3 "$client" get "$(address plain)" /metrics | grep '^faas_build_info{')
    [ "$seen" = "faas_build_info{version=\"$version ($FAAS_REVISION)\"} 1" ] || fail "$seen"
    echo "$version ($FAAS_REVISION)"
}

wrong_handler_is_told() {
    local handler seen why
    while IFS='=' read -r handler why; do
        start "wrong-$handler" --env "HANDLER_FUNCTION=$handler" "$image"
        python3 "$client" until "$(address "wrong-$handler")" text 'Handler function not loaded' \
            >/dev/null
        seen=$(python3 "$client" post "$(address "wrong-$handler")" text)
        holds "$seen" "500 handler_not_loaded"
        holds "$seen" "$why"
        holds "$(bounded docker logs "$name-wrong-$handler" 2>&1)" "$handler"
        [ "$(state "$name-wrong-$handler" '{{.State.Running}} {{.RestartCount}}')" = 'true 0' ] ||
            fail 'it does not stay up'
        # A rollout that waits for health must not go on with it.
        [ "$(state "$name-wrong-$handler" '{{.State.Health.Status}}')" != healthy ] ||
            fail 'it is called healthy'
        if bounded docker exec "$name-wrong-$handler" faas-worker health --ready; then
            fail 'it is called ready'
        fi
        bounded docker exec "$name-wrong-$handler" faas-worker health
        holds "$(bounded docker exec "$name-wrong-$handler" sh -c 'ls /handlers')" decode_type_b
    done <<'END'
function.handler.handle=is a Python path
no-such-command=command not found
END
    echo '500 with the reason, in the log too; stays up'
}

any_user_read_only() {
    start anyone --user 12345:54321 --read-only --cap-drop ALL \
        --security-opt no-new-privileges:true "$image"
    python3 "$client" until "$(address anyone)" hello hello >/dev/null
    holds "$(bounded docker exec "$name-anyone" id)" 'uid=12345 gid=54321'
    if bounded docker exec "$name-anyone" sh -c ': >/tmp/file' 2>/dev/null; then
        fail '/tmp can be written'
    fi
    python3 "$client" cases "$(address anyone)" default
}

threads_follow_the_quota() {
    local quota expected seen
    while read -r quota expected; do
        start "quota-$quota" --env FAAS_LOG_FORMAT=json --env FAAS_LOG_LEVEL=debug \
            --cpu-period 100000 --cpu-quota "$quota" "$image"
        python3 "$client" until "$(address "quota-$quota")" hello hello >/dev/null
        seen=$(bounded docker logs "$name-quota-$quota" 2>&1)
        # Never more than the machine has.
        if [ "$expected" -gt "$(nproc)" ]; then expected=$(nproc); fi
        holds "$seen" "\"processors\":$expected}"
        holds "$seen" "\"threads\":$((expected < 8 ? 1 : expected / 4)),"
    done <<'END'
50000 1
100000 1
150000 2
400000 4
END
    echo '0.5, 1, 1.5 and 4 processors are told from each other'
}

stop_loses_no_request() {
    local target code
    mkdir -m 777 "$work/ledger"
    start load --volume "$PWD/tests/docker:/check:ro" --volume "$work/ledger:/ledger" \
        "$image" --processes 4 -- /check/ledger.sh
    # By its own address: the engine's proxy accepts connections that the worker never gets.
    target=$(state "$name-load" '{{.NetworkSettings.IPAddress}}')
    python3 "$client" until "$target:8000" warm warm >/dev/null
    find "$work/ledger" -type f -exec truncate --size 0 {} +
    python3 "$client" load "$target:8000" "$work/ledger" docker stop -t 30 "$name-load"
    code=$(state "$name-load" '{{.State.ExitCode}}')
    [ "$code" = 0 ] || fail "it ended with status $code"
}

orphans_are_reaped() {
    local container=$name-orphans count most=0 _
    start orphans --volume "$PWD/tests/docker:/check:ro" "$image" --processes 2 -- /check/orphans.sh
    python3 "$client" until "$(address orphans)" warm left >/dev/null
    for _ in {1..10}; do
        python3 "$client" post "$(address orphans)" more >/dev/null
    done
    # Until the last has ended, and then one second for the worker.
    for _ in {1..200}; do
        count=$(processes "$container" | grep -c '^[^Z] sleep$' || true)
        if [ "$count" -gt "$most" ]; then most=$count; fi
        if [ "$count" -eq 0 ]; then break; fi
        sleep 0.1
    done
    [ "$count" -eq 0 ] || fail "$count still run"
    sleep 1
    count=$(processes "$container" | grep -c '^Z ' || true)
    echo "1,100 orphans, $most seen at one time, $count zombies"
    [ "$most" -gt 0 ] || fail 'no orphan was seen'
    [ "$count" -eq 0 ] || fail 'zombies are left'
}

# ---- Other images -----------------------------------------------------------------------------------

# variant DOCKERFILE CONTEXT TAG FROM: an example's file, with our image in the place of faas-worker.
variant() {
    sed "s|--from=faas-worker |--from=$image:$4 |" "examples/deploy/docker/$1" >"$work/$1"
    grep -q -- "--from=$image:$4 /usr/local/bin/faas-worker" "$work/$1" || fail "$1 takes no worker"
    build --tag "$image:$3" --file "$work/$1" "$2"
}

added_to_python() {
    variant python.Dockerfile examples/python python bare
    start python "$image:python"
    python3 "$client" until "$(address python)" text decoding_failed >/dev/null
    python3 "$client" cases "$(address python)" decode_type_a
    healthy "$name-python"
}

added_to_empty() {
    variant empty.Dockerfile . empty latest
    start empty --read-only "$image:empty"
    python3 "$client" until "$(address empty)" text txet >/dev/null
    echo "$(python3 "$client" cases "$(address empty)" decode_type_b)," \
        "$(mebibytes "$(state "$image:empty" '{{.Size}}')") in all"
    healthy "$name-empty"
}

# ---- Fleet ------------------------------------------------------------------------------------------

# Handlers that `faas-worker new` of the image writes, each in the image of its own Dockerfile.
new_handlers_answer() {
    local language directory
    for language in sh python; do
        directory=$work/new-$language
        mkdir --mode 777 "$directory"
        bounded docker run --rm --label "$name=1" --volume "$directory:/function" \
            "$image:latest" new "$language" /function >/dev/null
        sed -i "s|--from=faas-worker |--from=$image:latest |" "$directory/Dockerfile"
        build --tag "$image:new-$language" "$directory"
        start "new-$language" --env FAAS_ALLOW_HOST=localhost "$image:new-$language"
        python3 "$client" until "$(address "new-$language")" dev-1,42.5,1678886400 \
            1678886400 >/dev/null
        healthy "$name-new-$language"
    done
    bounded docker run --rm --label "$name=1" --entrypoint cat "$image:latest" \
        /usr/local/share/man/man1/faas-worker.1 | grep '^\.TH faas-worker 1' >/dev/null \
        || fail 'the image has no manual page'
}

fleet_answers() {
    local seen
    compose "${fleet[@]}" up --build --detach >"$work/up.log" 2>&1 || {
        tail -n 40 "$work/up.log" >&2
        return 1
    }
    python3 "$client" until 127.0.0.1:8001 x decoder_type_a >/dev/null
    python3 "$client" until 127.0.0.1:8002 x decoder_type_b >/dev/null
    python3 "$client" until 127.0.0.1:8003 x '"default"' >/dev/null
    seen="$(python3 "$client" cases 127.0.0.1:8001 decode_type_a)"
    seen+=", $(python3 "$client" cases 127.0.0.1:8002 decode_type_b)"
    seen+=", $(python3 "$client" cases 127.0.0.1:8003 default)"
    echo "$seen"
    holds "$(python3 "$client" post 127.0.0.1:8001 x made-up.example:8001)" '403 forbidden'
    holds "$(python3 "$client" post 127.0.0.1:8001 x localhost:8001)" '200'
    holds "$(python3 "$client" post 127.0.0.1:8001 x worker-for-device-a:8000)" '200'
}

fleet_turns_healthy() {
    local one begin=$SECONDS
    for one in worker-for-device-a worker-for-device-b worker-default; do
        healthy "$(service "$one")"
    done
    echo "within $((SECONDS - begin)) s more"
}

fleet_is_confined() {
    local one container seen format='{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}'
    format+=' {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}'
    format+=' {{.HostConfig.RestartPolicy.Name}} {{.Config.StopTimeout}}'
    for one in worker-for-device-a worker-for-device-b worker-default; do
        container=$(service "$one")
        seen=$(state "$container" "$format")
        [ "$seen" = '134217728 128 true [ALL] [no-new-privileges:true] unless-stopped 30' ] ||
            fail "$one: $seen"
        # What the kernel says of the worker itself.
        seen=$(bounded docker exec "$container" cat /proc/1/status)
        holds "$seen" $'CapBnd:\t0000000000000000'
        holds "$seen" $'NoNewPrivs:\t1'
        holds "$seen" $'Uid:\t65532'
        if bounded docker exec "$container" sh -c ': >/handlers/file' 2>/dev/null; then
            fail "$one: the root file system can be written"
        fi
        bounded docker exec "$container" sh -c ': >/tmp/file' || fail "$one: /tmp cannot be written"
        # Some of these processes must be refused by the limit.
        # shellcheck disable=SC2016 # The container's shell expands it.
        seen=$(bounded docker exec "$container" sh -c \
            'i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i + 1)); done' 2>&1 || true)
        holds "$seen" 'fork'
        python3 "$client" until "127.0.0.1:$(port_of "$one")" x result >/dev/null
    done
    echo 'memory, pids, read-only root, capabilities, privileges'
}

port_of() {
    case $1 in
        worker-for-device-a) echo 8001 ;;
        worker-for-device-b) echo 8002 ;;
        worker-default) echo 8003 ;;
    esac
}

edit_is_live() {
    local before after took copy=$work/fleet handler=examples/shell/decode_type_a.sh
    mkdir -p "$copy/examples/deploy"
    cp docker-compose.yaml "$copy"
    cp -r examples/deploy/compose "$copy/examples/deploy"
    cp -r examples/shell "$copy/examples"
    (
        cd "$copy"
        compose "${dev[@]}" up --detach --no-build >"$work/dev.log" 2>&1 ||
            { cat "$work/dev.log" >&2; exit 1; }
    )
    python3 "$client" until 127.0.0.1:8001 x decoder_type_a >/dev/null
    before=$(state "$(service worker-for-device-a)" '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}')
    # A new file in the place of the old one, as most editors do; then a write in place.
    took=$(python3 "$client" until 127.0.0.1:8001 x decoder_edited \
        sed -i s/decoder_type_a/decoder_edited/ "$copy/$handler")
    sed s/decoder_type_a/decoder_again/ "$handler" >"$work/again.sh"
    took+=" and $(python3 "$client" until 127.0.0.1:8001 x decoder_again \
        sh -c "cat '$work/again.sh' >'$copy/$handler'")"
    after=$(state "$(service worker-for-device-a)" '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}')
    [ "$before" = "$after" ] || fail 'the container was restarted'
    echo "live after $took"
}

# Its image is not on every engine, so it is read and not started.
observability_is_understood() {
    local files=(-f docker-compose.yaml -f examples/deploy/observability/compose.yaml) read
    read=$(compose "${files[@]}" --profile observability config)
    holds "$read" '--config.file=/etc/prometheus/prometheus.yml'
    holds "$read" worker-for-device-a
}

down_leaves_nothing() {
    local begin=$SECONDS kind left
    compose "${dev[@]}" down --volumes >"$work/down.log" 2>&1 || {
        cat "$work/down.log" >&2
        return 1
    }
    echo "$((SECONDS - begin)) s"
    for kind in 'ps --all' 'network ls' 'volume ls'; do
        # shellcheck disable=SC2086 # The words of an engine's command.
        left=$(bounded docker $kind --quiet --filter "label=com.docker.compose.project=$name")
        [ -z "$left" ] || fail "left of docker $kind: $left"
    done
}

# ---- Other engines ----------------------------------------------------------------------------------

podman_plays_the_deployment() {
    FAAS_IMAGE=$image:latest limit=180 bounded scripts/check/podman.sh
}

# ---- All of it ----------------------------------------------------------------------------------------

table=()
passed=0
failed=0
left_out=0

# check WHAT FUNCTION: what it prints is the detail in the table.
check() {
    local begin=$SECONDS outcome=ok detail status
    printf '%s ...\n' "$1"
    set +e
    # Not in a condition, where the shell would go on after a failed command.
    detail=$(
        set -e
        "$2" 2>"$work/errors"
    )
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
    elif [ "$status" -eq 77 ] && [ "${CI:-}" != true ]; then
        left_out=$((left_out + 1))
        outcome='left out'
        printf '%s\n' "$detail"
    else
        failed=$((failed + 1))
        outcome=FAILED
        printf '  failed, status %s: %s\n' "$status" "$detail"
        sed 's/^/  /' "$work/errors"
    fi
    table+=("$(printf '%-8s %4ss  %-45s %s' "$outcome" "$((SECONDS - begin))" "$1" "${detail//$'\n'/; }")")
}

check 'the image builds' image_builds
if [ "$failed" -eq 0 ]; then
    check 'an edit reuses the dependencies, and is in it' edit_reuses_dependencies
    check 'the image and the program are small' image_is_small
    check 'docker run serves the default handler' default_handler_answers
    check 'it turns healthy' turns_healthy
    check 'the command line passes through' command_line_passes_through
    check 'labels, program and metrics give one version' version_is_one
    check 'a wrong handler is told' wrong_handler_is_told
    check 'any user, read-only root, no capabilities' any_user_read_only
    check 'threads follow the quota of processors' threads_follow_the_quota
    check 'docker stop under load loses no request' stop_loses_no_request
    check 'orphans of handlers leave no zombies' orphans_are_reaped
    check 'one line adds it to a Python image' added_to_python
    check 'one line adds it to an empty image' added_to_empty
    check 'handlers written by new answer in their images' new_handlers_answer
    check 'the fleet answers on its three ports' fleet_answers
    check 'the fleet turns healthy' fleet_turns_healthy
    check 'the limits of the fleet hold' fleet_is_confined
    check 'an edited handler is live without a restart' edit_is_live
    check 'the profile for Prometheus is understood' observability_is_understood
    check 'compose down leaves nothing' down_leaves_nothing
    check 'podman plays the Deployment for Kubernetes' podman_plays_the_deployment
fi

printf '\n'
printf '%s\n' "${table[@]}"
printf '%s passed, %s failed, %s left out\n' "$passed" "$failed" "$left_out"
[ "$failed" -eq 0 ]
