"""Chooses what of the lock file is installed on a base image that brings an engine, and its Python packages, along.

The engine of such an image is built against the versions that it has, so these stay wherever the server can work with
them. What the base lacks, or has too old, is taken from the lock file with its hashes. Prints a requirements file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


def main() -> int:
    """Print the part of the lock file that is to be installed; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=Path, required=True, help="the lock file")
    parser.add_argument("--like", type=Path, required=True, help="site-packages of a complete installation")
    parser.add_argument("--product", required=True, help="the package that is not in the lock file")
    options = parser.parse_args()
    complete = by_name(distributions(path=[str(options.like)]))
    base = by_name(distributions())
    needed = to_install(complete, base, options.product)
    versions = {name: one.version for name, one in complete.items() if name in needed}
    sys.stderr.write("".join(f"{line}\n" for line in disagreements(base, versions)))
    sys.stdout.write("".join(block for name, block in lock_blocks(options.lock.read_text()) if name in needed))
    return 0


def by_name(found: Iterable[Distribution]) -> dict[str, Distribution]:
    """Return distributions by their normal name; of several the first, which is the one that is imported."""
    named: dict[str, Distribution] = {}
    for one in found:
        named.setdefault(canonicalize_name(one.metadata["Name"]), one)
    return named


def to_install(complete: dict[str, Distribution], base: dict[str, Distribution], product: str) -> set[str]:
    """Return the names that the base lacks, or has in a version that the server or its packages do not take."""
    allowed: dict[str, SpecifierSet] = {}
    for one in complete.values():
        for requirement in map(Requirement, one.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                name = canonicalize_name(requirement.name)
                allowed[name] = allowed.get(name, SpecifierSet()) & requirement.specifier
    return {
        name
        for name in complete
        if name != canonicalize_name(product)
        and (name not in base or not allowed.get(name, SpecifierSet()).contains(base[name].version, prereleases=True))
    }


def disagreements(base: dict[str, Distribution], versions: dict[str, str]) -> list[str]:
    """Say which packages of the base asked for other versions than they get, so that a log of the build shows it."""
    return [
        f"{one.metadata['Name']} of the base asks for {requirement}, and gets {versions[name]}"
        for one in base.values()
        for requirement in map(Requirement, one.requires or ())
        if (name := canonicalize_name(requirement.name)) in versions
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        and not requirement.specifier.contains(versions[name], prereleases=True)
    ]


def lock_blocks(text: str) -> list[tuple[str, str]]:
    """Return the entries of a lock file, each with its hashes, under their names."""
    blocks = re.findall(r"^([A-Za-z0-9._-]+)(==.*\n(?:[ \t#].*\n)*)", text, re.MULTILINE)
    return [(canonicalize_name(name), name + rest) for name, rest in blocks]


if __name__ == "__main__":
    sys.exit(main())
