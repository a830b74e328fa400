#!/usr/bin/env bash
# Holds the unit of examples/deploy/systemd to systemd's own checks, and runs it under a systemd that is
# process 1 of namespaces of its own: served, confined, reloaded, restarted and killed under load.
#
#   scripts/check/systemd.sh     half a minute; needs systemd 250, unshare and python3: left out without
#
# Without root the unit is looked at and not run. FAAS_WORKER names another worker than the one that is built here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

readonly unit=faas-worker@.service
readonly rate=300
work=$(mktemp -d)
init=''

fail() {
    printf 'check/systemd.sh: %s\n' "$1" >&2
    tail -n 30 "$work/log" >&2 2>/dev/null || true
    exit 1
}

at_exit() {
    if [ -n "$init" ]; then
        # All its processes go with process 1 of their namespace.
        { kill -KILL "$init" && wait "$init"; } 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

needs systemd-analyze systemd
needs unshare util-linux
needs nsenter util-linux
needs python3 python3
if [ -z "${FAAS_WORKER:-}" ]; then
    cargo build --quiet --locked --bin faas-worker
    FAAS_WORKER=${CARGO_TARGET_DIR:-target}/debug/faas-worker
fi

# ---- What systemd says of the unit --------------------------------------------------------------------

# The program need not be installed here.
sed 's|^ExecStart=.*|ExecStart=/bin/true|' "examples/deploy/systemd/$unit" >"$work/$unit"
cp examples/deploy/systemd/faas-worker@decode.socket "$work"
for file in "$unit" faas-worker@decode.socket; do
    said=$(systemd-analyze verify "$work/$file" 2>&1) || fail "verify: $said"
    [ -z "$said" ] || fail "verify: $said"
done
sed 's/^KillMode=/KilMode=/' "$work/$unit" >"$work/slip@.service"
said=$(systemd-analyze verify "$work/slip@.service" 2>&1 || true)
[[ $said == *KilMode* ]] || fail 'a misspelt key is not noticed'
# In tenths: 10 is all exposed.
systemd-analyze security --offline=true --threshold=15 "$work/$unit" >"$work/security" ||
    fail "exposed: $(tail -n 1 "$work/security")"
tail -n 1 "$work/security"

# ---- Under systemd ------------------------------------------------------------------------------------

if [ "$(id -u)" -ne 0 ]; then
    echo 'left out: scripts/check/systemd.sh: the unit under a systemd: only root may make the namespaces'
    exit
fi
mkdir "$work/tried"
# shellcheck disable=SC2016 # The inner shell expands it.
if ! unshare --mount --pid --fork --mount-proc --uts --ipc --net --cgroup --kill-child sh -c '
    mount --make-rprivate / && mount -t tmpfs tmpfs "$0" && mkdir "$0/upper" "$0/work" "$0/all" &&
    mount -t overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" overlay "$0/all"' "$work/tried" \
    2>/dev/null; then
    echo 'left out: scripts/check/systemd.sh: the unit under a systemd: its namespaces cannot be had here'
    exit
fi
cat >"$work/handler.sh" <<'END'
#!/bin/sh
echo '{"ready":true}'
while IFS= read -r line; do
    payload=${line#*'"payload":'}
    printf '{"result":%s}\n' "${payload%\}}"
done
END
mkdir "$work/root"
cp "$FAAS_WORKER" "$work/faas-worker"
chmod 755 "$work" "$work/faas-worker" "$work/handler.sh"
# All of this machine's files lie below a layer in memory: nothing that runs there can change them. /tmp is
# empty, and of the units that systemd brings none is there: none is started, and nothing is cleaned up.
cat >"$work/init.sh" <<END
set -euo pipefail
mount --make-rprivate /
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs '$work/root'
mkdir '$work/root/'{upper,work,all}
cp '$work/faas-worker' '$work/handler.sh' '$work/root'
mount -t overlay -o 'lowerdir=/,upperdir=$work/root/upper,workdir=$work/root/work' overlay '$work/root/all'
cd '$work/root/all'
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs lib/systemd/system
mount -t tmpfs tmpfs lib/systemd/system-generators
mount -t tmpfs tmpfs etc/systemd/system
mkdir -p opt/decode etc/faas-worker usr/local/bin
cp '$work/root/handler.sh' opt/decode
cp '$work/root/faas-worker' usr/local/bin
cp '$PWD/examples/deploy/systemd/decode.env' etc/faas-worker
cp '$PWD/examples/deploy/systemd/$unit' '$PWD/examples/deploy/systemd/faas-worker@decode.socket' \
    etc/systemd/system
for target in sysinit basic shutdown sockets network-online multi-user nothing; do
    printf '[Unit]\nDescription=nothing\nDefaultDependencies=no\n' >"lib/systemd/system/\$target.target"
done
mount --rbind /proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
if grep -qw memory <<<"\$(ls /sys/fs/cgroup)"; then
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/{memory,pids,systemd}
    mount -t cgroup -o memory cgroup sys/fs/cgroup/memory
    mount -t cgroup -o pids cgroup sys/fs/cgroup/pids
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
mkdir tmp/old
pivot_root . tmp/old
cd /
umount -l /tmp/old
rmdir /tmp/old
[ "\$(stat --file-system --format %T /)" = overlayfs ]
[ -z "\$(ls -A /tmp)" ]
export container=unshare
exec /lib/systemd/systemd --system --unit=nothing.target --log-target=console --show-status=no
END
unshare --mount --pid --fork --mount-proc --uts --ipc --net --cgroup --kill-child \
    bash "$work/init.sh" >"$work/log" 2>&1 </dev/null &
init=$!
first=''
for _ in {1..100}; do
    first=$(pgrep --parent "$init" 2>/dev/null || true)
    if [ -n "$first" ] && nsenter --target "$first" --all systemctl is-active --quiet nothing.target 2>/dev/null; then
        break
    fi
    kill -0 "$init" 2>/dev/null || fail 'systemd does not start here'
    sleep 0.1
done

inside() {
    timeout --kill-after=5 60 nsenter --target "$first" --all "$@"
}

inside systemctl start faas-worker@decode || fail 'the unit does not start'
inside /usr/local/bin/faas-worker health --ready >/dev/null || fail 'it counts as started, and is not ready'
worker=$(inside systemctl show --property MainPID --value faas-worker@decode)
status=$(inside cat "/proc/$worker/status")
for line in $'CapBnd:\t0000000000000000' $'NoNewPrivs:\t1' $'Seccomp:\t2'; do
    [[ $status == *"$line"* ]] || fail "not in the worker's status: $line"
done
[[ $status != *$'Uid:\t0\t'* ]] || fail 'it runs as root'
[ "$(inside sh -c 'cat /sys/fs/cgroup/memory/system.slice/*/*decode.service/memory.limit_in_bytes \
    /sys/fs/cgroup/system.slice/*/*decode.service/memory.max 2>/dev/null')" = 268435456 ] || fail 'no limit of memory'

# loaded PHASE...: a steady load on the port while these happen.
loaded() {
    timeout 120 nsenter --target "$first" --net python3 scripts/check/load.py 127.0.0.1:8000 --rate "$rate" "$@"
}

export -f inside
export first
restart='for turn in 1 2 3; do inside systemctl restart faas-worker@decode; sleep 1; done'
# Without the socket, callers are refused in the gap of a restart and after SIGKILL; SIGKILL costs the
# requests in flight, too.
loaded --refused "restart=$((rate * 3))" --refused "SIGKILL=$((rate * 3))" --allow SIGKILL=50 \
    quiet='sleep 2' \
    reload='for turn in 1 2 3; do inside systemctl reload faas-worker@decode; sleep 1; done' \
    restart="$restart" \
    SIGKILL='inside systemctl kill --kill-whom=main --signal=KILL faas-worker@decode; sleep 2'
inside systemctl stop faas-worker@decode
[ "$(inside systemctl show --property Result --value faas-worker@decode)" = success ] || fail 'it did not end in order'
# With it, the port is open before the service is started, and during its restarts.
inside systemctl start faas-worker@decode.socket || fail 'the socket does not open'
loaded --allow 'socket, SIGKILL=50' \
    'socket, start'='sleep 2' \
    'socket, restart'="$restart" \
    'socket, SIGKILL'='inside systemctl kill --kill-whom=main --signal=KILL faas-worker@decode; sleep 2'
inside systemctl stop faas-worker@decode.socket faas-worker@decode.service
[ "$(inside systemctl show --property Result --value faas-worker@decode)" = success ] || fail 'it did not end in order'
echo 'served, confined, reloaded and, behind its socket, restarted without a loss, and ended in order'
