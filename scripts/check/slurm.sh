#!/usr/bin/env bash
# Runs the job array of examples/deploy/slurm on a Slurm of one node, which it starts and stops itself: a
# task that is queued again in mid-run, one that is cancelled, and one whose time is over. No line may be
# lost or doubled, and no line may be given to a handler twice.
#
#   scripts/check/slurm.sh            a minute and a half
#   scripts/check/slurm.sh --short    without the task whose time is over: half a minute
#
# Needs slurmctld, slurmd, sbatch and munged (Debian: slurm-wlm, munge): left out without. FAAS_WORKER names
# another worker than the one that is built here. All files lie in a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

export PATH=$PATH:/usr/sbin
for tool in munged slurmctld slurmd sbatch scontrol scancel squeue; do
    needs "$tool" 'slurm-wlm, munge'
done
case ${1:-} in
    '') limit=1 ;;
    --short) limit=0 ;;
    *)
        sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
esac

if [ -z "${FAAS_WORKER:-}" ]; then
    cargo build --quiet --locked --bin faas-worker
    FAAS_WORKER=${CARGO_TARGET_DIR:-target}/debug/faas-worker
fi
worker=$(realpath "$FAAS_WORKER")
unset FAAS_WORKER
script=$PWD/examples/deploy/slurm/map.sh
work=$(mktemp -d)
# munged wants a folder that others can go into; its key is for its user alone.
chmod 755 "$work"
mkdir "$work/bin" "$work/state" "$work/spool" "$work/ledger"
ln -s "$worker" "$work/bin/faas-worker"
cp scripts/check/ledger.sh "$work/handler"
chmod +x "$work/handler"
export PATH=$work/bin:$PATH SLURM_CONF=$work/slurm.conf LEDGER=$work/ledger DELAY=0.02
# Seconds that Slurm gives a job between SIGTERM and SIGKILL.
readonly kill_wait=15
services=()

