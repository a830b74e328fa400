"""Holds a document of cargo-cyclonedx to the packages that Cargo compiles.

    sbom.py DOCUMENT LINKED MESSAGES PROGRAM

LINKED has lines of `cargo tree --format {p}`, for the packages whose code is in the program. MESSAGES are those
of `cargo build --message-format json`; packages that they do not name leave the document. Fails if a package of
either is not in the document.
"""

import hashlib
import json
import pathlib
import sys


def listed(path):
    """Names and versions from lines such as `serde v1.0.0 (proc-macro)`."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return {(words[0], words[1].removeprefix("v")) for words in map(str.split, lines) if words}


def compiled_packages(path):
    """Names and versions of the packages that the compiler was called for."""
    packages = set()
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact":
            # registry+https://…#serde@1.0.0, or path+file:///…/faas-worker#1.0.0
            place, _, fragment = message["package_id"].partition("#")
            name, has_name, version = fragment.rpartition("@")
            packages.add((name if has_name else place.rsplit("/", 1)[1], version))
    return packages


def main():
    source, linked_list, messages, program = sys.argv[1:]
    document = json.loads(pathlib.Path(source).read_text(encoding="utf-8"))
    own = document["metadata"]["component"]
    root = (own["name"], own["version"])
    linked = listed(linked_list) - {root}
    compiled = compiled_packages(messages) - {root}

    components = []
    for component in document["components"]:
        package = (component["name"], component["version"])
        if package in compiled:
            component["scope"] = "required" if package in linked else "excluded"
            components.append(component)
    found = {(component["name"], component["version"]) for component in components}
    if missing := (linked | compiled) - found:
        sys.exit(f"release/sbom.py: not in the document of cargo-cyclonedx: {sorted(missing)}")

    # The directory of the manifest is gone, and differs each time.
    own_reference = own["bom-ref"]
    own["bom-ref"] = own["purl"] = "pkg:cargo/{}@{}".format(*root)
    digest = hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()
    own["hashes"] = [{"alg": "SHA-256", "content": digest}]
    kept = {component["bom-ref"] for component in components} | {own_reference}
    document["components"] = components
    document["dependencies"] = [
        {
            "ref": own["bom-ref"] if entry["ref"] == own_reference else entry["ref"],
            "dependsOn": [name for name in entry.get("dependsOn", []) if name in kept],
        }
        for entry in document["dependencies"]
        if entry["ref"] in kept
    ]
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    print()


main()
