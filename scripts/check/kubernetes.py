"""Manifests against schemas: see kubernetes.sh. The argument is the folder of tools."""

import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.knative_serving.serving.v1 import Service

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "examples" / "deploy" / "kubernetes"
VERSIONS = ["1.33", "1.34", "1.35", "1.36", "1.37"]
# Kinds that Kubernetes itself does not know, by models of their CRDs.
MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("serving.knative.dev/v1", "Service"): Service,
}
KINDS = {
    "base": 5,
    "example": 6,
    "keda": 6,
    "podman": 5,
    "batch": 3,
    "knative": 1,
}
# A member, and the same misspelt.
SLIPS = {
    "example": ["readinessProbe", "readynessProbe"],
    "batch": ["backoffLimitPerIndex", "backOffLimitPerIndex"],
    "keda": ["pollingInterval", "poolingInterval"],
    "knative": ["containerConcurrency", "containerConcurency"],
}


def render(folder, tools):
    """What `kubectl apply -k` would send, as text."""
    directory = MANIFESTS / folder
    if folder == "keda":
        # A component needs an overlay that takes it. Paths are relative in these files.
        directory = tools / "overlay"
        directory.mkdir(exist_ok=True)
        up = pathlib.Path(*[".."] * len(directory.relative_to(ROOT).parts))
        (directory / "kustomization.yaml").write_text(
            "apiVersion: kustomize.config.k8s.io/v1beta1\n"
            "kind: Kustomization\n"
            "namespace: functions\n"
            f"resources: [{up}/examples/deploy/kubernetes/example]\n"
            f"components: [{up}/examples/deploy/kubernetes/keda]\n"
        )
    command = [tools / "venv" / "bin" / "kubectl", "kustomize", directory]
    answer = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return answer.stdout.decode()


def lost(given, kept, path=""):
    """The members that a model did not take over, because it does not know them."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name not in kept:
                yield f"{path}.{name}"
            else:
                yield from lost(value, kept[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(kept, list):
        for at, (value, other) in enumerate(zip(given, kept)):
            yield from lost(value, other, f"{path}[{at}]")


def faults(text):
    """All that the schemas have against a stream of objects, by version, kind and name."""
    for thing in yaml.safe_load_all(text):
        name = f"{thing['kind']} {thing['metadata']['name']}"
        model = MODELS.get((thing["apiVersion"], thing["kind"]))
        if model is None:
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(thing, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    yield f"{version}: {name}: {error.message}"
            continue
        try:
            kept = model.model_validate(thing)
        except ValueError as error:
            yield f"{name}: {error}"
            continue
        kept = kept.model_dump(mode="json", by_alias=True, exclude_unset=True)
        for path in lost(thing, kept):
            yield f"{name}: no member {path[1:]}"


def main():
    tools = pathlib.Path(sys.argv[1]).resolve()
    rendered = tools / "rendered"
    rendered.mkdir(exist_ok=True)
    failed = []
    for folder, kinds in KINDS.items():
        text = render(folder, tools)
        (rendered / f"{folder}.yaml").write_text(text)
        found = list(faults(text))
        count = sum(1 for _ in yaml.safe_load_all(text))
        if count != kinds:
            found.append(f"{count} objects instead of {kinds}")
        if folder in SLIPS:
            right, wrong = SLIPS[folder]
            seen = faults(text.replace(right, wrong))
            if right not in text or not any(wrong in fault for fault in seen):
                found.append(f"{wrong} in the place of {right} is not noticed")
        print(f"{folder}: {count} objects, " + ("; ".join(found) if found else "valid"))
        failed += found
    versions = f"{VERSIONS[0]} to {VERSIONS[-1]}"
    slips = ", ".join(wrong for _, wrong in SLIPS.values())
    if failed:
        sys.exit("kubernetes.py: not valid")
    print(f"valid for Kubernetes {versions}; seen to fail: {slips}")


if __name__ == "__main__":
    main()
