#!/usr/bin/env bash
# Makes a release of the commit that is checked out: a tag, and its files in target/release-VERSION.
#
#   scripts/release.sh [--dry-run] [--only amd64|arm64] VERSION
#
#   --dry-run   says whether a release can be made, and what it would do; changes nothing
#   --only      one architecture, where this machine cannot build the other
#
# In this order: refuses what is not ready; asks scripts/check/deny.sh; builds the program for each
# architecture, and once more in another directory, which must give the same bytes; lists its packages
# (CycloneDX) and checks the list; tries the program; puts both into an image; writes SHA256SUMS; makes the
# annotated tag vVERSION. The tag is last: a release that fails leaves none. Nothing is pushed or published, and
# no file in git is changed: versions and CHANGELOG.md are set before, by hand (.github/CONTRIBUTING.md).
#
# `bash .ci/run` and `scripts/nightly.sh` must have passed on the commit; they take hours, and are no part of this.
# Needs git, Rust, a C linker for each architecture (scripts/release/program.sh), python3-venv and podman.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
}

version='' is_dry_run=false architectures=(amd64 arm64)
while [ $# -gt 0 ]; do
    case $1 in
        --help)
            usage
            exit 0
            ;;
        --dry-run) is_dry_run=true ;;
        --only)
            case ${2:-} in
                amd64 | arm64) architectures=("$2") ;;
                *)
                    usage >&2
                    exit 2
                    ;;
            esac
            shift
            ;;
        [0-9]*)
            [ -z "$version" ] || { usage >&2; exit 2; }
            version=$1
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    shift
done
[ -n "$version" ] || {
    usage >&2
    exit 2
}

readonly branch=main tag=v$version output=target/release-$version
case $(uname -m) in
    aarch64) own=arm64 ;;
    *) own=amd64 ;;
esac
readonly own
refused=0 untried=()

refuse() {
    printf 'release.sh: refused: %s\n' "$1" >&2
    refused=$((refused + 1))
}

# ---- What must be ready: all of it is said at once -------------------------------------------------

# The value of the first line that the pattern matches.
value() {
    sed -n "s/^$1\$/\\1/p" "$2" | head -n 1
}

