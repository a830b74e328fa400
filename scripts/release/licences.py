"""Writes the licence texts of the packages that are linked into the release program.

    licences.py DOCUMENT.cdx.json OUTPUT

DOCUMENT is the one of scripts/release/sbom.sh. MIT, BSD, ISC and the like ask for their text in each copy of
a program. The texts are those in the packages' own sources, as Cargo has downloaded them; a text that packages
share stands once. Fails for a package without one, unless its licence asks for none.
"""

import json
import pathlib
import re
import subprocess
import sys

FILES = re.compile(r"^(un)?licen[cs]e|^copying|^notice|^copyright", re.IGNORECASE)
HEAD = """Licences of the software in this program of faas-worker

faas-worker itself is under the Apache License 2.0: LICENSE.txt. Linked into the program are the packages below, the
standard library of Rust (MIT or Apache-2.0, https://www.rust-lang.org), and parts of the GNU C library
(LGPL-2.1-or-later, https://www.gnu.org/software/libc/). Anyone may link it with another version of these
libraries: all that takes is the source of faas-worker at the commit that `faas-worker --version` names, and
scripts/release/program.sh in it.
"""


def sources():
    """The directory of each package's source, by name and version."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {
        (package["name"], package["version"]): pathlib.Path(package["manifest_path"]).parent
        for package in metadata["packages"]
    }


def licence_texts(directory):
    """The licence files at the top of a package's source, and those a folder of licences has."""
    found = [path for path in directory.iterdir() if FILES.match(path.name)]
    paths = [path for path in found if path.is_file()]
    for folder in found:
        if folder.is_dir():
            paths += [path for path in folder.iterdir() if path.is_file()]
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in sorted(paths)]


def main():
    document, output = sys.argv[1:]
    components = json.loads(pathlib.Path(document).read_text(encoding="utf-8"))["components"]
    directories = sources()
    users, without = {}, []
    for part in components:
        if part["scope"] != "required":
            continue
        expression = part["licenses"][0].get("expression") or part["licenses"][0]["license"]["id"]
        name = f"{part['name']} {part['version']} ({expression})"
        texts = licence_texts(directories[part["name"], part["version"]])
        if not texts:
            without.append(name)
        for text in texts:
            # The same words in other lines are the same text.
            users.setdefault(" ".join(text.split()), (text, []))[1].append(name)

    written = [HEAD]
    if without:
        written.append("Without a file of their own, under the texts below or at https://spdx.org/licenses:\n")
        written += [f"  {name}" for name in without]
    for text, names in sorted(users.values(), key=lambda entry: entry[1]):
        written += ["\n" + "-" * 100, *names, "-" * 100 + "\n", text]
    pathlib.Path(output).write_text("\n".join(written) + "\n", encoding="utf-8")
    print(f"licences of {sum(part['scope'] == 'required' for part in components)} packages, "
          f"{len(users)} texts; without a file: {', '.join(without) or 'none'}")


main()