at_exit() {
    local status=$? number
    set +e
    if [ "$status" -ne 0 ]; then
        printf '\ncheck/slurm.sh: failed, exit status %s\n' "$status" >&2
        tail -n 20 "$work"/*.out "$work"/map.*.log >&2
    fi
    # A job outlives slurmd.
    if [ "${#services[@]}" -eq 3 ]; then
        timeout 10 scancel --user="$(id -un)"
        for ((number = 0; number < 200; number++)); do
            [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
            sleep 0.1
        done
    fi
    for ((number = ${#services[@]} - 1; number >= 0; number--)); do
        kill "${services[number]}" 2>/dev/null
        wait "${services[number]}"
    done
    rm -rf "$work"
    exit "$status"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    printf 'check/slurm.sh: %s\n' "$1" >&2
    exit 1
}

# until_true SECONDS WHAT COMMAND...: waits until the command succeeds.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not within its time: $what"
        sleep 0.1
    done
}

has_lines() {
    [ "$(wc -l <"$1")" -ge "$2" ]
}

is_idle_or_ended() {
    [ "$(timeout 5 sinfo --noheader --format=%t)" = idle ] || ! kill -0 "$1"
}

# No task of the job, or of all jobs, is left.
is_over() {
    [ -z "$(timeout 5 squeue --noheader ${1:+--jobs="$1"})" ]
}

was_queued_again() {
    timeout 5 scontrol show job "$1" | grep 'Restarts=[1-9]' >/dev/null
}

start_slurm() {
    local host ports
    host=$(hostname -s)
    ports=$(python3 -c 'import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))')
    (umask 277 && head -c 128 /dev/urandom >"$work/key")
    cat >"$SLURM_CONF" <<END
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
NodeName=$host NodeAddr=127.0.0.1 CPUs=4
PartitionName=all Nodes=ALL Default=YES
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=${ports% *}
SlurmdPort=${ports#* }
AuthType=auth/munge
# cred_expire: how long a task that is queued again waits at least; by default two minutes.
AuthInfo=socket=$work/munge.socket,cred_expire=10
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
KillWait=$kill_wait
RequeueExit=143
END
    munged --foreground --key-file="$work/key" --socket="$work/munge.socket" \
        --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munged.seed" \
        </dev/null >"$work/munged.out" 2>&1 &
    services+=($!)
    until_true 20 'munged listens' test -S "$work/munge.socket"
    slurmctld -D </dev/null >"$work/slurmctld.out" 2>&1 &
    services+=($!)
    start_slurmd || {
        # It asks for control groups, though nothing here uses them; later versions can do without.
        printf 'CgroupPlugin=disabled\n' >"$work/cgroup.conf"
        start_slurmd || fail 'slurmd ends'
    }
}

# Its status is 0 with the node idle, 1 with slurmd ended.
start_slurmd() {
    slurmd -D </dev/null >"$work/slurmd.out" 2>&1 &
    services[2]=$!
    until_true 30 'the node is idle' is_idle_or_ended "${services[2]}"
    kill -0 "${services[2]}" 2>/dev/null
}

# submit TASKS [OPTION]...: a job array over these parts; prints its number.
submit() {
    local tasks=$1
    shift
    timeout 10 sbatch --parsable --array="$tasks" "$@" "$script" ./handler
}

queued_again_in_mid_run() {
    local before
    until_true 20 'the task to be queued again is in mid-run' has_lines reply.0 50
    timeout 10 scontrol requeue "${job}_0"
    until_true "$kill_wait" 'it has ended' grep -q '^map: ' map.0.log
    before=$(wc -l <reply.0)
    [ "$before" -lt "$(wc -l <part.0)" ] || fail 'it had ended before it was queued again'
    printf 'queued again after %s of %s lines\n' "$before" "$(wc -l <part.0)"
}

cancelled_in_mid_run() {
    local begin took state
    until_true 20 'the task to be cancelled is in mid-run' has_lines reply.1 50
    begin=$(date +%s%N)
    timeout 10 scancel "${job}_1"
    until_true "$kill_wait" 'the cancelled task has ended' is_over "${job}_1"
    took=$((($(date +%s%N) - begin) / 1000000))
    state=$(timeout 5 scontrol show job "${job}_1")
    # Its own status, and not SIGKILL, which would be 0:9.
    grep -q 'JobState=CANCELLED' <<<"$state" || fail "it was not cancelled: $state"
    grep -q 'ExitCode=143:0' <<<"$state" || fail "it did not end by itself: $state"
    [ "$(wc -l <reply.1)" -lt "$(wc -l <part.1)" ] || fail 'it had ended before it was cancelled'
    printf 'cancelled after %s of %s lines, ended in %s ms\n' "$(wc -l <reply.1)" "$(wc -l <part.1)" "$took"
}

time_was_over() {
    until_true 150 'the task whose time was over was queued again' was_queued_again "${late}_2"
    printf 'out of time after %s of %s lines, and queued again\n' \
        "$(wc -l <reply.2)" "$(wc -l <part.2)"
}

nothing_lost_or_doubled() {
    local part
    for part in part.?; do
        sed 's/.*/{"result":"&"}/' "$part" | cmp - "reply.${part#part.}"
    done
    sort "$LEDGER"/* >given
    sort part.? | cmp - given || fail 'a line was given to a handler twice, or to none'
    printf '%s lines: each was given to one handler, and has its reply in its place\n' "$(wc -l <given)"
}

start_slurm
cd "$work"
seq 800 >in.txt
split --number=l/2 --numeric-suffixes --suffix-length=1 in.txt part.
late=''
if [ "$limit" -eq 1 ]; then
    # Longer than the time until the warning, which Slurm looks for twice a minute: 40 s at most.
    seq 801 1500 >part.2
    late=$(DELAY=0.06 submit 2 --time=1 --signal=B:TERM@50)
fi
job=$(submit 0-1)
queued_again_in_mid_run
cancelled_in_mid_run
# The rest of the cancelled part, by the same command.
rest=$(submit 1)
until_true 60 'the task that was queued again has ended' is_over "$job"
until_true 60 'the rest of the cancelled part has ended' is_over "$rest"
if [ -n "$late" ]; then
    time_was_over
    until_true 150 'the late task has ended' is_over "$late"
fi
nothing_lost_or_doubled
printf 'check/slurm.sh: all passed in %s s\n' "$SECONDS"
