#!/usr/bin/env bash
# The checks that take hours, and find by chance or by length what scripts/check.sh cannot: runs all
# parts, or those that are named, prints the time of each, and exits with 1 if one of them failed. Checks that
# the machine lacks something for are left out, and named at the end.
#
#   scripts/nightly.sh [fuzz|storm|threads|mutations|memory|overload|figures|fleet|batch|map|deny|release]...
#
#   fuzz       ten minutes for each target
#   storm      a million requests, once with the seed 1 and once with a seed of the day
#   threads    all integration tests and a storm with workers of two and of four threads
#   mutations  every rule of tests/mutations taken out
#   memory     each attack alone, then all at once for five minutes, under 128 MiB; needs root
#   overload   ten times the capacity for five minutes
#   fleet      scripts/check-fleet.sh: the worker on each engine
#   figures    the worker's counters against those of its clients, over 100,000 requests and 1,000 deaths,
#              and the cost of scrapes
#   batch      GNU parallel, Slurm and Spark with `faas-worker map`
#   map        a batch that is killed fifty times, and the memory of one over a million lines
#   deny       licences, sources and reported vulnerabilities of all dependencies
#   release    the release program built twice, from two directories: the same bytes; the list of its packages
#
# A storm is repeated by its seed: scripts/storm.sh --requests 1000000 --seed SEED
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

storm() {
    local seed
    for seed in 1 "$(date +%Y%m%d)"; do
        printf 'storm with seed %s\n' "$seed"
        scripts/storm.sh --minutes 60 --requests 1000000 --seed "$seed" || return 1
    done
}

threads() {
    local count
    for count in 2 4; do
        FAAS_TEST_THREADS=$count cargo test --locked --test it || return 1
        scripts/storm.sh --minutes 60 --requests 1000000 --threads "$count" || return 1
    done
}

figures() {
    FAAS_TEST_REQUESTS=100000 cargo test --locked --test it -- counting:: || return 1
    scripts/check/scrape.sh
}

batch() {
    local one status
    for one in parallel slurm spark; do
        status=0
        "scripts/check/$one.sh" || status=$?
        case $status in
            0) ;;
            77) left_out+=("batch: scripts/check/$one.sh") ;;
            *) return 1 ;;
        esac
    done
}

release() {
    scripts/check/reproducible.sh || return 1
    scripts/check/sbom.sh
}

run() {
    case $1 in
        fuzz) scripts/fuzz.sh --seconds 600 ;;
        storm) storm ;;
        threads) threads ;;
        mutations) scripts/mutate.py ;;
        # Latency has a wide limit, for the machine may be busy.
        memory) scripts/check/memory.sh --seconds 300 --each 10 --p99 3000 ;;
        overload) scripts/overload.sh --seconds 300 ;;
        fleet) scripts/check-fleet.sh ;;
        figures) figures ;;
        batch) batch ;;
        map) cargo test --locked --test it map:: -- --ignored ;;
        deny) scripts/check/deny.sh --advisories ;;
        release) release ;;
    esac
}

[ $# -gt 0 ] || set -- fuzz storm threads mutations memory overload figures fleet batch map deny release
for part in "$@"; do
    case $part in
        fuzz | storm | threads | mutations | memory | overload | figures | fleet | batch | map | deny | release) ;;
        *) usage ;;
    esac
done

failed=() left_out=()
for part in "$@"; do
    printf '\n==== %s\n' "$part"
    begun=$SECONDS
    status=0
    run "$part" || status=$?
    case $status in
        0) ;;
        77) left_out+=("$part") ;;
        *) failed+=("$part") ;;
    esac
    printf '==== %s: %s s\n' "$part" $((SECONDS - begun))
done
if [ "${#left_out[@]}" -gt 0 ]; then
    printf '\nnightly.sh: left out, because the machine lacks something:\n'
    printf '  %s\n' "${left_out[@]}"
fi
if [ "${#failed[@]}" -gt 0 ]; then
    printf '\nnightly.sh: failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
printf '\nnightly.sh: none failed\n'
