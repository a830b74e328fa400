# What a check does where the machine lacks something that it needs: it says so and ends with status 77, which
# automake and meson have for tests that were left out. Sourced by the checks of this folder.
# shellcheck shell=bash

# leave_out REASON: ends the check. scripts/check-fleet.sh repeats the line at its end.
leave_out() {
    printf 'left out: scripts/check/%s: %s\n' "$(basename "$0")" "$1"
    exit 77
}

# needs TOOL [PACKAGE]: a command that must be there, and the package in Debian that brings it.
needs() {
    command -v "$1" >/dev/null || leave_out "$1 is not installed${2:+ (Debian: $2)}"
}

needs_root() {
    [ "$(id -u)" -eq 0 ] || leave_out 'needs root'
}

needs_venv() {
    needs python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || leave_out 'python3 cannot make environments (Debian: python3-venv)'
}

needs_docker() {
    needs docker docker.io
    timeout --kill-after=5 60 docker info >/dev/null 2>&1 || leave_out 'no Docker engine answers'
}
