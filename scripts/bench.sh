#!/usr/bin/env bash
# Measures the worker beside others, and writes figures, a table and charts to target/bench/.
#
#   scripts/bench.sh [--quick] [--only SECTION...] [--rounds N] [--seconds S] [--minutes M]
#                    [--patience S] [--publish] [--again] [--list] [--help]
#
# Without arguments all of it, in less than 30 minutes after the build. Needs cargo and python3.
# The Python servers it measures, and what draws the charts, are installed from the package index
# into target/bench/venv; where that fails they are left out. of-watchdog is measured when it is on
# the PATH. Traffic stays on 127.0.0.1.
#
#   scripts/bench.sh --only servers
#
# compares, in every language, the function in processes behind the worker with servers of that
# language, in about four minutes. What is not installed is left out, and the output says so.
# In Debian: apt install uwsgi uwsgi-plugin-python3 nginx php-fpm php-cli ruby puma nodejs
#
#   scripts/bench.sh --only languages
#
# measures the example handler of each language; docs/handlers.md names their packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the results are compared with is held still; the newest of each when this was written.
packages=(fastapi==0.165.0 uvicorn==0.54.0 uvloop==0.23.0 httptools==0.9.0 granian==2.8.7 matplotlib==3.11.2)
venv=target/bench/venv

tell() {
    printf 'bench.sh: %s\n' "$1" >&2
}

command -v python3 >/dev/null || {
    tell 'python3 is not installed: a package of that name in most distributions'
    exit 1
}

case " $* " in
    *' --help '* | *' -h '* | *' --list '*)
        # Builds and installs nothing.
        exec env PYTHONDONTWRITEBYTECODE=1 python3 scripts/bench/run.py "$@"
        ;;
    *' --again '*) ;;
    *)
        tell 'building'
        # One after the other: built together, the worker would get the tests' features of tokio.
        cargo build --release --locked --bin faas-worker
        cargo build --release --locked --example bench --example echo --example decode_type_a \
            --example reading
        case " $* " in
            *' --quick '* | *' --only servers '* | *' --only languages '*) ;;
            *)
                host=$(rustc -vV | sed -n 's/^host: //p')
                RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked \
                    --bin faas-worker --target "$host" --target-dir target/bench/static-build
                mkdir -p target/bench/static
                cp "target/bench/static-build/$host/release/faas-worker" target/bench/static/
                ;;
        esac
        ;;
esac

python=$venv/bin/python3
if [ ! -x "$python" ]; then
    tell "making $venv"
    mkdir -p target/bench
    python3 -m venv "$venv" || tell 'no venv can be made: Python servers and charts are left out'
fi
if [ -x "$python" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check "${packages[@]}" ||
        tell 'packages cannot be installed: what is missing is left out'
else
    python=python3
fi
exec "$python" scripts/bench/run.py "$@"
