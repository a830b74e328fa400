#!/usr/bin/env bash
# Plays the Deployment of examples/deploy/kubernetes with podman, asks the recorded cases of the default
# handler, looks at its limits, and takes it down.
#
#   FAAS_IMAGE=faas-worker scripts/check/podman.sh     half a minute; the image is Docker's
#
# Without FAAS_IMAGE the image is built first, which takes minutes. Needs root, podman with catatonit, docker
# and kubectl: left out without. Podman's images and containers lie in a folder of their own, which is removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

fail() {
    printf 'check/podman.sh: %s\n' "$1" >&2
    exit 1
}

needs_root
for tool in podman catatonit python3; do
    needs "$tool" "$tool"
done
needs_docker
kubectl=$(command -v target/check-kubernetes/venv/bin/kubectl || command -v kubectl) ||
    leave_out 'kubectl is not installed: scripts/check/kubernetes.sh brings it'

work=$(mktemp -d)
export CONTAINERS_CONF=$work/containers.conf
touch "$CONTAINERS_CONF"
engine() {
    timeout --foreground --kill-after=5 120 podman --root "$work/root" --runroot "$work/run" \
        --network-config-dir "$work/networks" --storage-driver overlay "$@" 2> >(grep -v 'systemd connection' >&2)
}
at_exit() {
    engine pod rm --all --force >/dev/null || true
    engine network rm --force podman-default-kube-network >/dev/null || true
    engine rmi --all --force >/dev/null || true
    rm -rf "$work"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "${FAAS_IMAGE:-}" ]; then
    FAAS_IMAGE=faas-worker
    docker build --quiet --tag "$FAAS_IMAGE" . >/dev/null
fi
docker save "$FAAS_IMAGE" --output "$work/image.tar"
loaded=$(engine load --quiet --input "$work/image.tar" | sed 's/^Loaded image: //')
rm "$work/image.tar"
engine tag "$loaded" localhost/faas-worker:latest

# Where the control groups are of version 1 and 2 at once, or limits cannot be raised, by other means.
if ! engine run --rm --network none localhost/faas-worker:latest --version >/dev/null 2>&1; then
    cat >"$CONTAINERS_CONF" <<'END'
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
    engine run --rm --network none localhost/faas-worker:latest --version >/dev/null ||
        fail 'podman runs no container here'
fi

read -r port admin < <(python3 -c 'import socket
probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(probe.getsockname()[1] for probe in probes))')
"$kubectl" kustomize examples/deploy/kubernetes/podman |
    sed "s/hostPort: 8000/hostPort: $port/; s/hostPort: 9000/hostPort: $admin/" >"$work/pod.yaml"
engine kube play "$work/pod.yaml" >/dev/null
python3 tests/docker/client.py until "127.0.0.1:$port" hello hello >/dev/null
python3 tests/docker/client.py cases "127.0.0.1:$port" default

container=decode-pod-0-worker
engine healthcheck run "$container" || fail 'the liveness probe fails'
[ "$(engine inspect "$container" --format '{{.HostConfig.Memory}} {{.HostConfig.ReadonlyRootfs}}')" = \
    '268435456 true' ] || fail 'the limit of memory, or the read-only root, is missing'
status=$(engine exec "$container" cat /proc/1/status)
for line in $'CapBnd:\t0000000000000000' $'NoNewPrivs:\t1' $'Uid:\t65532'; do
    [[ $status == *"$line"* ]] || fail "not in the worker's status: $line"
done
engine exec "$container" sh -c ': >/tmp/file' || fail '/tmp cannot be written'
published=$(engine ps --format '{{.Ports}}')
[[ $published != *0.0.0.0* ]] || fail "open to other machines: $published"
engine kube down "$work/pod.yaml" >/dev/null
for kind in 'ps --all' 'pod ps' 'volume ls'; do
    # shellcheck disable=SC2086 # The words of a command.
    left=$(engine $kind --quiet)
    [ -z "$left" ] || fail "left of podman $kind: $left"
done
echo 'played, confined, and taken down without a trace'
