"""What ``/v1/metadata`` and its neighbours tell of this installation: version, licence, and where the model came from.

Facts only; the routes are ``api.http.metadata``'s. The licence is the file that was installed with the package.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Final

from config.redaction import Redactor

PRODUCT: Final = "gemma4-nim"
_IMAGE_LICENCE: Final = Path("/opt/nim/LICENSE")
"""Where the container image has the same file, as NVIDIA's images do."""
_HIDE = Redactor()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model is served, as the launcher chose it.

    Attributes:
        profile_id: of the manifest; empty for a model of the user's own.
        urls: where its files came from, ``hf://organisation/model:revision`` and the like; none when they were local.
        repository_override: the mirror that downloads go to, if one is set.
        manifest_path: a manifest of the user's own; None for the one of this project.
    """

    profile_id: str = ""
    urls: tuple[str, ...] = ()
    repository_override: str = ""
    manifest_path: Path | None = None


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of this server. ``sha`` is the SHA-256 of the file, ``size`` its bytes."""

    path: str
    content: str
    sha: str
    size: int


def release() -> str:
    """Return the version of this installation; ``0`` when it runs from a folder that was never installed."""
    try:
        return version(PRODUCT)
    except PackageNotFoundError:
        return "0"


@cache
def licence() -> Licence:
    """Return the licence, read once.

    Raises:
        OSError: the installation is incomplete.
    """
    path = _licence_path()
    data = path.read_bytes()
    shown = _IMAGE_LICENCE if _IMAGE_LICENCE.is_file() and _IMAGE_LICENCE.read_bytes() == data else path
    return Licence(str(shown), data.decode(), hashlib.sha256(data).hexdigest(), len(data))


def _licence_path() -> Path:
    try:
        files = distribution(PRODUCT).files or ()
    except PackageNotFoundError:
        files = ()
    for file in files:
        if file.match("licenses/LICENSE"):
            return Path(str(file.locate()))
    return Path(__file__).parents[2] / "LICENSE"


def public_url(url: str) -> str:
    """Return an address as it may be shown: without a query, a user and a password."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return _HIDE(f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}".partition("?")[0])


def short_name(url: str) -> str:
    """Return the last two parts of an address, such as ``google/gemma-4-31B-it:main``."""
    return "/".join(public_url(url).partition("://")[2].split("/")[-2:])
