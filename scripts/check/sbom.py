"""Checks a CycloneDX document of a release.

    sbom.py DOCUMENT PROGRAM MESSAGES

MESSAGES are those of `cargo check --message-format json`.
"""

import hashlib
import json
import pathlib
import sys
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

failures = []


def expect_same(what, expected, found):
    """Both are sets, or both are texts."""
    if expected == found:
        return
    if isinstance(expected, set):
        expected, found = sorted(expected - found), sorted(found - expected)
        failures.append(f"{what}: missing {expected}, not expected {found}")
    else:
        failures.append(f"{what}: {found}, expected {expected}")


def compiled_packages(path):
    """Name, version and kinds of each package that the compiler was called for."""
    packages = {}
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        message = json.loads(line)
        if message["reason"] != "compiler-artifact":
            continue
        # registry+https://…#serde@1.0.0, path+file:///…#faas-worker@0.1.0, or …/name#1.0.0
        place, _, fragment = message["package_id"].partition("#")
        name, at, version = fragment.rpartition("@")
        if not at:
            name = place.rsplit("/", 1)[1]
        packages.setdefault((name, version), set()).update(message["target"]["kind"])
    return packages


def main():
    document_path, program, messages = sys.argv[1:]
    text = pathlib.Path(document_path).read_text(encoding="utf-8")
    if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
        sys.exit(f"check/sbom.py: {document_path} does not fit the schema of CycloneDX 1.5: {error}")

    document = json.loads(text)
    own = document["metadata"]["component"]
    manifest = tomllib.loads(pathlib.Path("Cargo.toml").read_text(encoding="utf-8"))["package"]
    expect_same("version", manifest["version"], own["version"])
    digest = hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()
    expect_same(f"SHA-256 of {program}", digest, own["hashes"][0]["content"])

    components = {(part["name"], part["version"]): part for part in document["components"]}
    expect_same("number of components", len(components), len(document["components"]))
    compiled = compiled_packages(messages)
    compiled.pop((own["name"], own["version"]))
    expect_same("compiled packages", set(compiled), set(components))
    for package, kinds in compiled.items():
        if "proc-macro" in kinds and components.get(package, {}).get("scope") != "excluded":
            failures.append(f"{package} is a macro, which is in no program")

    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text(encoding="utf-8"))["package"]
    checksums = {(part["name"], part["version"]): part.get("checksum") for part in lock}
    for package, component in components.items():
        hashes = [one["content"] for one in component.get("hashes", [])]
        expect_same(f"SHA-256 of {package}", str([checksums.get(package)]), str(hashes))
        if not component.get("licenses"):
            failures.append(f"{package} has no licence")
    names = {own["bom-ref"]} | {part["bom-ref"] for part in components.values()}
    expect_same("packages with dependencies", names, {one["ref"] for one in document["dependencies"]})

    for failure in failures:
        print(f"check/sbom.py: {failure}", file=sys.stderr)
    linked = sum(part["scope"] == "required" for part in components.values())
    print(f"{linked} packages in the program, {len(components) - linked} that built it, all in Cargo.lock")
    sys.exit(1 if failures else 0)


main()
