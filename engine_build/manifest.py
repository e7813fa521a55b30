"""``manifest.json`` of a bundle: what it was made for and from, its files with their checksums, and what was measured.

The manifest is written last, so a folder without one is no bundle. ``seal`` is a checksum of the manifest's own
content: it tells damage, not malice. Comparing with the machine is ``verification``'s matter.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engine_build.checksums import FileRecord
from engine_build.errors import BundleError
from engine_build.exercise import WarmUp
from engine_build.fingerprint import Fingerprint
from engine_build.gate import GateResult
from engine_build.json_file import replacing
from engine_build.limits import Limits

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """The checkpoint that a bundle was made from."""

    name: str
    digest: str
    quantisation: str
    files: dict[str, FileRecord]
    path: str | None = None
    """Where it lies, when the bundle uses it there instead of holding its weights itself: relative to the bundle's
    folder where both lie below one cache, so that a volume may be mounted anywhere; else absolute."""


class Start(_Part):
    """How long a start took, in seconds, from starting the process to the first token of a first request."""

    whole_s: float
    load_s: float
    first_token_s: float


class Starts(_Part):
    """Starts without and with the bundle on the same machine, one after the other.

    ``preparation_s`` is what a start without it has to do before the engine can load at all: converting a checkpoint
    for llama.cpp, which loads no other; quantising.
    """

    preparation_s: float
    without: Start
    with_bundle: Start


class Manifest(_Part):
    """Everything that is known about a bundle."""

    format: Literal[1] = FORMAT
    stage: Literal["prebuilt", "complete"]
    fingerprint: Fingerprint
    source: Source
    names: tuple[str, ...]
    """Names under which requests may address the model."""
    limits: Limits
    files: dict[str, FileRecord]
    """Every file of the bundle but this one."""
    pending: tuple[str, ...] = ()
    """Steps that are left for the target."""
    created: str
    """When it was finished, in ISO 8601, UTC."""
    builder: str
    """Program and version that made it."""
    step_seconds: dict[str, float]
    starts: Starts | None = None
    warm_up: WarmUp | None = None
    gate: GateResult | None = None

    @property
    def bundle_id(self) -> str:
        """Return its name."""
        return self.fingerprint.bundle_id

    @property
    def size(self) -> int:
        """Return the bytes of its files."""
        return sum(record.size for record in self.files.values())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    content = manifest.model_dump(mode="json")
    text = json.dumps({**content, "seal": _seal(content)}, indent=2, sort_keys=True) + "\n"
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        BundleError: there is none, or it is damaged or of another version of the format.
    """
    path = folder / MANIFEST
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: is no engine bundle: it has no {MANIFEST}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is damaged: it is no JSON") from error
    if not isinstance(content, dict) or "fingerprint" not in content:
        raise BundleError(f"{path}: is not the manifest of an engine bundle")
    if content.get("format") != FORMAT:
        raise BundleError(f"{path}: has format {content.get('format')}; this version reads {FORMAT}: build it anew")
    seal = content.pop("seal", None)
    if seal != _seal(content):
        raise BundleError(f"{path}: was changed after the build: its seal does not fit")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {field}: {first['msg']}") from error


def is_bundle(folder: Path) -> bool:
    """Tell whether a folder claims to be a bundle; whether it is in order is not looked at."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        # Damaged, so that reading it will say what is wrong.
        return True
    return isinstance(content, dict) and "fingerprint" in content


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
