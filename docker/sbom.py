"""Writes ``sbom.spdx.json`` (SPDX 2.3) and ``NOTICE`` of an image; run as the last step of its build.

It asks what is there: Debian's package database, the metadata of every Python package that the server's interpreter can
import, and NVIDIA's Triton where it was copied in. So the list cannot differ from the image.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

PRODUCT: Final = "gemma4-nim"
TRITON: Final = Path("/opt/tritonserver/TRITON_VERSION")
EXPRESSION: Final = re.compile(r"\(?[A-Za-z0-9.+-]+\)?(?: (?:AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*\Z")
CLASSIFIER: Final = "License :: OSI Approved :: "
DPKG_FORMAT: Final = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\n"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One thing that is installed.

    Attributes:
        kind: ``deb``, ``pypi`` or ``generic``, as in package URLs.
        licence: an SPDX expression, or empty.
        told: what its metadata says of its licence otherwise.
        where: the folder or file with the text of its licence; empty when it has none.
    """

    kind: str
    name: str
    version: str
    purl: str
    licence: str = ""
    told: str = ""
    where: str = ""


def main() -> int:
    """Write both files into the folder named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--base", required=True, help="name of the image that this one is built on")
    parser.add_argument("--created", help="time of the build, as 2026-01-31T12:00:00Z; else now")
    options = parser.parse_args()
    packages = sorted({*debian_packages(), *python_packages(), *triton_packages()})
    document = spdx_document(packages, options.base, options.created or _now())
    (options.into / "sbom.spdx.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (options.into / "NOTICE").write_text(notice(packages, options.base), encoding="utf-8")
    return 0


def debian_packages() -> list[Package]:
    """Return what dpkg has installed; nothing where there is no dpkg."""
    try:
        listed = subprocess.run(
            ["dpkg-query", "--show", f"--showformat={DPKG_FORMAT}"], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        return []
    system = _operating_system()
    found = []
    for line in listed.stdout.splitlines():
        status, name, version, architecture, _ = line.split("\t")
        if status == "installed":
            purl = f"pkg:deb/{system}/{quote(name)}@{quote(version)}?arch={architecture}"
            where = Path("/usr/share/doc", name, "copyright")
            found.append(Package("deb", name, version, purl, where=str(where) if where.exists() else ""))
    return found


def python_packages() -> list[Package]:
    """Return every distribution that this interpreter can import from."""
    found = []
    for one in distributions():
        name, version = one.metadata["Name"], one.version
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version)}"
        expression, told = _licence(one)
        found.append(Package("pypi", name, version, purl, expression, told, _licence_folder(one)))
    return found


def triton_packages() -> list[Package]:
    """Return NVIDIA's Triton Inference Server, where the image has it."""
    if not TRITON.is_file():
        return []
    version = TRITON.read_text(encoding="utf-8").strip()
    return [Package("generic", "tritonserver", version, f"pkg:generic/tritonserver@{version}", "BSD-3-Clause")]


def spdx_document(packages: list[Package], base: str, created: str) -> dict[str, Any]:
    """Return the document: the image, what it contains, and nothing that is not certain."""
    own = next((one.version for one in packages if one.name == PRODUCT), "unknown")
    root = {
        "SPDXID": "SPDXRef-image", "name": f"{PRODUCT}-image", "versionInfo": own, "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION", "primaryPackagePurpose": "CONTAINER", "comment": f"built on {base}",
    }  # fmt: skip
    entries = [_entry(number, package) for number, package in enumerate(packages)]
    content = json.dumps([base, entries])
    described = {
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": root["SPDXID"]
    }  # fmt: skip
    contained = (
        {"spdxElementId": root["SPDXID"], "relationshipType": "CONTAINS", "relatedSpdxElement": entry["SPDXID"]}
        for entry in entries
    )
    return {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"{PRODUCT}-{own}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{PRODUCT}-{own}-{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "creationInfo": {"created": created, "creators": [f"Tool: {PRODUCT}-sbom-{own}"]},
        "packages": [root, *entries], "relationships": [described, *contained],
    }  # fmt: skip


def notice(packages: list[Package], base: str) -> str:
    """Return the list for people: what is inside, under which licence, and where its text lies in the image."""
    lines = [
        f"This image of {PRODUCT} is built on {base} and holds the work of others, each under its own licence:", "",
    ]  # fmt: skip
    for one in packages:
        licence = one.licence or one.told or ("see its copyright file" if one.where else "not told")
        lines.append(f"{one.name} {one.version} ({one.kind}): {licence}" + (f", {one.where}" if one.where else ""))
    return "\n".join(lines) + "\n"


def _entry(number: int, package: Package) -> dict[str, Any]:
    entry = {
        "SPDXID": f"SPDXRef-{package.kind}-{number}", "name": package.name, "versionInfo": package.version,
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseConcluded": "NOASSERTION",
        "licenseDeclared": package.licence or "NOASSERTION", "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.purl}
        ],
    }  # fmt: skip
    return entry | ({"licenseComments": package.told} if package.told else {})


def _licence(one: Distribution) -> tuple[str, str]:
    """Return a package's SPDX expression and what else it says; only the newer field is an expression for certain."""
    expression = (one.metadata.get("License-Expression") or "").strip()
    if EXPRESSION.match(expression):
        return expression, ""
    classifiers = [text.removeprefix(CLASSIFIER) for text in one.metadata.get_all("Classifier") or ()]
    named = [text for text in classifiers if not text.startswith(("License ::", "Programming")) and "Licen" in text]
    free = (one.metadata.get("License") or "").strip().split("\n")[0][:100]
    return "", free or "; ".join(named)


def _licence_folder(one: Distribution) -> str:
    for file in one.files or ():
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            return str(Path(str(file.locate())).parent)
    return ""


def _operating_system() -> str:
    release = Path("/etc/os-release")
    lines = release.read_text(encoding="utf-8").splitlines() if release.is_file() else []
    return next((line.removeprefix("ID=").strip('"') for line in lines if line.startswith("ID=")), "debian")


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    sys.exit(main())