has_one_version() {
    local found file
    found=$(value 'version = "\(.*\)"' Cargo.toml)
    [ "$found" = "$version" ] || refuse "Cargo.toml has version = \"$found\", expected \"$version\""
    found=$(sed -n '/^name = "faas-worker"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
    [ "$found" = "$version" ] || refuse "Cargo.lock has version $found: run cargo build"
    found=$(sed -n 's/^ARG VERSION=//p' Dockerfile | sort -u | tr '\n' ' ')
    [ "$found" = "$version " ] || refuse "Dockerfile has ARG VERSION=$found, expected $version"
    for file in Cargo.toml Cargo.lock Dockerfile CHANGELOG.md; do
        git ls-files --error-unmatch "$file" >/dev/null 2>&1 || refuse "$file is not in git"
    done
    grep -qE "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}\$" CHANGELOG.md ||
        refuse "CHANGELOG.md has no line \"## [$version] - YYYY-MM-DD\""
}

is_ready() {
    local found architecture why
    grep -qE '^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$' <<<"$version" ||
        refuse "not a version, expected e.g. 0.2.0: $version"
    found=$(git status --porcelain)
    [ -z "$found" ] || refuse "the tree has changes that are in no commit:"$'\n'"$found"
    found=$(git symbolic-ref --quiet --short HEAD || echo 'no branch')
    [ "$found" = "$branch" ] || refuse "on $found, expected the branch $branch"
    if git rev-parse --quiet --verify "refs/tags/$tag" >/dev/null; then
        refuse "the tag $tag is there already"
    fi
    [ ! -e "$output" ] || refuse "$output is there already, perhaps from a release that failed: remove it"
    has_one_version
    for architecture in "${architectures[@]}"; do
        why=$(scripts/release/program.sh --can "$architecture" 2>&1) ||
            refuse "no build for $architecture: $why; or build the other one alone by --only"
    done
    [[ " ${architectures[*]} " == *" $own "* ]] ||
        refuse "the program for $own writes the manual page, and so must be one of the built ones here"
    command -v podman >/dev/null || refuse 'podman is not installed, which builds the images'
    python3 -c 'import ensurepip' 2>/dev/null || refuse 'python3 has no venv: the package python3-venv in Debian'
}

is_ready
if [ "$refused" -gt 0 ]; then exit 1; fi

FAAS_REVISION=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export FAAS_REVISION SOURCE_DATE_EPOCH
created=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
cat <<END
faas-worker $version ($FAAS_REVISION), commit of $created
Must have passed on this commit: bash .ci/run; scripts/nightly.sh
Makes in $output:
$(for one in "${architectures[@]}"; do
    echo "  faas-worker-$version-linux-$one.tar.gz         program, manual page, completions, licences"
    echo "  faas-worker-$version-linux-$one.cdx.json       packages of the program, as CycloneDX 1.5"
    echo "  faas-worker-$version-linux-$one.image.tar      image localhost/faas-worker:$version-$one, for docker load"
done)
  build.txt, SHA256SUMS
Then makes the tag $tag, here only.
END
if [ "$is_dry_run" = true ]; then
    echo 'Nothing was done: --dry-run.'
    exit 0
fi

# ---- Files ------------------------------------------------------------------------------------------

work=$PWD/target/releasing
rm -rf "$work"
# Half a release is none.
at_exit() {
    local status=$?
    rm -rf "$work"
    if [ "$status" -ne 0 ]; then
        rm -rf "$output"
        echo "release.sh: failed, status $status: no tag was made, and $output is removed" >&2
    fi
}
trap at_exit EXIT

step() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# works ARCHITECTURE: the program says the version and the commit; another machine's runs under qemu, if that is
# installed.
works() {
    local program=$work/$1/faas-worker wanted="faas-worker $version ($FAAS_REVISION)" said
    if [ "$1" != "$own" ]; then
        # The words are put together when the program runs; the commit is in the file as it is.
        grep --quiet --text --fixed-strings "$FAAS_REVISION" "$program" || {
            echo "release.sh: the program for $1 does not have the commit in it" >&2
            return 1
        }
        scripts/check/emulated.sh "$program" || {
            # The machine lacks qemu, or a kernel that can be told of it.
            [ $? -eq 77 ] || return 1
            untried+=("$1")
        }
        return
    fi
    said=$("$program" --version)
    [ "$said" = "$wanted" ] || {
        echo "release.sh: the program for $1 says: $said; expected: $wanted" >&2
        return 1
    }
    echo "$said"
}

# What is the same for all architectures, written by the program itself.
documents() {
    local program=$1
    "$program" man >"$work/faas-worker.1"
    "$program" completions bash >"$work/faas-worker.bash"
    "$program" completions zsh >"$work/_faas-worker"
    "$program" completions fish >"$work/faas-worker.fish"
}

# archive ARCHITECTURE: the same members, owners and times on each machine.
archive() {
    local name=faas-worker-$version-linux-$1
    mkdir "$work/$name"
    cp "$work/$1/faas-worker" "$work/$1/LICENSES-third-party.txt" LICENSE.txt CHANGELOG.md \
        "$work"/{faas-worker.1,faas-worker.bash,_faas-worker,faas-worker.fish} "$work/$name"
    chmod -R u=rwX,go=rX "$work/$name"
    tar --create --sort name --owner 0 --group 0 --numeric-owner --mtime "@$SOURCE_DATE_EPOCH" \
        --format gnu --directory "$work" "$name" | gzip --no-name --best >"$output/$name.tar.gz"
}

# engine ARGUMENT...: podman with a store of its own. It needs no daemon, and builds for other platforms where nothing
# is run. With one layer and one time for all, that layer is the same bytes each time; the image's configuration
# differs by the name of the container that built it.
engine() {
    podman --root "$work/images" --runroot "$work/engine" --storage-driver vfs "$@"
}

# image ARCHITECTURE: the stage `worker` of the Dockerfile, around the program that is in the archive.
image() {
    local context=$work/$1/context name=localhost/faas-worker:$version-$1 source labels seen
    mkdir "$context"
    cp "$work/$1/faas-worker" "$work/$1/LICENSES-third-party.txt" LICENSE.txt "$context"
    cp "$output/faas-worker-$version-linux-$1.cdx.json" "$context/faas-worker.cdx.json"
    chmod -R u=rwX,go=rX "$context"
    {
        awk '/^FROM / {keep = / AS worker$/} keep' Dockerfile |
            sed 's|^COPY --from=build /out/usr/local/bin/faas-worker |COPY faas-worker |'
        echo 'COPY faas-worker.cdx.json LICENSE.txt LICENSES-third-party.txt /usr/local/share/faas-worker/'
    } >"$work/$1/Dockerfile"
    labels=(--label "org.opencontainers.image.created=$created")
    # An address that everybody can read, or none.
    source=$(git remote get-url origin 2>/dev/null |
        sed -n 's|^git@\([^:]*\):|https://\1/|; s|\.git$||; /^https:/p' || true)
    if [ -n "$source" ]; then labels+=(--label "org.opencontainers.image.source=$source"); fi
    engine build --quiet --layers=false --platform "linux/$1" --format docker --timestamp "$SOURCE_DATE_EPOCH" \
        --identity-label=false --build-arg "VERSION=$version" --build-arg "REVISION=$FAAS_REVISION" \
        "${labels[@]}" --tag "$name" --file "$work/$1/Dockerfile" "$context"
    seen='{{.Os}}/{{.Architecture}} {{index .Labels "org.opencontainers.image.version"}}'
    seen=$(engine image inspect --format "$seen {{index .Labels \"org.opencontainers.image.revision\"}}" "$name")
    [ "$seen" = "linux/$1 $version $FAAS_REVISION" ] || {
        echo "release.sh: the image of $1 says $seen" >&2
        return 1
    }
    engine save --quiet --format docker-archive --output "$output/faas-worker-$version-linux-$1.image.tar" "$name"
}

# What somebody needs who wants to build the same bytes.
build_record() {
    local rustc=${RUSTC:-rustc}
    printf 'version %s\nrevision %s\nsource-date-epoch %s\n\n' "$version" "$FAAS_REVISION" "$SOURCE_DATE_EPOCH"
    "$rustc" -vV
    for one in "${architectures[@]}"; do
        printf '\n%s: ' "$one"
        scripts/release/program.sh --libc "$one"
    done
}

mkdir -p "$output" "$work"
step scripts/check/deny.sh
for one in "${architectures[@]}"; do
    name=$output/faas-worker-$version-linux-$one
    mkdir -p "$work/$one"
    step scripts/release/program.sh "$one" "$work/$one/faas-worker"
    step scripts/check/reproducible.sh --against "$work/$one/faas-worker" "$one"
    step scripts/release/sbom.sh "$one" "$work/$one/faas-worker" "$work/$one/faas-worker.messages" "$name.cdx.json"
    step scripts/check/sbom.sh "$one" "$work/$one/faas-worker" "$work/$one/faas-worker.messages" "$name.cdx.json"
    step python3 scripts/release/licences.py "$name.cdx.json" "$work/$one/LICENSES-third-party.txt"
done
for one in "${architectures[@]}"; do
    step works "$one"
done
documents "$work/$own/faas-worker"
for one in "${architectures[@]}"; do
    step archive "$one"
    step image "$one"
done
build_record >"$output/build.txt"
(cd "$output" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
# The files must be those of the commit, which may take an hour after the first look.
if [ "$(git rev-parse HEAD)" != "$FAAS_REVISION" ] || [ -n "$(git status --porcelain)" ]; then
    echo 'release.sh: the checkout has changed in the meantime' >&2
    exit 1
fi
step git tag --annotate --message "$tag" "$tag"

printf '\n'
cat "$output/SHA256SUMS"
for one in "${untried[@]}"; do
    printf '\nrelease.sh: the program for %s was built and not run: scripts/check/emulated.sh was left out\n' "$one"
done
cat <<END

release.sh: $tag is made, here only. To publish it:
  git push origin $branch $tag
and upload the files of $output. CONTRIBUTING.md has the commands for the images.
END
