"""The scripts of the image's build: what stays of the lock file on a base with packages, and the bill of materials."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "locks" / "runtime.txt"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its data classes look themselves up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _installed(folder: Path, name: str, version: str, *requires: str) -> Distribution:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (place / "METADATA").write_text("\n".join(lines) + "\n")
    return PathDistribution(place)


def test_a_base_keeps_what_the_server_can_work_with(tmp_path: Path) -> None:
    """Missing and too old packages are installed; those that are new enough stay, though the lock has others."""
    script = _script("base_packages")
    server = (
        _installed(tmp_path / "server", "gemma4-nim", "1.0", "numpy>=2.2", "fastapi>=0.163", "orjson>=3"),
        _installed(tmp_path / "server", "numpy", "2.5"),
        _installed(tmp_path / "server", "fastapi", "0.165"),
        _installed(tmp_path / "server", "orjson", "3.13"),
    )
    base = (
        _installed(tmp_path / "base", "numpy", "2.3.5"),
        _installed(tmp_path / "base", "FastAPI", "0.136"),
        _installed(tmp_path / "base", "vllm", "0.32.0", "fastapi<0.137"),
    )
    complete, here = script.by_name(server), script.by_name(base)

    needed = script.to_install(complete, here, "gemma4-nim")

    assert needed == {"fastapi", "orjson"}
    assert script.disagreements(here, {"fastapi": "0.165", "orjson": "3.13"}) == [
        "vllm of the base asks for fastapi<0.137, and gets 0.165"
    ]


def test_every_entry_of_the_lock_file_is_found_with_its_hashes() -> None:
    """What is chosen for a base is installed with hashes, so no entry may lose them."""
    script = _script("base_packages")
    blocks = script.lock_blocks(LOCK.read_text())

    assert len(blocks) == sum(
        "==" in line and not line.startswith((" ", "#")) for line in LOCK.read_text().splitlines()
    )
    assert all("--hash=sha256:" in block for _, block in blocks)


def test_the_bill_of_materials_lists_what_can_be_imported(tmp_path: Path) -> None:
    """Each package of the interpreter once, with a package URL, in a document of the image; and a list for people."""
    command = [sys.executable, "-B", ROOT / "docker" / "sbom.py", "--into", tmp_path, "--base", "registry/base:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr

    document = json.loads((tmp_path / "sbom.spdx.json").read_text())
    image, *packages = document["packages"]
    identifiers = [package["SPDXID"] for package in document["packages"]]
    assert image["comment"] == "built on registry/base:1"
    assert len(set(identifiers)) == len(identifiers)
    related = {entry["relatedSpdxElement"] for entry in document["relationships"]}
    assert related == set(identifiers)
    purls = [package["externalRefs"][0]["referenceLocator"] for package in packages]
    assert len({one.metadata["Name"].lower().replace("_", "-").replace(".", "-") for one in distributions()}) == len(
        {purl.partition("@")[0] for purl in purls if purl.startswith("pkg:pypi/")}
    )
    assert "pydantic" in (tmp_path / "NOTICE").read_text()
